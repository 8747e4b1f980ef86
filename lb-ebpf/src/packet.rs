//! The only unsafe access to packet memory: bounds-checked headers.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    addr::{Address, Mac, Port, V4, V6},
    flow::FlowKey,
    verdict::Verdict,
};

use crate::maps::Family;

/// A received frame.
pub struct Packet<'a> {
    pub ctx: &'a XdpContext,
    start: usize,
    end: usize,
}

impl<'a> Packet<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx, start: ctx.data(), end: ctx.data_end() }
    }

    /// The header `T` at `offset`, or `None` if the frame ends before it does.
    ///
    /// Headers are `repr(packed(2))`: frames begin at even addresses, and all headers have even
    /// lengths. Wider fields are read in halves; the verifier forbids what the compiler would
    /// otherwise do to the stack if it were told that unaligned access is free.
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> Option<&'a mut T> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: within the frame, as just checked; every bit pattern is a valid header; headers
        // of one packet are taken at offsets that do not overlap.
        Some(unsafe { &mut *(at as *mut T) })
    }

    /// Length of the frame in bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// The interface it came in by.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}

/// An Ethernet header.
#[repr(C, packed(2))]
pub struct Ethernet {
    pub dst: Mac,
    pub src: Mac,
    pub ethertype: u16,
}

impl Ethernet {
    pub const IPV4: u16 = 0x0800_u16.to_be();
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    pub const VLAN: u16 = 0x8100_u16.to_be();
    pub const QINQ: u16 = 0x88a8_u16.to_be();
}

/// An IPv4 header without options. Multi-byte fields are in network byte order.
#[repr(C, packed(2))]
pub struct Ipv4 {
    pub version_and_length: u8,
    pub tos: u8,
    pub total_length: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub src: V4,
    pub dst: V4,
}

/// An IPv6 header. Multi-byte fields are in network byte order.
#[repr(C, packed(2))]
pub struct Ipv6 {
    pub version_class_flow: u32,
    pub payload_length: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub src: [Half; 4],
    pub dst: [Half; 4],
}

/// A word of an address, aligned to half of itself as everything in a frame.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Half(u32);

/// An address taken word by word: as a whole it would be copied by a loop over its bytes.
#[inline(always)]
fn words(address: &[Half; 4]) -> V6 {
    let [a, b, c, d] = address;
    V6([a.0, b.0, c.0, d.0])
}

impl Ipv6 {
    /// Writes both addresses.
    #[inline(always)]
    pub fn readdress(&mut self, src: &V6, dst: &V6) {
        for i in 0..4 {
            self.src[i].0 = src.0[i];
            self.dst[i].0 = dst.0[i];
        }
    }
}

/// A TCP header without options. Multi-byte fields are in network byte order.
#[repr(C, packed(2))]
pub struct Tcp {
    pub sport: Port,
    pub dport: Port,
    pub seq: u32,
    pub ack: u32,
    pub offset: u8,
    pub flags: u8,
    pub window: u16,
    pub checksum: u16,
    pub urgent: u16,
}

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const TCP: u8 = 6;

/// What the packet path needs of an IP header, whichever the version.
pub trait IpHeader: Sized {
    type Address: Address;

    fn src(&self) -> Self::Address;
    fn dst(&self) -> Self::Address;

    /// Whether a TCP header follows directly and whole; if not, what to do with such a packet,
    /// given whether it is for one of our virtual addresses.
    fn check(&self, packet: &Packet<'_>, offset: usize) -> Result<(), Odd>;

    /// Length of the IP payload, in bytes, by the header's own word.
    fn payload(&self) -> usize;
}

/// A packet that is no plain TCP segment.
pub enum Odd {
    /// The kernel's, whatever its address.
    Pass(Verdict),
    /// Decided thus if it is for a virtual address; the kernel's otherwise.
    Ours(Verdict),
}

impl IpHeader for Ipv4 {
    type Address = V4;

    #[inline(always)]
    fn src(&self) -> V4 {
        self.src
    }

    #[inline(always)]
    fn dst(&self) -> V4 {
        self.dst
    }

