use std::time::Duration;

use regex::Regex;

use super::{
    fake::{OK, error},
    *,
};
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

fn unfit(answer: Result<String, Error>) -> String {
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
    let answer = ask(asked, async |mut fake| drop(fake.answer(&STATE, &[]).await)).await;
    assert!(unfit(answer).contains("Galera does not run"));

    let sql = || MysqlQuestion::Sql { query: "SELECT 1".into(), expect: None };
    let answer = ask(sql(), async |mut fake| drop(fake.answer(&["1"], &[]).await)).await;
    assert_eq!(unfit(answer), "the query has no result");
    let answer = ask(sql(), async |mut fake| drop(fake.answer(&["1"], &[&[None]]).await)).await;
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
async fn a_replica_may_be_so_far_behind() {
    let columns = ["Slave_IO_State", "Seconds_Behind_Master"];
    for (lag, max_lag, expected) in [
        (Some("0"), None, Ok("the replica is 0s behind")),
        (Some("999"), None, Ok("the replica is 999s behind")),
        (Some("10"), Some(10), Ok("the replica is 10s behind")),
        (Some("11"), Some(10), Err("the replica is 11s behind, and 10s are allowed")),
        (None, None, Err("the replica does not replicate")),
    ] {
        let question = MysqlQuestion::Replica { max_lag: max_lag.map(Duration::from_secs) };
        let answer = ask(question, async |mut fake| {
            fake.answer(&columns, &[&[Some("waiting"), lag]]).await;
        });
        let answer = answer.await.map_err(|error| error.to_string());
        assert_eq!(answer.as_deref().map_err(String::as_str), expected);
    }
}

#[tokio::test]
async fn an_old_server_is_asked_for_its_replica_by_the_old_name() {
    let answer = ask(MysqlQuestion::Replica { max_lag: None }, async |mut fake| {
        fake.hear().await;
        fake.say(&error(1064, "You have an error in your SQL syntax")).await;
        let query = fake.answer(&["Seconds_Behind_Master"], &[&[Some("3")]]).await;
        assert_eq!(query, "\u{3}SHOW SLAVE STATUS");
    });
    assert_eq!(answer.await.unwrap(), "the replica is 3s behind");
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
