//! Answering a segment with a RST (RFC 9293, section 3.10.7.1).

use aya_ebpf::{EbpfContext, helpers::bpf_xdp_adjust_tail};
use lb_common::{addr::Address, checksum::fold, verdict::Verdict};

use crate::{
    Outcome,
    maps::Family,
    packet::{ACK, Ethernet, FIN, IpHeader, Ipv4, Ipv6, Packet, RST, SYN, Segment, Tcp},
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
        self.readdress(&dst, &src);
        self.version_class_flow = 0x6000_0000_u32.to_be();
        self.payload_length = (size_of::<Tcp>() as u16).to_be();
        self.hop_limit = 64;
    }
}

/// Makes the packet the RST that answers it, to go back by the way it came.
#[inline(always)]
pub fn answer<F: Family>(
    packet: &Packet<'_>,
    segment: &mut Segment<'_, F>,
    verdict: Verdict,
) -> Result<Outcome, Verdict> {
    let Segment { ethernet, ip, tcp } = segment;
    let payload = ip.payload().wrapping_sub(tcp.header_length()) as u32;
    let was = tcp.flags;

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

    let length = size_of::<Ethernet>() + size_of::<F::Header>() + size_of::<Tcp>();
    let surplus = packet.len() as i32 - length as i32;
    // SAFETY: a valid context; no pointer into the packet is used after this.
    if surplus > 0 && unsafe { bpf_xdp_adjust_tail(packet.ctx.as_ptr().cast(), -surplus) } != 0 {
        return Err(Verdict::DropInternal);
    }
    Ok(verdict.into())
}

#[inline(always)]
fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}
