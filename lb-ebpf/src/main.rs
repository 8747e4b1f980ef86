//! Tandem's XDP program: full NAT of TCP connections to virtual addresses.
//!
//! A packet takes these steps, each in a room of its own:
//! parse ([`packet`]) → flow lookup ([`flow`]) → translate ([`rewrite`]) → send ([`forward`]);
//! without a flow: [`service`] → [`select`] → [`open`] a flow, or answer with a [`reset`].
//! Every step that ends a packet's way here says why by its [`Verdict`].
#![allow(missing_docs, reason = "the program's functions are documented; its macros' are not")]
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic read-modify-write: see `atomic`")]

mod atomic;
mod flow;
mod forward;
mod maps;
mod open;
mod packet;
mod reset;
mod rewrite;
mod select;
mod service;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::bpf_redirect,
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
    maps::{Family, Inet, Inet6},
    packet::{ACK, Ethernet, FIN, Packet, RST, SYN, Segment},
};

/// The entry, and the only place where a verdict becomes an XDP action.
#[xdp]
pub fn tandem(ctx: XdpContext) -> u32 {
    let packet = Packet::new(&ctx);
    let Outcome { verdict, out } = steps(&packet).unwrap_or_else(Outcome::from);
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

/// What becomes of a packet.
struct Outcome {
    verdict: Verdict,
    /// The interface a frame to be transmitted leaves by; zero for the one it came in by.
    out: u32,
}

impl From<Verdict> for Outcome {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self { verdict, out: 0 }
    }
}

#[inline(always)]
fn steps(packet: &Packet<'_>) -> Result<Outcome, Verdict> {
    let ethernet = packet.at::<Ethernet>(0).ok_or(Verdict::PassNotIp)?;
    match ethernet.ethertype {
        Ethernet::IPV4 => segment::<Inet>(packet, ethernet),
        Ethernet::IPV6 => segment::<Inet6>(packet, ethernet),
        Ethernet::VLAN | Ethernet::QINQ => Err(Verdict::PassVlan),
        _ => Err(Verdict::PassNotIp),
    }
}

#[inline(always)]
fn segment<'a, F: Family>(
    packet: &Packet<'a>,
    ethernet: &'a mut Ethernet,
) -> Result<Outcome, Verdict> {
    let mut segment = Segment::<F>::parse(packet, ethernet)?;
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

/// A segment without a flow: opens one if it may, or answers.
#[inline(always)]
fn miss<F: Family>(
    packet: &Packet<'_>,
    key: &FlowKey<F::Address>,
    segment: &mut Segment<'_, F>,
) -> Result<Outcome, Verdict> {
    let service = service::find::<F>(key)?;
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
    let client_hop = forward::client_hop(packet, segment.ethernet)?;
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
    rewrite::translate(segment, to)?;
    let out = forward::address(segment.ethernet, to.hop)?;
    if let Some(stats) = maps::BACKEND_STATS.get_ptr_mut(to.backend.into()) {
        // SAFETY: this processor's own copy.
        unsafe {
            if matches!(verdict, Verdict::ForwardServer) {
                (*stats).packets_out += 1;
                (*stats).bytes_out += packet.len() as u64;
            } else {
                (*stats).packets_in += 1;
                (*stats).bytes_in += packet.len() as u64;
            }
        }
    }
    Ok(Outcome { verdict, out })
}

#[inline(always)]
fn reap<F: Family>(ctx: &XdpContext) -> u32 {
    let list = Packet::new(ctx);
    let mut ended = 0;
    for i in 0..REAP_BATCH {
        let offset = REAP_HEADER + i * size_of::<FlowKey<F::Address>>();
        let Some(key) = list.at::<FlowKey<F::Address>>(offset) else {
            break;
        };
        let key = *key;
        ended += u32::from(flow::reap::<F>(&key));
    }
    ended
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
