//! The life of a connection: opening it, following its segments, ending it.
//!
//! Whoever changes a connection's life word by compare-and-exchange also settles the counts that
//! depend on that change, so each is settled exactly once however many processors are at it.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
};
use lb_common::{
    addr::Port,
    flow::{
        CLIENT_FIN, DEAD, ESTABLISHED, FORWARD, Flow, FlowKey, RESET, REVERSE, SERVER_FIN, SYN_ACK,
        Translation, age, born, created, is_closed, is_expired, is_half_open, state, ticks,
    },
    maps::{Backend, HalfOpen, MAX_SOURCES, Service, Settings},
    verdict::Verdict,
};

use crate::{
    atomic::Word,
    maps::{self, Family},
    packet::{ACK, FIN, RST, SYN},
};

type Entry<F> = *mut Flow<<F as Family>::Address>;
type Key<F> = FlowKey<<F as Family>::Address>;

/// How often a life word is tried to be changed against other processors doing the same.
const CHANGE_ATTEMPTS: u32 = 8;
/// How many translation ports are tried for a new connection.
const PORT_ATTEMPTS: u32 = 16;
/// What `bpf_map_update_elem` returns when a key exists already.
const EEXIST: i32 = -17;

/// What to do with a segment that has an entry.
pub enum Follow {
    /// Translate it and send it on.
    Forward,
    /// It is a SYN, and its connection is over and now removed: open a new one.
    Reopen,
    /// Its connection is just being removed by another processor.
    Dying,
}

/// Takes a segment with the TCP flags `flags` into account.
#[inline(always)]
pub fn follow<F: Family>(entry: Entry<F>, key: &Key<F>, flags: u8) -> Follow {
    let now = now();
    // SAFETY: `entry` came from a lookup in this run of the program, so it stays readable. A
    // racing store of `last_seen` stores nearly the same time.
    unsafe {
        if (*entry).last_seen != now {
            (*entry).last_seen = now;
        }
    }
    // SAFETY: as above; the direction never changes.
    if unsafe { (*entry).direction } == FORWARD {
        follow_client::<F>(entry, key, flags)
    } else {
        follow_server::<F>(entry, flags)
    }
}

#[inline(always)]
fn follow_client<F: Family>(entry: Entry<F>, key: &Key<F>, flags: u8) -> Follow {
    let life = life_of::<F>(entry).load();
    let state = state(life);
    if state & DEAD != 0 {
        return Follow::Dying;
    }
    if state & ESTABLISHED != 0 && flags & (SYN | FIN | RST) == 0 {
        return Follow::Forward;
    }
    if flags & (SYN | ACK) == SYN {
        if !is_closed(state) {
            // A retransmission keeps its translation. So does a SYN on a connection that we
            // take for established: the backend's challenge tells the client what to do.
            return Follow::Forward;
        }
        return if claim::<F>(entry, life) {
            remove::<F>(entry, key);
            Follow::Reopen
        } else {
            Follow::Dying
        };
    }
    let mut seen = 0;
    if flags & RST != 0 {
        seen |= RESET;
    }
    if flags & FIN != 0 {
        seen |= CLIENT_FIN;
    }
    if flags & ACK != 0 && state & SYN_ACK != 0 {
        seen |= ESTABLISHED;
    }
    change::<F>(entry, seen);
    Follow::Forward
}

#[inline(always)]
fn follow_server<F: Family>(entry: Entry<F>, flags: u8) -> Follow {
    let mut seen = 0;
    if flags & RST != 0 {
        seen |= RESET;
    }
    if flags & FIN != 0 {
        seen |= SERVER_FIN;
    }
    if flags & (SYN | ACK) == SYN | ACK {
        seen |= SYN_ACK;
    }
    if seen != 0 {
        // SAFETY: readable as in `follow`; the translation never changes.
        let owner = unsafe { (*entry).to.pair_key() };
        match F::flows().get_ptr_mut(owner) {
            Some(owner) => change::<F>(owner, seen),
            None => return Follow::Dying,
        }
    }
    Follow::Forward
}

/// Opens a connection to the backend `number`: allocates its translation and inserts both entries.
#[inline(never)]
pub fn open<F: Family>(
    key: &Key<F>,
    service: &Service,
    number: u16,
    client_hop: u32,
) -> Result<(), Verdict> {
    let backend = F::backends()
        .get(number.into())
        .ok_or(Verdict::DropInternal)?;
    let settings = maps::SETTINGS.get(0).ok_or(Verdict::DropInternal)?;
    // SAFETY: a helper without preconditions.
    let life = born(unsafe { bpf_ktime_get_ns() });
    make_room::<F>(key, life, settings)?;

    let mut flow = Flow {
        life,
        last_seen: created(life),
        direction: REVERSE,
        to: Translation {
            hop: client_hop,
            backend: number,
            service: service.id as u16,
            ..Default::default()
        },
    };
    let reverse = allocate::<F>(key, backend, settings, &mut flow)?;
    flow.direction = FORWARD;
    // A backend's next hop has the backend's number.
    flow.to.hop = number.into();
    flow.to.set(key, &reverse.answer());
    match F::flows().insert(key, flow, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            count::<F>(number);
            Ok(())
        }
        Err(error) => {
            let _ = F::flows().remove(reverse);
            // Another processor may have been faster with the same SYN; its flow is as good.
            if error == EEXIST {
                Ok(())
            } else {
                Err(Verdict::DropTableFull)
            }
        }
    }
}

