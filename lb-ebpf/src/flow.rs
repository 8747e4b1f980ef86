//! The life of a connection: following its segments, and ending it.
//!
//! Whoever changes a connection's life word by compare-and-exchange also settles the counts that
//! depend on that change, so each is settled exactly once however many processors are at it.

use aya_ebpf::{helpers::bpf_ktime_get_coarse_ns, programs::XdpContext};
use lb_common::{
    flow::{
        CHANGE_CLOSED, CHANGE_ESTABLISHED, CHANGE_GONE, CHANGE_HALF_CLOSED, CHANGE_SILENT,
        CLIENT_FIN, DEAD, ESTABLISHED, Flow, RESET, SERVER_FIN, SYN_ACK, Silence, age, born,
        created, heard, heard_group, is_closed, is_expired, is_half_open, is_told, is_unanswered,
        state, ticks,
    },
    maps::{REAP_ANYWAY, REAP_STUCK},
};

use crate::{
    admission,
    atomic::{Word, fence},
    handshake,
    hold::hold,
    maps::{self, Family},
    packet::{ACK, FIN, Packet, RST, SYN},
    report::report,
    table::{self, Entry, Found, entry, free, life_of},
};

/// How often a life word is tried to be changed against other processors doing the same.
const CHANGE_ATTEMPTS: u32 = 8;
/// How old a reverse entry is at least before it is taken for left alone: those of a connection are
/// inserted one after the other.
const ORPHAN: u32 = ticks(1_000_000_000);

/// What to do with a segment that has an entry.
pub enum Follow {
    /// Translate it and send it on.
    Forward,
    /// It is a backend's answer to a SYN, and has to wait.
    Held,
    /// It is a SYN, and its connection is over and now removed: open a new one.
    Reopen,
    /// Its connection is just being removed by another processor.
    Dying,
}

/// Takes a segment with the TCP flags `flags` into account. `INJECTED` says whether it was held back.
#[inline(always)]
pub fn follow<F: Family, const INJECTED: bool>(
    packet: &Packet<'_>,
    found: &Found<F>,
    flags: u8,
) -> Follow {
    let now = now();
    let &Found { entry, life } = found;
    // SAFETY: an element of an array map. A racing store of `last_seen` stores nearly the same
    // time, and nothing is stored that a later connection in the same place could not bear.
    unsafe {
        let is_change = flags & (SYN | FIN | RST) != 0;
        if is_change || age(now, (*entry).last_seen) > (*entry).renew {
            (*entry).last_seen = now;
        }
        if flags & (FIN | RST) != 0 {
            (*entry).renew = 0;
            // The other side's time, which may have been due to be renewed, begins anew; but not
            // again when this one repeats itself.
            if let Some(pair) = table::entry::<F>((*entry).pair)
                && (*pair).renew != 0
            {
                (*pair).renew = 0;
                (*pair).last_seen = now;
            }
        }
    }
    // SAFETY: as above; the direction of a connection's entry never changes.
    if unsafe { (*entry).is_forward() } {
        follow_client::<F>(entry, life, flags)
    } else {
        follow_server::<F, INJECTED>(packet, entry, life, flags)
    }
}

#[inline(always)]
fn follow_client<F: Family>(entry: Entry<F>, life: u64, flags: u8) -> Follow {
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
        return if end::<F>(entry, life, CHANGE_GONE) { Follow::Reopen } else { Follow::Dying };
    }
    let mut seen = 0;
    if flags & RST != 0 {
        seen |= RESET;
    }
    if flags & FIN != 0 {
        seen |= CLIENT_FIN;
    }
    if flags & (ACK | RST) == ACK && state & SYN_ACK != 0 {
        seen |= ESTABLISHED;
    }
    change::<F>(entry, born(life), seen);
    Follow::Forward
}

#[inline(always)]
fn follow_server<F: Family, const INJECTED: bool>(
    packet: &Packet<'_>,
    reverse: Entry<F>,
    life: u64,
    flags: u8,
) -> Follow {
    if flags & (SYN | FIN | RST) == 0 {
        return Follow::Forward;
    }
    match answer::<F, INJECTED>(packet.ctx, reverse, life, flags) {
        ON => Follow::Forward,
        HELD_BACK => Follow::Held,
        _ => Follow::Dying,
    }
}

