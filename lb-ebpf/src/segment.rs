//! What a packet is: a plain TCP segment, an ICMP message, or something with a verdict at once.

use lb_common::{
    addr::{Address, V4, V6},
    flow::FlowKey,
    verdict::Verdict,
};

use crate::{
    link::Link,
    maps::Family,
    packet::{Half, Ipv4, Ipv6, Packet, Tcp},
    service,
};

pub const TCP: u8 = 6;
/// IPv6 extension headers whose second byte says how long they are.
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const DESTINATION: u8 = 60;

/// A packet that is no plain TCP segment.
pub enum Odd {
    /// The kernel's, whatever its address.
    Pass(Verdict),
    /// Decided thus if it is for a virtual address; the kernel's otherwise.
    Ours(Verdict),
    /// A whole ICMP message.
    Icmp,
}

/// What the packet path needs of an IP header, whichever the version.
pub trait IpHeader: Sized {
    type Address: Address;

    /// Number of the family's ICMP.
    const ICMP: u8;

    fn src(&self) -> Self::Address;
    fn dst(&self) -> Self::Address;

    /// Whether a TCP header follows directly; if not, what the packet is instead.
    fn check(&self, packet: &Packet<'_>, offset: usize) -> Result<(), Odd>;

    /// Length of the IP payload, in bytes, by the header's own word.
    fn payload(&self) -> usize;
}

impl IpHeader for Ipv4 {
    type Address = V4;

    const ICMP: u8 = 1;

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

        let is_plain = self.version_and_length == PLAIN && self.fragment & FRAGMENT == 0;
        if self.protocol != TCP {
            return Err(if self.protocol == Self::ICMP && is_plain {
                Odd::Icmp
            } else {
                Odd::Pass(Verdict::PassNotTcp)
            });
        }
        if self.version_and_length != PLAIN {
            let options = self.version_and_length > PLAIN && self.version_and_length <= 0x4f;
            let verdict = if options { Verdict::DropOptions } else { Verdict::DropMalformed };
            return Err(Odd::Ours(verdict));
        }
        if !is_plain {
            return Err(Odd::Ours(Verdict::DropFragment));
        }
        let total = u16::from_be(self.total_length) as usize;
        if total < size_of::<Ipv4>() {
            return Err(Odd::Ours(Verdict::DropMalformed));
        }
        if !packet.reaches(offset + total) {
            return Err(Odd::Ours(Verdict::DropTruncated));
        }
        Ok(())
    }

    #[inline(always)]
    fn payload(&self) -> usize {
        (u16::from_be(self.total_length) as usize).saturating_sub(size_of::<Ipv4>())
    }
}

impl IpHeader for Ipv6 {
    type Address = V6;

    const ICMP: u8 = 58;

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
        const FRAGMENT: u8 = 44;

        match self.next_header {
            TCP => {}
            Self::ICMP if self.is_version_6() => return Err(Odd::Icmp),
            Self::ICMP => return Err(Odd::Pass(Verdict::PassIcmp)),
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
        if !self.is_version_6() {
            return Err(Odd::Ours(Verdict::DropMalformed));
        }
        if !packet.reaches(offset + size_of::<Ipv6>() + self.payload()) {
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
    pub link: Link<'a>,
    pub ip: &'a mut F::Header,
    pub tcp: &'a mut Tcp,
}

/// Why a packet is not a [`Segment`].
pub enum NoSegment {
    /// It has its verdict.
    Decided(Verdict),
    /// It is an ICMP message.
    Icmp,
}

impl From<Verdict> for NoSegment {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Decided(verdict)
    }
}

impl<'a, F: Family> Segment<'a, F> {
    /// Takes the packet apart.
    #[inline(always)]
    pub fn parse(packet: &Packet<'a>, link: Link<'a>) -> Result<Self, NoSegment> {
        let offset = link.length();
        let ip = packet.at::<F::Header>(offset).ok_or(Verdict::PassTruncated)?;
        if let Err(odd) = ip.check(packet, offset) {
            return Err(match odd {
                Odd::Pass(verdict) => verdict.into(),
                Odd::Ours(verdict) => service::if_ours::<F>(packet.ctx, verdict).into(),
                Odd::Icmp => NoSegment::Icmp,
            });
        }
        let Some(tcp) = packet.at::<Tcp>(offset + size_of::<F::Header>()) else {
            return Err(service::if_ours::<F>(packet.ctx, Verdict::DropTruncated).into());
        };
        let header = tcp.header_length();
        if header < size_of::<Tcp>() || header > ip.payload() {
            return Err(service::if_ours::<F>(packet.ctx, Verdict::DropMalformed).into());
        }
        Ok(Self { link, ip, tcp })
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

    /// Where its TCP header begins in the frame.
    #[inline(always)]
    pub fn start(&self) -> usize {
        self.link.length() + size_of::<F::Header>()
    }

    /// Length of the IP packet, in bytes.
    #[inline(always)]
    pub fn length(&self) -> usize {
        size_of::<F::Header>() + self.ip.payload()
    }
}

/// An address taken word by word: as a whole it would be copied by a loop over its bytes.
#[inline(always)]
fn words(address: &[Half; 4]) -> V6 {
    let [a, b, c, d] = address;
    V6([a.0, b.0, c.0, d.0])
}
