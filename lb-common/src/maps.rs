//! Names, capacities, keys and values of the maps.
//!
//! | map | kind | key → value | written by |
//! |---|---|---|---|
//! | `SETTINGS` | array | 0 → [`Settings`] | daemon |
//! | `VIRTUAL_ADDRESSES_V4`, `_V6` | hash | address → [`VirtualAddress`] | daemon |
//! | `LEASES` | array, mapped | group → [`Lease`] | daemon |
//! | `SERVICES_V4`, `_V6` | hash | [`ServiceKey`] → [`Service`] | daemon |
//! | `SLOTS` | array | slot table → [`SlotTable`] | daemon |
//! | `TURNS` | array | service → turns taken, `u64` | program |
//! | `TERMS` | array | service → [`Terms`] | daemon |
//! | `BACKENDS_V4`, `_V6` | array | backend → [`Backend`] | daemon |
//! | `BACKEND_STATE` | array, mapped | backend → [`BackendState`] | program; daemon sets limits, corrects once |
//! | `SERVICE_STATE` | array, mapped | service → [`ServiceState`] | as above |
//! | `BACKEND_STATS` | per-CPU array | backend → [`BackendStats`] | program |
//! | `HANDSHAKES` | array, mapped | backend → [`Handshakes`] | program; daemon sets the limit |
//! | `NEXT_HOPS` | array | hop → [`NextHop`] | both (by index range) |
//! | `CLIENT_HOPS` | hash | [`HopKey`] → hop | program; daemon moves and removes |
//! | `FREE_HOPS` | queue | hop | daemon fills; program takes, and gives back what it did not use |
//! | `FLOWS_V4`, `_V6` | array, mapped by the daemon | group → [`Group`] | program |
//! | `HALF_OPEN_V4`, `_V6` | array | ring position → [`HalfOpen`] | program |
//! | `TABLES` | array, mapped | [`TABLE_V4`] or [`TABLE_V6`] → [`TableState`] | as above |
//! | `CHANGES` | ring buffer | [`Change`], [`Held`] | program; daemon takes |
//! | `ARRIVALS` | ring buffer | [`Arrival`], [`Freed`] | program; daemon takes |
//! | `HOLD` | array, mapped | 0 → [`Hold`] | daemon; program counts |
//! | `VERDICTS` | per-CPU array | verdict → packets | program |
//! | `OPENING_V4`, `_V6` | per-CPU array | 0 → the connection being opened, 1 → the one being adopted, 2 → the one being opened by an injected frame | program; never pinned |
//! | `REDISPATCH` | array, mapped | 0 → backend that an injected SYN goes to, [`ANY`](crate::admission::ANY) for the one that the service's balance says | daemon, who runs the program; never pinned |

use crate::{
    addr::{Mac, Port, V4, V6},
    admission::{Arrival, Freed},
    flow::{Adoption, Change, Flow, FlowKey, GROUP, Group, Terms},
    hash::{MAGLEV_SIZE, Seed},
    hold::{Held, Hold},
};

/// Services (bound addresses share their service's number).
pub const MAX_SERVICES: u32 = 256;
/// Addresses and ports that services are bound to.
pub const MAX_BINDS: u32 = 1024;
/// Backends of all services together.
pub const MAX_BACKENDS: u32 = 4096;
/// Backends of one `leastconn` service: the program looks at each of them for a new connection.
pub const MAX_LEASTCONN: u32 = 128;
/// Source addresses towards one backend.
pub const MAX_SOURCES: usize = 4;
/// Next hops. Those below [`MAX_BACKENDS`] are the backends', by the backend's number; the rest
/// are the clients', handed out through `FREE_HOPS`.
pub const MAX_HOPS: u32 = 16384;
/// Entries of one slot table; the Maglev table is the largest use.
pub const SLOTS: usize = 8192;
/// Slot tables: two for each service, so that one is filled while the other is in use.
pub const MAX_SLOT_TABLES: u32 = MAX_SERVICES * 2;
/// Numbers of places that one run of a `reap_*` program takes; a power of two.
pub const REAP_BATCH: usize = 512;
/// Bytes before the numbers in a reap program's input: a frame is at least an Ethernet header long.
pub const REAP_HEADER: usize = 16;
/// Set in a number for a `reap_*` program: a connection that was being removed long ago already is
/// at that place.
pub const REAP_STUCK: u32 = 1 << 31;
/// Set in a number for a `reap_*` program: the connection at that place is to be ended, expired or
/// not.
pub const REAP_ANYWAY: u32 = 1 << 30;
/// Connections that one run of an `adopt_*` program takes; a power of two, and the input still fits
/// in the page that the kernel has for it.
pub const ADOPT_BATCH: usize = 32;
/// Bytes before the connections in an `adopt_*` program's input, as in a `reap_*` program's.
pub const ADOPT_HEADER: usize = REAP_HEADER;
/// Size of `CHANGES` in bytes: for more than forty thousand changes.
pub const CHANGES_SIZE: u32 = 1 << 22;
/// How many of these bytes may be taken when a frame is held: the rest is for changes, which are lost
/// where there is no room.
pub const CHANGES_FOR_FRAMES: u32 = CHANGES_SIZE / 2;

