//! What the program and the daemon tell each other of connections, for the peer and from it.

use super::FlowKey;

/// What became of a connection, as the program reports it to the daemon for the peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<A> {
    /// The connection's life word after the change.
    pub life: u64,
    /// When it was reported (monotonic clock, nanoseconds).
    pub at: u64,
    /// Number of the place of its forward entry.
    pub place: u32,
    /// One of the `CHANGE_*` values.
    pub what: u32,
    /// Key of its forward entry: of a connection that is gone, the place tells nothing any more.
    pub key: FlowKey<A>,
    /// Key of its reverse entry: backend to source address.
    pub reverse: FlowKey<A>,
}

/// The handshake is complete.
pub const CHANGE_ESTABLISHED: u32 = 1;
/// Both sides have closed.
pub const CHANGE_CLOSED: u32 = 2;
/// A connection that the peer was told of was ended that not both sides had closed: by the daemon, or by
/// a RST after which nothing more came.
pub const CHANGE_GONE: u32 = 3;
/// One side has closed: from now on, other timeouts apply.
pub const CHANGE_HALF_CLOSED: u32 = 4;
/// The backend has answered the SYN, and the answer is held back.
pub const CHANGE_ANSWERED: u32 = 5;
/// As [`CHANGE_GONE`], but nobody has ended it: it was silent here for too long.
pub const CHANGE_SILENT: u32 = 6;

/// A connection of the peer's for an `adopt_*` program, which writes what became of it into
/// [`order`](Self::order): one of the `ADOPT_*` outcomes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption<A> {
    /// Key of the forward entry: client to virtual address.
    pub key: FlowKey<A>,
    /// Key of the reverse entry: backend to source address.
    pub reverse: FlowKey<A>,
    /// [`Flow::timestamp`](super::Flow::timestamp) of the forward entry.
    pub timestamp: u32,
    /// In: unused. Out: number of the place of the forward entry, [`NO_PAIR`](super::NO_PAIR) if
    /// there is none.
    pub place: u32,
    /// Number of the backend here.
    pub backend: u16,
    /// Number of the service here.
    pub service: u16,
    /// Number of the next hop to the client, [`NO_HOP`](super::NO_HOP) if it is not known.
    pub hop: u16,
    /// State bits of the connection: it is established, or answered and the client may have been told.
    pub state: u8,
    /// In: [`ADOPT`], [`ADOPT_OVER`], [`FORGET`] or [`LEAD_BACK`]. Out: the outcome.
    pub order: u8,
}

/// Enter the connection, unless that is at the expense of one that is here and not closed.
pub const ADOPT: u8 = 0;
/// Enter the connection, and end what is here and not the same: the peer knows better.
pub const ADOPT_OVER: u8 = 1;
/// End the connection with this key and reverse key, if it is here. Nothing is reported.
pub const FORGET: u8 = 2;
/// Have what the backend of the connection with this key and reverse key sends go to its client by this
/// hop, if the connection is here and no packet of the client's has shown another way. Nothing else of
/// it is changed.
pub const LEAD_BACK: u8 = 3;

/// Outcome: the connection was entered, ...
pub const ADOPT_NEW: u8 = 16;
/// ... or was here already, and its state was brought up to date, ...
pub const ADOPT_KNOWN: u8 = 17;
/// ... or another connection that is here is in its way, ...
pub const ADOPT_CONFLICT: u8 = 18;
/// ... or there is no room for it, ...
pub const ADOPT_FULL: u8 = 19;
/// ... or (an order to forget) it was ended, ...
pub const ADOPT_ENDED: u8 = 20;
/// ... or (an order to forget, or to lead back) it is not here, ...
pub const ADOPT_ABSENT: u8 = 21;
/// ... or the program met what it cannot explain.
pub const ADOPT_FAILED: u8 = 22;
