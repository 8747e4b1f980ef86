//! VLAN tags: every side has its own, and an answer goes back with those that it came by.

use anyhow::Result;
use lb_common::{
    maps::{Tag, Tags},
    verdict::Verdict::{
        DropTruncated, ForwardClient, ForwardNew, ForwardServer, PassNoService, PassTruncated,
        ResetNoFlow,
    },
};

use crate::{
    frame::{ACK, Frame, QINQ, Segment, VLAN},
    net::{And as _, Net},
    row::{Named, Row},
};

#[test]
fn tags_are_each_side_s_own() -> Result<()> {
    super::both(BOTH)
}

pub(super) const BOTH: &[Named] = &[
    ("a client's tag does not go to a backend without one", |n| {
        n.when(one(n.client().syn(), 7)).forwards(ForwardNew, n.to_backend().syn())
    }),
    ("a client of a VLAN is answered with its tag", |n| {
        n.given(vec![one(n.client().syn(), 7)])
            .when(n.server().syn_ack())
            .forwards(ForwardServer, one(n.to_client().syn_ack(), 7))
    }),
    ("data of a client of a VLAN goes on", |n| {
        n.given(vec![one(n.client().syn(), 7)])
            .when(one(n.client().plain().data(b"data").padding(3), 7))
            .forwards(ForwardClient, n.to_backend().plain().data(b"data").padding(3))
    }),
    ("a backend of a VLAN gets its tag", |n| {
        tagged(n.when(n.client().syn()), [9, 0]).forwards(ForwardNew, one(n.to_backend().syn(), 9))
    }),
    ("a backend's tag does not go to a client without one", |n| {
        tagged(n.given(n.opened()), [9, 0])
            .when(one(n.server().syn_ack(), 9))
            .forwards(ForwardServer, n.to_client().syn_ack())
    }),
    ("client and backend of different VLANs: to the backend", |n| {
        tagged(n.when(one(n.client().syn(), 7)), [9, 0])
            .forwards(ForwardNew, one(n.to_backend().syn(), 9))
    }),
    ("client and backend of different VLANs: to the client", |n| {
        tagged(n.given(vec![one(n.client().syn(), 7)]), [9, 0])
            .when(one(n.server().syn_ack(), 9))
            .forwards(ForwardServer, one(n.to_client().syn_ack(), 7))
    }),
    ("client and backend of one VLAN", |n| {
        tagged(n.when(one(n.client().syn(), 9)), [9, 0])
            .forwards(ForwardNew, one(n.to_backend().syn(), 9))
    }),
    ("a VLAN in a VLAN to no VLAN", |n| {
        n.when(two(n.client().syn(), 7, 8)).forwards(ForwardNew, n.to_backend().syn())
    }),
    ("no VLAN to a VLAN in a VLAN", |n| {
        n.given(vec![two(n.client().syn(), 7, 8)])
            .when(n.server().syn_ack())
            .forwards(ForwardServer, two(n.to_client().syn_ack(), 7, 8))
    }),
    ("a VLAN in a VLAN to another", |n| {
        tagged(n.when(two(n.client().syn(), 7, 8)), [9, 10])
            .forwards(ForwardNew, two(n.to_backend().syn(), 10, 9))
    }),
    ("a VLAN in a VLAN to one VLAN", |n| {
        tagged(n.when(two(n.client().syn(), 7, 8)), [9, 0])
            .forwards(ForwardNew, one(n.to_backend().syn(), 9))
    }),
    ("one VLAN to a VLAN in a VLAN", |n| {
        tagged(n.when(one(n.client().syn(), 7)), [9, 10])
            .forwards(ForwardNew, two(n.to_backend().syn(), 10, 9))
    }),
    ("the greatest segment of a VLAN goes on", |n| {
        let data = vec![0x5a; 1514 - n.tcp() - 20];
        n.given(n.opened())
            .when(one(n.server().plain().data(&data), 9))
            .forwards(ForwardServer, n.to_client().plain().data(&data))
    }),
    ("the greatest segment gets a tag: it is no part of the packet", |n| {
        let data = vec![0x5a; 1514 - n.tcp() - 20];
        n.given(vec![two(n.client().syn(), 7, 8)])
            .when(n.server().plain().data(&data))
            .forwards(ForwardServer, two(n.to_client().plain().data(&data), 7, 8))
    }),
    ("an outer tag of the inner kind is answered with the same kind", |n| {
        let tags = |segment: Segment| segment.frame().tagged(VLAN, 7).tagged(VLAN, 8);
        n.given(vec![tags(n.client().syn())])
            .when(n.server().syn_ack())
            .forwards(ForwardServer, tags(n.to_client().syn_ack()))
    }),
    ("a single tag of the outer kind is answered with the same kind", |n| {
        n.given(vec![n.client().syn().frame().tagged(QINQ, 8)])
            .when(n.server().syn_ack())
            .forwards(ForwardServer, n.to_client().syn_ack().frame().tagged(QINQ, 8))
    }),
    ("a priority is not answered with", |n| {
        n.given(vec![one(n.client().syn(), 7 | 0xf000)])
            .when(n.server().syn_ack())
            .forwards(ForwardServer, one(n.to_client().syn_ack(), 7))
    }),
    ("a tag with a priority only is answered with a tag", |n| {
        n.given(vec![one(n.client().syn(), 0xe000)])
            .when(n.server().syn_ack())
            .forwards(ForwardServer, one(n.to_client().syn_ack(), 0))
    }),
    ("the same MAC addresses in two VLANs are two hops: the first", |n| {
        n.given(two_vlans(n))
            .when(n.server().syn_ack())
            .forwards(ForwardServer, one(n.to_client().syn_ack(), 7))
    }),
    ("the same MAC addresses in two VLANs are two hops: the second", |n| {
        n.given(two_vlans(n))
            .when(n.server().dport(1025).syn_ack())
            .forwards(ForwardServer, one(n.to_client().dport(40_001).syn_ack(), 8))
    }),
    ("the same MAC addresses outside and in a VLAN are two hops", |n| {
        n.given(two_vlans(n).and(n.client().sport(40_002).syn()))
            .when(n.server().dport(1026).syn_ack())
            .forwards(ForwardServer, n.to_client().dport(40_002).syn_ack())
    }),
    ("a connection is answered in the VLAN that it began in", |n| {
        n.given(vec![one(n.client().syn(), 7), one(n.client().plain(), 8)])
            .when(n.server().plain())
            .forwards(ForwardServer, one(n.to_client().plain(), 7))
    }),
    ("a reset keeps the tag", |n| {
        n.when(one(n.client().flags(ACK).ack(7).data(b"who"), 7))
            .returns(ResetNoFlow, one(n.reset().seq(7), 7))
    }),
    ("a reset keeps both tags", |n| {
        n.when(two(n.client().flags(ACK).ack(7), 7, 8))
            .returns(ResetNoFlow, two(n.reset().seq(7), 7, 8))
    }),
    ("a client of a VLAN to a port without service is the kernel's", |n| {
        n.when(one(n.client().dport(22).syn(), 7)).passes(PassNoService)
    }),
    ("a frame of a VLAN that ends in its IP header passes", |n| {
        n.when(one(n.client().syn(), 7).cut(n.tcp() + 3)).passes(PassTruncated)
    }),
    ("a frame of a VLAN that ends in its TCP header is dropped", |n| {
        n.when(one(n.client().syn(), 7).cut(n.tcp() + 4 + 19)).drops(DropTruncated)
    }),
];

/// In a VLAN.
fn one(packet: impl Into<Frame>, vlan: u16) -> Frame {
    packet.into().tagged(VLAN, vlan)
}

/// In a VLAN that is in another.
fn two(packet: impl Into<Frame>, inner: u16, outer: u16) -> Frame {
    one(packet, inner).tagged(QINQ, outer)
}

/// SYNs of two clients with the same router's address, each in a VLAN of its own.
fn two_vlans(n: &Net) -> Vec<Frame> {
    vec![one(n.client().syn(), 7), one(n.client().sport(40_001).syn(), 8)]
}

/// With a backend in the VLAN of the first number; in that of the second, if there are two: then
/// that one is the inner.
fn tagged(row: Row, vlans: [u16; 2]) -> Row {
    let tag = |protocol: u16, vlan: u16| Tag { protocol: protocol.to_be(), vlan: vlan.to_be() };
    let tags = match vlans {
        [only, 0] => [tag(VLAN, only), Tag::default()],
        [outer, inner] => [tag(QINQ, outer), tag(VLAN, inner)],
    };
    row.with(|_, backend| backend.hop.tags = Tags(tags))
}
