//! Connections of the peer's: entering them into the flow table as if they had been opened here, and
//! ending those that are no more.
//!
//! An adopted connection has no way back to its client yet, or one that the daemon looked up. The first
//! packet of the client that comes by shows the way ([`learn`]). What happens here is not reported: it
//! is the peer who said so.

use core::mem::offset_of;

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::XdpContext};
use lb_common::{
    addr::{Address as _, V4, V6},
    flow::{
        ADOPT_ABSENT, ADOPT_CONFLICT, ADOPT_ENDED, ADOPT_FAILED, ADOPT_FULL, ADOPT_KNOWN,
        ADOPT_NEW, ADOPT_OVER, ADOPTED, Adoption, CLIENT_FIN, DEAD, ESTABLISHED, FORGET, Flow,
        LEAD_BACK, NO_HOP, NO_PAIR, RELEASED, RESET, SERVER_FIN, SYN_ACK, born, is_closed, renewal,
        state,
    },
    maps::{ADOPT_HEADER, MAX_BACKENDS},
    verdict::Verdict,
};

use crate::{
    admission,
    atomic::{Half, fence},
    flow::{now, remove, set},
    forward,
    maps::{self, Family},
    open::{ADOPTING, EXISTS, FOUND, Opening, count, insert_forward, insert_reverse},
    packet::Packet,
    table::{self, Entry, Found, entry, life_of},
};

type Record<F> = Adoption<<F as Family>::Address>;

/// State bits of a connection that one side has closed, or both.
const CLOSING: u8 = CLIENT_FIN | SERVER_FIN | RESET;
/// State bits that a connection can have for the peer.
const STATES: u8 = SYN_ACK | ESTABLISHED | CLOSING;

/// Where the record with this number begins in the input.
#[inline(always)]
pub fn at<F: Family>(number: usize) -> usize {
    ADOPT_HEADER + number * size_of::<Record<F>>()
}

/// Takes the record at `offset` for the next to be decided on; false if there is none.
#[inline(always)]
pub fn read<F: Family>(ctx: &XdpContext, offset: usize) -> bool {
    let Some(opening) = adopting::<F>() else { return false };
    let Some(record) = Packet::new(ctx).at::<Record<F>>(offset) else { return false };
    // SAFETY: a helper without preconditions.
    opening.life = born(unsafe { bpf_ktime_get_ns() });
    opening.key = record.key;
    opening.reverse = record.reverse;
    opening.entry = NO_PAIR;
    opening.timestamp = record.timestamp;
    opening.client_hop = record.hop;
    opening.backend = record.backend;
    opening.service = record.service;
    opening.flags = ADOPTED;
    opening.state = state_here(record.state);
    opening.order = record.order;
    true
}

/// The state bits of a connection that has these at the peer. One whose SYN-ACK the peer holds back is
/// half open here too. It has no place in the ring: the peer has bounds to these, and says what is over.
/// The others are established, whatever the record says.
#[inline(always)]
const fn state_here(state: u8) -> u8 {
    if state & (RELEASED | ESTABLISHED | CLOSING) == RELEASED {
        SYN_ACK | RELEASED
    } else {
        state & STATES | SYN_ACK | ESTABLISHED
    }
}

/// Writes what became of the record.
#[inline(always)]
pub fn write<F: Family>(ctx: &XdpContext, offset: usize, outcome: u8) {
    let Some(opening) = adopting::<F>() else { return };
    let Some(record) = Packet::new(ctx).at::<Record<F>>(offset) else { return };
    record.place = opening.entry;
    record.order = outcome;
}

/// The connection that the record is about.
#[inline(always)]
fn adopting<F: Family>() -> Option<&'static mut Opening<F::Address>> {
    let opening = F::opening().get_ptr_mut(ADOPTING)?;
    // SAFETY: this processor's own copy, and that of the one thread of the daemon that runs this.
    Some(unsafe { &mut *opening })
}

