//! Next hops: where a frame goes, and the way back to a client.

use aya_ebpf::bindings::BPF_NOEXIST;
use lb_common::{
    maps::{HopKey, NextHop},
    verdict::Verdict,
};

use crate::{
    maps,
    packet::{Ethernet, Packet},
};

/// Addresses a frame to the next hop and returns the interface it leaves by.
#[inline(always)]
pub fn address(ethernet: &mut Ethernet, hop: u32) -> Result<u32, Verdict> {
    let hop = maps::NEXT_HOPS.get(hop).ok_or(Verdict::DropInternal)?;
    if hop.ifindex == 0 {
        return Err(Verdict::DropNoHop);
    }
    ethernet.dst = hop.dst;
    ethernet.src = hop.src;
    Ok(hop.ifindex)
}

/// The hop that leads back where a client's frame came from: to the same neighbour by the same
/// interface, whatever the routing table says. (Others call this "auto last hop".) It needs no
/// neighbour to be resolved, so no SYN is ever lost to that.
#[inline(always)]
pub fn client_hop(packet: &Packet<'_>, ethernet: &Ethernet) -> Result<u32, Verdict> {
    match find_or_enter(packet.ifindex(), ethernet) {
        0 => Err(Verdict::DropNoHop),
        hop => Ok(hop),
    }
}

/// A function of its own, to have a stack of its own; so it can return no more than a register:
/// zero, which is a backend's number, if there is no room for a new hop.
#[inline(never)]
fn find_or_enter(ifindex: u32, ethernet: &Ethernet) -> u32 {
    let key = HopKey { ifindex, ours: ethernet.dst, theirs: ethernet.src };
    if let Some(hop) = lookup(&key) {
        return hop;
    }
    let Ok(Some(hop)) = maps::FREE_HOPS.pop() else { return 0 };
    let next = NextHop { ifindex, src: key.ours, dst: key.theirs };
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
