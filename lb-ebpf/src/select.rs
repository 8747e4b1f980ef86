//! Which backend a new connection goes to.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};
use lb_common::{
    flow::FlowKey,
    hash,
    maps::{
        BALANCE_HASH, BALANCE_LEASTCONN, BALANCE_ROUNDROBIN, BALANCE_SOURCE, MAX_LEASTCONN, SLOTS,
        Service, SlotTable,
    },
};

use crate::{
    admission::has_place,
    atomic::Word,
    maps::{self, Family},
};

/// The number of the backend for the client of `key`, whether that has a place for it or not; of a
/// `leastconn` service one that has. [`NOBODY`] if there is none.
#[inline(always)]
pub fn backend<F: Family>(service: &Service, key: &FlowKey<F::Address>) -> u32 {
    let slots = service.slots;
    if service.balance == BALANCE_LEASTCONN {
        return least_connections::<F>(service, slots);
    }
    let (Some(table), Some(slot)) = (maps::SLOTS.get(service.table), slot::<F>(service, key))
    else {
        return NOBODY;
    };
    at(table, slot).into()
}

/// Where in the slots the search for a backend begins.
#[inline(always)]
fn slot<F: Family>(service: &Service, key: &FlowKey<F::Address>) -> Option<u32> {
    match service.balance {
        BALANCE_ROUNDROBIN => turn(service.id, service.slots),
        BALANCE_SOURCE => hash::client(key.src).checked_rem(service.slots),
        BALANCE_HASH => hash::connection(key.src, key.sport).checked_rem(service.slots),
        _ => None,
    }
}

/// A slot, each in turn.
#[inline(always)]
fn turn(service: u32, slots: u32) -> Option<u32> {
    let turns = maps::TURNS.get_ptr_mut(service)?;
    // SAFETY: a live element of an array map; only ever accessed atomically.
    let turn = unsafe { Word::new(turns) }.add(1);
    Some(turn.checked_rem(slots.into())? as u32)
}

/// A backend that has a place, or [`NOBODY`]: the first one from whose turn it is on. A function of its own, to
/// have a stack of its own.
#[inline(never)]
pub fn with_place(service: &Service) -> u32 {
    let Some(first) = turn(service.id, service.slots) else { return NOBODY };
    let slots = service.slots;
    let mut search = Vacancy { table: service.table, first, slots, found: NOBODY };
    // SAFETY: the callback has the signature that the kernel calls it by, and `search` outlives
    // the call.
    unsafe {
        bpf_loop(
            slots.min(SLOTS as u32),
            look as *mut c_void,
            (&raw mut search).cast::<c_void>(),
            0,
        );
    }
    search.found
}

/// The state of a search for whichever backend has a place.
#[repr(C)]
struct Vacancy {
    table: u32,
    first: u32,
    slots: u32,
    found: u32,
}

/// Looks at the slot that is `step` further than the first. Returns 1 to end the search.
extern "C" fn look(step: u64, search: *mut c_void) -> i64 {
    // SAFETY: what `with_place` passed.
    let search = unsafe { &mut *search.cast::<Vacancy>() };
    let Some(slot) = (search.first + step as u32).checked_rem(search.slots) else { return 1 };
    let Some(table) = maps::SLOTS.get(search.table) else { return 1 };
    let candidate = u32::from(at(table, slot));
    let Some(state) = maps::BACKEND_STATE.get_ptr_mut(candidate) else { return 1 };
    // SAFETY: a live element of an array map; what changes is read atomically.
    let (active, limit) = unsafe { (Word::new(&raw mut (*state).active).load(), (*state).limit) };
    if !has_place(active, limit) {
        return 0;
    }
    search.found = candidate;
    1
}

/// The backend with the fewest connections by weight, of those that have a place, counting half of the one to come: so none gets
/// ahead of its share by more than the others fall behind. Counting all of it, as HAProxy does, favours
/// the heavy ones, and counting nothing of it the light ones. The search begins one further each time,
/// so that equals are taken in turn.
///
/// A function of its own, to have a stack of its own; so it can return no more than a register:
/// the number, or `NOBODY`.
#[inline(never)]
fn least_connections<F: Family>(service: &Service, slots: u32) -> u32 {
    let Some(first) = turn(service.id, slots) else { return NOBODY };
    let mut search =
        Search { table: service.table, first, slots, best: NOBODY, load: u64::MAX, weight: 1 };
    // A loop of the kernel's, whose body the verifier looks at once. Were it unrolled before its
    // eyes, it would take up most of what it is willing to look at.
    // SAFETY: the callback has the signature that the kernel calls it by, and `search` outlives
    // the call.
    unsafe {
        bpf_loop(
            slots.min(MAX_LEASTCONN),
            visit::<F> as *mut c_void,
            (&raw mut search).cast::<c_void>(),
            0,
        );
    }
    search.best
}

/// No backend.
pub const NOBODY: u32 = u32::MAX;

/// The state of a search among the slots of a table.
#[repr(C)]
struct Search {
    table: u32,
    first: u32,
    slots: u32,
    best: u32,
    /// Connections of the best so far in halves, with one for the new one; all ones if there is none.
    load: u64,
    /// Weight of the best so far.
    weight: u64,
}

/// Looks at the slot that is `step` further than the first. Returns 1 to end the search.
extern "C" fn visit<F: Family>(step: u64, search: *mut c_void) -> i64 {
    // SAFETY: what `least_connections` passed.
    let search = unsafe { &mut *search.cast::<Search>() };
    let Some(slot) = (search.first + step as u32).checked_rem(search.slots) else { return 1 };
    let Some(table) = maps::SLOTS.get(search.table) else { return 1 };
    let candidate = u32::from(at(table, slot));
    let (Some(state), Some(backend)) =
        (maps::BACKEND_STATE.get_ptr_mut(candidate), F::backends().get(candidate))
    else {
        return 1;
    };
    // SAFETY: a live element of an array map; only ever accessed atomically.
    let (active, limit) = unsafe { (Word::new(&raw mut (*state).active).load(), (*state).limit) };
    if !has_place(active, limit) {
        return 0;
    }
    let (load, weight) = (2 * active + 1, u64::from(backend.weight));
    // load / weight < best load / best weight, without dividing. Loads stay below 2^33.
    if search.load == u64::MAX || load * search.weight < search.load * weight {
        search.best = candidate;
        search.load = load;
        search.weight = weight;
    }
    0
}

#[inline(always)]
fn at(table: &SlotTable, slot: u32) -> u16 {
    // The mask tells the verifier what the daemon guarantees.
    table.0[slot as usize & (SLOTS - 1)]
}
