//! Asking who has an address, and saying so: ARP (RFC 826) and neighbour discovery (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    frame::{Frame, Mac, Segment},
    net::{FRONT, Net, ROUTER},
    verify::{ICMPV6, ones_sum},
};

/// ARP's operations.
pub(crate) const REQUEST: u16 = 1;
pub(crate) const REPLY: u16 = 2;

/// Types of `ICMPv6` messages.
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

const BROADCAST: Mac = [0xff; 6];

/// An ARP packet of the clients' router.
pub(crate) fn arp(n: &Net, operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Frame {
    let ethernet_and_ipv4 = [0, 1, 8, 0, 6, 4];
    let to = if operation == REQUEST { BROADCAST } else { FRONT };
    let bytes = [
        &to[..],
        &ROUTER,
        &[0x08, 0x06],
        &ethernet_and_ipv4,
        &operation.to_be_bytes(),
        &ROUTER,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ];
    Frame { bytes: bytes.concat(), ifindex: n.front }
}

/// A neighbour solicitation of the clients' router, to the group that the address it asks for
/// is in (RFC 4291, section 2.7.1).
pub(crate) fn solicitation(n: &Net, target: Ipv6Addr) -> Frame {
    let [.., a, b, c] = target.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    let to_group =
        n.client().dst_mac([0x33, 0x33, 0xff, a, b, c]).dst(Ipv6Addr::from(group).into());
    discovery(&to_group, SOLICITATION, target)
}

/// The same behind two extension headers with nothing but padding: hop-by-hop and destination
/// options.
pub(crate) fn hidden_solicitation(n: &Net, target: Ipv6Addr) -> Frame {
    const DESTINATION_OPTIONS: u8 = 60;
    let plain = solicitation(n, target);
    let (outer, message) = plain.bytes.split_at(14 + 40);
    let mut bytes = outer.to_vec();
    let length = u16::from_be_bytes([bytes[18], bytes[19]]) + 16;
    bytes[18..20].copy_from_slice(&length.to_be_bytes());
    bytes[20] = 0;
    bytes.extend([DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0]);
    bytes.extend([ICMPV6, 0, 1, 4, 0, 0, 0, 0]);
    bytes.extend(message);
    Frame { bytes, ..plain }
}

/// The same to the address itself, as it is sent to verify that a neighbour is still there.
pub(crate) fn verification(n: &Net, target: Ipv6Addr) -> Frame {
    discovery(&n.client().dst(target.into()), SOLICITATION, target)
}

/// An unsolicited advertisement of the clients' router, that the address is its own.
pub(crate) fn advertisement(n: &Net, target: Ipv6Addr) -> Frame {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to_all = n.client().dst_mac([0x33, 0x33, 0, 0, 0, 1]).dst(all_nodes.into());
    discovery(&to_all, ADVERTISEMENT, target)
}

/// `outer` is a segment whose frame and IP header it takes.
fn discovery(outer: &Segment, kind: u8, target: Ipv6Addr) -> Frame {
    let link_layer_address = [&[if kind == SOLICITATION { 1 } else { 2 }, 1][..], &ROUTER].concat();
    let mut message =
        [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &link_layer_address].concat();
    let (IpAddr::V6(from), IpAddr::V6(to)) = (outer.from.ip(), outer.to.ip()) else {
        panic!("neighbour discovery is of IPv6");
    };
    let length = u32::try_from(message.len()).expect("a length of a frame").to_be_bytes();
    let pseudo_header = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    let sum = !ones_sum(&[&pseudo_header, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    outer.clone().protocol(ICMPV6).hops(255).around(&message)
}
