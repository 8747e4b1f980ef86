//! Replicas, of one source and of several.

use std::time::Duration;

use super::{fake::error, questions::unfit, *};

const MYSQL: &str = "8.4.2";

fn replica(max_lag: Option<u64>) -> MysqlQuestion {
    MysqlQuestion::Replica { max_lag: max_lag.map(Duration::from_secs) }
}

/// Asks a `MariaDB` with these connections: their names, and how far they are behind.
async fn connected(
    connections: &[(&str, Option<&str>)],
    max_lag: Option<u64>,
) -> Result<String, Error> {
    ask(replica(max_lag), async |mut fake| {
        let rows: Vec<_> = connections.iter().map(|(name, lag)| [Some(*name), *lag]).collect();
        let rows: Vec<_> = rows.iter().map(<[_; 2]>::as_slice).collect();
        let query = fake.answer(&["Connection_name", "Seconds_Behind_Master"], &rows).await;
        assert_eq!(query, "\u{3}SHOW ALL REPLICAS STATUS");
    })
    .await
}

#[tokio::test]
async fn a_replica_may_be_so_far_behind() {
    for (lag, max_lag, expected) in [
        (Some("0"), None, Ok("the replica is 0s behind")),
        (Some("999"), None, Ok("the replica is 999s behind")),
        (Some("10"), Some(10), Ok("the replica is 10s behind")),
        (Some("11"), Some(10), Err("the replica is 11s behind, and 10s are allowed")),
        (None, None, Err("the replica does not replicate")),
    ] {
        let answer = connected(&[("", lag)], max_lag).await.map_err(|error| error.to_string());
        assert_eq!(answer.as_deref().map_err(String::as_str), expected);
    }
}

#[tokio::test]
async fn of_several_sources_each_must_replicate_and_the_worst_lag_counts() {
    let (east, west) = (("east", Some("3")), ("west", Some("30")));
    for order in [[east, west], [west, east]] {
        let answer = connected(&order, Some(30)).await.unwrap();
        assert_eq!(answer, "the replica is 30s behind \"west\"");
        let why = unfit(connected(&order, Some(29)).await);
        assert_eq!(why, "the replica is 30s behind \"west\", and 29s are allowed");
    }
    for order in [[east, ("west", None)], [("west", None), east]] {
        let why = unfit(connected(&order, None).await);
        assert_eq!(why, "the replica does not replicate from \"west\"");
    }
    assert_eq!(unfit(connected(&[], None).await), "this is no replica");
}

#[tokio::test]
async fn a_replica_cannot_have_more_sources_than_a_server_takes() {
    connected(&[("one of many", Some("0")); 256], None).await.unwrap();
    let error = connected(&[("one of many", Some("0")); 257], None).await.unwrap_err();
    assert!(matches!(error, Error::Malformed(_)), "{error}");
}

#[tokio::test]
async fn mysql_is_asked_in_its_own_words() {
    let answer = ask_a(MYSQL, replica(None), async |mut fake| {
        let columns = ["Seconds_Behind_Source", "Channel_Name"];
        let query = fake.answer(&columns, &[&[Some("3"), Some("")]]).await;
        assert_eq!(query, "\u{3}SHOW REPLICA STATUS");
    });
    assert_eq!(answer.await.unwrap(), "the replica is 3s behind");
}

#[tokio::test]
async fn an_old_server_is_asked_for_its_replica_by_the_old_name() {
    for (version, old) in [(fake::MARIADB, "SHOW ALL SLAVES STATUS"), (MYSQL, "SHOW SLAVE STATUS")]
    {
        let answer = ask_a(version, replica(None), async |mut fake| {
            fake.hear().await;
            fake.say(&error(1064, "You have an error in your SQL syntax")).await;
            let query = fake.answer(&["Seconds_Behind_Master"], &[&[Some("3")]]).await;
            assert_eq!(query, format!("\u{3}{old}"));
        });
        assert_eq!(answer.await.unwrap(), "the replica is 3s behind");
    }
}

/// A replica shows every table that it leaves out, and every transaction that it has.
#[tokio::test]
async fn a_long_row_is_read_up_to_a_mebibyte() {
    let of_length = async |length| {
        let tables = "t".repeat(length);
        ask(replica(None), async |mut fake| {
            let row = [Some(tables.as_str()), Some("3")];
            fake.answer(&["Replicate_Ignore_Table", "Seconds_Behind_Master"], &[&row]).await;
        })
        .await
    };
    assert_eq!(of_length(1_000_000).await.unwrap(), "the replica is 3s behind");
    let error = of_length(1 << 20).await.unwrap_err();
    assert!(error.to_string().ends_with("bytes, and 1048576 at most are read"), "{error}");
}
