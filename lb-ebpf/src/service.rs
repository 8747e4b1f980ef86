//! Which service a packet is for.

use lb_common::{
    flow::FlowKey,
    maps::{Service, ServiceKey},
    verdict::Verdict,
};

use crate::maps::Family;

/// The service that the packet's destination is bound to.
#[inline(always)]
pub fn find<F: Family>(key: &FlowKey<F::Address>) -> Result<&'static Service, Verdict> {
    let bind = ServiceKey { address: key.dst, port: key.dport, zero: 0 };
    // SAFETY: the daemon replaces services, never changes them in place, and what is replaced stays
    // readable. (Its memory may hold another service a few updates later; a SYN that is held up
    // that long in here goes to a backend of that one, and is reset by it.)
    match unsafe { F::services().get(bind) } {
        Some(service) => Ok(service),
        None if is_virtual::<F>(key.dst) => Err(Verdict::PassNoService),
        None => Err(Verdict::PassNotOurs),
    }
}

/// Whether `address` is one of our virtual addresses.
#[inline(always)]
pub fn is_virtual<F: Family>(address: F::Address) -> bool {
    // SAFETY: replaced by the daemon as a whole, in one word.
    unsafe { F::virtual_addresses().get(address) }.is_some_and(|it| it.bound != 0)
}
