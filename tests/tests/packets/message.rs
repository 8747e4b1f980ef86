//! ICMP and `ICMPv6` messages: errors about segments, mostly.

use std::net::IpAddr;

use crate::{
    frame::{Frame, IP, Segment},
    net::Net,
    verify::{ICMP, ICMPV6, ones_sum},
};

/// An error about a segment; every field can be set.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Its frame and IP header are those of a segment.
    outer: Segment,
    kind: u8,
    code: u8,
    rest: u32,
    quote: Vec<u8>,
    /// What the checksum is wrong by.
    error: u16,
}

/// Which error, by type and code; the last word of the header comes with it.
pub(crate) type Kind = (u8, u8, u32);

impl Message {
    /// About a segment that was sent; `outer` is a segment whose frame and IP header it takes.
    pub(crate) fn about(segment: &Segment, outer: Segment, kind: Kind) -> Self {
        Self::quoting(&segment.frame().bytes[IP..], outer, kind)
    }

    /// Quoting an IP packet.
    pub(crate) fn quoting(packet: &[u8], outer: Segment, (kind, code, rest): Kind) -> Self {
        let number = if outer.from.is_ipv4() { ICMP } else { ICMPV6 };
        let outer = outer.protocol(number);
        Self { outer, kind, code, rest, quote: packet.to_vec(), error: 0 }
    }

    /// Quotes only the IP header and so many bytes behind it.
    pub(crate) fn quotes(mut self, bytes: usize) -> Self {
        let header = if self.outer.from.is_ipv4() { 20 } else { 40 };
        self.quote.truncate(header + bytes);
        self
    }

    pub(crate) fn hops(self, hops: u8) -> Self {
        Self { outer: self.outer.hops(hops), ..self }
    }

    /// From this address.
    pub(crate) fn from(self, address: IpAddr) -> Self {
        Self { outer: self.outer.src(address), ..self }
    }

    /// A checksum that is wrong by so much.
    pub(crate) fn wrong_by(self, error: u16) -> Self {
        Self { error, ..self }
    }

    /// As it is on the wire.
    pub(crate) fn frame(&self) -> Frame {
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(self.rest.to_be_bytes());
        message.extend(&self.quote);
        let pseudo_header = match (self.outer.from.ip(), self.outer.to.ip()) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let length = u32::try_from(message.len()).expect("a length of a frame");
                let end = [0, 0, 0, ICMPV6];
                [&from.octets()[..], &to.octets(), &length.to_be_bytes(), &end].concat()
            }
            _ => Vec::new(),
        };
        let right = !ones_sum(&[&pseudo_header, &message]);
        let checksum = ones_sum(&[&right.to_be_bytes(), &self.error.to_be_bytes()]);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        self.outer.around(&message)
    }
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        message.frame()
    }
}

impl Net {
    /// An error about a segment to the client, as it arrives from a router before the client.
    pub(crate) fn client_error(&self, about: &Segment, kind: Kind) -> Message {
        Message::about(about, self.client().src(self.elsewhere()), kind)
    }

    /// The same as the backend gets it, about the segment that the backend sent.
    pub(crate) fn error_to_backend(&self, about: &Segment, kind: Kind) -> Message {
        Message::about(about, self.to_backend(), kind)
    }

    /// An error about a segment to the backend, as it arrives from a router before the backend.
    pub(crate) fn server_error(&self, about: &Segment, kind: Kind) -> Message {
        Message::about(about, self.server().src(self.elsewhere()), kind)
    }

    /// The same as the client gets it, about the segment that the client sent.
    pub(crate) fn error_to_client(&self, about: &Segment, kind: Kind) -> Message {
        Message::about(about, self.to_client(), kind)
    }

    /// What Tandem tells the client about a segment that is too large.
    pub(crate) fn client_is_told(&self, about: &Segment, mtu: u32) -> Message {
        self.told(about, self.to_client(), mtu)
    }

    /// What Tandem tells the backend about a segment that is too large.
    pub(crate) fn backend_is_told(&self, about: &Segment, mtu: u32) -> Message {
        self.told(about, self.to_backend(), mtu)
    }

    fn told(&self, about: &Segment, outer: Segment, mtu: u32) -> Message {
        let kind = if self.vip.is_ipv4() { (3, 4, mtu) } else { (2, 0, mtu) };
        Message::about(about, outer.id(0).may_fragment().hops(64), kind).quotes(20)
    }
}