/// Size of `ARRIVALS` in bytes: for some three thousand SYNs.
pub const ARRIVALS_SIZE: u32 = 1 << 20;

/// Index of the IPv4 table in `TABLES`.
pub const TABLE_V4: u32 = 0;
/// Index of the IPv6 table in `TABLES`.
pub const TABLE_V6: u32 = 1;

/// Settings of the whole program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    /// First translation port, host byte order.
    pub port_first: u32,
    /// Number of translation ports.
    pub port_count: u32,
    /// Length of the half-open rings, a power of two: no more connections of a family than this
    /// are half open.
    pub half_open: u32,
    /// What becomes of a packet without a flow that is not a SYN: [`MISS_RESET`] or [`MISS_DROP`].
    pub miss: u32,
    /// Of the flow tables' hash. This and what follows stays as long as the maps do.
    pub seed: Seed,
    /// Groups of each family's flow table.
    pub groups: u32,
    /// Most connections of a family.
    pub connections: u32,
    /// What the clock of TCP timestamps is ahead of the monotonic one, in milliseconds: it goes on
    /// through a restart of this host, and is about what other hosts have.
    pub epoch: u32,
    /// Whether changes of connections that are shared with a peer are reported in `CHANGES`: one or
    /// zero.
    pub report: u32,
}

/// Answer an unknown packet with a RST.
pub const MISS_RESET: u32 = 0;
/// Drop an unknown packet.
pub const MISS_DROP: u32 = 1;

/// Groups of addresses that this host shares with others, and number zero for what it shares with
/// nobody.
pub const MAX_GROUPS: u32 = 64;

/// What this host may do with a group of addresses; times are of the monotonic clock, in
/// nanoseconds.
///
/// The same in every release: a daemon with other maps goes on with these very leases, so that a group
/// has one of them at every moment of an upgrade.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lease {
    /// Until when the group is served; in the past (or zero) if it is not.
    pub end: u64,
    /// Since when it has been served without a break. What was silent before that was not heard by
    /// this host: idle times count from here at the earliest.
    pub since: u64,
    /// Until when packets without a flow are dropped rather than answered by a RST, because the
    /// flows that the peer knew may still be coming in.
    pub grace: u64,
    /// Which election the lease was won in, for the daemon that comes next: a digest of what makes
    /// it the one it is. Zero if there never was a lease. The program does not look at it.
    pub election: u64,
    /// One if the peer that is told of connections has said that it does not have the group: then
    /// nobody there hears its clients and backends while this host does not. Else zero.
    pub alone: u64,
    /// Zero: for what later releases may want to know of a group.
    pub reserved: [u64; 3],
}

/// An address that a service is bound to, or that a group has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VirtualAddress {
    /// Number of its group; zero if this host has it for itself.
    pub group: u16,
    /// One if a service is bound to it, else zero.
    pub bound: u16,
}

/// A virtual address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey<A> {
    /// Virtual address.
    pub address: A,
    /// Port.
    pub port: Port,
    /// Always zero.
    pub zero: u16,
}

/// How a service chooses its backends. Replaced as a whole, never changed in place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Number of the service.
    pub id: u32,
    /// One of the `BALANCE_*` values.
    pub balance: u32,
    /// Index of the slot table in force.
    pub table: u32,
    /// Entries in use of that table; zero if no backend is eligible.
    pub slots: u32,
}

/// Slots are taken in turn; a backend stands in as many as its weight asks.
pub const BALANCE_ROUNDROBIN: u32 = 0;
/// The slots list the eligible backends; the one with the fewest connections by weight is taken.
pub const BALANCE_LEASTCONN: u32 = 1;
/// The slots are a Maglev table, entered by the hash of the client's address.
pub const BALANCE_SOURCE: u32 = 2;
/// The slots are a Maglev table, entered by the hash of the client's address and port.
pub const BALANCE_HASH: u32 = 3;

/// Backend numbers, used as [`Service::balance`] says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SlotTable(pub [u16; SLOTS]);

