//! Telling a sender that the next link takes only smaller packets (RFC 1191, RFC 8201).

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use lb_common::{
    addr::{Address, V4, V6},
    checksum::fold,
    verdict::Verdict,
};

use crate::{
    Outcome,
    link::{self, Link},
    maps::Family,
    packet::{Ethernet, Icmp, Ipv4, Ipv6, Packet, Tcp},
    segment::IpHeader,
};

/// What differs between ICMP's and ICMPv6's message.
pub trait Complain: IpHeader {
    const KIND: u8;
    const CODE: u8;

    /// Whether the sender wants to be told rather than have the packet cut.
    fn may_tell(&self) -> bool;

    /// Writes a header of a message of `length` bytes.
    fn write(&mut self, src: Self::Address, dst: Self::Address, length: u16);

    /// What the addresses and the length add to the message's checksum.
    fn pseudo_header(src: Self::Address, dst: Self::Address, length: u16) -> u32;

    /// The sum of the words of the message at `offset`.
    fn sum(packet: &Packet<'_>, offset: usize) -> Option<u32>;
}

/// The sum of the next `N` words: bounds are checked once, the way the verifier understands.
#[inline(always)]
fn sum<const N: usize>(packet: &Packet<'_>, offset: usize) -> Option<u32> {
    let words = packet.at::<[u16; N]>(offset)?;
    let mut sum = 0;
    for word in words {
        sum += u32::from(*word);
    }
    Some(sum)
}

impl Complain for Ipv4 {
    const KIND: u8 = 3;
    const CODE: u8 = 4;

    #[inline(always)]
    fn may_tell(&self) -> bool {
        self.fragment & 0x4000_u16.to_be() != 0
    }

    #[inline(always)]
    fn write(&mut self, src: V4, dst: V4, length: u16) {
        self.version_and_length = 0x45;
        self.tos = 0;
        self.total_length = (size_of::<Self>() as u16 + length).to_be();
        self.id = 0;
        self.fragment = 0;
        self.ttl = 64;
        self.protocol = Self::ICMP;
        self.src = src;
        self.dst = dst;
        let words = u32::from(u16::from_ne_bytes([self.version_and_length, self.tos]))
            + u32::from(self.total_length)
            + u32::from(u16::from_ne_bytes([self.ttl, self.protocol]))
            + src.sum()
            + dst.sum();
        self.checksum = !fold(words);
    }

    #[inline(always)]
    fn pseudo_header(_: V4, _: V4, _: u16) -> u32 {
        0
    }

    #[inline(always)]
    fn sum(packet: &Packet<'_>, offset: usize) -> Option<u32> {
        sum::<{ (size_of::<Icmp>() + size_of::<Ipv4>() + size_of::<Tcp>()) / 2 }>(packet, offset)
    }
}

impl Complain for Ipv6 {
    const KIND: u8 = 2;
    const CODE: u8 = 0;

    #[inline(always)]
    fn may_tell(&self) -> bool {
        true
    }

    #[inline(always)]
    fn write(&mut self, src: V6, dst: V6, length: u16) {
        self.version_class_flow = 0x6000_0000_u32.to_be();
        self.payload_length = length.to_be();
        self.next_header = Self::ICMP;
        self.hop_limit = 64;
        self.set_addresses(&src, &dst);
    }

    #[inline(always)]
    fn pseudo_header(src: V6, dst: V6, length: u16) -> u32 {
        src.sum() + dst.sum() + u32::from(length.to_be()) + u32::from(u16::from(Self::ICMP).to_be())
    }

    #[inline(always)]
    fn sum(packet: &Packet<'_>, offset: usize) -> Option<u32> {
        sum::<{ (size_of::<Icmp>() + size_of::<Ipv6>() + size_of::<Tcp>()) / 2 }>(packet, offset)
    }
}

/// Makes the packet the message that it is larger than `mtu`, to go back by the way it came. It
/// quotes the headers as they came, before any translation.
///
/// A function of its own, to have a stack of its own; it takes the packet apart again, because
/// what is handed over by reference would have to lie on the caller's.
#[inline(never)]
pub fn answer<F: Family>(ctx: &XdpContext, mtu: u32) -> Outcome {
    rebuild::<F>(ctx, mtu).unwrap_or_else(|verdict| verdict).into()
}

#[inline(always)]
fn rebuild<F: Family>(ctx: &XdpContext, mtu: u32) -> Result<Verdict, Verdict> {
    let packet = Packet::new(ctx);
    let link = Link::parse(&packet)?;
    let ip = packet.at::<F::Header>(link.length()).ok_or(Verdict::DropInternal)?;
    if !ip.may_tell() {
        return Err(Verdict::DropTooBig);
    }
    let (sender, receiver) = (ip.src(), ip.dst());
    let (ours, theirs, tags, ethertype) =
        (link.ethernet.dst, link.ethernet.src, link.tags, link.ethertype);
    let quoted = size_of::<F::Header>() + size_of::<Tcp>();
    let message = size_of::<Icmp>() + quoted;
    let grow = size_of::<F::Header>() + size_of::<Icmp>();
    let surplus = packet.length() as i32 - (link.length() + quoted) as i32;
    // SAFETY: a valid context; pointers into the packet are taken anew below.
    unsafe {
        if bpf_xdp_adjust_tail(ctx.as_ptr().cast(), -surplus) != 0
            || bpf_xdp_adjust_head(ctx.as_ptr().cast(), -(grow as i32)) != 0
        {
            return Err(Verdict::DropInternal);
        }
    }
    let packet = Packet::new(ctx);
    link::write(&packet, theirs, ours, tags, ethertype).ok_or(Verdict::DropInternal)?;
    let offset = size_of::<Ethernet>() + tags.length();
    let ip = packet.at::<F::Header>(offset).ok_or(Verdict::DropInternal)?;
    ip.write(receiver, sender, message as u16);
    let offset = offset + size_of::<F::Header>();
    let icmp = packet.at::<Icmp>(offset).ok_or(Verdict::DropInternal)?;
    icmp.kind = F::Header::KIND;
    icmp.code = F::Header::CODE;
    icmp.checksum = 0;
    icmp.rest = mtu.to_be();
    let sum = F::Header::pseudo_header(receiver, sender, message as u16)
        + F::Header::sum(&packet, offset).ok_or(Verdict::DropInternal)?;
    icmp.checksum = !fold(sum);
    Ok(Verdict::ReplyTooBig)
}
