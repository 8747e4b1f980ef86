//! Frames as they are on the wire, with TCP inside or something odd.

use std::net::{IpAddr, SocketAddr};

use crate::verify::ones_sum;

pub(crate) type Mac = [u8; 6];

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

pub(crate) const TCP: u8 = 6;

pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const QINQ: u16 = 0x88a8;

/// Where an Ethernet header ends.
pub(crate) const IP: usize = 14;

/// Bytes, and the interface they come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ifindex: u32,
}

impl Frame {
    /// Writes over what is there.
    pub(crate) fn set(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Ends after this many bytes.
    pub(crate) fn cut(mut self, length: usize) -> Self {
        assert!(length < self.bytes.len(), "{length} bytes are no cut");
        self.bytes.truncate(length);
        self
    }

    /// Puts a VLAN tag before the type.
    pub(crate) fn tagged(mut self, kind: u16, vlan: u16) -> Self {
        let tag = [kind.to_be_bytes(), vlan.to_be_bytes()].concat();
        self.bytes.splice(12..12, tag);
        self
    }
}

/// A TCP segment in an IP packet in a frame; every field can be set.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) ifindex: u32,
    /// Ethernet destination and source.
    pub(crate) ethernet: (Mac, Mac),
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    reserved: u8,
    options: Vec<u8>,
    data: Vec<u8>,
    hops: u8,
    /// Type of service or traffic class.
    class: u8,
    id: u16,
    /// Flags and offset of an IPv4 fragment.
    fragment: u16,
    flow_label: u32,
    protocol: u8,
    ip_options: Vec<u8>,
    /// An IPv6 extension header and its number.
    extension: Option<(u8, Vec<u8>)>,
    /// What the IP header says that the segment's length is.
    claimed: Option<usize>,
    padding: Vec<u8>,
    checksum: Checksum,
}

#[derive(Clone, Copy, Debug)]
enum Checksum {
    Right,
    /// Wrong by this much.
    Wrong(u16),
    Written(u16),
}

impl Segment {
    pub(crate) fn new(
        ifindex: u32,
        ethernet: (Mac, Mac),
        from: SocketAddr,
        to: SocketAddr,
    ) -> Self {
        Self {
            ifindex,
            ethernet,
            from,
            to,
            seq: 0x1000_0000,
            ack: 0,
            flags: 0,
            window: 0xfaf0,
            urgent: 0,
            reserved: 0,
            options: Vec::new(),
            data: Vec::new(),
            hops: 64,
            class: 0,
            id: 0x1234,
            fragment: 0x4000,
            flow_label: 0,
            protocol: TCP,
            ip_options: Vec::new(),
            extension: None,
            claimed: None,
            padding: Vec::new(),
            checksum: Checksum::Right,
        }
    }

    pub(crate) fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    pub(crate) fn syn(self) -> Self {
        self.flags(SYN)
    }

    pub(crate) fn syn_ack(self) -> Self {
        self.flags(SYN | ACK).ack(0x1000_0001)
    }

    /// A bare acknowledgement, or data if there is some.
    pub(crate) fn plain(self) -> Self {
        self.flags(ACK).ack(0x1000_0001)
    }

    pub(crate) fn fin(self) -> Self {
        self.flags(FIN | ACK).ack(0x1000_0001)
    }

    pub(crate) fn rst(self) -> Self {
        self.flags(RST)
    }

    pub(crate) fn seq(self, seq: u32) -> Self {
        Self { seq, ..self }
    }

    pub(crate) fn ack(self, ack: u32) -> Self {
        Self { ack, ..self }
    }

    pub(crate) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    pub(crate) fn urgent(self, urgent: u16) -> Self {
        Self { urgent, flags: self.flags | URG, ..self }
    }

    /// The four bits between the data offset and the flags.
    pub(crate) fn reserved(self, reserved: u8) -> Self {
        Self { reserved, ..self }
    }