/// Ends the connection of `key` if it is expired by the rule in `lb_common::flow`. Returns whether
/// it did.
#[inline(always)]
pub fn reap<F: Family>(key: &Key<F>) -> bool {
    let Some(entry) = F::flows().get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: readable after a lookup in this run; these fields never change, or, `last_seen`,
    // change in one store.
    let (direction, client_seen, to) =
        unsafe { ((*entry).direction, (*entry).last_seen, &(*entry).to) };
    if direction != FORWARD {
        return false;
    }
    let life_then = life_of::<F>(entry).load();
    let server_seen = match F::flows().get_ptr(to.pair_key()) {
        // SAFETY: as above.
        Some(pair) => unsafe { (*pair).last_seen },
        None => client_seen,
    };
    let Some(timeouts) = maps::TIMEOUTS.get(to.service.into()) else {
        return false;
    };
    let now = now();
    let expired = is_expired(
        state(life_then),
        age(now, created(life_then)),
        age(now, client_seen),
        age(now, server_seen),
        timeouts,
    );
    if expired && state(life_then) & DEAD == 0 && claim::<F>(entry, life_then) {
        remove::<F>(entry, key);
        return true;
    }
    false
}

/// Enters a new connection in the ring of half-open ones, and ends the one whose place it takes if
/// that is still half open: so a flood of SYNs evicts the oldest of its own kind and nothing else.
#[inline(always)]
fn make_room<F: Family>(key: &Key<F>, life: u64, settings: &Settings) -> Result<(), Verdict> {
    let table = maps::TABLES
        .get_ptr_mut(F::TABLE)
        .ok_or(Verdict::DropInternal)?;
    // SAFETY: live elements of an array map; only ever accessed atomically.
    let (ring, evicted) = unsafe {
        (
            Word::new(&raw mut (*table).ring),
            Word::new(&raw mut (*table).evicted),
        )
    };
    let position = ring.add(1) as u32 & settings.half_open.wrapping_sub(1);
    let place = F::half_open()
        .get_ptr_mut(position)
        .ok_or(Verdict::DropInternal)?;
    // SAFETY: a live element of an array map; a position belongs to one processor until the ring
    // has gone round.
    let old = unsafe { core::ptr::read(place) };
    if old.born != 0 {
        let old_key = FlowKey {
            src: old.src,
            dst: old.dst,
            sport: old.sport,
            dport: old.dport,
        };
        if let Some(entry) = F::flows().get_ptr_mut(old_key) {
            let old_life = life_of::<F>(entry).load();
            if born(old_life) == old.born
                && state(old_life) & DEAD == 0
                && is_half_open(state(old_life))
                && claim::<F>(entry, old_life)
            {
                remove::<F>(entry, &old_key);
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

/// Finds a free translation towards a backend, inserts the reverse entry for it and returns its
/// key. Ports are taken in turn, the one unused for longest first, over all source addresses.
#[inline(always)]
fn allocate<F: Family>(
    key: &Key<F>,
    backend: &Backend<F::Address>,
    settings: &Settings,
    flow: &mut Flow<F::Address>,
) -> Result<Key<F>, Verdict> {
    let state = maps::BACKEND_STATE.get_ptr_mut(flow.to.backend.into());
    let state = state.ok_or(Verdict::DropInternal)?;
    let (ports, sources) = (
        u64::from(settings.port_count),
        u64::from(backend.source_count),
    );
    if ports == 0 || sources == 0 {
        return Err(Verdict::DropInternal);
    }
    // SAFETY: a live element of an array map; only ever accessed atomically.
    let cursor = unsafe { Word::new(&raw mut (*state).cursor) };
    let answer = key.answer();
    let mut reverse = FlowKey {
        src: backend.address,
        dst: key.dst,
        sport: backend.port,
        dport: key.dport,
    };
    let mut turn = cursor.add(1);
    for _ in 0..PORT_ATTEMPTS {
        let port = settings.port_first + (turn % ports) as u32;
        let source = turn / ports % sources;
        // The mask tells the verifier what the daemon guarantees.
        reverse.dst = backend.sources[source as usize & (MAX_SOURCES - 1)];
        reverse.dport = Port::new(port as u16);
        flow.to.set(&reverse, &answer);
        match F::flows().insert(reverse, &*flow, u64::from(BPF_NOEXIST)) {
            Ok(()) => return Ok(reverse),
            // A connection that only lingers gives its port up.
            Err(EEXIST) if evict_closed::<F>(&reverse) => {}
            Err(EEXIST) => turn = cursor.add(1),
            Err(_) => return Err(Verdict::DropTableFull),
        }
    }
    Err(Verdict::DropNoPort)
}

/// Removes the connection with the reverse key `key` if it is closed; true if the key is free now.
#[inline(always)]
fn evict_closed<F: Family>(key: &Key<F>) -> bool {
    let Some(pair) = F::flows().get_ptr(key) else {
        return true;
    };
    // SAFETY: readable after a lookup in this run; the translation never changes.
    let owner = unsafe { (*pair).to.pair_key() };
    let Some(entry) = F::flows().get_ptr_mut(owner) else {
        return false;
    };
    let life = life_of::<F>(entry).load();
    let gone = state(life) & DEAD == 0 && is_closed(state(life)) && claim::<F>(entry, life);
    if gone {
        remove::<F>(entry, &owner);
    }
    gone
}

/// Sets state bits in the owner's life word and settles what follows from it.
#[inline(always)]
fn change<F: Family>(owner: Entry<F>, seen: u8) {
    let word = life_of::<F>(owner);
    for _ in 0..CHANGE_ATTEMPTS {
        let before = word.load();
        let after = before | u64::from(seen);
        if after == before || state(before) & DEAD != 0 {
            return;
        }
        if word.replace(before, after) {
            settle::<F>(
                owner,
                state(before),
                is_half_open(state(after)),
                is_closed(state(after)),
            );
            return;
        }
    }
}

/// Takes a connection for removal: true for exactly one caller, and only if its life word is still
/// `life`.
#[inline(always)]
fn claim<F: Family>(owner: Entry<F>, before: u64) -> bool {
    let after = before | u64::from(DEAD);
    if !life_of::<F>(owner).replace(before, after) {
        return false;
    }
    settle::<F>(owner, state(before), false, true);
    true
}

/// Removes both entries of a claimed connection.
#[inline(always)]
fn remove<F: Family>(owner: Entry<F>, key: &Key<F>) {
    // SAFETY: readable after a lookup in this run, and not reused before it is removed below.
    let pair = unsafe { (*owner).to.pair_key() };
    let _ = F::flows().remove(pair);
    let _ = F::flows().remove(key);
    if let Some(table) = maps::TABLES.get_ptr_mut(F::TABLE) {
        // SAFETY: a live element of an array map; only ever accessed atomically.
        unsafe { Word::new(&raw mut (*table).connections) }.decrement();
    }
}

/// Lowers the counts that a connection leaves by its change from the state `before`.
#[inline(always)]
fn settle<F: Family>(owner: Entry<F>, before: u8, half_open: bool, closed: bool) {
    if is_half_open(before)
        && !half_open
        && let Some(table) = maps::TABLES.get_ptr_mut(F::TABLE)
    {
        // SAFETY: a live element of an array map; only ever accessed atomically.
        unsafe { Word::new(&raw mut (*table).half_open) }.decrement();
    }
    // SAFETY: readable after a lookup in this run; the translation never changes.
    let backend = unsafe { (*owner).to.backend };
    if !is_closed(before)
        && closed
        && let Some(state) = maps::BACKEND_STATE.get_ptr_mut(backend.into())
    {
        // SAFETY: as above.
        unsafe { Word::new(&raw mut (*state).active) }.decrement();
    }
}

/// Raises the counts that a new connection enters.
#[inline(always)]
fn count<F: Family>(backend: u16) {
    if let Some(table) = maps::TABLES.get_ptr_mut(F::TABLE) {
        // SAFETY: live elements of an array map; only ever accessed atomically.
        unsafe {
            Word::new(&raw mut (*table).connections).add(1);
            Word::new(&raw mut (*table).half_open).add(1);
        }
    }
    if let Some(state) = maps::BACKEND_STATE.get_ptr_mut(backend.into()) {
        // SAFETY: as above.
        unsafe { Word::new(&raw mut (*state).active) }.add(1);
    }
    if let Some(stats) = maps::BACKEND_STATS.get_ptr_mut(backend.into()) {
        // SAFETY: this processor's own copy.
        unsafe { (*stats).connections += 1 };
    }
}

#[inline(always)]
fn life_of<F: Family>(entry: Entry<F>) -> Word {
    // SAFETY: readable after a lookup in this run of the program, which is as long as the result
    // is used; only ever accessed atomically.
    unsafe { Word::new(&raw mut (*entry).life) }
}

/// The time in ticks, as exact as the timer tick: idle times need no more.
#[inline(always)]
fn now() -> u32 {
    // SAFETY: a helper without preconditions.
    ticks(unsafe { bpf_ktime_get_coarse_ns() })
}
