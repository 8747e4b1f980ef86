//! Next hops: where a frame goes, and the way back to a client.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_NOEXIST, bpf_check_mtu_ret::BPF_MTU_CHK_RET_FRAG_NEEDED},
    helpers::generated::bpf_check_mtu,
    programs::XdpContext,
};
use lb_common::{
    flow::NO_HOP,
    maps::{HopKey, NextHop},
    verdict::Verdict,
};

use crate::{link::Link, maps, packet::Packet};

/// The next hop with this number.
#[inline(always)]
pub fn hop(number: u32) -> Result<&'static NextHop, Verdict> {
    let Some(hop) = maps::NEXT_HOPS.get(number) else {
        // Of an adopted connection whose client has not been heard of here.
        let is_unknown = number == u32::from(NO_HOP);
        return Err(if is_unknown { Verdict::DropNoHop } else { Verdict::DropInternal });
    };
    if hop.ifindex == 0 { Err(Verdict::DropNoHop) } else { Ok(hop) }
}

/// Packets up to this length are taken for small enough for every link: IPv4's own minimum for
/// hosts. So the many small ones are spared the question.
const SMALL: usize = 576;

/// The largest IP packet that the interface takes, if one of `length` bytes is too large for it.
#[inline(always)]
pub fn exceeds(packet: &Packet<'_>, ifindex: u32, length: usize) -> Option<u32> {
    if length <= SMALL {
        return None;
    }
    let mut mtu = length as u32;
    // SAFETY: a valid context and a valid place for the answer.
    let verdict = unsafe { bpf_check_mtu(packet.ctx.as_ptr(), ifindex, &raw mut mtu, 0, 0) };
    // Anything else than "fragmentation needed" (an interface that is gone) shows itself later.
    (verdict == i64::from(BPF_MTU_CHK_RET_FRAG_NEEDED)).then_some(mtu)
}

/// The number of the hop that leads back where a client's frame came from: to the same neighbour
/// by the same interface and VLAN, whatever the routing table says. (Others call this "auto last
/// hop".) It needs no neighbour to be resolved, so no SYN is ever lost to that.
#[inline(always)]
pub fn client_hop(packet: &Packet<'_>) -> Result<u32, Verdict> {
    match find_or_enter(packet.ctx) {
        0 => Err(Verdict::DropNoHop),
        hop => Ok(hop),
    }
}

/// A function of its own, to have a stack of its own; so it can return no more than a register:
/// zero, which is a backend's number, if there is no room for a new hop.
#[inline(never)]
fn find_or_enter(ctx: &XdpContext) -> u32 {
    let packet = Packet::new(ctx);
    let Ok(link) = Link::parse(&packet) else { return 0 };
    let ifindex = packet.ifindex();
    let key =
        HopKey { ifindex, ours: link.ethernet.dst, theirs: link.ethernet.src, tags: link.tags };
    if let Some(hop) = lookup(&key) {
        return hop;
    }
    let Ok(Some(hop)) = maps::FREE_HOPS.pop() else { return 0 };
    let next = NextHop { ifindex, src: key.ours, dst: key.theirs, tags: key.tags };
    if maps::NEXT_HOPS.set(hop, next, 0).is_ok()
        && maps::CLIENT_HOPS.insert(key, hop, u64::from(BPF_NOEXIST)).is_ok()
    {
        return hop;
    }
    // Another processor entered it first.
    let _ = maps::FREE_HOPS.push(hop, 0);
    lookup(&key).unwrap_or(0)
}

#[inline(always)]
fn lookup(key: &HopKey) -> Option<u32> {
    // SAFETY: a hop's number is written once, on insertion.
    unsafe { maps::CLIENT_HOPS.get(key) }.copied()
}