    /// TCP options; a multiple of four bytes.
    pub(crate) fn options(self, options: &[u8]) -> Self {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40);
        Self { options: options.to_vec(), ..self }
    }

    pub(crate) fn data(self, data: &[u8]) -> Self {
        Self { data: data.to_vec(), ..self }
    }

    /// The hop limit or time to live.
    pub(crate) fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    pub(crate) fn class(self, class: u8) -> Self {
        Self { class, ..self }
    }

    pub(crate) fn id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    pub(crate) fn flow_label(self, flow_label: u32) -> Self {
        Self { flow_label, ..self }
    }

    /// Another protocol than TCP, whatever the bytes say.
    pub(crate) fn protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// IPv4 options; a multiple of four bytes.
    pub(crate) fn ip_options(self, options: &[u8]) -> Self {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40);
        Self { ip_options: options.to_vec(), ..self }
    }

    /// An IPv6 extension header of this number; its first byte is filled in.
    pub(crate) fn extension(self, number: u8, header: &[u8]) -> Self {
        Self { extension: Some((number, header.to_vec())), ..self }
    }

    /// A fragment: `offset` in units of eight bytes, `more` unless it is the last.
    pub(crate) fn fragment(self, offset: u16, more: bool) -> Self {
        if self.from.is_ipv4() {
            return Self { fragment: u16::from(more) << 13 | offset, ..self };
        }
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        self.extension(44, &[0, 0, high, low, 0xca, 0xfe, 0xca, 0xfe])
    }

    /// Flags and offset of an IPv4 header, which are zero in no packet made here otherwise.
    pub(crate) fn may_fragment(self) -> Self {
        Self { fragment: 0, ..self }
    }

    /// The IP header lies: it says that the segment has this many bytes.
    pub(crate) fn claims(self, length: usize) -> Self {
        Self { claimed: Some(length), ..self }
    }

    /// Bytes behind the packet, as Ethernet adds them to a short one.
    pub(crate) fn padding(self, length: usize) -> Self {
        Self { padding: vec![0xa5; length], ..self }
    }

    /// A TCP checksum that is wrong by so much.
    pub(crate) fn wrong_by(self, error: u16) -> Self {
        Self { checksum: Checksum::Wrong(error), ..self }
    }

    /// This TCP checksum, right or wrong.
    pub(crate) fn checksum(self, checksum: u16) -> Self {
        Self { checksum: Checksum::Written(checksum), ..self }
    }

    pub(crate) fn sport(mut self, port: u16) -> Self {
        self.from.set_port(port);
        self
    }

    pub(crate) fn dport(mut self, port: u16) -> Self {
        self.to.set_port(port);
        self
    }

    /// To another address.
    pub(crate) fn dst(mut self, address: IpAddr) -> Self {
        self.to.set_ip(address);
        self
    }

    /// From another address.
    pub(crate) fn src(mut self, address: IpAddr) -> Self {
        self.from.set_ip(address);
        self
    }

    /// The Ethernet source.
    pub(crate) fn src_mac(mut self, mac: Mac) -> Self {
        self.ethernet.1 = mac;
        self
    }

    /// The Ethernet destination.
    pub(crate) fn dst_mac(mut self, mac: Mac) -> Self {
        self.ethernet.0 = mac;
        self
    }

    /// In by another interface.
    pub(crate) fn by(self, ifindex: u32) -> Self {
        Self { ifindex, ..self }
    }

    /// As it is on the wire.
    pub(crate) fn frame(&self) -> Frame {
        self.around(&self.tcp())
    }

    /// The same with something else than the segment behind the IP header.
    pub(crate) fn around(&self, payload: &[u8]) -> Frame {
        let length = payload.len();
        let ip = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.ipv4(from.octets(), to.octets(), length),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.ipv6(from.octets(), to.octets(), length),
            _ => panic!("from {} to {}", self.from, self.to),
        };
        let kind: u16 = if self.from.is_ipv4() { 0x0800 } else { 0x86dd };
        let (to, from) = self.ethernet;
        let bytes = [&to[..], &from, &kind.to_be_bytes(), &ip, payload, &self.padding].concat();
        Frame { bytes, ifindex: self.ifindex }
    }

    fn tcp(&self) -> Vec<u8> {
        let words = u8::try_from(5 + self.options.len() / 4).expect("no more than 15 words");
        let mut tcp = Vec::with_capacity(20 + self.options.len() + self.data.len());
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([words << 4 | self.reserved, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(&self.options);
        tcp.extend(&self.data);
        let covered = &tcp[..self.claimed.unwrap_or(tcp.len()).min(tcp.len())];
        let right = !ones_sum(&[&self.pseudo_header(covered.len()), covered]);
        let checksum = match self.checksum {
            Checksum::Right => right,
            Checksum::Wrong(error) => ones_sum(&[&right.to_be_bytes(), &error.to_be_bytes()]),
            Checksum::Written(checksum) => checksum,
        };
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        tcp
    }

    /// In the form of IPv6, whose sum is the one of IPv4's.
    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let length = u32::try_from(length).expect("a length of a frame").to_be_bytes();
        [&octets(self.from.ip())[..], &octets(self.to.ip()), &length, &[0, 0, 0, TCP]].concat()
    }

    fn ipv4(&self, from: [u8; 4], to: [u8; 4], length: usize) -> Vec<u8> {
        let header = 20 + self.ip_options.len();
        let total = word(header + self.claimed.unwrap_or(length));
        let words = u8::try_from(header / 4).expect("no more than 15 words");
        let mut ip = vec![0x40 | words, self.class];
        ip.extend(total.to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.hops, self.protocol, 0, 0]);
        ip.extend(from);
        ip.extend(to);
        ip.extend(&self.ip_options);
        let checksum = !ones_sum(&[&ip]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip
    }

    fn ipv6(&self, from: [u8; 16], to: [u8; 16], length: usize) -> Vec<u8> {
        let (next, extension) = match &self.extension {
            None => (self.protocol, Vec::new()),
            Some((number, header)) => {
                let mut header = header.clone();
                header[0] = self.protocol;
                (*number, header)
            }
        };
        let first = 6 << 28 | u32::from(self.class) << 20 | self.flow_label;
        let length = word(extension.len() + self.claimed.unwrap_or(length));
        let mut ip = first.to_be_bytes().to_vec();
        ip.extend(length.to_be_bytes());
        ip.extend([next, self.hops]);
        ip.extend(from);
        ip.extend(to);
        ip.extend(extension);
        ip
    }
}

impl From<Segment> for Frame {
    fn from(segment: Segment) -> Self {
        segment.frame()
    }
}

fn word(length: usize) -> u16 {
    u16::try_from(length).expect("a length that fits into its field")
}
