//! What is not Tandem's to decide passes to the kernel unchanged.

use anyhow::Result;
use lb_common::verdict::Verdict::{
    PassIcmp, PassNoService, PassNotIp, PassNotOurs, PassNotTcp, PassTruncated, PassVlan,
};
use tests::lab::Family;

use crate::{
    frame::{Frame, QINQ, VLAN},
    net::Net,
    row::{self, Named},
};

#[test]
fn what_is_not_ours_passes() -> Result<()> {
    super::both(BOTH)?;
    row::run(Family::V4, V4)?;
    row::run(Family::V6, V6)
}

pub(super) const BOTH: &[Named] = &[
    ("ARP passes", |n| n.when(of_type(n, 0x0806)).passes(PassNotIp)),
    ("LLDP passes", |n| n.when(of_type(n, 0x88cc)).passes(PassNotIp)),
    ("a frame of IEEE 802.3 (spanning tree) passes", |n| {
        n.when(of_type(n, 0x0026)).passes(PassNotIp)
    }),
    ("a frame of type 0 passes", |n| n.when(of_type(n, 0)).passes(PassNotIp)),
    ("a frame of three VLAN tags passes", |n| {
        let frame = n.client().syn().frame();
        n.when(frame.tagged(VLAN, 6).tagged(VLAN, 7).tagged(QINQ, 8)).passes(PassVlan)
    }),
    ("ARP in a VLAN passes", |n| n.when(of_type(n, 0x0806).tagged(VLAN, 7)).passes(PassNotIp)),
    ("a frame of a VLAN that ends before its tag passes", |n| {
        n.when(n.client().syn().frame().tagged(VLAN, 7).cut(14)).passes(PassTruncated)
    }),
    ("a frame of a VLAN that ends in its tag passes", |n| {
        n.when(n.client().syn().frame().tagged(VLAN, 7).cut(17)).passes(PassTruncated)
    }),
    ("a frame of a VLAN that ends with its tag passes", |n| {
        n.when(n.client().syn().frame().tagged(VLAN, 7).cut(18)).passes(PassTruncated)
    }),
    ("a frame of a VLAN in a VLAN that ends with the first tag passes", |n| {
        let frame = n.client().syn().frame();
        n.when(frame.tagged(VLAN, 7).tagged(QINQ, 8).cut(18)).passes(PassTruncated)
    }),
    ("UDP to a service passes", |n| n.when(n.client().protocol(17)).passes(PassNotTcp)),
    ("VRRP passes", |n| n.when(n.client().protocol(112)).passes(PassNotTcp)),
    ("SCTP passes", |n| n.when(n.client().protocol(132)).passes(PassNotTcp)),
    ("GRE passes", |n| n.when(n.client().protocol(47)).passes(PassNotTcp)),
    ("ESP passes", |n| n.when(n.client().protocol(50)).passes(PassNotTcp)),
    ("AH passes", |n| n.when(n.client().protocol(51)).passes(PassNotTcp)),
    ("an unknown protocol passes", |n| n.when(n.client().protocol(255)).passes(PassNotTcp)),
    ("IP in IP passes", |n| n.when(n.client().protocol(4)).passes(PassNotTcp)),
    ("UDP that ends with its IP header passes", |n| {
        n.when(n.client().protocol(17).frame().cut(n.tcp())).passes(PassNotTcp)
    }),
    ("TCP to another address passes", |n| {
        n.when(n.client().dst(n.elsewhere()).plain().data(b"x")).passes(PassNotOurs)
    }),
    ("a RST to another address passes", |n| {
        n.when(n.client().dst(n.elsewhere()).rst()).passes(PassNotOurs)
    }),
    ("TCP from a service's own address and port passes", |n| {
        let from_vip = n.client().src(n.vip.ip()).sport(443);
        n.when(from_vip.dst(n.elsewhere()).plain()).passes(PassNotOurs)
    }),
    ("data to the virtual address on a port without service passes", |n| {
        n.when(n.client().dport(22).plain().data(b"ssh")).passes(PassNoService)
    }),
    ("port 0 of the virtual address has no service", |n| {
        n.when(n.client().dport(0).syn()).passes(PassNoService)
    }),
    ("a service that was removed is the kernel's", |n| {
        let elsewhere = n.elsewhere();
        n.when(n.client().syn())
            .with(|service, _| service.bind[0].set_ip(elsewhere))
            .passes(PassNotOurs)
    }),
    ("a port that was removed from a virtual address is the kernel's", |n| {
        n.when(n.client().syn())
            .with(|service, _| service.bind[0].set_port(444))
            .passes(PassNoService)
    }),
    ("an Ethernet header with nothing behind it passes", |n| {
        n.when(n.client().frame().cut(14)).passes(PassTruncated)
    }),
];

pub(super) const V4: &[Named] = &[
    ("IPv4: ICMP to the virtual address passes", |n| {
        n.when(n.client().protocol(1).frame().set(34, &[8, 0])).passes(PassIcmp)
    }),
    ("IPv4: an ICMP error to the virtual address passes", |n| {
        n.when(n.client().protocol(1).frame().set(34, &[3, 4])).passes(PassIcmp)
    }),
    ("IPv4: IPv6 in IPv4 passes", |n| n.when(n.client().protocol(41)).passes(PassNotTcp)),
];

pub(super) const V6: &[Named] = &[
    ("IPv6: a router advertisement passes", |n| {
        n.when(n.client().protocol(58).hops(255).frame().set(54, &[134, 0])).passes(PassIcmp)
    }),
    ("IPv6: a neighbour solicitation passes", |n| {
        n.when(n.client().protocol(58).hops(255).frame().set(54, &[135, 0])).passes(PassIcmp)
    }),
    ("IPv6: a neighbour advertisement passes", |n| {
        n.when(n.client().protocol(58).hops(255).frame().set(54, &[136, 0])).passes(PassIcmp)
    }),
    ("IPv6: an echo request to the virtual address passes", |n| {
        n.when(n.client().protocol(58).frame().set(54, &[128, 0])).passes(PassIcmp)
    }),
    ("IPv6: a packet too big passes", |n| {
        n.when(n.client().protocol(58).frame().set(54, &[2, 0])).passes(PassIcmp)
    }),
    ("IPv6: no next header passes", |n| n.when(n.client().protocol(59)).passes(PassNotTcp)),
];

/// A frame of another Ethernet type.
fn of_type(n: &Net, kind: u16) -> Frame {
    n.client().syn().frame().set(12, &kind.to_be_bytes())
}
