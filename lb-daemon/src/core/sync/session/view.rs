//! What people can see of a conversation.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// How far a conversation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// There is no link.
    #[default]
    Disconnected,
    /// There is a link, but the peer has not said who it is yet.
    Greeting,
    /// Either host is telling the other what it has.
    Transferring,
    /// Both have the same, and tell each other of every change.
    InSync,
    /// The two cannot work together.
    Refused,
}

/// How it stands between this host and the peer. Times are seconds, ages are relative to the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// How far the two have come.
    pub state: Stage,
    /// For how long the link has been as it is: standing or not.
    pub since_seconds: u64,
    /// Why there is no conversation; empty if there is one.
    pub why: String,
    /// Who the peer is, if it has ever said so.
    pub peer: Option<PeerView>,
    /// What people should know of, such as groups that only one of the hosts has.
    pub notices: Vec<String>,
    /// Whether this host may take over from a master that works.
    pub ready: bool,
    /// Why not, if not.
    pub not_ready: Option<NotReady>,
    /// How long changes take until the peer has them.
    pub lag: LagView,
    /// What the peer has not acknowledged yet.
    pub queue: Waiting,
    /// SYN-ACKs that wait until the peer knows of their connections.
    pub held: u64,
    /// Whether the peer keeps up, so that SYN-ACKs of services that wish it are held.
    pub is_holding: bool,
    /// What has happened since the daemon started.
    pub totals: Totals,
}

/// The other host, by its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub node: String,
    /// Version of its program.
    pub program: String,
    /// The groups that it serves; empty while there is no conversation.
    pub serving: BTreeSet<String>,
}

/// Why this host may not take over from a master that works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// What it waits for.
    pub why: String,
    /// For how long at most.
    pub at_most_seconds: u64,
}

/// Times from when the program reported a change to when the peer acknowledged it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LagView {
    /// Of the last ones.
    pub last_seconds: Option<f64>,
    /// The longest of the last minute.
    pub longest_seconds: Option<f64>,
    /// What 99 of 100 changes were faster than, as near as the histogram tells: none if there were no
    /// changes, or if that is off its end.
    pub p99_seconds: Option<f64>,
    /// How many changes were acknowledged.
    pub count: u64,
    /// The times of all of them together.
    pub sum_seconds: f64,
    /// How many took at most so long: times in seconds, ascending. The last bound is not the end.
    pub histogram: Vec<(f64, u64)>,
}

/// What the peer has not acknowledged yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Messages that were sent.
    pub messages: u64,
    /// Changes, sent or not.
    pub changes: u64,
}

/// What has happened since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Links that came to a conversation.
    pub conversations: u64,
    /// Changes told to the peer.
    pub changes_sent: u64,
    /// Changes heard from the peer.
    pub changes_received: u64,
    /// Transfers told to their end.
    pub transfers_sent: u64,
    /// Transfers heard to their end.
    pub transfers_received: u64,
    /// Connections told in transfers.
    pub connections_sent: u64,
    /// Connections heard in transfers.
    pub connections_received: u64,
    /// Connections of the peer's that were entered here.
    pub adopted: u64,
    /// Connections that were ended here because the peer has them no longer.
    pub forgotten: u64,
    /// Connections of the peer's that another one here was in the way of.
    pub conflicts: u64,
    /// Connections of the peer's that there was no room for.
    pub full: u64,
    /// Connections of the peer's to an address or a backend that this host does not have.
    pub unknown: u64,
    /// Digests of the peer's that were compared with the tables.
    pub digests: u64,
    /// Buckets of them that were not the same, most of them for the moment only.
    pub mismatches: u64,
    /// Buckets of them that were asked for again.
    pub repaired: u64,
    /// SYN-ACKs that were held back until the peer knew of their connections.
    pub held: u64,
    /// SYN-ACKs that were held back and sent on although the peer had not acknowledged their connections, or
    /// had not entered them.
    pub unacknowledged: u64,
    /// How often changes were lost here, and everything was transferred instead.
    pub lost: u64,
}