/// One backend as the packet path sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Backend<A> {
    /// Address.
    pub address: A,
    /// Addresses to translate clients to; the first [`source_count`](Self::source_count) are set.
    pub sources: [A; MAX_SOURCES],
    /// Port.
    pub port: Port,
    /// Effective weight, for `leastconn`: at least 1, in a unit that the backends of a service share.
    pub weight: u16,
    /// How many source addresses there are: 1 to [`MAX_SOURCES`], or zero for an unused number.
    pub source_count: u16,
    /// Number of its service, for a daemon that finds these maps in place.
    pub service: u16,
}

/// Exact counts of one backend, changed atomically, and its limits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BackendState {
    /// Connections that are not closed.
    pub active: u64,
    /// Translation ports tried so far; the next port follows from it.
    pub cursor: u64,
    /// SYNs that wait for a place at this very backend, those on their way to the daemon included.
    pub waiting: u64,
    /// Most connections that are not closed; zero for no limit. Those taken over from the peer count,
    /// and are never refused.
    pub limit: u32,
    /// Most SYNs that wait for it; zero for no limit. It is the daemon that sees to that.
    pub max_waiting: u32,
}

/// Exact counts of one service, changed atomically, and its limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ServiceState {
    /// Connections that are not closed.
    pub active: u64,
    /// SYNs that wait for a place, whichever backend's, those on their way to the daemon included.
    pub waiting: u64,
    /// Until when SYNs may wait (monotonic clock, nanoseconds). Nobody waits any longer for a daemon that
    /// does not go on saying so.
    pub until: u64,
    /// Most connections that are not closed; zero for no limit.
    pub limit: u32,
    /// Always zero.
    pub zero: u32,
}

/// How the handshakes with one backend end, changed atomically.
///
/// A handshake has failed if the backend refused it by a RST that has an ACK, or if its connection came to an
/// end, by timeout or to make room for another, and the backend had not answered. A SYN-ACK is a success. What
/// was opened before the last one, and comes to its end after it, is not part of a row.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Handshakes {
    /// Those that have failed.
    pub failed: u64,
    /// Those of them since the last success, or since the last alarm; counted if there is a limit.
    pub in_a_row: u64,
    /// How many in a row are an alarm; zero if nobody wants to know.
    pub limit: u64,
    /// Alarms so far.
    pub alarms: u64,
    /// When the last success was (monotonic clock, nanoseconds), as exact as the timer tick.
    pub answered: u64,
}

/// Per-CPU statistics of one backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BackendStats {
    /// Connections opened.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients: whole IP packets.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients: whole IP packets.
    pub bytes_out: u64,
}

/// Where to send a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NextHop {
    /// Interface; zero if the hop is not resolved.
    pub ifindex: u32,
    /// Source address of the frame.
    pub src: Mac,
    /// Destination address of the frame.
    pub dst: Mac,
    /// VLAN tags of the frame.
    pub tags: Tags,
}

/// The VLAN tags of a frame, the outer one first; none, one or two.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Tags(pub [Tag; 2]);

/// A VLAN tag (IEEE 802.1Q, 802.1ad).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Tag {
    /// Protocol identifier, 0x8100 or 0x88a8 in network byte order; zero for no tag.
    pub protocol: u16,
    /// VLAN number, network byte order; its priority bits are zero.
    pub vlan: u16,
}

impl Tags {
    /// Bytes that the tags take in a frame.
    #[inline(always)]
    pub const fn length(self) -> usize {
        let [outer, inner] = self.0;
        (outer.protocol != 0) as usize * 4 + (inner.protocol != 0) as usize * 4
    }
}

/// What tells one client-side next hop from another: the way a client's frame came.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HopKey {
    /// Interface it came in by.
    pub ifindex: u32,
    /// Its destination address, which is ours.
    pub ours: Mac,
    /// Its source address, which is the client's or its router's.
    pub theirs: Mac,
    /// Its VLAN tags.
    pub tags: Tags,
}

/// A place in the ring of half-open connections.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HalfOpen {
    /// The connection's life word at birth; zero for a place that is not in use.
    pub born: u64,
    /// Where its forward entry is in the flow table.
    pub entry: u32,
    /// Always zero.
    pub zero: u32,
}

/// Exact counts of one family's flow table, changed atomically.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TableState {
    /// Connections with entries in the table, closed ones included.
    pub connections: u64,
    /// Connections whose handshake is under way.
    pub half_open: u64,
    /// Half-open connections ever entered in the ring; the next position follows from it.
    pub ring: u64,
    /// Half-open connections that were removed to make room for others.
    pub evicted: u64,
    /// Changes that there was no room for in `CHANGES`.
    pub unreported: u64,
}

