//! Header fields: the hop limit counts down, the rest stays as the sender wrote it.

use anyhow::Result;
use lb_common::verdict::Verdict::{DropHopLimit, ForwardClient, ForwardNew, ForwardServer};
use tests::lab::Family;

use crate::{
    frame::{ACK, CWR, ECE, PSH},
    row::{self, Named},
};

#[test]
fn fields_are_kept() -> Result<()> {
    super::both(BOTH)?;
    row::run(Family::V4, V4)?;
    row::run(Family::V6, V6)
}

pub(super) const BOTH: &[Named] = &[
    ("a hop limit of 2 becomes 1", |n| {
        n.given(n.established())
            .when(n.client().plain().hops(2))
            .forwards(ForwardClient, n.to_backend().plain().hops(1))
    }),
    ("a hop limit of 1 ends here", |n| {
        n.given(n.established()).when(n.client().plain().hops(1)).drops(DropHopLimit).active(1)
    }),
    ("a hop limit of 0 ends here", |n| {
        n.given(n.established()).when(n.client().plain().hops(0)).drops(DropHopLimit).active(1)
    }),
    ("a hop limit of 1 from the backend ends here", |n| {
        n.given(n.established()).when(n.server().plain().hops(1)).drops(DropHopLimit)
    }),
    ("a hop limit of 2 from the backend becomes 1", |n| {
        n.given(n.established())
            .when(n.server().plain().hops(2))
            .forwards(ForwardServer, n.to_client().plain().hops(1))
    }),
    ("the greatest hop limit becomes 254", |n| {
        n.when(n.client().syn().hops(255)).forwards(ForwardNew, n.to_backend().syn().hops(254))
    }),
    ("a SYN with a hop limit of 1 ends here", |n| {
        // Its connection is there already, half open, for the retransmission.
        n.when(n.client().syn().hops(1)).drops(DropHopLimit).connections(1)
    }),
    ("urgent data stays urgent", |n| {
        n.given(n.established())
            .when(n.client().plain().urgent(3).data(b"abc"))
            .forwards(ForwardClient, n.to_backend().plain().urgent(3).data(b"abc"))
    }),
    ("an urgent pointer of 65535 is kept", |n| {
        n.given(n.established())
            .when(n.client().plain().urgent(0xffff))
            .forwards(ForwardClient, n.to_backend().plain().urgent(0xffff))
    }),
    ("congestion marks in the TCP header are kept", |n| {
        n.given(n.established())
            .when(n.server().flags(ACK | ECE | CWR | PSH).data(b"x"))
            .forwards(ForwardServer, n.to_client().flags(ACK | ECE | CWR | PSH).data(b"x"))
    }),
    ("congestion marks in the IP header are kept", |n| {
        n.given(n.established())
            .when(n.client().plain().class(0b11))
            .forwards(ForwardClient, n.to_backend().plain().class(0b11))
    }),
    ("the DSCP is kept", |n| {
        n.given(n.established())
            .when(n.client().plain().class(46 << 2))
            .forwards(ForwardClient, n.to_backend().plain().class(46 << 2))
    }),
    ("reserved bits of the TCP header are kept", |n| {
        n.given(n.established())
            .when(n.client().plain().reserved(0xf))
            .forwards(ForwardClient, n.to_backend().plain().reserved(0xf))
    }),
    ("sequence and acknowledgement numbers are kept", |n| {
        n.given(n.established())
            .when(n.client().flags(ACK).seq(u32::MAX).ack(u32::MAX))
            .forwards(ForwardClient, n.to_backend().flags(ACK).seq(u32::MAX).ack(u32::MAX))
    }),
    ("a closed window is kept", |n| {
        n.given(n.established())
            .when(n.client().plain().window(0))
            .forwards(ForwardClient, n.to_backend().plain().window(0))
    }),
    ("selective acknowledgements are kept", |n| {
        const SACK: [u8; 12] = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        n.given(n.established())
            .when(n.server().plain().options(&SACK))
            .forwards(ForwardServer, n.to_client().plain().options(&SACK))
    }),
    ("options that are unknown or malformed are the hosts' to judge", |n| {
        const ODD: [u8; 8] = [254, 0, 2, 99, 0, 255, 255, 255];
        n.given(n.established())
            .when(n.client().plain().options(&ODD))
            .forwards(ForwardClient, n.to_backend().plain().options(&ODD))
    }),
];

pub(super) const V4: &[Named] = &[
    ("IPv4: identification 0 is kept", |n| {
        n.when(n.client().syn().id(0)).forwards(ForwardNew, n.to_backend().syn().id(0))
    }),
    ("IPv4: identification 65535 is kept", |n| {
        n.when(n.client().syn().id(0xffff)).forwards(ForwardNew, n.to_backend().syn().id(0xffff))
    }),
];

pub(super) const V6: &[Named] = &[("IPv6: the flow label is kept", |n| {
    n.when(n.client().syn().flow_label(0xabcde))
        .forwards(ForwardNew, n.to_backend().syn().flow_label(0xabcde))
})];
