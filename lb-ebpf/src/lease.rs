//! Whether this host may serve the addresses that it shares with another one.
//!
//! A group's lease is a deadline that the daemon renews with every advert it sends. When the daemon
//! dies or is held up, the lease ends, and before the other host takes over, this one is silent:
//! nothing is forwarded for the group, and nothing that asks for its addresses gets to the kernel,
//! which may still have them and would answer.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::XdpContext};
use lb_common::verdict::{Action, Verdict};

use crate::{
    link::{ARP, Link},
    maps::{self, Family, Inet, Inet6},
    packet::{Arp, Icmp, Packet, Solicitation},
    segment::{DESTINATION, HOP_BY_HOP, IpHeader, ROUTING},
    table::Key,
};

/// Whether this host may serve the group with this number now; it always may what it shares with
/// nobody.
#[inline(always)]
pub fn holds(group: u32) -> bool {
    // SAFETY: a helper without preconditions.
    group == 0 || maps::LEASES.get(group).is_some_and(|it| it.end > unsafe { bpf_ktime_get_ns() })
}

/// Whether this host may serve the service with this number now.
#[inline(always)]
pub fn holds_service(service: u32) -> bool {
    maps::TERMS.get(service).is_some_and(|terms| holds(terms.group))
}

/// Whether this host serves the service with this number, and has without a break since `then` (monotonic
/// clock, nanoseconds).
#[inline(always)]
pub fn has_served(service: u32, then: u64) -> bool {
    let Some(terms) = maps::TERMS.get(service) else { return false };
    let is_since = || maps::LEASES.get(terms.group).is_some_and(|it| it.since <= then);
    holds(terms.group) && (terms.group == 0 || is_since())
}

/// Whether connections of the service with this number may still be coming in from the peer, so that
/// nobody may be told that one does not exist.
#[inline(always)]
pub fn is_in_grace(service: u32) -> bool {
    maps::TERMS.get(service).is_some_and(|terms| has_grace(terms.group))
}

/// The same of a packet for no service that may be a backend's, with this destination.
#[inline(never)]
pub fn is_answer_in_grace<F: Family>(key: &Key<F>) -> bool {
    let Some(settings) = maps::SETTINGS.get(0) else { return false };
    // The peer's translation ports are as many, and next to those of this host.
    let port = u32::from(key.dport.get());
    let (first, count) = (settings.port_first, settings.port_count);
    if port + count < first || port >= first + count * 2 {
        return false;
    }
    // SAFETY: replaced by the daemon as a whole, in one word.
    let address = unsafe { F::virtual_addresses().get(key.dst) };
    address.is_some_and(|address| has_grace(address.group.into()))
}

#[inline(always)]
fn has_grace(group: u32) -> bool {
    // SAFETY: a helper without preconditions.
    maps::LEASES.get(group).is_some_and(|it| it.grace > unsafe { bpf_ktime_get_ns() })
}

/// What becomes of a packet that `verdict` would leave to the kernel.
#[inline(always)]
pub fn fence<F: Fenced>(packet: &Packet<'_>, verdict: Verdict) -> Verdict {
    let is_passed = matches!(verdict.action(), Action::Pass);
    if is_passed && is_fenced::<F>(packet.ctx) { Verdict::DropNoLease } else { verdict }
}

/// What fencing needs to know of a kind of packet.
pub trait Fenced {
    /// Whether the packet asks something of an address that this host has no lease on.
    fn is_fenced(packet: &Packet<'_>, link: &Link<'_>) -> bool;
}

/// A function of its own, to have a stack of its own.
#[inline(never)]
fn is_fenced<F: Fenced>(ctx: &XdpContext) -> bool {
    let packet = Packet::new(ctx);
    Link::parse(&packet).is_ok_and(|link| F::is_fenced(&packet, &link))
}

impl Fenced for Inet {
    #[inline(always)]
    fn is_fenced(packet: &Packet<'_>, link: &Link<'_>) -> bool {
        let ip = packet.at::<<Self as Family>::Header>(link.length());
        ip.is_some_and(|ip| lacks_lease::<Self>(ip.dst()))
    }
}

impl Fenced for Inet6 {
    #[inline(always)]
    fn is_fenced(packet: &Packet<'_>, link: &Link<'_>) -> bool {
        /// Type of a neighbour solicitation (RFC 4861, section 4.3).
        const SOLICITATION: u8 = 135;
        /// Extension headers that are looked behind: nobody has cause to use any here, but the kernel
        /// answers behind them. It answers nothing in fragments (RFC 6980).
        const EXTENSIONS: usize = 2;

        let offset = link.length();
        let Some(ip) = packet.at::<<Self as Family>::Header>(offset) else { return false };
        if lacks_lease::<Self>(ip.dst()) {
            return true;
        }
        // It is sent to a group that is derived from the address it asks for.
        let mut offset = offset + size_of::<<Self as Family>::Header>();
        let mut next = ip.next_header;
        for _ in 0..EXTENSIONS {
            if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
                break;
            }
            let Some([inner, units]) = packet.at::<[u8; 2]>(offset).copied() else { return false };
            next = inner;
            offset += (units as usize + 1) * 8;
        }
        if next != <<Self as Family>::Header as IpHeader>::ICMP {
            return false;
        }
        let is_solicitation = packet.at::<Icmp>(offset).is_some_and(|it| it.kind == SOLICITATION);
        is_solicitation
            && packet
                .at::<Solicitation>(offset + size_of::<Icmp>())
                .is_some_and(|asked| lacks_lease::<Self>(asked.target()))
    }
}

/// What is neither IPv4 nor IPv6: of these, ARP asks for addresses.
pub enum Other {}

impl Fenced for Other {
    #[inline(always)]
    fn is_fenced(packet: &Packet<'_>, link: &Link<'_>) -> bool {
        if link.ethertype != ARP {
            return false;
        }
        // A host that announces its own address asks for nothing, and should be heard.
        packet.at::<Arp>(link.length()).is_some_and(|arp| {
            let (sender, target) = (arp.sender, arp.target);
            arp.is_request() && sender != target && lacks_lease::<Inet>(target)
        })
    }
}

/// Whether an address is one of a group that this host has no lease on.
#[inline(always)]
fn lacks_lease<F: Family>(address: F::Address) -> bool {
    // SAFETY: replaced by the daemon as a whole, in one word.
    let virtual_address = unsafe { F::virtual_addresses().get(address) };
    virtual_address.is_some_and(|it| !holds(it.group.into()))
}
