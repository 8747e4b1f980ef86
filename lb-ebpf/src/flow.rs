//! The life of a connection: following its segments, and ending it.
//!
//! Whoever changes a connection's life word by compare-and-exchange also settles the counts that
//! depend on that change, so each is settled exactly once however many processors are at it.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use lb_common::flow::{
    CLIENT_FIN, DEAD, ESTABLISHED, FORWARD, Flow, FlowKey, RESET, SERVER_FIN, SYN_ACK, Silence,
    age, born, created, is_closed, is_expired, is_half_open, state, ticks,
};

use crate::{
    atomic::Word,
    maps::{self, Family},
    packet::{ACK, FIN, RST, SYN},
};

pub(crate) type Entry<F> = *mut Flow<<F as Family>::Address>;
pub(crate) type Key<F> = FlowKey<<F as Family>::Address>;

/// How often a life word is tried to be changed against other processors doing the same.
const CHANGE_ATTEMPTS: u32 = 8;

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
        let is_change = flags & (SYN | FIN | RST) != 0;
        if is_change || age(now, (*entry).last_seen) > (*entry).renew {
            (*entry).last_seen = now;
        }
        if flags & (FIN | RST) != 0 {
            (*entry).renew = 0;
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
        return if end::<F>(entry, life, key) { Follow::Reopen } else { Follow::Dying };
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
    change::<F>(entry, born(life), seen);
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
        let (owner, birth) = unsafe { ((*entry).to.pair_key(), born((*entry).life)) };
        match F::flows().get_ptr_mut(owner) {
            Some(owner) => change::<F>(owner, birth, seen),
            None => return Follow::Dying,
        }
    }
    Follow::Forward
}

/// Ends the connection of `key` if it is expired by the rule in `lb_common::flow`. Returns whether
/// it did.
#[inline(always)]
pub fn reap<F: Family>(key: &Key<F>) -> bool {
    let now = now();
    let Some(entry) = F::flows().get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: readable after a lookup in this run; these fields never change, or, `last_seen`,
    // change in one store.
    let (direction, client, to) =
        unsafe { ((*entry).direction, silence(&*entry, now), &(*entry).to) };
    if direction != FORWARD {
        return false;
    }
    let life_then = life_of::<F>(entry).load();
    let server = match F::flows().get_ptr(to.pair_key()) {
        // SAFETY: as above.
        Some(pair) => unsafe { silence(&*pair, now) },
        None => client,
    };
    let Some(timeouts) = maps::TIMEOUTS.get(to.service.into()) else {
        return false;
    };
    let age = age(now, created(life_then));
    let expired = is_expired(state(life_then), age, client, server, timeouts);
    expired && state(life_then) & DEAD == 0 && end::<F>(entry, life_then, key)
}

#[inline(always)]
fn silence<A>(flow: &Flow<A>, now: u32) -> Silence {
    Silence { idle: age(now, flow.last_seen), renew: flow.renew }
}

/// Sets state bits in the owner's life word and settles what follows from it, if it still is the
/// connection that was born at `birth`. Each failed attempt means that another processor set a bit,
/// and there are fewer bits than attempts.
#[inline(always)]
fn change<F: Family>(owner: Entry<F>, birth: u64, seen: u8) {
    let word = life_of::<F>(owner);
    for _ in 0..CHANGE_ATTEMPTS {
        let before = word.load();
        let after = before | u64::from(seen);
        if after == before || born(before) != birth || state(before) & DEAD != 0 {
            return;
        }
        if word.replace(before, after) {
            settle::<F>(owner, state(before), is_half_open(state(after)), is_closed(state(after)));
            return;
        }
    }
}

/// Takes a connection for removal: true for exactly one caller, and only if its life word is still
/// `life`.
#[inline(always)]
pub(crate) fn claim<F: Family>(owner: Entry<F>, before: u64) -> bool {
    let after = before | u64::from(DEAD);
    if !life_of::<F>(owner).replace(before, after) {
        return false;
    }
    settle::<F>(owner, state(before), false, true);
    true
}

/// Takes a connection and removes it. A function of its own, to have a stack of its own.
#[inline(never)]
pub(crate) fn end<F: Family>(owner: Entry<F>, before: u64, key: &Key<F>) -> bool {
    // SAFETY: readable after a lookup in this run; the translation never changes.
    let pair = unsafe { (*owner).to.pair_key() };
    let claimed = claim::<F>(owner, before);
    if claimed {
        remove::<F>(key, &pair);
    }
    claimed
}

/// Removes both entries of a claimed connection.
#[inline(always)]
pub(crate) fn remove<F: Family>(key: &Key<F>, pair: &Key<F>) {
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

#[inline(always)]
pub(crate) fn life_of<F: Family>(entry: Entry<F>) -> Word {
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