/// What becomes of a backend's segment that changes its connection: it goes on, ...
const ON: u32 = 0;
/// ... or is held back, ...
const HELD_BACK: u32 = 1;
/// ... or its connection is just being removed.
const DYING: u32 = 2;

/// Takes a backend's SYN-ACK, FIN or RST into account. A function of its own, to have a stack of its own;
/// so it can return no more than a register.
#[inline(never)]
fn answer<F: Family, const INJECTED: bool>(
    ctx: &XdpContext,
    reverse: Entry<F>,
    life: u64,
    flags: u8,
) -> u32 {
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
    // SAFETY: an element of an array map; set once, before the client's SYN is sent on.
    let Some(owner) = entry::<F>(unsafe { (*reverse).pair }) else { return DYING };
    if seen != 0 && is_unanswered(change::<F>(owner, born(life), seen)) {
        // SAFETY: an element of an array map, whose connection was there a moment ago.
        let (service, backend) = unsafe { ((*reverse).service, (*reverse).backend) };
        // Who refuses a SYN acknowledges it (RFC 9293, section 3.10.7.1). A RST without that answers an
        // ACK, which anybody can send after a SYN that the backend has dropped for its checksum.
        if flags & (RST | ACK) == RST | ACK {
            handshake::refused(service, backend);
        } else if seen & SYN_ACK != 0 {
            handshake::answered(backend);
        }
    }
    if seen & SYN_ACK != 0 && hold::<F, INJECTED>(ctx, reverse, life) { HELD_BACK } else { ON }
}

/// Ends the connection whose forward entry is at the place `number`, if it is expired by the rule in
/// `lb_common::flow` or is to be ended anyway, and removes a reverse entry that is left alone. Returns
/// whether it did.
#[inline(always)]
pub fn reap<F: Family>(number: u32) -> bool {
    let now = now_ns();
    let Some(this) = entry::<F>(number & !(REAP_STUCK | REAP_ANYWAY)) else { return false };
    let now_ticks = ticks(now);
    let life = life_of::<F>(this).load();
    if born(life) == 0 {
        return false;
    }
    fence();
    // SAFETY: elements of an array map. What was read is the connection's own if its life word
    // still is what it was, which whoever removes it makes sure of.
    unsafe {
        let pair = entry::<F>((*this).pair).filter(|pair| is_pair::<F>(*pair, life));
        if !(*this).is_forward() {
            let is_alone = pair.is_none() && age(now_ticks, created(life)) > ORPHAN;
            return is_alone && free::<F>(this, life);
        }
        if state(life) & DEAD != 0 {
            // Who was at it is not coming back, or is just done: one of the two frees the place.
            return number & REAP_STUCK != 0 && remove::<F>(this, life);
        }
        let client = silence(&*this, now_ticks);
        let server = pair.map_or(client, |pair| silence(&*pair, now_ticks));
        let Some(terms) = maps::TERMS.get((*this).service.into()) else { return false };
        let Some(settings) = maps::SETTINGS.get(0) else { return false };
        let group = heard_group(settings, terms);
        let Some(lease) = maps::LEASES.get(group) else { return false };
        let age = age(now_ticks, created(life));
        let heard = heard(group, lease, now);
        let is_wished = number & REAP_ANYWAY != 0;
        let is_closed = is_closed(state(life));
        let what = if is_wished || is_closed { CHANGE_GONE } else { CHANGE_SILENT };
        let is_over = is_wished || is_expired(state(life), age, client, server, terms, heard);
        is_over && end::<F>(this, life, what)
    }
}

/// Whether an entry belongs to the connection with the life word `life`.
#[inline(always)]
fn is_pair<F: Family>(entry: Entry<F>, life: u64) -> bool {
    born(life_of::<F>(entry).load()) == born(life)
}

#[inline(always)]
fn silence<A>(flow: &Flow<A>, now: u32) -> Silence {
    Silence { idle: age(now, flow.last_seen), renew: flow.renew }
}

