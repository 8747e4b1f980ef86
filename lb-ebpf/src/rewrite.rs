//! Full NAT of a segment in place, with incremental checksums.

use lb_common::{checksum, flow::Translation, verdict::Verdict};

use crate::{
    maps::Family,
    packet::{IpHeader, Ipv4, Ipv6, Segment},
};

/// What differs between the versions of IP.
pub trait Rewrite: IpHeader {
    /// Writes the addresses and lowers the hop limit, checksum included; `None` if the hop limit
    /// ends here.
    fn translate(&mut self, to: &Translation<Self::Address>) -> Option<()>;
}

impl Rewrite for Ipv4 {
    #[inline(always)]
    fn translate(&mut self, to: &Translation<Self::Address>) -> Option<()> {
        self.ttl = self.ttl.checked_sub(1).filter(|left| *left != 0)?;
        self.checksum = checksum::apply(self.checksum, to.l3_delta);
        self.src = to.src;
        self.dst = to.dst;
        Some(())
    }
}

impl Rewrite for Ipv6 {
    #[inline(always)]
    fn translate(&mut self, to: &Translation<Self::Address>) -> Option<()> {
        self.hop_limit = self.hop_limit.checked_sub(1).filter(|left| *left != 0)?;
        self.readdress(&to.src, &to.dst);
        Some(())
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
    tcp.checksum = checksum::apply(tcp.checksum, to.l4_delta);
    tcp.sport = to.sport;
    tcp.dport = to.dport;
    Ok(())
}
