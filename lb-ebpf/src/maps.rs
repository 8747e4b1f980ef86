//! Every map, and the two address families as the rest of the program sees them.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue, RingBuf},
};
use lb_common::{
    addr::{Address, V4, V6},
    flow::{Group, Terms},
    hold::Hold,
    maps::{
        ARRIVALS_SIZE, Backend, BackendState, BackendStats, CHANGES_SIZE, HalfOpen, Handshakes,
        HopKey, Lease, MAX_BACKENDS, MAX_BINDS, MAX_GROUPS, MAX_HOPS, MAX_SERVICES,
        MAX_SLOT_TABLES, NextHop, Service, ServiceKey, ServiceState, Settings, SlotTable, TABLE_V4,
        TABLE_V6, TableState, VirtualAddress,
    },
    verdict::COUNT,
};

use crate::{
    icmp::Quoted,
    open::{OPENINGS, Opening},
    packet::{Ipv4, Ipv6},
    reset::Answer,
    rewrite::Rewrite,
    segment::IpHeader,
    too_big::Complain,
};

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
pub static SLOTS: Array<SlotTable> = Array::with_max_entries(MAX_SLOT_TABLES, 0);
#[map]
pub static TURNS: Array<u64> = Array::with_max_entries(MAX_SERVICES, 0);
#[map]
pub static TERMS: Array<Terms> = Array::with_max_entries(MAX_SERVICES, 0);
#[map]
pub static LEASES: Array<Lease> = Array::with_max_entries(MAX_GROUPS, BPF_F_MMAPABLE);
#[map]
pub static BACKEND_STATE: Array<BackendState> =
    Array::with_max_entries(MAX_BACKENDS, BPF_F_MMAPABLE);
#[map]
pub static SERVICE_STATE: Array<ServiceState> =
    Array::with_max_entries(MAX_SERVICES, BPF_F_MMAPABLE);
#[map]
pub static BACKEND_STATS: PerCpuArray<BackendStats> =
    PerCpuArray::with_max_entries(MAX_BACKENDS, 0);
#[map]
pub static HANDSHAKES: Array<Handshakes> = Array::with_max_entries(MAX_BACKENDS, BPF_F_MMAPABLE);
#[map]
pub static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(MAX_HOPS, 0);
#[map]
pub static CLIENT_HOPS: HashMap<HopKey, u32> = HashMap::with_max_entries(MAX_HOPS, 0);
#[map]
pub static FREE_HOPS: Queue<u32> = Queue::with_max_entries(MAX_HOPS, 0);
#[map]
pub static TABLES: Array<TableState> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
pub static CHANGES: RingBuf = RingBuf::with_byte_size(CHANGES_SIZE, 0);
#[map]
pub static ARRIVALS: RingBuf = RingBuf::with_byte_size(ARRIVALS_SIZE, 0);
#[map]
pub static HOLD: Array<Hold> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNT as u32, 0);

// The daemon sets the capacity of the flow tables and rings at load time.
#[map]
static FLOWS_V4: Array<Group<V4>> = Array::with_max_entries(1 << 10, BPF_F_MMAPABLE);
#[map]
static FLOWS_V6: Array<Group<V6>> = Array::with_max_entries(1 << 10, BPF_F_MMAPABLE);
#[map]
static HALF_OPEN_V4: Array<HalfOpen> = Array::with_max_entries(1 << 15, 0);
#[map]
static HALF_OPEN_V6: Array<HalfOpen> = Array::with_max_entries(1 << 15, 0);
#[map]
static SERVICES_V4: HashMap<ServiceKey<V4>, Service> = HashMap::with_max_entries(MAX_BINDS, 0);
#[map]
static SERVICES_V6: HashMap<ServiceKey<V6>, Service> = HashMap::with_max_entries(MAX_BINDS, 0);
#[map]
static VIRTUAL_ADDRESSES_V4: HashMap<V4, VirtualAddress> = HashMap::with_max_entries(MAX_BINDS, 0);
#[map]
static VIRTUAL_ADDRESSES_V6: HashMap<V6, VirtualAddress> = HashMap::with_max_entries(MAX_BINDS, 0);
#[map]
static BACKENDS_V4: Array<Backend<V4>> = Array::with_max_entries(MAX_BACKENDS, 0);
#[map]
static BACKENDS_V6: Array<Backend<V6>> = Array::with_max_entries(MAX_BACKENDS, 0);

// Where a connection is put together; nothing of it outlives a run of the program.
#[map]
static OPENING_V4: PerCpuArray<Opening<V4>> = PerCpuArray::with_max_entries(OPENINGS, 0);
#[map]
static OPENING_V6: PerCpuArray<Opening<V6>> = PerCpuArray::with_max_entries(OPENINGS, 0);
// What the daemon tells `inject` beside the frame.
#[map]
pub static REDISPATCH: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// An address family: its header and its maps. The packet path is written once over this.
pub trait Family: 'static {
    type Address: Address;
    type Header: IpHeader<Address = Self::Address> + Rewrite + Answer + Quoted + Complain;

    /// Index of this family in `TABLES`.
    const TABLE: u32;
    /// Whether a key takes so many registers that it is better handled by functions of their own.
    const IS_WIDE: bool = size_of::<Self::Address>() > 4;

    fn flows() -> &'static Array<Group<Self::Address>>;
    fn half_open() -> &'static Array<HalfOpen>;
    fn services() -> &'static HashMap<ServiceKey<Self::Address>, Service>;
    fn virtual_addresses() -> &'static HashMap<Self::Address, VirtualAddress>;
    fn backends() -> &'static Array<Backend<Self::Address>>;
    fn opening() -> &'static PerCpuArray<Opening<Self::Address>>;
}

macro_rules! family {
    ($name:ident, $address:ty, $header:ty, $table:expr, $flows:ident, $half_open:ident,
     $services:ident, $virtual_addresses:ident, $backends:ident, $opening:ident) => {
        pub enum $name {}

        impl Family for $name {
            type Address = $address;
            type Header = $header;
            const TABLE: u32 = $table;

            #[inline(always)]
            fn flows() -> &'static Array<Group<$address>> {
                &$flows
            }
            #[inline(always)]
            fn half_open() -> &'static Array<HalfOpen> {
                &$half_open
            }
            #[inline(always)]
            fn services() -> &'static HashMap<ServiceKey<$address>, Service> {
                &$services
            }
            #[inline(always)]
            fn virtual_addresses() -> &'static HashMap<$address, VirtualAddress> {
                &$virtual_addresses
            }
            #[inline(always)]
            fn backends() -> &'static Array<Backend<$address>> {
                &$backends
            }
            #[inline(always)]
            fn opening() -> &'static PerCpuArray<Opening<$address>> {
                &$opening
            }
        }
    };
}

family!(
    Inet,
    V4,
    Ipv4,
    TABLE_V4,
    FLOWS_V4,
    HALF_OPEN_V4,
    SERVICES_V4,
    VIRTUAL_ADDRESSES_V4,
    BACKENDS_V4,
    OPENING_V4
);
family!(
    Inet6,
    V6,
    Ipv6,
    TABLE_V6,
    FLOWS_V6,
    HALF_OPEN_V6,
    SERVICES_V6,
    VIRTUAL_ADDRESSES_V6,
    BACKENDS_V6,
    OPENING_V6
);
