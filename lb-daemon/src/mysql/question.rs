//! Questions: what is asked of a server, and which answers are good.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    error::{Error, readable},
    packets::Packets,
    replica::replica,
    result::{Row, first_row},
};
use crate::config::{MysqlExpect, MysqlQuestion};

const GALERA: &str = "SHOW GLOBAL STATUS WHERE Variable_name = 'wsrep_local_state'";
const READ_ONLY: &str = "SELECT @@global.read_only";

/// Galera's states, by their numbers.
const DONOR: &str = "2";
const SYNCED: &str = "4";

/// Asks a server of this version, and says what the answer was if it is good. [`Error::Unfit`] if it
/// is not.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    version: &str,
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
        MysqlQuestion::Replica { max_lag } => replica(packets, version, *max_lag).await,
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
    let state = row.text(1).unwrap_or_else(null);
    let found = format!("wsrep_local_state is {state} ({})", state_name(&state));
    match state.as_str() {
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
    let value = row.text(0).unwrap_or_else(null);
    let found = format!("read_only is {value}");
    if matches!(value.as_str(), "0" | "OFF") { Ok(found) } else { Err(Error::Unfit(found)) }
}

async fn row<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    sql: &str,
) -> Result<Row, Error> {
    let row = first_row(packets, sql).await?;
    row.ok_or_else(|| Error::Unfit("the query has no result".into()))
}

fn null() -> String {
    "NULL".to_owned()
}

fn judge(value: Option<&[u8]>, expect: Option<&MysqlExpect>) -> Result<String, Error> {
    let Some(value) = value else {
        return Err(Error::Unfit("the query has NULL for an answer".into()));
    };
    let answer = format!("the answer is \"{}\"", readable(value));
    match expect {
        Some(expect) if !expect.is_met_by(value) => {
            Err(Error::Unfit(format!("{answer}, expected {expect}")))
        }
        _ => Ok(answer),
    }
}
