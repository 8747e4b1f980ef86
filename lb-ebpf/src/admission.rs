//! Places: a backend, and a service, may have so many connections and no more. A SYN for which there is
//! no place waits with the daemon, which injects it when one is free.
//!
//! A place is taken by compare-and-exchange before anything else is done for a connection, and given back
//! by whoever ends it: so a limit holds at every moment, however many processors are at it. Who ends a
//! connection while somebody waits tells the daemon. A SYN that comes while others wait goes behind them,
//! also if a place has just become free.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_RB_AVAIL_DATA,
    helpers::{bpf_ktime_get_ns, generated::bpf_xdp_load_bytes},
    programs::XdpContext,
};
use lb_common::{
    admission::{ANY, Arrival, Freed},
    hold::HELD_FRAME,
    maps::{ARRIVALS_SIZE, BALANCE_HASH, BALANCE_SOURCE, BackendState, Service, ServiceState},
};

use crate::{
    atomic::Word,
    maps::{self, Family},
    open::opening,
    packet::Packet,
    report::WAKE_IF_DRAINED,
    select::{self, NOBODY},
    table::Key,
};

/// How often a place is tried to be taken against other processors doing the same. Whoever fails waits, and
/// the daemon tries again.
const TAKE_ATTEMPTS: u32 = 8;
/// How many bytes of frames may be on their way to the daemon: the rest is for what becomes free.
const ARRIVALS_FOR_FRAMES: u64 = ARRIVALS_SIZE as u64 / 2;

/// What becomes of a SYN.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It has a place at a backend.
    Placed = 0,
    /// It waits for a backend, or for [`ANY`].
    Waits = 1,
    /// No backend gets new connections.
    Nowhere = 2,
}

/// Takes a place at a backend for the client of `key`, and notes its number where the connection is to be put
/// together; or that of the backend that it waits for. `INJECTED` says whether it has waited: then nobody is
/// before it.
///
/// A function of its own, to have a stack of its own; so it can return no more than a register. The number
/// is not in there: the verifier would look at all that follows once for each way of choosing a backend.
#[inline(never)]
pub fn admit<F: Family, const INJECTED: bool>(service: &Service, key: &Key<F>) -> u32 {
    let (admission, number) = choose::<F, INJECTED>(service, key);
    let Some(opening) = F::opening().get_ptr_mut(const { opening::<INJECTED>() }) else {
        return Admission::Nowhere as u32;
    };
    // SAFETY: this processor's own copy, and programs that open a connection by the same one do not
    // interrupt each other.
    unsafe { (*opening).backend = number as u16 };
    admission as u32
}

/// The number that [`admit`] has noted.
#[inline(always)]
pub fn admitted<F: Family, const INJECTED: bool>() -> u32 {
    F::opening().get_ptr_mut(const { opening::<INJECTED>() }).map_or(ANY, |opening| {
        // SAFETY: as in `admit`.
        unsafe { (*opening).backend }.into()
    })
}

#[inline(always)]
fn choose<F: Family, const INJECTED: bool>(service: &Service, key: &Key<F>) -> (Admission, u32) {
    if service.slots == 0 {
        return (Admission::Nowhere, ANY);
    }
    let is_bound = matches!(service.balance, BALANCE_SOURCE | BALANCE_HASH);
    if !INJECTED && !is_bound && is_awaited(service.id) {
        return (Admission::Waits, ANY);
    }
    let number = match redispatched::<INJECTED>() {
        ANY => select::backend::<F>(service, key),
        number => number,
    };
    if number == NOBODY {
        return (Admission::Waits, ANY);
    }
    let bound = if is_bound { number } else { ANY };
    if !INJECTED && is_bound && is_awaited_bound(service.id, number) {
        return (Admission::Waits, bound);
    }
    match take(service.id, number) {
        TAKEN => (Admission::Placed, number),
        BACKEND_FULL if !is_bound => spare(service),
        _ => (Admission::Waits, bound),
    }
}

