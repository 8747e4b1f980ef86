//! Holding a frame back: it is handed to the daemon, which injects it when what it waits for has come.
//!
//! What is held is a backend's SYN-ACK, for services that wish it, until the peer knows of the
//! connection: then no client takes one for established that would be lost with this host. Whether
//! anything is held at all is the daemon's to say (`HOLD`), time and again: while there is a peer that
//! keeps up. Where a frame cannot be held it is sent on, and counted.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_RB_AVAIL_DATA,
    helpers::{bpf_ktime_get_ns, generated::bpf_xdp_load_bytes},
    programs::XdpContext,
};
use lb_common::{
    flow::{CHANGE_ANSWERED, DEAD, ESTABLISHED, HELD, RELEASED, born, is_closed, state},
    hold::{HELD_FRAME, Held},
    maps::CHANGES_FOR_FRAMES,
};

use crate::{
    atomic::Word,
    flow::set,
    maps::{self, Family},
    packet::Packet,
    report::{WAKE_IF_DRAINED, describe},
    table::{Entry, entry, life_of},
};

/// Holds a SYN-ACK of the connection with this reverse entry and life word, if it is to be held; true
/// if it is. One that repeats itself meanwhile is not handed over twice, and after one that is
/// `INJECTED` no other has to wait.
///
/// A function of its own, to have a stack of its own.
#[inline(never)]
pub fn hold<F: Family, const INJECTED: bool>(
    ctx: &XdpContext,
    reverse: Entry<F>,
    life: u64,
) -> bool {
    if INJECTED {
        release::<F>(reverse, life);
        return false;
    }
    // SAFETY: an element of an array map; whether it all was the connection's is asked before anything
    // comes of it.
    let (service, owner) = unsafe { ((*reverse).service, (*reverse).pair) };
    let is_wished = maps::SETTINGS.get(0).is_some_and(|settings| settings.report == 1)
        && maps::TERMS.get(service.into()).is_some_and(|it| it.synchronous == 1 && it.group != 0);
    if !is_wished {
        return false;
    }
    let Some(owner) = entry::<F>(owner) else { return false };
    let word = life_of::<F>(owner).load();
    let settled = ESTABLISHED | RELEASED;
    if born(word) != born(life) || state(word) & settled != 0 || is_closed(state(word)) {
        return false;
    }
    // SAFETY: a helper without preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if !maps::HOLD.get(0).is_some_and(|hold| hold.is_in_force(born(life), now)) {
        return false;
    }
    state(word) & HELD != 0 || hand_over::<F>(ctx, owner, reverse, word) || {
        // The client is about to see it: holding another one is of no use.
        set::<F>(owner, born(life), HELD | RELEASED);
        if let Some(hold) = maps::HOLD.get_ptr_mut(0) {
            // SAFETY: a live element of an array map; this word is only ever accessed atomically.
            unsafe { Word::new(&raw mut (*hold).unheld) }.add(1);
        }
        false
    }
}

/// Those that repeat the SYN-ACK of the connection with this reverse entry need not wait any longer.
#[inline(always)]
fn release<F: Family>(reverse: Entry<F>, life: u64) {
    // SAFETY: an element of an array map; nothing is changed unless it is the connection's.
    if let Some(owner) = entry::<F>(unsafe { (*reverse).pair }) {
        set::<F>(owner, born(life), RELEASED);
    }
}

/// Hands the frame to the daemon. False if it cannot be.
#[inline(never)]
fn hand_over<F: Family>(ctx: &XdpContext, owner: Entry<F>, reverse: Entry<F>, life: u64) -> bool {
    let packet = Packet::new(ctx);
    // The sum tells the verifier the bounds of the length.
    let length = (packet.length().wrapping_sub(1) & (HELD_FRAME - 1)) + 1;
    if length != packet.length()
        || maps::CHANGES.query(BPF_RB_AVAIL_DATA.into()) > CHANGES_FOR_FRAMES.into()
    {
        return false;
    }
    let Some(mut record) = maps::CHANGES.reserve::<Held<F::Address>>(0) else { return false };
    let held = record.as_mut_ptr();
    // SAFETY: the record is ours alone until it is submitted, and all of it is written that has a
    // meaning. The entries are elements of an array map; that they are the connection's follows below
    // from its being marked.
    let read = unsafe {
        describe::<F>(
            &raw mut (*held).change,
            owner,
            reverse,
            life | u64::from(HELD),
            CHANGE_ANSWERED,
        );
        (*held).ifindex = packet.ifindex();
        (*held).length = length as u32;
        let frame = (&raw mut (*held).frame).cast();
        bpf_xdp_load_bytes(ctx.as_ptr().cast(), 0, frame, length as u32)
    };
    if read != 0 {
        record.discard(WAKE_IF_DRAINED);
        return false;
    }
    // Marked when its place in the ring buffer is taken: its end, which is reported from now on, comes
    // behind.
    if state(set::<F>(owner, born(life), HELD)) & DEAD == 0 {
        record.submit(WAKE_IF_DRAINED);
    } else {
        // Another processor was faster with the same one, or the connection is gone.
        record.discard(WAKE_IF_DRAINED);
    }
    true
}
