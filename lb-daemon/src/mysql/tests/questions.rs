use regex::bytes::Regex;

use super::{fake::OK, *};
use crate::config::MysqlExpect;

const STATE: [&str; 2] = ["Variable_name", "Value"];

fn galera(available_when_donor: bool, not_when_read_only: bool) -> MysqlQuestion {
    MysqlQuestion::Galera { available_when_donor, not_when_read_only }
}

/// Asks a node in this state.
async fn in_state(state: &str, question: MysqlQuestion) -> Result<String, Error> {
    ask(question, async |mut fake| {
        fake.answer(&STATE, &[&[Some("wsrep_local_state"), Some(state)]]).await;
        fake.answer(&["@@global.read_only"], &[&[Some("1")]]).await;
    })
    .await
}

pub(super) fn unfit(answer: Result<String, Error>) -> String {
    match answer {
        Err(Error::Unfit(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_a_synced_node_is_good() {
    let answer = in_state("4", galera(false, false)).await.unwrap();
    assert_eq!(answer, "wsrep_local_state is 4 (synced)");
    for (state, name) in [
        ("0", "not in a primary component"),
        ("1", "joining"),
        ("2", "donor, or desynced"),
        ("3", "joined"),
        ("44", "unknown"),
        ("", "unknown"),
    ] {
        let why = unfit(in_state(state, galera(false, false)).await);
        assert_eq!(why, format!("wsrep_local_state is {state} ({name})"));
    }
}

#[tokio::test]
async fn a_donor_is_good_if_told_so_and_nothing_else_is() {
    in_state("2", galera(true, false)).await.unwrap();
    for state in ["0", "1", "3"] {
        unfit(in_state(state, galera(true, false)).await);
    }
}

#[tokio::test]
async fn a_read_only_node_is_not_good_if_told_so() {
    assert_eq!(unfit(in_state("4", galera(false, true)).await), "read_only is 1");
}

#[tokio::test]
async fn an_empty_result_is_a_failure() {
    let asked = galera(false, false);
    let answer = ask(asked, async |mut fake| drop(fake.answer::<&str>(&STATE, &[]).await)).await;
    assert!(unfit(answer).contains("Galera does not run"));

    let sql = || MysqlQuestion::Sql { query: "SELECT 1".into(), expect: None };
    let answer = ask(sql(), async |mut fake| drop(fake.answer::<&str>(&["1"], &[]).await)).await;
    assert_eq!(unfit(answer), "the query has no result");
    let answer =
        ask(sql(), async |mut fake| drop(fake.answer::<&str>(&["1"], &[&[None]]).await)).await;
    assert_eq!(unfit(answer), "the query has NULL for an answer");
    // DO 1, say: no result at all.
    let answer = ask(sql(), async |mut fake| {
        fake.hear().await;
        fake.say(&OK).await;
    });
    assert_eq!(unfit(answer.await), "the query has no result");
}

#[tokio::test]
async fn writable_is_who_is_not_read_only() {
    for (value, good) in [("0", true), ("OFF", true), ("1", false), ("ON", false)] {
        let answer = ask(MysqlQuestion::Writable, async |mut fake| {
            fake.answer(&["@@global.read_only"], &[&[Some(value)]]).await;
        });
        assert_eq!(answer.await.is_ok(), good, "{value}");
    }
}

#[tokio::test]
async fn a_query_is_judged_by_the_first_column_of_its_first_row() {
    let text = || MysqlExpect::Text("up".into());
    let regex = || MysqlExpect::Regex(Regex::new("^u.$").unwrap());
    for (value, expect, good) in [
        ("up", Some(text()), true),
        ("upset", Some(text()), false),
        ("up", Some(regex()), true),
        ("upset", Some(regex()), false),
        ("anything", None, true),
    ] {
        let question = MysqlQuestion::Sql { query: "SELECT a, b FROM t".into(), expect };
        let answer = ask(question, async |mut fake| {
            let second = [Some("second"), Some("row")];
            let query = fake.answer(&["a", "b"], &[&[Some(value), Some("up")], &second]).await;
            assert_eq!(query, "\u{3}SELECT a, b FROM t");
        });
        let answer = answer.await;
        assert_eq!(answer.is_ok(), good, "{value}: {answer:?}");
    }
}

#[tokio::test]
async fn an_answer_is_judged_by_its_true_bytes_and_shown_in_safe_ones() {
    let text = |text: &str| MysqlExpect::Text(text.into());
    let regex = |regex| MysqlExpect::Regex(Regex::new(regex).unwrap());
    let long = format!("{}yes", "x".repeat(1000));
    for (value, expect) in [
        (&b"a\tb"[..], text("a\tb")),
        (long.as_bytes(), text(&long)),
        (long.as_bytes(), regex("yes$")),
        (b"\x1b\xff", regex(r"^(?-u:\x1b\xff)$")),
    ] {
        let question = MysqlQuestion::Sql { query: "SELECT a FROM t".into(), expect: Some(expect) };
        let answer =
            ask(question, async |mut fake| drop(fake.answer(&["a"], &[&[Some(value)]]).await));
        let shown = answer.await.unwrap();
        assert!(shown.len() < 300 && !shown.contains(char::is_control), "{shown:?}");
    }
    for (value, shown) in [(&b"a\tb"[..], r"a\tb"), (b"\xff", "\u{fffd}")] {
        let expect = Some(text(shown));
        let question = MysqlQuestion::Sql { query: "SELECT a FROM t".into(), expect };
        let answer =
            ask(question, async |mut fake| drop(fake.answer(&["a"], &[&[Some(value)]]).await));
        assert!(unfit(answer.await).ends_with(&format!("\"{shown}\", expected {shown:?}")));
    }
}

#[tokio::test]
async fn a_result_of_many_rows_is_judged_by_its_first() {
    let question = MysqlQuestion::Sql { query: "SELECT a FROM t".into(), expect: None };
    let answer = ask(question, async |mut fake| {
        let row: &[Option<&str>] = &[Some("first")];
        let others: &[Option<&str>] = &[Some("other")];
        fake.answer(&["a"], &[vec![row], vec![others; 1000]].concat()).await;
    });
    assert_eq!(answer.await.unwrap(), "the answer is \"first\"");
}

#[tokio::test]
async fn whoever_asked_takes_leave_before_it_goes() {
    ask(MysqlQuestion::Writable, async |mut fake| {
        fake.answer(&["@@global.read_only"], &[&[Some("0")]]).await;
        assert_eq!(fake.hear().await, [1], "no COM_QUIT");
        assert!(fake.hear().await.is_empty(), "the client stays");
    })
    .await
    .unwrap();
}