/// The backend that the daemon has chosen for a SYN whose own is full, or [`ANY`].
///
/// Only the daemon knows who waits already. Were it done here, a SYN that is sent again would go to another
/// backend than the one that its client waits for.
#[inline(always)]
fn redispatched<const INJECTED: bool>() -> u32 {
    if !INJECTED {
        return ANY;
    }
    maps::REDISPATCH.get(0).copied().unwrap_or(ANY)
}

/// A place at whichever backend has one.
#[inline(always)]
fn spare(service: &Service) -> (Admission, u32) {
    let number = select::with_place(service);
    if number != NOBODY && take(service.id, number) == TAKEN {
        (Admission::Placed, number)
    } else {
        (Admission::Waits, ANY)
    }
}

/// A place was taken.
const TAKEN: u32 = 0;
/// The backend has as many connections as it may.
const BACKEND_FULL: u32 = 1;
/// The service has, or there is none.
const SERVICE_FULL: u32 = 2;

/// Takes a place in a service and at a backend.
#[inline(never)]
fn take(service: u32, backend: u32) -> u32 {
    let (Some(of_service), Some(of_backend)) = (service_state(service), backend_state(backend))
    else {
        return SERVICE_FULL;
    };
    // SAFETY: live elements of array maps; what changes is only ever accessed atomically.
    unsafe {
        if !take_one(word(&raw mut (*of_service).active), (*of_service).limit) {
            return SERVICE_FULL;
        }
        if take_one(word(&raw mut (*of_backend).active), (*of_backend).limit) {
            return TAKEN;
        }
        word(&raw mut (*of_service).active).decrement();
        // Somebody else may have found it taken.
        wake_if_awaited(service, of_service);
    }
    BACKEND_FULL
}

#[inline(always)]
fn take_one(active: Word, limit: u32) -> bool {
    if limit == 0 {
        active.add(1);
        return true;
    }
    for _ in 0..TAKE_ATTEMPTS {
        let before = active.load();
        if before >= u64::from(limit) {
            return false;
        }
        if active.replace(before, before + 1) {
            return true;
        }
    }
    false
}

/// Whether a backend with this state has room for another connection.
#[inline(always)]
pub fn has_place(active: u64, limit: u32) -> bool {
    limit == 0 || active < u64::from(limit)
}

/// Counts a connection that is entered whether there is a place for it or not: the peer has it.
#[inline(always)]
pub fn enter(service: u32, backend: u32) {
    // SAFETY: live elements of array maps; these words are only ever accessed atomically.
    unsafe {
        if let Some(state) = service_state(service) {
            word(&raw mut (*state).active).add(1);
        }
        if let Some(state) = backend_state(backend) {
            word(&raw mut (*state).active).add(1);
        }
    }
}

/// Gives a place back, and tells the daemon if somebody waits. A function of its own, to have a stack of its
/// own.
#[inline(never)]
pub fn leave(service: u32, backend: u32) -> u32 {
    // SAFETY: live elements of array maps; these words are only ever accessed atomically.
    unsafe {
        if let Some(state) = backend_state(backend) {
            word(&raw mut (*state).active).decrement();
        }
        if let Some(state) = service_state(service) {
            word(&raw mut (*state).active).decrement();
            wake_if_awaited(service, state);
        }
    }
    0
}

/// Tells the daemon that it may be somebody's turn. If there is no room for that, it has much to read
/// and looks for itself after it.
#[inline(always)]
fn wake_if_awaited(service: u32, state: *mut ServiceState) {
    // SAFETY: a live element of an array map; this word is only ever accessed atomically.
    if unsafe { word(&raw mut (*state).waiting) }.load() != 0 {
        let freed = Freed { service, zero: 0 };
        let _ = maps::ARRIVALS.output::<Freed>(&freed, WAKE_IF_DRAINED);
    }
}

