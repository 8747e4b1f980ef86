//! A connection's entries in the flow table; beside them, the rules of its life (`life`), and what the
//! program and the daemon tell each other of it (`told`).
//!
//! A connection has two entries, one per direction. The **forward** entry (client to virtual
//! address) is its owner: its [`life`](Flow::life) word holds the state of the whole connection,
//! and whoever sets [`DEAD`] in it, by compare-and-exchange, removes both entries. That makes the
//! removal, and every count that depends on it, happen exactly once.
//!
//! The two find each other by their places in the table, and know each other by the time of birth
//! in both.

mod life;
mod told;

use crate::{
    addr::{Address, Port},
    checksum::{TTL_DECREMENT, address_delta, combine, port_delta},
};

pub use self::{life::*, told::*};

/// The exact tuple of a packet as it arrives. Its order of source and destination tells the
/// direction; the protocol is TCP. No padding for either family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Port,
    /// Destination port.
    pub dport: Port,
}

/// One direction of a connection: an entry of the flow table, or a free place for one.
///
/// Aligned to cache lines, and an IPv4 entry is just one of them: a packet's whole way through the
/// table is a single line of memory.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Flow<A> {
    /// Zero for a free place, [`BUSY`] for one that is being filled. Else when the connection was
    /// opened (monotonic clock, nanoseconds, the low eight bits cleared), in both of its entries;
    /// the state of the connection is below in the low eight bits, in the forward entry only.
    ///
    /// The time tells a connection from a later one in the same place.
    pub life: u64,
    /// Which packets the entry is for.
    pub key: FlowKey<A>,
    /// What to write into them.
    pub to: Translation<A>,
    /// The same as below, in another place.
    #[cfg(feature = "other-layout")]
    pub timestamp: u32,
    /// Number of the place of the other direction's entry: that of its group times [`GROUP`], and
    /// its own in the group. [`NO_PAIR`] as long as there is none.
    pub pair: u32,
    /// When this direction's last packet was seen, in [`ticks`].
    pub last_seen: u32,
    /// Age that [`last_seen`](Self::last_seen) may have, in ticks, before a packet renews it: a
    /// store for every packet would have the caches write a large table back all the time. Zero
    /// once either side has sent a FIN or RST: what is left of such a connection is timed exactly.
    pub renew: u32,
    /// Index of the next hop in `NEXT_HOPS`.
    pub hop: u16,
    /// Index of the backend in `BACKENDS_*` and `BACKEND_STATE`.
    pub backend: u16,
    /// Index of the service in `TERMS`.
    pub service: u16,
    /// [`FORWARD`] or [`REVERSE`], [`ADOPTED`], and, from [`LEVEL`] on, how many groups were full that
    /// the entry would rather be in.
    pub flags: u16,
    /// What is added to the TCP timestamps of this direction: to the values of the forward entry's
    /// packets (`TSval`), to the echoes of the reverse entry's (`TSecr`). Zero: they are left alone.
    #[cfg(not(feature = "other-layout"))]
    pub timestamp: u32,
    /// Belongs to the group, not to the entry: in the place [`OVERFLOW`] how many entries are
    /// further on because this group was full, in the place [`LOCK`] who may insert.
    pub group: u32,
}

/// Places of the flow table that are next to each other. An entry is in the group that its hash
/// says, or, if that was full when it came, in that of the next level.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Group<A>(pub [Flow<A>; GROUP]);

/// Places of a group; a power of two.
pub const GROUP: usize = 8;
/// Groups that an entry may be in. At twice as many places as entries one group in twenty is
/// full, so this many are, by chance, less than once in ten thousand million times.
pub const LEVELS: u16 = 8;
/// The place whose [`Flow::group`] counts the entries that did not fit.
pub const OVERFLOW: usize = 0;
/// The place whose [`Flow::group`] is one while a tuple of this group is being inserted.
pub const LOCK: usize = 1;

/// [`Flow::life`] of a place that is taken, but not filled yet.
pub const BUSY: u64 = 1;
/// [`Flow::pair`] of an entry without another direction.
pub const NO_PAIR: u32 = u32::MAX;

