//! Answering a segment with a RST (RFC 9293, section 3.10.7.1).

use aya_ebpf::{EbpfContext as _, helpers::bpf_xdp_adjust_tail, programs::XdpContext};
use lb_common::{addr::Address, checksum::fold, verdict::Verdict};

use crate::{
    Outcome,
    link::Link,
    maps::Family,
    packet::{ACK, FIN, Ipv4, Ipv6, Packet, RST, SYN, Tcp},
    segment::IpHeader,
};

/// Turning a header into one of a bare RST, back to where it came from.
pub trait Answer: IpHeader {
    /// Swaps the addresses and writes the lengths and the checksum for a payload of 20 bytes.
    fn answer(&mut self);
}

impl Answer for Ipv4 {
    #[inline(always)]
    fn answer(&mut self) {
        (self.src, self.dst) = (self.dst, self.src);
        self.tos = 0;
        self.total_length = ((size_of::<Self>() + size_of::<Tcp>()) as u16).to_be();
        self.id = 0;
        self.fragment = 0x4000_u16.to_be();
        self.ttl = 64;
        let words = u32::from(u16::from_ne_bytes([self.version_and_length, self.tos]))
            + u32::from(self.total_length)
            + u32::from(self.fragment)
            + u32::from(u16::from_ne_bytes([self.ttl, self.protocol]))
            + self.src().sum()
            + self.dst().sum();
        self.checksum = !fold(words);
    }
}

impl Answer for Ipv6 {
    #[inline(always)]
    fn answer(&mut self) {
        let (src, dst) = (self.src(), self.dst());
        self.set_addresses(&dst, &src);
        self.version_class_flow = 0x6000_0000_u32.to_be();
        self.payload_length = (size_of::<Tcp>() as u16).to_be();
        self.hop_limit = 64;
    }
}

/// Makes the packet, a segment, the RST that answers it, to go back by the way it came.
///
/// A function of its own, to have a stack of its own; it takes the packet apart again, because what is
/// handed over by reference would have to lie on the caller's.
#[inline(never)]
pub fn answer<F: Family>(ctx: &XdpContext, verdict: Verdict) -> Outcome {
    rebuild::<F>(ctx).map_or(Verdict::DropInternal, |()| verdict).into()
}

#[inline(always)]
fn rebuild<F: Family>(ctx: &XdpContext) -> Option<()> {
    let packet = Packet::new(ctx);
    let link = Link::parse(&packet).ok()?;
    let start = link.length() + size_of::<F::Header>();
    let ip = packet.at::<F::Header>(link.length())?;
    let tcp = packet.at::<Tcp>(start)?;
    let payload = ip.payload().wrapping_sub(tcp.header_length()) as u32;
    let was = tcp.flags;

    let ethernet = link.ethernet;
    (ethernet.src, ethernet.dst) = (ethernet.dst, ethernet.src);
    ip.answer();
    (tcp.sport, tcp.dport) = (tcp.dport, tcp.sport);
    if was & ACK != 0 {
        tcp.seq = tcp.ack;
        tcp.ack = 0;
        tcp.flags = RST;
    } else {
        let length = payload + u32::from(was & SYN != 0) + u32::from(was & FIN != 0);
        tcp.ack = u32::from_be(tcp.seq).wrapping_add(length).to_be();
        tcp.seq = 0;
        tcp.flags = RST | ACK;
    }
    tcp.offset = 5 << 4;
    tcp.window = 0;
    tcp.urgent = 0;
    // The pseudo-header's length and protocol, in memory order, and the header itself.
    let pseudo = u32::from((size_of::<Tcp>() as u16).to_be()) + u32::from(6_u16.to_be());
    let header = u32::from(tcp.sport.0)
        + u32::from(tcp.dport.0)
        + halves(tcp.seq)
        + halves(tcp.ack)
        + u32::from(u16::from_ne_bytes([tcp.offset, tcp.flags]));
    tcp.checksum = !fold(pseudo + header + ip.src().sum() + ip.dst().sum());

    let surplus = packet.length() as i32 - (start + size_of::<Tcp>()) as i32;
    // SAFETY: a valid context; no pointer into the packet is used after this.
    let is_whole =
        surplus <= 0 || unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), -surplus) } == 0;
    is_whole.then_some(())
}

#[inline(always)]
fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}
