//! Which service a packet is for.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    maps::{Service, ServiceKey},
    verdict::Verdict,
};

use crate::{link::Link, maps::Family, packet::Packet, segment::IpHeader, table::Key};

/// The service that the packet's destination is bound to.
#[inline(always)]
pub fn find<F: Family>(key: &Key<F>) -> Result<&'static Service, Verdict> {
    match bound::<F>(key) {
        Some(service) => Ok(service),
        None if is_virtual::<F>(&key.dst) => Err(Verdict::PassNoService),
        None => Err(Verdict::PassNotOurs),
    }
}

/// A function of its own, as the next one, to have a stack of its own.
#[inline(never)]
fn bound<F: Family>(key: &Key<F>) -> Option<&'static Service> {
    let bind = ServiceKey { address: key.dst, port: key.dport, zero: 0 };
    // SAFETY: the daemon replaces services, never changes them in place, and what is replaced stays
    // readable. (Its memory may hold another service a few updates later; a SYN that is held up
    // that long in here goes to a backend of that one, and is reset by it.)
    unsafe { F::services().get(bind) }
}

/// What becomes of a packet that is not what it should be: `verdict`, if its destination is one of our
/// virtual addresses.
#[inline(never)]
pub fn if_ours<F: Family>(ctx: &XdpContext, verdict: Verdict) -> Verdict {
    let packet = Packet::new(ctx);
    let destination = Link::parse(&packet)
        .ok()
        .and_then(|link| packet.at::<F::Header>(link.length()))
        .map(|ip| ip.dst());
    if destination.is_some_and(|address| is_virtual::<F>(&address)) {
        verdict
    } else {
        Verdict::PassNotOurs
    }
}

/// Whether `address` is one of our virtual addresses.
#[inline(never)]
fn is_virtual<F: Family>(address: &F::Address) -> bool {
    // SAFETY: replaced by the daemon as a whole, in one word.
    unsafe { F::virtual_addresses().get(address) }.is_some_and(|it| it.bound != 0)
}