/// Whether a SYN for whichever backend of the service goes behind others.
#[inline(always)]
fn is_awaited(service: u32) -> bool {
    service_state(service).is_some_and(|state| {
        // SAFETY: a live element of an array map; what changes is read atomically.
        unsafe { word(&raw mut (*state).waiting).load() != 0 && is_open(state) }
    })
}

/// Whether a SYN for this very backend does: behind others that wait for it, or for a place in a service
/// that has a limit itself.
#[inline(always)]
fn is_awaited_bound(service: u32, backend: u32) -> bool {
    let (Some(of_service), Some(of_backend)) = (service_state(service), backend_state(backend))
    else {
        return false;
    };
    // SAFETY: live elements of array maps; what changes is read atomically.
    unsafe {
        let is_limited = (*of_service).limit != 0;
        let is_behind = word(&raw mut (*of_backend).waiting).load() != 0
            || is_limited && word(&raw mut (*of_service).waiting).load() != 0;
        is_behind && is_open(of_service)
    }
}

/// Whether the daemon takes SYNs to wait.
///
/// # Safety
///
/// `state` is a live element of its map.
#[inline(always)]
unsafe fn is_open(state: *mut ServiceState) -> bool {
    // SAFETY: by this function's own contract; the daemon stores the word as a whole. A helper without
    // preconditions.
    unsafe { word(&raw mut (*state).until).load() > bpf_ktime_get_ns() }
}

/// Hands a SYN that waits to the daemon. False if it cannot be.
///
/// It counts as waiting before the daemon can see it: so whoever takes it has it to take from the count, and
/// nobody gets ahead of it meanwhile.
#[inline(never)]
pub fn hand_over<F: Family>(ctx: &XdpContext, key: &Key<F>, service: u32, bound: u32) -> bool {
    let packet = Packet::new(ctx);
    // The sum tells the verifier the bounds of the length.
    let length = (packet.length().wrapping_sub(1) & (HELD_FRAME - 1)) + 1;
    let Some(state) = service_state(service) else { return false };
    // SAFETY: a live element of an array map.
    let is_open = unsafe { is_open(state) };
    if length != packet.length()
        || !is_open
        || maps::ARRIVALS.query(BPF_RB_AVAIL_DATA.into()) > ARRIVALS_FOR_FRAMES
    {
        return false;
    }
    let Some(mut record) = maps::ARRIVALS.reserve::<Arrival<F::Address>>(0) else { return false };
    let arrival = record.as_mut_ptr();
    // SAFETY: the record is ours alone until it is submitted, and all of it is written that has a meaning.
    let read = unsafe {
        (*arrival).key = *key;
        (*arrival).service = service;
        (*arrival).bound = bound;
        (*arrival).ifindex = packet.ifindex();
        (*arrival).length = length as u32;
        let frame = (&raw mut (*arrival).frame).cast();
        bpf_xdp_load_bytes(ctx.as_ptr().cast(), 0, frame, length as u32)
    };
    if read != 0 {
        record.discard(WAKE_IF_DRAINED);
        return false;
    }
    // SAFETY: live elements of array maps; these words are only ever accessed atomically.
    unsafe {
        word(&raw mut (*state).waiting).add(1);
        if let Some(state) = backend_state(bound) {
            word(&raw mut (*state).waiting).add(1);
        }
    }
    record.submit(WAKE_IF_DRAINED);
    true
}

#[inline(always)]
fn service_state(number: u32) -> Option<*mut ServiceState> {
    maps::SERVICE_STATE.get_ptr_mut(number)
}

/// Nothing for [`ANY`].
#[inline(always)]
fn backend_state(number: u32) -> Option<*mut BackendState> {
    maps::BACKEND_STATE.get_ptr_mut(number)
}

/// # Safety
///
/// As that of [`Word::new`].
#[inline(always)]
unsafe fn word(word: *mut u64) -> Word {
    // SAFETY: by this function's own contract.
    unsafe { Word::new(word) }
}
