//! Full NAT of a segment in place, with incremental checksums.

use lb_common::{
    checksum::{TTL_DECREMENT, address_delta, apply, combine},
    flow::Translation,
    verdict::Verdict,
};

use crate::{
    maps::Family,
    packet::{Ipv4, Ipv6},
    segment::{IpHeader, Segment},
};

/// What differs between the versions of IP.
pub trait Rewrite: IpHeader {
    /// Writes the addresses of a flow's translation and lowers the hop limit; `None`, and nothing
    /// is changed, if the hop limit ends here.
    fn translate(&mut self, to: &Translation<Self::Address>) -> Option<()>;

    /// Lowers the hop limit; `None`, and nothing is changed, if it ends here.
    fn lower_hop_limit(&mut self) -> Option<()>;

    /// Writes both addresses, and says how much the sum over the whole header changed by that:
    /// not at all, where the header has a checksum of its own that makes up for it.
    fn readdress(&mut self, src: Self::Address, dst: Self::Address) -> u16;
}

impl Rewrite for Ipv4 {
    #[inline(always)]
    fn translate(&mut self, to: &Translation<Self::Address>) -> Option<()> {
        self.ttl = self.ttl.checked_sub(1).filter(|left| *left != 0)?;
        self.checksum = apply(self.checksum, to.l3_delta);
        self.src = to.src;
        self.dst = to.dst;
        Some(())
    }

    #[inline(always)]
    fn lower_hop_limit(&mut self) -> Option<()> {
        self.ttl = self.ttl.checked_sub(1).filter(|left| *left != 0)?;
        self.checksum = apply(self.checksum, TTL_DECREMENT);
        Some(())
    }

    #[inline(always)]
    fn readdress(&mut self, src: Self::Address, dst: Self::Address) -> u16 {
        let delta = combine(address_delta(self.src, src), address_delta(self.dst, dst));
        self.checksum = apply(self.checksum, delta);
        self.src = src;
        self.dst = dst;
        0
    }
}

impl Rewrite for Ipv6 {
    #[inline(always)]
    fn translate(&mut self, to: &Translation<Self::Address>) -> Option<()> {
        self.lower_hop_limit()?;
        self.set_addresses(&to.src, &to.dst);
        Some(())
    }

    #[inline(always)]
    fn lower_hop_limit(&mut self) -> Option<()> {
        self.hop_limit = self.hop_limit.checked_sub(1).filter(|left| *left != 0)?;
        Some(())
    }

    #[inline(always)]
    fn readdress(&mut self, src: Self::Address, dst: Self::Address) -> u16 {
        let delta = combine(address_delta(self.src(), src), address_delta(self.dst(), dst));
        self.set_addresses(&src, &dst);
        delta
    }
}

/// Translates a segment. Nothing is changed if it must not travel on.
#[inline(always)]
pub fn translate<F: Family>(
    segment: &mut Segment<'_, F>,
    to: &Translation<F::Address>,
) -> Result<(), Verdict> {
    segment.ip.translate(to).ok_or(Verdict::DropHopLimit)?;
    let tcp = &mut segment.tcp;
    tcp.checksum = apply(tcp.checksum, to.l4_delta);
    tcp.sport = to.sport;
    tcp.dport = to.dport;
    Ok(())
}