    #[inline(always)]
    fn check(&self, packet: &Packet<'_>, offset: usize) -> Result<(), Odd> {
        const PLAIN: u8 = 0x45;
        /// "More fragments" and the fragment's offset; not "don't fragment".
        const FRAGMENT: u16 = 0x3fff_u16.to_be();

        if self.protocol != TCP {
            return Err(Odd::Pass(Verdict::PassNotTcp));
        }
        if self.version_and_length != PLAIN {
            let options = self.version_and_length > PLAIN && self.version_and_length <= 0x4f;
            let verdict = if options { Verdict::DropOptions } else { Verdict::DropMalformed };
            return Err(Odd::Ours(verdict));
        }
        if self.fragment & FRAGMENT != 0 {
            return Err(Odd::Ours(Verdict::DropFragment));
        }
        let total = u16::from_be(self.total_length) as usize;
        if total < size_of::<Ipv4>() {
            return Err(Odd::Ours(Verdict::DropMalformed));
        }
        if offset + total > packet.len() {
            return Err(Odd::Ours(Verdict::DropTruncated));
        }
        Ok(())
    }

    #[inline(always)]
    fn payload(&self) -> usize {
        (u16::from_be(self.total_length) as usize).wrapping_sub(size_of::<Ipv4>())
    }
}

impl IpHeader for Ipv6 {
    type Address = V6;

    #[inline(always)]
    fn src(&self) -> V6 {
        words(&self.src)
    }

    #[inline(always)]
    fn dst(&self) -> V6 {
        words(&self.dst)
    }

    #[inline(always)]
    fn check(&self, packet: &Packet<'_>, offset: usize) -> Result<(), Odd> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;

        match self.next_header {
            TCP => {}
            FRAGMENT | HOP_BY_HOP | ROUTING | DESTINATION => {
                // The first byte of each extension header names what follows it. One that hides
                // TCP is decided here; anything else (MLD, for one) is the kernel's.
                let inner = packet.at::<u8>(offset + size_of::<Ipv6>());
                let fragment = self.next_header == FRAGMENT;
                return Err(match inner {
                    Some(&mut TCP) if fragment => Odd::Ours(Verdict::DropFragment),
                    Some(&mut (TCP | FRAGMENT | HOP_BY_HOP | ROUTING | DESTINATION)) => {
                        Odd::Ours(Verdict::DropOptions)
                    }
                    Some(_) => Odd::Pass(Verdict::PassNotTcp),
                    None => Odd::Ours(Verdict::DropTruncated),
                });
            }
            _ => return Err(Odd::Pass(Verdict::PassNotTcp)),
        }
        if self.version_class_flow & 0xf0_u32 != 0x60 {
            return Err(Odd::Ours(Verdict::DropMalformed));
        }
        if offset + size_of::<Ipv6>() + self.payload() > packet.len() {
            return Err(Odd::Ours(Verdict::DropTruncated));
        }
        Ok(())
    }

    #[inline(always)]
    fn payload(&self) -> usize {
        u16::from_be(self.payload_length) as usize
    }
}

/// A whole TCP segment without IP options or extension headers.
pub struct Segment<'a, F: Family> {
    pub ethernet: &'a mut Ethernet,
    pub ip: &'a mut F::Header,
    pub tcp: &'a mut Tcp,
}

impl<'a, F: Family> Segment<'a, F> {
    /// Takes the packet apart; what is no plain segment has its verdict at once.
    #[inline(always)]
    pub fn parse(packet: &Packet<'a>, ethernet: &'a mut Ethernet) -> Result<Self, Verdict> {
        let offset = size_of::<Ethernet>();
        let Some(ip) = packet.at::<F::Header>(offset) else {
            return Err(Verdict::PassTruncated);
        };
        if let Err(odd) = ip.check(packet, offset) {
            return Err(match odd {
                Odd::Pass(verdict) => verdict,
                Odd::Ours(verdict) => if_ours::<F>(ip, verdict),
            });
        }
        let Some(tcp) = packet.at::<Tcp>(offset + size_of::<F::Header>()) else {
            return Err(if_ours::<F>(ip, Verdict::DropTruncated));
        };
        let header = tcp.header_length();
        if header < size_of::<Tcp>() || header > ip.payload() {
            return Err(if_ours::<F>(ip, Verdict::DropMalformed));
        }
        Ok(Self { ethernet, ip, tcp })
    }

    /// Its key in the flow table.
    #[inline(always)]
    pub fn key(&self) -> FlowKey<F::Address> {
        FlowKey {
            src: self.ip.src(),
            dst: self.ip.dst(),
            sport: self.tcp.sport,
            dport: self.tcp.dport,
        }
    }
}

impl Tcp {
    /// Length of the header with its options, in bytes.
    #[inline(always)]
    pub fn header_length(&self) -> usize {
        (self.offset >> 4) as usize * 4
    }
}

#[inline(always)]
fn if_ours<F: Family>(ip: &F::Header, verdict: Verdict) -> Verdict {
    if crate::service::is_virtual::<F>(ip.dst()) { verdict } else { Verdict::PassNotOurs }
}
