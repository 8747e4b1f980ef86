//! What the benchmark's traffic generator and its user side agree on.
//!
//! | map | kind | key → value |
//! |---|---|---|
//! | `VOLLEY` | array | 0 → [`Volley`] |
//! | `TUPLES` | array | number → [`FlowKey<V4>`](crate::flow::FlowKey), as it stands in a packet |
//! | `CONNECTIONS` | LRU hash | [`FlowKey<V4>`](crate::flow::FlowKey) → packets, `u64` |

/// Length of a generated frame: the shortest that Ethernet allows, rounded up to whole words.
pub const FRAME: usize = 64;
/// Where the addresses and ports begin in an IPv4 frame without options. They lie there in the
/// order of a [`FlowKey`](crate::flow::FlowKey).
pub const TUPLE_OFFSET: usize = 14 + 12;
/// Tuples there is room for: both directions of 2^20 connections.
pub const MAX_TUPLES: u32 = 1 << 21;

/// Which frames to send.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Volley {
    /// The frame, all but its addresses and ports.
    pub frame: [u8; FRAME],
    /// Number of the first tuple.
    pub first: u32,
    /// Number of tuples, taken in turn.
    pub count: u32,
    /// Frames sent so far.
    pub sent: u64,
}

const _: () = assert!(size_of::<Volley>() == FRAME + 16);

// SAFETY: `repr(C)`, `Copy`, no padding (asserted above), and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Volley {}
