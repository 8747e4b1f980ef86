//! ICMP errors about packets of our flows: translated, with the packet they quote, and sent to
//! whom that packet came from. Path-MTU discovery depends on it.

use core::ptr::NonNull;

use aya_ebpf::programs::XdpContext;
use lb_common::{
    addr::{Address as _, Port},
    checksum::{address_delta, apply, combine, fold, port_delta},
    flow::{Flow, FlowKey},
    verdict::Verdict,
};

use crate::{
    Outcome, forward,
    link::Link,
    maps::Family,
    packet::{Icmp, Ipv4, Ipv6, Packet, Tcp},
    rewrite::Rewrite,
    segment::{IpHeader, TCP},
    table::{self, Entry, Found},
};

/// What differs between ICMP and ICMPv6.
pub trait Quoted: IpHeader {
    /// Whether a message of this type is an error, and so quotes a packet.
    fn is_error(kind: u8) -> bool;

    /// Whether this header, in a quotation, has the ports of a TCP segment behind it.
    fn has_ports(&self) -> bool;
}

impl Quoted for Ipv4 {
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        const UNREACHABLE: u8 = 3;
        const TIME_EXCEEDED: u8 = 11;
        const PARAMETER_PROBLEM: u8 = 12;
        matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    #[inline(always)]
    fn has_ports(&self) -> bool {
        const OFFSET: u16 = 0x1fff_u16.to_be();
        self.version_and_length == 0x45 && self.protocol == TCP && self.fragment & OFFSET == 0
    }
}

impl Quoted for Ipv6 {
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Unreachable, too big, time exceeded, parameter problem (RFC 4443, section 2.1).
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn has_ports(&self) -> bool {
        self.is_version_6() && self.next_header == TCP
    }
}

/// The beginning of a quoted TCP header: what every error must quote (RFC 792).
#[repr(C, packed(2))]
struct Ports {
    sport: Port,
    dport: Port,
    seq: u32,
}

/// The parts of an ICMP error that quotes a TCP segment.
struct Complaint<'a, F: Family> {
    link: Link<'a>,
    ip: &'a mut F::Header,
    icmp: &'a mut Icmp,
    quoted: &'a mut F::Header,
    /// Of the quoted segment.
    inner: &'a mut Ports,
    /// Where that begins.
    offset: usize,
}

impl<'a, F: Family> Complaint<'a, F> {
    #[inline(always)]
    fn parse(packet: &Packet<'a>) -> Option<Self> {
        let link = Link::parse(packet).ok()?;
        let ip = packet.at::<F::Header>(link.length())?;
        let offset = link.length() + size_of::<F::Header>();
        let icmp = packet.at::<Icmp>(offset)?;
        let quote = offset + size_of::<Icmp>();
        let ports = quote + size_of::<F::Header>();
        let quoted = packet.at::<F::Header>(quote)?;
        let inner = packet.at::<Ports>(ports)?;
        let least = size_of::<Icmp>() + size_of::<F::Header>() + size_of::<Ports>();
        if !F::Header::is_error(icmp.kind) || !quoted.has_ports() || ip.payload() < least {
            return None;
        }
        packet.reaches(offset + ip.payload()).then_some(Self {
            link,
            ip,
            icmp,
            quoted,
            inner,
            offset: ports,
        })
    }
}

/// The flow that an ICMP error needs; nothing if the message is no error, or about no flow.
///
/// The quoted packet is one that we sent on, so its answer is the key of the flow back, and that
/// flow's translation is what the error itself needs.
///
/// A function of its own, to have a stack of its own: what it returns is the entry to be looked at
/// once more.
#[inline(never)]
pub fn quoted<F: Family>(ctx: &XdpContext) -> Option<NonNull<Flow<F::Address>>> {
    let Complaint { ip, quoted, inner, .. } = Complaint::<F>::parse(&Packet::new(ctx))?;
    // Who complains about a packet complains to whom it came from.
    if ip.dst() != quoted.src() {
        return None;
    }
    let key =
        FlowKey { src: quoted.dst(), dst: quoted.src(), sport: inner.dport, dport: inner.sport };
    table::find_apart::<F>(&key)
}

/// Translates an ICMP error about a flow.
#[inline(always)]
pub fn relay<F: Family>(packet: &Packet<'_>, entry: Entry<F>) -> Result<Outcome, Verdict> {
    let Complaint { mut link, ip, icmp, quoted, inner, offset: ports } =
        Complaint::<F>::parse(packet).ok_or(Verdict::PassIcmp)?;
    let found = Found::<F>::at(entry);
    // SAFETY: an element of an array map. Whether it is the connection's is asked in the end.
    let (key, to, hop) = unsafe { (&(*entry).key, &(*entry).to, (*entry).hop) };
    let hop = forward::hop(hop.into())?;
    ip.lower_hop_limit().ok_or(Verdict::DropHopLimit)?;
    let is_for = key.src.difference(quoted.dst()) | key.dst.difference(quoted.src()) == 0
        && (key.sport, key.dport) == (inner.dport, inner.sport);

    // What the quoted packet looked like to whom the error goes.
    let addresses =
        combine(address_delta(quoted.src(), to.dst), address_delta(quoted.dst(), to.src));
    let ports_delta = combine(port_delta(inner.sport, to.dport), port_delta(inner.dport, to.sport));
    let mut delta = combine(quoted.readdress(to.dst, to.src), ports_delta);
    inner.sport = to.dport;
    inner.dport = to.sport;
    let whole = size_of::<Icmp>() + size_of::<F::Header>() + size_of::<Tcp>();
    if ip.payload() >= whole
        && let Some(tcp) = packet.at::<Tcp>(ports)
    {
        let before = tcp.checksum;
        tcp.checksum = apply(before, combine(addresses, ports_delta));
        delta = combine(delta, fold(u32::from(!before) + u32::from(tcp.checksum)));
    }
    // The outer addresses are part of ICMPv6's checksum, but not of ICMP's.
    delta = combine(delta, ip.readdress(to.src, to.dst));
    icmp.checksum = apply(icmp.checksum, delta);
    if !is_for || !found.is_still() {
        return Err(Verdict::DropDying);
    }

    link.address(packet, hop)?;
    Ok(Outcome::new(Verdict::ForwardError, hop.ifindex))
}
