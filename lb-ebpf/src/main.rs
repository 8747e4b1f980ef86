//! Tandem's XDP program: full NAT of TCP connections to virtual addresses.
//!
//! A packet takes these steps, each in a room of its own:
//! parse ([`link`], [`segment`]) → flow lookup ([`flow`]) → translate ([`rewrite`]) → send ([`forward`]);
//! without a flow: [`service`] → [`select`] → [`open`] a flow, or answer with a [`reset`].
//! An ICMP error about a flow is translated as well ([`icmp`]); what the next link does not take is
//! answered by one ([`too_big`]). All access to packet memory goes through [`packet`].
//! Every step that ends a packet's way here says why by its [`Verdict`].
#![allow(missing_docs, reason = "the program's functions are documented; its macros' are not")]
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic read-modify-write: see `atomic`")]

mod atomic;
mod flow;
mod forward;
mod icmp;
mod link;
mod maps;
mod open;
mod packet;
mod reset;
mod rewrite;
mod segment;
mod select;
mod service;
mod too_big;

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    cty::c_void,
    helpers::{bpf_redirect, generated::bpf_loop},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    flow::{FORWARD, FlowKey, Translation},
    maps::{MISS_DROP, REAP_BATCH, REAP_HEADER},
    verdict::{Action, Verdict},
};

use crate::{
    flow::Follow,
    link::Link,
    maps::{Family, Inet, Inet6},
    packet::{ACK, FIN, Packet, RST, SYN},
    segment::{NoSegment, Segment},
};

/// The entry, and the only place where a verdict becomes an XDP action.
#[xdp(frags)]
pub fn tandem(ctx: XdpContext) -> u32 {
    let packet = Packet::new(&ctx);
    let outcome = steps(&packet).unwrap_or_else(Outcome::from);
    let (verdict, out) = (outcome.verdict(), outcome.out());
    if let Some(count) = maps::VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: this processor's own copy.
        unsafe { *count += 1 };
    }
    match verdict.action() {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Transmit if out == 0 || out == packet.ifindex() => XDP_TX,
        // SAFETY: a helper without preconditions; an interface that is gone drops the frame.
        Action::Transmit => unsafe { bpf_redirect(out, 0) as u32 },
    }
}

/// Ends those IPv4 connections of a list of keys that are expired; run by the daemon through
/// `BPF_PROG_TEST_RUN`. Input: `REAP_HEADER` bytes, then up to `REAP_BATCH` keys. Returns how many
/// it ended.
#[xdp]
pub fn reap_v4(ctx: XdpContext) -> u32 {
    reap::<Inet>(&ctx)
}

/// The same for IPv6.
#[xdp]
pub fn reap_v6(ctx: XdpContext) -> u32 {
    reap::<Inet6>(&ctx)
}

/// What becomes of a packet: a verdict, and the interface that a frame to be transmitted leaves by,
/// zero for the one it came in by. One word, so that a function of its own can return it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Outcome(u64);

impl Outcome {
    #[inline(always)]
    fn new(verdict: Verdict, out: u32) -> Self {
        Self(u64::from(out) << 32 | u64::from(verdict as u32))
    }

    #[inline(always)]
    fn verdict(self) -> Verdict {
        Verdict::from_index(self.0 as u32)
    }

    #[inline(always)]
    fn out(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl From<Verdict> for Outcome {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::new(verdict, 0)
    }
}

#[inline(always)]
fn steps(packet: &Packet<'_>) -> Result<Outcome, Verdict> {
    let link = Link::parse(packet)?;
    match link.ethertype {
        link::IPV4 => segment::<Inet>(packet, link),
        link::IPV6 => segment::<Inet6>(packet, link),
        _ => Err(Verdict::PassNotIp),
    }
}

#[inline(always)]
fn segment<'a, F: Family>(packet: &Packet<'a>, link: Link<'a>) -> Result<Outcome, Verdict> {
    let mut segment = match Segment::<F>::parse(packet, link) {
        Ok(segment) => segment,
        Err(NoSegment::Decided(verdict)) => return Err(verdict),
        Err(NoSegment::Icmp) => return Ok(error::<F>(packet.ctx)),
    };
    let key = segment.key();

    if let Some(entry) = F::flows().get_ptr_mut(&key) {
        match flow::follow::<F>(entry, &key, segment.tcp.flags) {
            // SAFETY: readable after a lookup in this run; these fields never change.
            Follow::Forward => unsafe {
                let verdict = if (*entry).direction == FORWARD {
                    Verdict::ForwardClient
                } else {
                    Verdict::ForwardServer
                };
                return send(packet, &mut segment, &(*entry).to, verdict);
            },
            Follow::Dying => return Err(Verdict::DropDying),
            Follow::Reopen => {}
        }
    }
    miss(packet, &key, &mut segment)
}

