//! ICMP errors about packets of our flows: translated, with the packet they quote, and sent to
//! whom that packet came from. Path-MTU discovery depends on it.

use lb_common::{
    addr::Port,
    checksum::{address_delta, apply, combine, fold, port_delta},
    flow::FlowKey,
    verdict::Verdict,
};

use crate::{
    Outcome, forward,
    link::Link,
    maps::Family,
    packet::{Icmp, Ipv4, Ipv6, Packet, Tcp},
    rewrite::Rewrite,
    segment::{IpHeader, TCP},
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

/// Translates an ICMP error, or passes what is none or not about a flow.
///
/// The quoted packet is one that we sent on, so its answer is the key of the flow back, and that
/// flow's translation is what the error itself needs.
#[inline(always)]
pub fn relay<F: Family>(packet: &Packet<'_>) -> Result<Outcome, Verdict> {
    let mut link = Link::parse(packet)?;
    let ip = packet.at::<F::Header>(link.length()).ok_or(Verdict::PassIcmp)?;
    let offset = link.length() + size_of::<F::Header>();
    let icmp = packet.at::<Icmp>(offset).ok_or(Verdict::PassIcmp)?;
    let quote = offset + size_of::<Icmp>();
    let ports = quote + size_of::<F::Header>();
    let quoted = packet.at::<F::Header>(quote).ok_or(Verdict::PassIcmp)?;
    let inner = packet.at::<Ports>(ports).ok_or(Verdict::PassIcmp)?;
    let least = size_of::<Icmp>() + size_of::<F::Header>() + size_of::<Ports>();
    if !F::Header::is_error(icmp.kind) || !quoted.has_ports() || ip.payload() < least {
        return Err(Verdict::PassIcmp);
    }
    if !packet.reaches(offset + ip.payload()) {
        return Err(Verdict::PassIcmp);
    }
    // Who complains about a packet complains to whom it came from.
    if ip.dst() != quoted.src() {
        return Err(Verdict::PassIcmp);
    }
    let key =
        FlowKey { src: quoted.dst(), dst: quoted.src(), sport: inner.dport, dport: inner.sport };
    let entry = F::flows().get_ptr(&key).ok_or(Verdict::PassIcmp)?;
    // SAFETY: readable after a lookup in this run; the translation never changes.
    let to = unsafe { &(*entry).to };
    let hop = forward::hop(to.hop)?;
    ip.lower_hop_limit().ok_or(Verdict::DropHopLimit)?;

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

    link.address(packet, hop)?;
    Ok(Outcome::new(Verdict::ForwardError, hop.ifindex))
}
