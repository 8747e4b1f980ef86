//! SYNs that wait for a place: the program hands them to the daemon where a limit is reached, and tells it
//! when a connection has ended for which others wait.

use crate::{addr::Address, flow::FlowKey, hold::HELD_FRAME};

/// A SYN on its way to the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Arrival<A> {
    /// Client to virtual address.
    pub key: FlowKey<A>,
    /// Number of its service.
    pub service: u32,
    /// Number of the only backend that it may go to, or [`ANY`].
    pub bound: u32,
    /// Interface that the frame came in by.
    pub ifindex: u32,
    /// How long it is, in bytes: 1 to [`HELD_FRAME`].
    pub length: u32,
    /// The frame as it came in. What is behind its end has no meaning.
    pub frame: [u8; HELD_FRAME],
}

/// A place has become free while somebody waited.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Number of the service.
    pub service: u32,
    /// Always zero.
    pub zero: u32,
}

/// Whichever backend has a place.
pub const ANY: u32 = (1 << 16) - 1;

/// What the program `inject` returns of a SYN for which there is no place: this and the number of the only
/// backend that it may go to, or [`ANY`]. Numbers of interfaces are smaller.
pub const NO_PLACE: u32 = 1 << 31;

const _: () = {
    use crate::{
        addr::{V4, V6},
        maps::MAX_BACKENDS,
    };
    const fn is_whole<A: Address>() -> bool {
        size_of::<Arrival<A>>() == size_of::<FlowKey<A>>() + 16 + HELD_FRAME
    }
    assert!(is_whole::<V4>() && is_whole::<V6>());
    assert!(size_of::<Freed>() == 8);
    assert!(MAX_BACKENDS <= ANY);
};
