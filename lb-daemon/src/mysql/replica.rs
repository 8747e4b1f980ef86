//! Whether a replica replicates, and how far it is behind.
//!
//! A replica may have several sources, each by a channel (MySQL) or connection (`MariaDB`) of its own,
//! and what a client reads comes from all of them. So each must replicate, and the one that is
//! furthest behind counts.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    error::Error,
    packets::Packets,
    result::{Row, Rows, query},
};

/// What shows all channels, by its new name and by its old one, which servers before MySQL 8.0.22 and
/// `MariaDB` 10.5 know.
const OF_MYSQL: [&str; 2] = ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"];
/// `MariaDB` shows but the nameless connection if not asked for all.
const OF_MARIADB: [&str; 2] = ["SHOW ALL REPLICAS STATUS", "SHOW ALL SLAVES STATUS"];
/// MySQL's number for what it does not understand.
const SYNTAX_ERROR: u16 = 1064;

const LAG: [&str; 2] = ["Seconds_Behind_Source", "Seconds_Behind_Master"];
const CHANNEL: [&str; 2] = ["Channel_Name", "Connection_name"];

/// As many as MySQL can have.
const MOST_CHANNELS: usize = 256;

/// How far one channel is behind.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lag {
    seconds: u64,
    /// Its name, in quotes and after a space; nothing if it has none.
    channel: String,
}

/// Asks a server of this version, and says how far it is behind if that is good.
pub(super) async fn replica<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    version: &str,
    max_lag: Option<Duration>,
) -> Result<String, Error> {
    let [new, old] = if version.contains("MariaDB") { OF_MARIADB } else { OF_MYSQL };
    let rows = match query(packets, new).await {
        Err(Error::Refused { code: SYNTAX_ERROR, .. }) => query(packets, old).await?,
        answer => answer?,
    };
    let no_replica = || Error::Unfit("this is no replica".into());
    let worst = worst(rows.ok_or_else(no_replica)?).await?.ok_or_else(no_replica)?;
    let Lag { seconds, channel } = worst;
    match max_lag {
        Some(most) if Duration::from_secs(seconds) > most => {
            let message =
                format!("the replica is {seconds}s behind{channel}, and {most:?} are allowed");
            Err(Error::Unfit(message))
        }
        _ => Ok(format!("the replica is {seconds}s behind{channel}")),
    }
}

/// The channel that is furthest behind; nothing if there are none. [`Error::Unfit`] if one does not
/// replicate.
async fn worst<S: AsyncRead + AsyncWrite + Unpin>(
    mut rows: Rows<'_, S>,
) -> Result<Option<Lag>, Error> {
    let lag = rows.place_of(&LAG);
    let channel = rows.place_of(&CHANNEL);
    let mut worst = None;
    for _ in 0..=MOST_CHANNELS {
        let Some(row) = rows.next().await? else { return Ok(worst) };
        let lag = lag.ok_or_else(|| Error::malformed("a replica without a lag"))?;
        worst = worst.max(Some(judge(&row, lag, channel)?));
    }
    Err(Error::malformed("a replica with more channels than there can be"))
}

/// One channel, by the columns of its lag and its name.
fn judge(row: &Row, lag: usize, channel: Option<usize>) -> Result<Lag, Error> {
    let channel = channel.and_then(|nth| row.text(nth)).filter(|name| !name.is_empty());
    let channel = channel.map(|name| format!(" \"{name}\"")).unwrap_or_default();
    // NULL while either thread of the channel does not run.
    let Some(seconds) = row.text(lag) else {
        let from = if channel.is_empty() { "" } else { " from" };
        return Err(Error::Unfit(format!("the replica does not replicate{from}{channel}")));
    };
    let seconds = seconds.parse().map_err(|_| Error::malformed("a lag that is no number"))?;
    Ok(Lag { seconds, channel })
}
