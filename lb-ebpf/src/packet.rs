//! The only unsafe access to packet memory: bounds-checked headers.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use lb_common::addr::{Mac, Port, V4, V6};

/// A received frame.
pub struct Packet<'a> {
    pub ctx: &'a XdpContext,
    start: usize,
    end: usize,
}

impl<'a> Packet<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        // SAFETY: a valid context. Volatile, or the compiler may have the caller of a function load
        // these and pass them as the 32-bit numbers that they look like; the verifier knows
        // them as pointers only where they are loaded.
        let (start, end) = unsafe {
            (
                (&raw const (*ctx.ctx).data).read_volatile(),
                (&raw const (*ctx.ctx).data_end).read_volatile(),
            )
        };
        Self { ctx, start: start as usize, end: end as usize }
    }

    /// The header `T` at `offset`, or `None` if the frame (its first buffer, if it has several)
    /// ends before it does.
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

    /// Whether the frame, with all its buffers, is at least this long.
    #[inline(always)]
    pub fn reaches(&self, length: usize) -> bool {
        // No pointer is moved by the length: Linux 6.1 knows no bounds of what was byte-swapped.
        length <= self.end - self.start || self.length() >= length
    }

    /// Length of the frame with all its buffers, in bytes.
    #[inline(always)]
    pub fn length(&self) -> usize {
        // SAFETY: a valid context.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast()) as usize }
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

/// What follows an Ethernet header whose type says that a VLAN tag does.
#[repr(C, packed(2))]
pub struct VlanTag {
    pub control: u16,
    pub ethertype: u16,
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
pub struct Half(pub u32);

impl Ipv6 {
    /// Whether it is an IPv6 header, whatever the frame's type says.
    #[inline(always)]
    pub fn is_version_6(&self) -> bool {
        self.version_class_flow & 0xf0_u32 == 0x60
    }

    /// Writes both addresses.
    #[inline(always)]
    pub fn set_addresses(&mut self, src: &V6, dst: &V6) {
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

impl Tcp {
    /// Length of the header with its options, in bytes.
    #[inline(always)]
    pub fn header_length(&self) -> usize {
        (self.offset >> 4) as usize * 4
    }
}

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// The header of an ICMP or ICMPv6 error. Multi-byte fields are in network byte order.
#[repr(C, packed(2))]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    pub rest: u32,
}

/// What a neighbour solicitation asks for, behind its ICMPv6 header.
#[repr(C, packed(2))]
pub struct Solicitation {
    target: [Half; 4],
}

impl Solicitation {
    #[inline(always)]
    pub fn target(&self) -> V6 {
        let [a, b, c, d] = &self.target;
        V6([a.0, b.0, c.0, d.0])
    }
}

/// An ARP packet for IPv4 over Ethernet (RFC 826). Multi-byte fields are in network byte order.
#[repr(C, packed(2))]
pub struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: [u8; 2],
    operation: u16,
    sender_mac: Mac,
    pub sender: V4,
    target_mac: Mac,
    pub target: V4,
}

impl Arp {
    #[inline(always)]
    pub fn is_request(&self) -> bool {
        const IPV4: u16 = 0x0800_u16.to_be();
        const REQUEST: u16 = 1_u16.to_be();
        self.protocol == IPV4 && self.lengths == [6, 4] && self.operation == REQUEST
    }
}
