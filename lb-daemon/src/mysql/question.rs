//! Questions: what is asked of a server, and which answers are good.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    error::{Error, readable},
    packets::Packets,
    result::{Row, first_row},
};
use crate::config::{MysqlExpect, MysqlQuestion};

const GALERA: &str = "SHOW GLOBAL STATUS WHERE Variable_name = 'wsrep_local_state'";
const READ_ONLY: &str = "SELECT @@global.read_only";

/// The same by its new name and by its old one, which servers before MySQL 8.0.22 and `MariaDB` 10.5
/// know.
const REPLICA: &str = "SHOW REPLICA STATUS";
const SLAVE: &str = "SHOW SLAVE STATUS";
/// MySQL's number for what it does not understand.
const SYNTAX_ERROR: u16 = 1064;

const LAG: [&str; 2] = ["Seconds_Behind_Source", "Seconds_Behind_Master"];

/// Galera's states, by their numbers.
const DONOR: &str = "2";
const SYNCED: &str = "4";

/// Asks, and says what the answer was if it is good. [`Error::Unfit`] if it is not.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    question: &MysqlQuestion,
) -> Result<String, Error> {
    match question {
        MysqlQuestion::Galera { available_when_donor, not_when_read_only } => {
            let found = galera(packets, *available_when_donor).await?;
            if *not_when_read_only {
                writable(packets).await?;
            }
            Ok(found)
        }
        MysqlQuestion::Writable => writable(packets).await,
        MysqlQuestion::Replica { max_lag } => replica(packets, *max_lag).await,
        MysqlQuestion::Sql { query, expect } => {
            let row = row(packets, query).await?;
            judge(row.value(0), expect.as_ref())
        }
    }
}

async fn galera<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    available_when_donor: bool,
) -> Result<String, Error> {
    let Some(row) = first_row(packets, GALERA).await? else {
        return Err(Error::Unfit("there is no wsrep_local_state: Galera does not run".into()));
    };
    let state = row.value(1).unwrap_or("NULL");
    let found = format!("wsrep_local_state is {state} ({})", state_name(state));
    match state {
        SYNCED => Ok(found),
        DONOR if available_when_donor => Ok(found),
        _ => Err(Error::Unfit(found)),
    }
}

fn state_name(state: &str) -> &'static str {
    match state {
        "0" => "not in a primary component",
        "1" => "joining",
        DONOR => "donor, or desynced",
        "3" => "joined",
        SYNCED => "synced",
        _ => "unknown",
    }
}

async fn writable<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
) -> Result<String, Error> {
    let row = row(packets, READ_ONLY).await?;
    let value = row.value(0).unwrap_or("NULL");
    let found = format!("read_only is {value}");
    if matches!(value, "0" | "OFF") { Ok(found) } else { Err(Error::Unfit(found)) }
}

async fn replica<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    max_lag: Option<Duration>,
) -> Result<String, Error> {
    let row = match first_row(packets, REPLICA).await {
        Err(Error::Refused { code: SYNTAX_ERROR, .. }) => first_row(packets, SLAVE).await?,
        answer => answer?,
    };
    let row = row.ok_or_else(|| Error::Unfit("this is no replica".into()))?;
    let place = row.place_of(&LAG).ok_or_else(|| Error::malformed("a replica without a lag"))?;
    // NULL while either thread of the replica does not run.
    let Some(lag) = row.value(place) else {
        return Err(Error::Unfit("the replica does not replicate".into()));
    };
    let seconds = lag.parse().map_err(|_| Error::malformed("a lag that is no number"))?;
    match max_lag {
        Some(most) if Duration::from_secs(seconds) > most => {
            let message = format!("the replica is {seconds}s behind, and {most:?} are allowed");
            Err(Error::Unfit(message))
        }
        _ => Ok(format!("the replica is {seconds}s behind")),
    }
}

async fn row<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    sql: &str,
) -> Result<Row, Error> {
    let row = first_row(packets, sql).await?;
    row.ok_or_else(|| Error::Unfit("the query has no result".into()))
}

fn judge(value: Option<&str>, expect: Option<&MysqlExpect>) -> Result<String, Error> {
    let Some(value) = value else {
        return Err(Error::Unfit("the query has NULL for an answer".into()));
    };
    let answer = format!("the answer is \"{}\"", readable(value.as_bytes()));
    match expect {
        Some(expect) if !expect.is_met_by(value) => {
            Err(Error::Unfit(format!("{answer}, expected {expect}")))
        }
        _ => Ok(answer),
    }
}
