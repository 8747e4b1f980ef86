//! What the next link does not take: its sender is told, and the connection knows nothing of it.

use anyhow::Result;
use lb_common::verdict::Verdict::{DropTooBig, ForwardClient, ForwardServer, ReplyTooBig};
use tests::lab::Family;

use crate::{
    frame::{FIN, Frame, QINQ, VLAN},
    net::{And as _, Net},
    row::{self, Named},
};

/// MTUs of the narrow world: before and behind.
const FRONT: u32 = 1400;
const BACK: u32 = 1300;

#[test]
fn senders_of_too_large_packets_are_told() -> Result<()> {
    super::both(BOTH)?;
    row::run(Family::V4, V4)?;
    super::both_where(NARROW, |world| world.set_mtus(FRONT, BACK))?;
    super::both_where(JUMBO, |world| world.set_mtus(9000, 9000))
}

/// Links of 1500 bytes.
pub(super) const BOTH: &[Named] = &[
    ("a packet of the link's MTU goes on", |n| {
        let data = up_to(n, 1500);
        n.given(n.established())
            .when(n.client().plain().data(&data))
            .forwards(ForwardClient, n.to_backend().plain().data(&data))
    }),
    ("a client's packet of a byte more is told about", |n| {
        let big = n.client().plain().data(&up_to(n, 1501));
        n.given(n.established())
            .when(big.clone())
            .returns(ReplyTooBig, n.client_is_told(&big, 1500))
            .active(1)
            .connections(1)
    }),
    ("a backend's packet of a byte more is told about", |n| {
        let big = n.server().plain().data(&up_to(n, 1501));
        n.given(n.established())
            .when(big.clone())
            .returns(ReplyTooBig, n.backend_is_told(&big, 1500))
            .active(1)
    }),
    ("a segment of a jumbo frame is told about", |n| {
        let big = n.server().plain().data(&[0x3c; 3000]);
        n.given(n.established())
            .when(big.clone())
            .returns(ReplyTooBig, n.backend_is_told(&big, 1500))
    }),
    ("a segment of several buffers is told about", |n| {
        let big = n.server().plain().data(&[0x3c; 8000]);
        n.given(n.established())
            .when(big.clone())
            .returns(ReplyTooBig, n.backend_is_told(&big, 1500))
    }),
    ("a quotation ends before TCP options and data", |n| {
        let big = n.client().plain().options(&[1; 40]).class(0xb8).data(&up_to(n, 1600));
        n.given(n.established())
            .when(big.clone())
            .returns(ReplyTooBig, n.client_is_told(&big, 1500))
    }),
    ("a quotation has the hop limit that came", |n| {
        let big = n.client().plain().hops(1).data(&up_to(n, 1501));
        n.given(n.established())
            .when(big.clone())
            .returns(ReplyTooBig, n.client_is_told(&big, 1500))
    }),
    ("padding makes no packet too large", |n| {
        let data = up_to(n, 1500);
        n.given(n.established())
            .when(n.client().plain().data(&data).padding(6))
            .forwards(ForwardClient, n.to_backend().plain().data(&data).padding(6))
    }),
    ("tags make no packet too large", |n| {
        let data = up_to(n, 1500);
        n.given(n.established())
            .when(two(n.client().plain().data(&data)))
            .forwards(ForwardClient, n.to_backend().plain().data(&data))
    }),
    ("a client of a VLAN is told in it", |n| {
        let big = n.client().plain().data(&up_to(n, 1501));
        n.given(n.established())
            .when(big.frame().tagged(VLAN, 7))
            .returns(ReplyTooBig, n.client_is_told(&big, 1500).frame().tagged(VLAN, 7))
    }),
    ("a backend of a VLAN in a VLAN is told in it", |n| {
        let big = n.server().plain().data(&up_to(n, 1501));
        let told = n.backend_is_told(&big, 1500).frame();
        n.given(n.established())
            .when(two(big))
            .returns(ReplyTooBig, told.tagged(VLAN, 7).tagged(QINQ, 8))
    }),
];

pub(super) const V4: &[Named] = &[
    ("IPv4: a packet that may be fragmented and is too large is dropped", |n| {
        n.given(n.established())
            .when(n.client().plain().may_fragment().data(&up_to(n, 1501)))
            .drops(DropTooBig)
            .active(1)
            .connections(1)
    }),
    ("IPv4: a backend's packet that may be fragmented and is too large is dropped", |n| {
        n.given(n.established())
            .when(n.server().plain().may_fragment().data(&up_to(n, 1501)))
            .drops(DropTooBig)
            .active(1)
    }),
];

/// Each way has its own MTU: what counts is the link ahead.
pub(super) const NARROW: &[Named] = &[
    ("the backends' link takes its MTU", |n| {
        let data = up_to(n, BACK);
        n.given(n.established())
            .when(n.client().plain().data(&data))
            .forwards(ForwardClient, n.to_backend().plain().data(&data))
    }),
    ("a client is told the MTU of the backends' link", |n| {
        let big = n.client().plain().data(&up_to(n, BACK + 1));
        n.given(n.established())
            .when(big.clone())
            .returns(ReplyTooBig, n.client_is_told(&big, BACK))
    }),
    ("the clients' link takes its MTU", |n| {
        let data = up_to(n, FRONT);
        n.given(n.established())
            .when(n.server().plain().data(&data))
            .forwards(ForwardServer, n.to_client().plain().data(&data))
    }),
    ("a backend is told the MTU of the clients' link", |n| {
        let big = n.server().plain().data(&up_to(n, FRONT + 1));
        n.given(n.established())
            .when(big.clone())
            .returns(ReplyTooBig, n.backend_is_told(&big, FRONT))
    }),
    ("the link that a packet came by does not count", |n| {
        let data = up_to(n, FRONT);
        n.given(n.established().and(n.client().fin()))
            .when(n.server().flags(FIN).data(&data))
            .forwards(ForwardServer, n.to_client().flags(FIN).data(&data))
            .active(0)
    }),
];

/// Links of 9000 bytes.
pub(super) const JUMBO: &[Named] = &[
    ("a segment of a jumbo frame goes over links that take it", |n| {
        n.given(n.established())
            .when(n.server().plain().data(&[0x3c; 3000]))
            .forwards(ForwardServer, n.to_client().plain().data(&[0x3c; 3000]))
    }),
    ("a segment of several buffers goes over links that take it", |n| {
        let data = up_to(n, 9000);
        n.given(n.established())
            .when(n.client().plain().data(&data))
            .forwards(ForwardClient, n.to_backend().plain().data(&data))
    }),
    ("a segment of several buffers gets tags", |n| {
        let data = up_to(n, 9000);
        n.given(vec![two(n.client().syn())])
            .when(n.server().plain().data(&data))
            .forwards(ForwardServer, two(n.to_client().plain().data(&data)))
    }),
];

/// Data that makes an IP packet this long.
fn up_to(n: &Net, length: u32) -> Vec<u8> {
    let headers = if n.vip.is_ipv4() { 40 } else { 60 };
    (0..=250).cycle().take(length as usize - headers).collect()
}

fn two(packet: impl Into<Frame>) -> Frame {
    packet.into().tagged(VLAN, 7).tagged(QINQ, 8)
}