/// Does with the connection that was read last what its record says. Returns the outcome.
#[inline(never)]
pub fn decide<F: Family>() -> u8 {
    let Some(opening) = adopting::<F>() else { return ADOPT_FAILED };
    if let Some(entry) = table::find_apart::<F>(&opening.key) {
        let found = Found::<F>::at(entry.as_ptr());
        if is_same::<F>(&found, opening) {
            if opening.order == FORGET {
                return if end::<F>(&found) { ADOPT_ENDED } else { ADOPT_ABSENT };
            }
            if opening.order == LEAD_BACK {
                show_way::<F>(&found, opening);
                return ADOPT_KNOWN;
            }
            // One that is closed here and not there is a later one of the same tuple, if the peer is
            // to be believed.
            let is_later = opening.order == ADOPT_OVER
                && is_closed(state(found.life))
                && !is_closed(opening.state);
            if !is_later {
                update::<F>(&found, opening);
                return ADOPT_KNOWN;
            }
        }
        if is_to_enter(opening.order) && !make_way::<F>(&found, opening.order) {
            return ADOPT_CONFLICT;
        }
    }
    if !is_to_enter(opening.order) {
        return ADOPT_ABSENT;
    }
    if let Some(entry) = table::find_apart::<F>(&opening.reverse)
        && !make_way::<F>(&Found::at(entry.as_ptr()), opening.order)
    {
        return ADOPT_CONFLICT;
    }
    enter::<F>(opening)
}

/// Whether an order is about a connection that may not be here yet.
#[inline(always)]
const fn is_to_enter(order: u8) -> bool {
    order != FORGET && order != LEAD_BACK
}

/// Whether an entry is the forward one of the connection being adopted.
#[inline(always)]
fn is_same<F: Family>(found: &Found<F>, opening: &Opening<F::Address>) -> bool {
    // SAFETY: an element of an array map; whether it all was the connection's is asked in the end.
    let entry = unsafe { &*found.entry };
    let is_forward = entry.is_forward();
    let to = &entry.to;
    let is_same = to.dst.difference(opening.reverse.src) | to.src.difference(opening.reverse.dst)
        == 0
        && to.dport == opening.reverse.sport
        && to.sport == opening.reverse.dport;
    is_forward && is_same && state(found.life) & DEAD == 0 && found.is_still()
}

/// Sets the way back to the client of the connection with this forward entry, if that was found by the
/// daemon. Returns its reverse entry.
#[inline(always)]
fn show_way<F: Family>(found: &Found<F>, opening: &mut Opening<F::Address>) -> Option<Entry<F>> {
    // SAFETY: elements of an array map.
    let (flags, pair) = unsafe { ((*found.entry).flags, entry::<F>((*found.entry).pair)?) };
    // SAFETY: as above.
    opening.entry = unsafe { (*pair).pair };
    if flags & ADOPTED != 0 && opening.client_hop != NO_HOP {
        lead_back::<F>(pair, found.life, opening.client_hop);
    }
    Some(pair)
}

/// Brings an entry up to date that is the connection's.
#[inline(always)]
fn update<F: Family>(found: &Found<F>, opening: &mut Opening<F::Address>) {
    let owner = found.entry;
    let Some(pair) = show_way(found, opening) else { return };
    // SAFETY: elements of an array map. Nothing is stored that a later connection in the same place
    // could not bear.
    unsafe {
        let changed = state(set::<F>(owner, born(found.life), opening.state)) & DEAD == 0;
        if changed && opening.state & CLOSING != 0 {
            // What is left of it is timed exactly, and from now on.
            (*owner).renew = 0;
            (*owner).last_seen = now();
            (*pair).renew = 0;
            (*pair).last_seen = now();
        }
    }
}

/// Ends the connection that an entry belongs to, if that is closed or the peer knows better. Returns
/// whether the entry is out of the way.
#[inline(never)]
fn make_way<F: Family>(found: &Found<F>, order: u8) -> bool {
    // SAFETY: elements of an array map; that the two belong together is asked next.
    let (is_forward, pair) = unsafe { ((*found.entry).is_forward(), (*found.entry).pair) };
    let owner = if is_forward { Some(found.entry) } else { entry::<F>(pair) };
    let Some(owner) = owner else { return false };
    let owner = Found::<F>::at(owner);
    born(owner.life) == born(found.life)
        && (order == ADOPT_OVER || is_closed(state(owner.life)))
        && end::<F>(&owner)
}

/// Ends a connection, given its forward entry, and tells nobody. Returns whether it did.
#[inline(always)]
fn end<F: Family>(owner: &Found<F>) -> bool {
    let before = set::<F>(owner.entry, born(owner.life), DEAD);
    state(before) & DEAD == 0 && remove::<F>(owner.entry, before | u64::from(DEAD))
}

