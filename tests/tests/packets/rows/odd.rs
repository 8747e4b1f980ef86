//! Fragments, IPv4 options and IPv6 extension headers.

use anyhow::Result;
use lb_common::verdict::Verdict::{
    DropFragment, DropOptions, ForwardClient, PassNotOurs, PassNotTcp,
};
use tests::lab::Family;

use crate::row::{self, Named};

const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The smallest hop-by-hop or destination header: its first byte is filled in, the rest is `PadN`.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
/// A routing header with no segments left.
const NO_SEGMENTS: [u8; 8] = [0, 0, 4, 0, 0, 0, 0, 0];

#[test]
fn odd_packets_are_decided_explicitly() -> Result<()> {
    super::both(BOTH)?;
    row::run(Family::V4, V4)?;
    row::run(Family::V6, V6)
}

pub(super) const BOTH: &[Named] = &[
    ("a first fragment is dropped", |n| {
        n.when(n.client().syn().data(&[1; 24]).fragment(0, true)).drops(DropFragment)
    }),
    ("a middle fragment is dropped", |n| {
        n.when(n.client().data(&[1; 24]).fragment(100, true)).drops(DropFragment)
    }),
    ("a last fragment is dropped", |n| {
        n.when(n.client().data(&[1; 24]).fragment(100, false)).drops(DropFragment)
    }),
    ("a fragment of the greatest offset is dropped", |n| {
        n.when(n.client().data(&[1; 24]).fragment(0x1fff, false)).drops(DropFragment)
    }),
    ("a fragment of a known connection is dropped", |n| {
        n.given(n.established())
            .when(n.client().plain().data(&[1; 24]).fragment(0, true))
            .drops(DropFragment)
            .active(1)
    }),
    ("a first fragment to another address passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().fragment(0, true)).passes(PassNotOurs)
    }),
    ("a middle fragment to another address passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().fragment(1, true)).passes(PassNotOurs)
    }),
    ("a last fragment to another address passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().fragment(1, false)).passes(PassNotOurs)
    }),
    ("a fragment of a UDP datagram passes", |n| {
        n.when(n.client().protocol(UDP).fragment(0, true)).passes(PassNotTcp)
    }),
    ("a fragment to a port without service is dropped: its port is not looked at", |n| {
        n.when(n.client().dport(22).syn().fragment(0, true)).drops(DropFragment)
    }),
];

pub(super) const V4: &[Named] = &[
    ("IPv4: options are dropped", |n| {
        n.when(n.client().syn().ip_options(&[1, 1, 1, 0])).drops(DropOptions)
    }),
    ("IPv4: a record-route option on a connection is dropped", |n| {
        n.given(n.established())
            .when(n.client().plain().ip_options(&[7, 7, 4, 0, 0, 0, 0, 0]))
            .drops(DropOptions)
    }),
    ("IPv4: the most options are dropped", |n| {
        n.when(n.client().syn().ip_options(&[1; 40])).drops(DropOptions)
    }),
    ("IPv4: options to another address pass", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().ip_options(&[1; 4])).passes(PassNotOurs)
    }),
    ("IPv4: options of a UDP datagram pass", |n| {
        n.when(n.client().protocol(UDP).ip_options(&[1; 4])).passes(PassNotTcp)
    }),
    ("IPv4: a packet that may be fragmented, but is not, goes on so", |n| {
        n.given(n.established())
            .when(n.client().plain().may_fragment())
            .forwards(ForwardClient, n.to_backend().plain().may_fragment())
    }),
];

pub(super) const V6: &[Named] = &[
    ("IPv6: a hop-by-hop header before TCP is dropped", |n| {
        n.when(n.client().syn().extension(HOP_BY_HOP, &PADDING)).drops(DropOptions)
    }),
    ("IPv6: a routing header before TCP is dropped", |n| {
        n.when(n.client().syn().extension(ROUTING, &NO_SEGMENTS)).drops(DropOptions)
    }),
    ("IPv6: a destination header before TCP is dropped", |n| {
        n.when(n.client().syn().extension(DESTINATION, &PADDING)).drops(DropOptions)
    }),
    ("IPv6: a destination header on a connection is dropped", |n| {
        n.given(n.established())
            .when(n.client().plain().extension(DESTINATION, &PADDING))
            .drops(DropOptions)
            .active(1)
    }),
    ("IPv6: a hop-by-hop header before another header is dropped", |n| {
        n.when(n.client().protocol(FRAGMENT).extension(HOP_BY_HOP, &PADDING)).drops(DropOptions)
    }),
    ("IPv6: a hop-by-hop header before ICMPv6 (MLD) passes", |n| {
        n.when(n.client().protocol(ICMPV6).extension(HOP_BY_HOP, &PADDING)).passes(PassNotTcp)
    }),
    ("IPv6: a destination header before UDP passes", |n| {
        n.when(n.client().protocol(UDP).extension(DESTINATION, &PADDING)).passes(PassNotTcp)
    }),
    ("IPv6: a hop-by-hop header to another address passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().extension(HOP_BY_HOP, &PADDING))
            .passes(PassNotOurs)
    }),
    ("IPv6: a routing header to another address passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().extension(ROUTING, &NO_SEGMENTS))
            .passes(PassNotOurs)
    }),
    ("IPv6: an atomic fragment is dropped", |n| {
        n.when(n.client().syn().fragment(0, false)).drops(DropFragment)
    }),
    ("IPv6: a fragment that hides another header is dropped", |n| {
        n.when(n.client().protocol(DESTINATION).fragment(0, true)).drops(DropOptions)
    }),
];
