//! The link layer: Ethernet with up to two VLAN tags, coming in and going out.

use aya_ebpf::{EbpfContext as _, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::{
    addr::Mac,
    maps::{NextHop, Tag, Tags},
    verdict::Verdict,
};

use crate::packet::{Ethernet, Packet, VlanTag};

pub const IPV4: u16 = 0x0800_u16.to_be();
pub const ARP: u16 = 0x0806_u16.to_be();
pub const IPV6: u16 = 0x86dd_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const QINQ: u16 = 0x88a8_u16.to_be();
/// The VLAN's number in a tag's control field; the rest is priority.
const NUMBER: u16 = 0x0fff_u16.to_be();

/// The link-layer header of a frame.
pub struct Link<'a> {
    pub ethernet: &'a mut Ethernet,
    pub tags: Tags,
    /// Type of what follows, network byte order.
    pub ethertype: u16,
}

impl<'a> Link<'a> {
    #[inline(always)]
    pub fn parse(packet: &Packet<'a>) -> Result<Self, Verdict> {
        let ethernet = packet.at::<Ethernet>(0).ok_or(Verdict::PassNotIp)?;
        let mut link = Self { ethertype: ethernet.ethertype, ethernet, tags: Tags::default() };
        if is_tag(link.ethertype) {
            link.untag(packet)?;
        }
        Ok(link)
    }

    /// Length of the header, in bytes.
    #[inline(always)]
    pub fn length(&self) -> usize {
        size_of::<Ethernet>() + self.tags.length()
    }

    #[inline(always)]
    fn untag(&mut self, packet: &Packet<'a>) -> Result<(), Verdict> {
        let outer = packet.at::<VlanTag>(size_of::<Ethernet>()).ok_or(Verdict::PassTruncated)?;
        self.tags.0[0] = Tag { protocol: self.ethertype, vlan: outer.control & NUMBER };
        self.ethertype = outer.ethertype;
        if is_tag(self.ethertype) {
            let offset = size_of::<Ethernet>() + size_of::<VlanTag>();
            let inner = packet.at::<VlanTag>(offset).ok_or(Verdict::PassTruncated)?;
            self.tags.0[1] = Tag { protocol: self.ethertype, vlan: inner.control & NUMBER };
            self.ethertype = inner.ethertype;
        }
        if is_tag(self.ethertype) {
            return Err(Verdict::PassVlan);
        }
        Ok(())
    }

    /// Addresses the frame to the next hop. The packet must not be touched afterwards: its
    /// beginning may have moved.
    #[inline(always)]
    pub fn address(&mut self, packet: &Packet<'_>, hop: &NextHop) -> Result<(), Verdict> {
        if self.tags == Tags::default() && hop.tags == Tags::default() {
            self.ethernet.dst = hop.dst;
            self.ethernet.src = hop.src;
            return Ok(());
        }
        let surplus = self.tags.length() as i32 - hop.tags.length() as i32;
        if readdress(packet.ctx, surplus, hop, self.ethertype) {
            Ok(())
        } else {
            Err(Verdict::DropInternal)
        }
    }
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == QINQ
}

/// Writes a whole link-layer header towards `hop`, `surplus` bytes further back than the old one
/// began (further ahead, if negative), and says whether that was possible.
#[inline(never)]
fn readdress(ctx: &XdpContext, surplus: i32, hop: &NextHop, ethertype: u16) -> bool {
    // SAFETY: a valid context; pointers into the packet are taken anew below.
    if surplus != 0 && unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), surplus) } != 0 {
        return false;
    }
    write(&Packet::new(ctx), hop.dst, hop.src, hop.tags, ethertype).is_some()
}

/// Writes a link-layer header at the beginning of the frame.
#[inline(always)]
pub fn write(packet: &Packet<'_>, dst: Mac, src: Mac, tags: Tags, ethertype: u16) -> Option<()> {
    let ethernet = packet.at::<Ethernet>(0)?;
    ethernet.dst = dst;
    ethernet.src = src;
    ethernet.ethertype = ethertype;
    let [outer, inner] = tags.0;
    if outer.protocol != 0 {
        ethernet.ethertype = outer.protocol;
        let tag = packet.at::<VlanTag>(size_of::<Ethernet>())?;
        tag.control = outer.vlan;
        tag.ethertype = ethertype;
        if inner.protocol != 0 {
            tag.ethertype = inner.protocol;
            let tag = packet.at::<VlanTag>(size_of::<Ethernet>() + size_of::<VlanTag>())?;
            tag.control = inner.vlan;
            tag.ethertype = ethertype;
        }
    }
    Some(())
}