/// Inserts both entries of the connection being adopted. Returns the outcome.
#[inline(always)]
fn enter<F: Family>(opening: &mut Opening<F::Address>) -> u8 {
    let Some(settings) = maps::SETTINGS.get(0) else { return ADOPT_FAILED };
    let Some(terms) = maps::TERMS.get(opening.service.into()) else { return ADOPT_FAILED };
    let (backend, state) = (opening.backend, opening.state);
    let service = u32::from(opening.service);
    if u32::from(backend) >= MAX_BACKENDS {
        return ADOPT_FAILED;
    }
    opening.renew = if state & CLOSING == 0 { renewal(terms) } else { 0 };
    // Before the connection can be found: whoever ends it lowers the counts.
    if count::<F>(state, 1) >= u64::from(settings.connections) {
        count::<F>(state, u64::MAX);
        return ADOPT_FULL;
    }
    if !is_closed(state) {
        admission::enter(service, backend.into());
    }
    let code = match insert_reverse::<F>(ADOPTING) {
        FOUND => insert_forward::<F>(ADOPTING),
        code => code,
    };
    if code == FOUND {
        return ADOPT_NEW;
    }
    count::<F>(state, u64::MAX);
    if !is_closed(state) {
        admission::leave(service, backend.into());
    }
    if code == EXISTS {
        ADOPT_CONFLICT
    } else if code == Verdict::DropTableFull as u32 {
        ADOPT_FULL
    } else {
        ADOPT_FAILED
    }
}

/// Has what comes from the backend of an adopted connection go where its client's packet came from.
/// `owner` is its forward entry. Where there is no room for that way, the next packet tries again.
///
/// Two processors may be at it, or one be so late that another connection is in this place. So the
/// words that hop and flag are in are replaced as a whole, if they are what they were: the other
/// halves, and the rest of the flags, are not touched whatever has become of them meanwhile. Were the
/// hop of a later connection with the same one taken for the earlier's, that would still be adopted,
/// and learn its own.
#[inline(never)]
pub fn learn<F: Family>(ctx: &XdpContext, owner: Entry<F>, life: u64) {
    let Ok(hop) = forward::client_hop(&Packet::new(ctx)) else { return };
    // SAFETY: an element of an array map.
    let Some(pair) = entry::<F>(unsafe { (*owner).pair }) else { return };
    if !lead_back::<F>(pair, life, hop as u16) {
        return;
    }
    // SAFETY: an element of an array map, and an aligned word of it: that of service and flags.
    let word = unsafe { Half::new((&raw mut (*owner).service).cast()) };
    replace_half::<F>(word, owner, life, halves(0, ADOPTED), 0);
}

/// Sets the next hop of a reverse entry, if it still is that of the connection with the life word
/// `life`. Returns whether it did.
#[inline(always)]
fn lead_back<F: Family>(reverse: Entry<F>, life: u64, hop: u16) -> bool {
    // SAFETY: an element of an array map, and an aligned word of it: that of hop and backend.
    let word = unsafe { Half::new((&raw mut (*reverse).hop).cast()) };
    replace_half::<F>(word, reverse, life, halves(u16::MAX, 0), halves(hop, 0))
}

/// Sets the bits `mask` of a word of an entry to `bits`, if that still is the connection's and no other
/// processor changes the word. Returns whether it did.
#[inline(always)]
fn replace_half<F: Family>(word: Half, of: Entry<F>, life: u64, mask: u32, bits: u32) -> bool {
    let before = word.load();
    fence();
    born(life_of::<F>(of).load()) == born(life) && word.replace(before, before & !mask | bits)
}

/// Two fields that are next to each other as one word.
const fn halves(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Fields that are replaced together: a word each.
const _: () = {
    assert!(offset_of!(Flow<V4>, hop) % 4 == 0 && offset_of!(Flow<V6>, hop) % 4 == 0);
    assert!(offset_of!(Flow<V4>, backend) == offset_of!(Flow<V4>, hop) + 2);
    assert!(offset_of!(Flow<V4>, service) == offset_of!(Flow<V4>, hop) + 4);
    assert!(offset_of!(Flow<V4>, flags) == offset_of!(Flow<V4>, hop) + 6);
};