/// Sets state bits in the owner's life word, settles what follows from it, and reports what the peer
/// is to know. Returns the state bits as they were, or [`DEAD`] if nothing was changed. A function of its
/// own, to have a stack of its own.
#[inline(never)]
fn change<F: Family>(owner: Entry<F>, birth: u64, seen: u8) -> u8 {
    let before = set::<F>(owner, birth, seen);
    if state(before) & DEAD != 0 {
        return DEAD;
    }
    let after = before | u64::from(seen);
    let (before, now) = (state(before), state(after));
    if !is_told(now) {
        // One that closes before it is established is none that the peer knows of.
        if is_told(before) {
            report::<F>(owner, after, CHANGE_CLOSED);
        }
    } else if (before ^ now) & ESTABLISHED != 0 {
        report::<F>(owner, after, CHANGE_ESTABLISHED);
    } else if now & ESTABLISHED != 0 && (before ^ now) & (CLIENT_FIN | SERVER_FIN) != 0 {
        report::<F>(owner, after, CHANGE_HALF_CLOSED);
    }
    before
}

/// Sets state bits in the owner's life word and settles what follows from it, if it still is the
/// connection that was born at `birth`. Returns the word as it was, or [`DEAD`] if nothing was changed.
/// Each failed attempt means that another processor set a bit, and there are fewer bits than attempts.
#[inline(always)]
pub(crate) fn set<F: Family>(owner: Entry<F>, birth: u64, seen: u8) -> u64 {
    let word = life_of::<F>(owner);
    for _ in 0..CHANGE_ATTEMPTS {
        let before = word.load();
        let after = before | u64::from(seen);
        if after == before || born(before) != birth || state(before) & DEAD != 0 {
            break;
        }
        if replace::<F>(owner, before, after) {
            return before;
        }
    }
    DEAD.into()
}

/// Changes the owner's life word, if it still is `before`, and lowers the counts that its connection
/// leaves by that. Returns whether it did.
#[inline(always)]
fn replace<F: Family>(owner: Entry<F>, before: u64, after: u64) -> bool {
    // Before the change: after it, another processor may remove the connection.
    // SAFETY: an element of an array map; the connection's own if the change succeeds.
    let (service, backend) = unsafe { ((*owner).service, (*owner).backend) };
    fence();
    if !life_of::<F>(owner).replace(before, after) {
        return false;
    }
    let (before, after) = (state(before), state(after));
    let is_dead = after & DEAD != 0;
    if is_half_open(before)
        && (is_dead || !is_half_open(after))
        && let Some(table) = maps::TABLES.get_ptr_mut(F::TABLE)
    {
        // SAFETY: a live element of an array map; only ever accessed atomically.
        unsafe { Word::new(&raw mut (*table).half_open) }.decrement();
    }
    if !is_closed(before) && (is_dead || is_closed(after)) {
        admission::leave(service.into(), backend.into());
    }
    true
}

/// Takes a connection and removes it: true for exactly one caller, and only if its life word still
/// is `before`. Reported as `what` if the connection is one that the peer has open. A function of its own,
/// to have a stack of its own.
#[inline(never)]
pub(crate) fn end<F: Family>(owner: Entry<F>, before: u64, what: u32) -> bool {
    let after = before | u64::from(DEAD);
    replace::<F>(owner, before, after) && {
        if is_told(state(before)) {
            // While the entries still are there.
            report::<F>(owner, after, what);
        }
        if is_unanswered(state(before)) {
            // SAFETY: an element of an array map, and the connection's own until it is removed.
            let (service, backend) = unsafe { ((*owner).service, (*owner).backend) };
            handshake::unanswered(service, backend, before);
        }
        remove::<F>(owner, after);
        true
    }
}

/// Removes both entries of a connection that is dead by its life word. Returns whether it was there.
#[inline(always)]
pub(crate) fn remove<F: Family>(owner: Entry<F>, life: u64) -> bool {
    // SAFETY: an element of an array map; the connection's own if its place can be freed.
    if let Some(pair) = entry::<F>(unsafe { (*owner).pair }) {
        free::<F>(pair, born(life));
    }
    let freed = free::<F>(owner, life);
    if freed && let Some(table) = maps::TABLES.get_ptr_mut(F::TABLE) {
        // SAFETY: a live element of an array map; only ever accessed atomically.
        unsafe { Word::new(&raw mut (*table).connections) }.decrement();
    }
    freed
}

/// The time in ticks, as exact as the timer tick: idle times need no more.
#[inline(always)]
pub(crate) fn now() -> u32 {
    ticks(now_ns())
}

/// The same in nanoseconds (monotonic clock).
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}
