//! How much of anything there may be.

use std::time::Duration;

/// Bounds of a conversation. Tests have smaller ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most changes that wait to be sent. When there are more, telling all anew costs less.
    pub(super) queue: usize,
    /// Most changes or connections of one message, which stays below 64 KiB by that.
    pub(super) batch: usize,
    /// Most places of the tables that are looked at for one message: changes wait meanwhile.
    pub(super) places: usize,
    /// Most messages of a transfer in one go, for the same reason.
    pub(super) transfer: usize,
    /// Most changes that are read from the program in one go, ...
    pub(super) drain: usize,
    /// ... and how often in a row.
    pub(super) drains: usize,
    /// Most messages that the peer has not acknowledged: then it is waited for.
    pub(super) unacked: usize,
    /// Most connections whose end is remembered for a peer that is not there, and as many that opened
    /// meanwhile.
    pub(super) ended: usize,
    /// Longest time that a SYN-ACK is held back for the peer.
    pub(super) hold: Duration,
    /// Most SYN-ACKs that are held back.
    pub(super) held: usize,
}

impl Limits {
    /// Of two real hosts.
    pub(super) const REAL: Self = Self {
        queue: 200_000,
        batch: 512,
        places: 1 << 16,
        transfer: 32,
        drain: 4096,
        drains: 16,
        unacked: 1024,
        ended: 1 << 20,
        hold: Duration::from_millis(100),
        held: 1 << 14,
    };
}