/// A digest of everything above that the two sides must agree on. Maps are pinned under it, so
/// that a daemon never adopts maps of another layout. With the feature `other-layout` it is another
/// one, as are the places of some fields: for tests of an upgrade.
pub const LAYOUT: u64 = {
    let words = [
        // Raise this when the meaning of a field changes while its place does not.
        if cfg!(feature = "other-layout") { 1004 } else { 4 },
        size_of::<FlowKey<V4>>(),
        size_of::<FlowKey<V6>>(),
        size_of::<Flow<V4>>(),
        size_of::<Flow<V6>>(),
        size_of::<Backend<V4>>(),
        size_of::<Backend<V6>>(),
        size_of::<HalfOpen>(),
        GROUP,
        crate::flow::LEVELS as usize,
        size_of::<Settings>(),
        size_of::<Service>(),
        size_of::<BackendState>(),
        size_of::<ServiceState>(),
        size_of::<Arrival<V4>>(),
        size_of::<Arrival<V6>>(),
        size_of::<Freed>(),
        ARRIVALS_SIZE as usize,
        size_of::<BackendStats>(),
        size_of::<Handshakes>(),
        size_of::<TableState>(),
        size_of::<Terms>(),
        size_of::<VirtualAddress>(),
        size_of::<Lease>(),
        size_of::<Change<V4>>(),
        size_of::<Change<V6>>(),
        size_of::<Held<V4>>(),
        size_of::<Held<V6>>(),
        size_of::<Hold>(),
        CHANGES_SIZE as usize,
        MAX_GROUPS as usize,
        size_of::<NextHop>(),
        size_of::<HopKey>(),
        crate::verdict::COUNT,
        MAX_SERVICES as usize,
        MAX_BINDS as usize,
        MAX_BACKENDS as usize,
        MAX_HOPS as usize,
        SLOTS,
    ];
    // FNV-1a, a word at a time.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < words.len() {
        hash = (hash ^ words[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
};

// No padding anywhere: the kernel compares and copies every byte.
const _: () = {
    assert!(size_of::<FlowKey<V4>>() == 12);
    assert!(size_of::<FlowKey<V6>>() == 36);
    assert!(size_of::<Flow<V4>>() == 64);
    assert!(size_of::<Flow<V6>>() == 128);
    assert!(size_of::<Group<V4>>() == GROUP * size_of::<Flow<V4>>());
    assert!(size_of::<Change<V4>>() == 48);
    assert!(size_of::<Change<V6>>() == 96);
    assert!(size_of::<Adoption<V4>>() == 40);
    assert!(size_of::<Adoption<V6>>() == 88);
    // The page, less the headroom and the tail that the kernel keeps in it.
    assert!(ADOPT_HEADER + ADOPT_BATCH * size_of::<Adoption<V6>>() <= 4096 - 256 - 320);
    assert!(size_of::<Lease>() == 64);
    assert!(size_of::<Hold>() == 24);
    assert!(size_of::<BackendState>() == 32);
    assert!(size_of::<ServiceState>() == 32);
    assert!(size_of::<TableState>() == 40);
    assert!(size_of::<Settings>() == 48);
    assert!(size_of::<ServiceKey<V4>>() == 8);
    assert!(size_of::<ServiceKey<V6>>() == 20);
    assert!(size_of::<Backend<V4>>() == 28);
    assert!(size_of::<Backend<V6>>() == 88);
    assert!(size_of::<HalfOpen>() == 16);
    assert!(size_of::<NextHop>() == 24);
    assert!(size_of::<HopKey>() == 24);
    assert!(MAGLEV_SIZE as usize <= SLOTS);
    assert!(MAX_LEASTCONN as usize <= SLOTS);
    assert!(MAX_BACKENDS < MAX_HOPS);
    assert!(MAX_BACKENDS <= 1 << 16);
    assert!(MAX_HOPS <= 1 << 16);
    assert!(SLOTS.is_power_of_two());
};

#[cfg(feature = "user")]
mod pod {
    use super::{
        Backend, BackendState, BackendStats, HalfOpen, HopKey, Lease, NextHop, Service, ServiceKey,
        ServiceState, Settings, SlotTable, TableState, V4, V6, VirtualAddress,
    };
    use crate::addr::Address;

    // SAFETY: `repr(C)` or `repr(transparent)`, `Copy`, no padding (asserted above), and every bit
    // pattern is a valid value; the same holds for each line below.
    unsafe impl aya::Pod for V4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for V6 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above.
    unsafe impl<A: Address> aya::Pod for ServiceKey<A> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Service {}
    // SAFETY: as above.
    unsafe impl aya::Pod for VirtualAddress {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Lease {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SlotTable {}
    // SAFETY: as above.
    unsafe impl<A: Address> aya::Pod for Backend<A> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BackendState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ServiceState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BackendStats {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NextHop {}
    // SAFETY: as above.
    unsafe impl aya::Pod for HopKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for HalfOpen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TableState {}
}
