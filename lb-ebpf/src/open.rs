//! Opening a connection: a place among the half-open ones, a translation, and both entries.
//!
//! What is being built lies in per-CPU memory: together with the keys of the hot path it would
//! not fit on the stack.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    cty::c_void,
    helpers::{bpf_ktime_get_ns, generated::bpf_loop},
};
use lb_common::{
    addr::{Address, Port},
    flow::{
        DEAD, ESTABLISHED, FORWARD, Flow, FlowKey, REVERSE, Translation, born, created, is_closed,
        is_half_open, renewal, state,
    },
    maps::{HalfOpen, MAX_SOURCES, Service, Settings},
    verdict::Verdict,
};

use crate::{
    atomic::Word,
    flow::{Key, claim, end, life_of, remove},
    maps::{self, Family},
};

/// How many translation ports are tried for a new connection.
const PORT_ATTEMPTS: u32 = 16;
/// What `bpf_map_update_elem` returns when a key exists already.
const EEXIST: i32 = -17;

/// A connection that is being opened.
#[repr(C)]
pub struct Opening<A> {
    /// The entry to insert next.
    flow: Flow<A>,
    /// The client's key.
    key: FlowKey<A>,
    /// The key of the reverse entry.
    reverse: FlowKey<A>,
    /// The key of a connection that is in the way.
    other: FlowKey<A>,
}

/// Opens a connection to the backend `number`.
#[inline(never)]
pub fn open<F: Family>(
    key: &Key<F>,
    service: &Service,
    number: u16,
    client_hop: u32,
) -> Result<(), Verdict> {
    let settings = maps::SETTINGS.get(0).ok_or(Verdict::DropInternal)?;
    let opening = F::opening().get_ptr_mut(0).ok_or(Verdict::DropInternal)?;
    // SAFETY: this processor's own copy, and programs of one processor do not interrupt each
    // other.
    let opening = unsafe { &mut *opening };
    // SAFETY: a helper without preconditions.
    let life = born(unsafe { bpf_ktime_get_ns() });
    make_room::<F>(key, life, settings)?;

    opening.key = *key;
    opening.flow.life = life;
    opening.flow.last_seen = created(life);
    opening.flow.direction = REVERSE;
    opening.flow.renew = maps::TIMEOUTS.get(service.id).map_or(0, renewal);
    // Field by field: a whole translation would be put together on the stack first. `allocate`
    // sets the rest.
    opening.flow.to.hop = client_hop;
    opening.flow.to.backend = number;
    opening.flow.to.service = service.id as u16;
    allocate::<F>()?;

    opening.flow.direction = FORWARD;
    // A backend's next hop has the backend's number.
    opening.flow.to.hop = number.into();
    opening.flow.to.set(&opening.key, &opening.reverse.answer());
    // Before the connection can be found: whoever ends it lowers the counts.
    count::<F>(number, 1);
    match F::flows().insert(&opening.key, &opening.flow, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            if let Some(stats) = maps::BACKEND_STATS.get_ptr_mut(number.into()) {
                // SAFETY: this processor's own copy.
                unsafe { (*stats).connections += 1 };
            }
            Ok(())
        }
        Err(error) => {
            count::<F>(number, u64::MAX);
            let _ = F::flows().remove(opening.reverse);
            // Another processor may have been faster with the same SYN; its flow is as good.
            if error == EEXIST { Ok(()) } else { Err(Verdict::DropTableFull) }
        }
    }
}

/// Enters a new connection in the ring of half-open ones, and ends the one whose place it takes if
/// that never was established: so a flood of SYNs evicts the oldest of its own kind and nothing
/// else.
#[inline(never)]
fn make_room<F: Family>(key: &Key<F>, life: u64, settings: &Settings) -> Result<(), Verdict> {
    let table = maps::TABLES.get_ptr_mut(F::TABLE).ok_or(Verdict::DropInternal)?;
    // SAFETY: live elements of an array map; only ever accessed atomically.
    let (ring, evicted) =
        unsafe { (Word::new(&raw mut (*table).ring), Word::new(&raw mut (*table).evicted)) };
    let position = ring.add(1) as u32 & settings.half_open.wrapping_sub(1);
    let place = F::half_open().get_ptr_mut(position).ok_or(Verdict::DropInternal)?;
    // SAFETY: a live element of an array map; a position belongs to one processor until the ring
    // has gone round.
    let old = unsafe { core::ptr::read(place) };
    if old.born != 0 {
        let old_key = FlowKey { src: old.src, dst: old.dst, sport: old.sport, dport: old.dport };
        if let Some(entry) = F::flows().get_ptr_mut(old_key) {
            let old_life = life_of::<F>(entry).load();
            if born(old_life) == old.born
                // Also one that was reset before it came to anything: else a flood of SYNs, each
                // with a RST, would fill the table.
                && state(old_life) & (DEAD | ESTABLISHED) == 0
                && end::<F>(entry, old_life, &old_key)
                && is_half_open(state(old_life))
            {
                evicted.add(1);
            }
        }
    }
    // SAFETY: as above.
    unsafe {
        *place = HalfOpen {
            born: life,
            src: key.src,
            dst: key.dst,
            sport: key.sport,
            dport: key.dport,
            zero: 0,
        };
    }
    Ok(())
}

