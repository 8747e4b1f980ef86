//! Frames that are held back: the program hands them to the daemon instead of sending them on, and the
//! daemon injects them when what they wait for has come.
//!
//! What waits so far is a backend's SYN-ACK, until the peer knows of the connection. A client that has
//! seen it takes the connection for established.

use crate::{addr::Address, flow::Change};

/// Bytes of the longest frame that is held. That of a SYN-ACK without data has 122 at most: two VLAN
/// tags, IPv6 and TCP with all its options.
pub const HELD_FRAME: usize = 256;

/// A frame on its way to the daemon, with what it waits for. In the ring buffer that has the changes,
/// so that it comes before all that happens to its connection later on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Held<A> {
    /// What the peer is to know: [`CHANGE_ANSWERED`](crate::flow::CHANGE_ANSWERED).
    pub change: Change<A>,
    /// Interface that the frame came in by.
    pub ifindex: u32,
    /// How long it is, in bytes: 1 to [`HELD_FRAME`].
    pub length: u32,
    /// The frame as it came in. What is behind its end has no meaning.
    pub frame: [u8; HELD_FRAME],
}

/// When frames are held; times are of the monotonic clock, in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hold {
    /// Of connections that were born since then. Whoever wrote this releases all that it is handed;
    /// what was handed to another before it may never be.
    pub since: u64,
    /// Until then. Nothing is held any longer by a daemon that does not go on saying so.
    pub until: u64,
    /// SYN-ACKs that should have been held, and were sent on because there was no room.
    pub unheld: u64,
}

impl Hold {
    /// Whether a frame of a connection that was born at `born` is to be held at the time `now`.
    #[inline(always)]
    pub const fn is_in_force(&self, born: u64, now: u64) -> bool {
        now < self.until && born >= self.since
    }
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, `Copy`, no padding (asserted in `maps`), every bit pattern is valid.
    unsafe impl aya::Pod for super::Hold {}
}

const _: () = {
    use crate::addr::{V4, V6};
    const fn is_whole<A: Address>() -> bool {
        size_of::<Held<A>>() == size_of::<Change<A>>() + 8 + HELD_FRAME
    }
    assert!(is_whole::<V4>() && is_whole::<V6>());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_held_for_as_long_as_the_daemon_says_and_of_what_began_since() {
        let hold = Hold { since: 100, until: 200, unheld: 0 };
        assert!(hold.is_in_force(100, 199));
        assert!(!hold.is_in_force(100, 200), "the daemon has not gone on saying so");
        assert!(!hold.is_in_force(99, 150), "it may have been handed to an earlier daemon");
        assert!(!Hold::default().is_in_force(100, 200));
    }
}