/// An ICMP message. A function of its own, to have a stack of its own.
#[inline(never)]
fn error<F: Family>(ctx: &XdpContext) -> Outcome {
    icmp::relay::<F>(&Packet::new(ctx)).unwrap_or_else(Outcome::from)
}

/// A segment without a flow: opens one if it may, or answers.
#[inline(always)]
fn miss<F: Family>(
    packet: &Packet<'_>,
    key: &FlowKey<F::Address>,
    segment: &mut Segment<'_, F>,
) -> Result<Outcome, Verdict> {
    let service = service::find::<F>(key)?;
    // The kernel, too, answers nothing that was sent to everybody.
    if segment.link.ethernet.dst.0[0] & 1 != 0 {
        return Err(Verdict::PassNotOurs);
    }
    let flags = segment.tcp.flags;
    if flags & RST != 0 {
        return Err(Verdict::DropStrayReset);
    }
    if flags & (SYN | ACK) != SYN {
        if maps::SETTINGS.get(0).is_some_and(|settings| settings.miss == MISS_DROP) {
            return Err(Verdict::DropNoFlow);
        }
        return reset::answer(packet, segment, Verdict::ResetNoFlow);
    }
    if flags & FIN != 0 {
        return Err(Verdict::DropBadFlags);
    }
    let backend = match select::backend::<F>(service, key) {
        Ok(backend) => backend,
        Err(Verdict::ResetNoBackend) => {
            return reset::answer(packet, segment, Verdict::ResetNoBackend);
        }
        Err(verdict) => return Err(verdict),
    };
    let client_hop = forward::client_hop(packet)?;
    open::open::<F>(key, service, backend, client_hop)?;
    let entry = F::flows().get_ptr(key).ok_or(Verdict::DropDying)?;
    // SAFETY: readable after a lookup in this run; the translation never changes.
    send(packet, segment, unsafe { &(*entry).to }, Verdict::ForwardNew)
}

/// Translates a segment and addresses its frame.
#[inline(always)]
fn send<F: Family>(
    packet: &Packet<'_>,
    segment: &mut Segment<'_, F>,
    to: &Translation<F::Address>,
    verdict: Verdict,
) -> Result<Outcome, Verdict> {
    let hop = forward::hop(to.hop)?;
    let length = segment.length();
    if let Some(mtu) = forward::exceeds(packet, hop.ifindex, length) {
        return Ok(too_big::answer::<F>(packet.ctx, mtu));
    }
    rewrite::translate(segment, to)?;
    if let Some(stats) = maps::BACKEND_STATS.get_ptr_mut(to.backend.into()) {
        // SAFETY: this processor's own copy.
        unsafe {
            if matches!(verdict, Verdict::ForwardServer) {
                (*stats).packets_out += 1;
                (*stats).bytes_out += length as u64;
            } else {
                (*stats).packets_in += 1;
                (*stats).bytes_in += length as u64;
            }
        }
    }
    segment.link.address(packet, hop)?;
    Ok(Outcome::new(verdict, hop.ifindex))
}

#[inline(always)]
fn reap<F: Family>(ctx: &XdpContext) -> u32 {
    let mut list = List { ctx: ctx.ctx, ended: 0 };
    // A loop of the kernel's, whose body the verifier looks at once: unrolled before its eyes,
    // Linux 6.1 finds it too large.
    // SAFETY: the callback has the signature that the kernel calls it by, and `list` outlives the
    // call.
    unsafe {
        bpf_loop(
            REAP_BATCH as u32,
            reap_next::<F> as *mut c_void,
            (&raw mut list).cast::<c_void>(),
            0,
        );
    }
    list.ended
}

/// A list of keys, and how many of their connections were ended.
#[repr(C)]
struct List {
    ctx: *mut xdp_md,
    ended: u32,
}

/// Looks at the key number `i`. Returns 1 after the last.
extern "C" fn reap_next<F: Family>(i: u64, list: *mut c_void) -> i64 {
    // SAFETY: what `reap` passed.
    let list = unsafe { &mut *list.cast::<List>() };
    let ctx = XdpContext::new(list.ctx);
    // The mask tells the verifier what `bpf_loop` guarantees.
    const { assert!(REAP_BATCH.is_power_of_two()) };
    let i = i as usize & (REAP_BATCH - 1);
    let offset = REAP_HEADER + i * size_of::<FlowKey<F::Address>>();
    let Some(key) = Packet::new(&ctx).at::<FlowKey<F::Address>>(offset) else { return 1 };
    let key = *key;
    list.ended += u32::from(flow::reap::<F>(&key));
    0
}

/// The kernel lets only programs under a GPL-compatible licence use some helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier accepts no program that can get here.
    loop {}
}