/// Finds a free translation for the connection being opened and inserts its reverse entry. Ports
/// are taken in turn, the one unused for longest first, over all source addresses.
#[inline(always)]
fn allocate<F: Family>() -> Result<(), Verdict> {
    let mut verdict = Verdict::DropNoPort as u32;
    // SAFETY: the callback has the signature that the kernel calls it by, and `verdict` outlives
    // the call.
    unsafe {
        bpf_loop(
            PORT_ATTEMPTS,
            try_port::<F> as *mut c_void,
            (&raw mut verdict).cast::<c_void>(),
            0,
        );
    }
    const NO_PORT: u32 = Verdict::DropNoPort as u32;
    const FULL: u32 = Verdict::DropTableFull as u32;
    match verdict {
        FOUND => Ok(()),
        NO_PORT => Err(Verdict::DropNoPort),
        FULL => Err(Verdict::DropTableFull),
        _ => Err(Verdict::DropInternal),
    }
}

/// Stands for a verdict that is not needed.
const FOUND: u32 = u32::MAX;

/// Tries the next port. Returns 1 to end the search.
extern "C" fn try_port<F: Family>(_step: u64, verdict: *mut c_void) -> i64 {
    // SAFETY: what `allocate` passed.
    let verdict = unsafe { &mut *verdict.cast::<u32>() };
    *verdict = match try_next::<F>() {
        Ok(()) => FOUND,
        Err(verdict) => verdict as u32,
    };
    i64::from(*verdict != Verdict::DropNoPort as u32)
}

#[inline(always)]
fn try_next<F: Family>() -> Result<(), Verdict> {
    let opening = F::opening().get_ptr_mut(0).ok_or(Verdict::DropInternal)?;
    // SAFETY: as in `open`.
    let Opening { flow, key, reverse, .. } = unsafe { &mut *opening };
    let number = flow.to.backend.into();
    let (Some(settings), Some(backend), Some(state)) =
        (maps::SETTINGS.get(0), F::backends().get(number), maps::BACKEND_STATE.get_ptr_mut(number))
    else {
        return Err(Verdict::DropInternal);
    };
    // SAFETY: a live element of an array map; only ever accessed atomically.
    let turn = unsafe { Word::new(&raw mut (*state).cursor) }.add(1);
    let (ports, sources) = (u64::from(settings.port_count), u64::from(backend.source_count));
    if ports == 0 || sources == 0 {
        return Err(Verdict::DropInternal);
    }
    // The mask tells the verifier what the daemon guarantees.
    let source = (turn / ports % sources) as usize & (MAX_SOURCES - 1);
    reverse.src = backend.address;
    reverse.sport = backend.port;
    reverse.dst = backend.sources[source];
    reverse.dport = Port::new((settings.port_first + (turn % ports) as u32) as u16);
    translate(&mut flow.to, reverse, key);
    for _ in 0..2 {
        match F::flows().insert(&*reverse, &*flow, u64::from(BPF_NOEXIST)) {
            Ok(()) => return Ok(()),
            Err(EEXIST) => {}
            Err(_) => return Err(Verdict::DropTableFull),
        }
        // A connection that only lingers gives its port up.
        if !evict_closed::<F>() {
            break;
        }
    }
    Err(Verdict::DropNoPort)
}

/// Makes `to` turn a packet with the key `reverse` into an answer to one with the key `key`. A
/// function of its own, to have a stack of its own.
#[inline(never)]
fn translate<A: Address>(to: &mut Translation<A>, reverse: &FlowKey<A>, key: &FlowKey<A>) {
    to.set(reverse, &key.answer());
}

/// Removes the connection that has the reverse key of the one being opened, if it is closed; true
/// if the key is free now.
#[inline(never)]
fn evict_closed<F: Family>() -> bool {
    let Some(opening) = F::opening().get_ptr_mut(0) else { return false };
    // SAFETY: as in `open`.
    let Opening { reverse, other, .. } = unsafe { &mut *opening };
    let Some(pair) = F::flows().get_ptr(&*reverse) else { return true };
    // SAFETY: readable after a lookup in this run; the translation never changes.
    *other = unsafe { (*pair).to.pair_key() };
    let Some(entry) = F::flows().get_ptr_mut(&*other) else { return false };
    let life = life_of::<F>(entry).load();
    // Two processors that open the same connection each insert a reverse entry; only one is its.
    // SAFETY: readable after a lookup in this run; the birth of an entry never changes.
    if born(life) != born(unsafe { (*pair).life }) {
        return false;
    }
    let gone = state(life) & DEAD == 0 && is_closed(state(life)) && claim::<F>(entry, life);
    if gone {
        remove::<F>(other, reverse);
    }
    gone
}

/// Adds to the counts that a new connection enters; all ones take one away.
#[inline(always)]
fn count<F: Family>(backend: u16, by: u64) {
    if let Some(table) = maps::TABLES.get_ptr_mut(F::TABLE) {
        // SAFETY: live elements of an array map; only ever accessed atomically.
        unsafe {
            Word::new(&raw mut (*table).connections).add(by);
            Word::new(&raw mut (*table).half_open).add(by);
        }
    }
    if let Some(state) = maps::BACKEND_STATE.get_ptr_mut(backend.into()) {
        // SAFETY: as above.
        unsafe { Word::new(&raw mut (*state).active) }.add(by);
    }
}