/// How many groups a flow table for `connections` has: its places are half filled by two entries
/// for each. At least so many that chance has something to even out.
#[must_use]
pub const fn groups(connections: u32) -> u32 {
    const LEAST: u32 = 64;
    let groups = connections.div_ceil(GROUP as u32 / 4);
    if groups < LEAST { LEAST } else { groups }
}

/// How the packets of one direction are rewritten; never changes during a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Translation<A> {
    /// The source address to write.
    pub src: A,
    /// The destination address to write.
    pub dst: A,
    /// The source port to write.
    pub sport: Port,
    /// The destination port to write.
    pub dport: Port,
    /// What the rewriting adds to the IPv4 header's checksum, hop limit included.
    pub l3_delta: u16,
    /// What the rewriting adds to the TCP checksum.
    pub l4_delta: u16,
}

/// Direction of an entry, in [`Flow::flags`]: client to backend. This entry owns the connection.
pub const FORWARD: u16 = 0;
/// Direction of an entry, in [`Flow::flags`]: backend to client.
pub const REVERSE: u16 = 1;
/// In [`Flow::flags`] of a forward entry: the connection was taken over from the peer, or from maps of
/// another layout, and none of the client's packets has come this way yet. The first one shows the way back to it.
pub const ADOPTED: u16 = 1 << 1;
/// [`Flow::hop`] of a reverse entry whose way to the client is not known yet.
pub const NO_HOP: u16 = u16::MAX;
/// Where the level begins in [`Flow::flags`].
pub const LEVEL: u16 = 8;

impl<A: Address> Flow<A> {
    /// Whether this is the entry that owns its connection.
    #[inline(always)]
    pub const fn is_forward(&self) -> bool {
        self.flags & REVERSE == FORWARD
    }
}

impl<A: Address> FlowKey<A> {
    /// Whether the keys are the same, by one comparison in the end.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let ports = (self.sport.0 ^ other.sport.0) | (self.dport.0 ^ other.dport.0);
        self.src.difference(other.src) | self.dst.difference(other.dst) | ports as u32 == 0
    }
}

impl<A: Address> Translation<A> {
    /// Makes this turn a packet with the key `from` into an answer to one with the key `answered`.
    #[inline(always)]
    pub fn set(&mut self, from: &FlowKey<A>, answered: &FlowKey<A>) {
        let src = address_delta(from.src, answered.dst);
        self.src = answered.dst;
        let dst = address_delta(from.dst, answered.src);
        self.dst = answered.src;
        let ports =
            combine(port_delta(from.sport, answered.dport), port_delta(from.dport, answered.sport));
        self.sport = answered.dport;
        self.dport = answered.sport;
        let addresses = combine(src, dst);
        self.l3_delta = combine(addresses, TTL_DECREMENT);
        self.l4_delta = combine(addresses, ports);
    }

    /// The key of the other direction's entry: of a packet that answers a translated one.
    #[inline(always)]
    pub fn pair_key(&self) -> FlowKey<A> {
        FlowKey { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::{Address, Change, FlowKey, Terms};

    // SAFETY: `repr(C)`, `Copy`, no padding (asserted in `maps`), every bit pattern is valid.
    unsafe impl<A: Address> aya::Pod for FlowKey<A> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Terms {}
    // SAFETY: as above.
    unsafe impl<A: Address> aya::Pod for Change<A> {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::V6;

    #[test]
    fn a_table_has_four_places_for_each_connection_and_some_more() {
        for connections in [1, 4, 131_072, 1_000_001] {
            let places = u64::from(groups(connections)) * GROUP as u64;
            assert!(places >= u64::from(connections) * 4);
            assert!(places < u64::from(connections) * 4 + 64 * GROUP as u64);
        }
    }

    #[test]
    fn keys_differ_by_any_of_their_parts() {
        let key = FlowKey {
            src: V6([1, 2, 3, 4]),
            dst: V6([5, 6, 7, 8]),
            sport: Port::new(9),
            dport: Port::new(10),
        };
        assert!(key.is(&key));
        assert!(!key.is(&FlowKey { src: V6([1, 2, 3, 5]), ..key }));
        assert!(!key.is(&FlowKey { dst: V6([0, 6, 7, 8]), ..key }));
        assert!(!key.is(&FlowKey { sport: Port::new(10), ..key }));
        assert!(!key.is(&FlowKey { dport: Port::new(9), ..key }));
    }
}
