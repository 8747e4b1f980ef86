//! Next hops: who a frame is addressed to, and by which interface it leaves.

use anyhow::Result;
use lb_common::{
    addr,
    verdict::Verdict::{DropNoHop, ForwardClient, ForwardNew, ForwardServer},
};

use crate::{
    frame::{Frame, Mac},
    net::{And as _, Net},
    row::Named,
};

const OTHER_ROUTER: Mac = [2, 0, 0, 0, 0, 0x02];
const OTHER_FRONT: Mac = [2, 0, 0, 0, 0, 0x1f];

#[test]
fn frames_go_the_right_way() -> Result<()> {
    super::both(BOTH)
}

pub(super) const BOTH: &[Named] = &[
    ("an answer goes to the router its client came by", |n| {
        n.given(vec![n.client().src_mac(OTHER_ROUTER).syn().frame()])
            .when(n.server().syn_ack())
            .forwards(ForwardServer, n.to_client().dst_mac(OTHER_ROUTER).syn_ack())
    }),
    ("an answer goes from the address its client was sent to", |n| {
        n.given(vec![n.client().dst_mac(OTHER_FRONT).syn().frame()])
            .when(n.server().syn_ack())
            .forwards(ForwardServer, n.to_client().src_mac(OTHER_FRONT).syn_ack())
    }),
    ("two clients behind one router are answered by it", |n| {
        n.given(n.opened().and(n.client().sport(40_001).syn()))
            .when(n.server().dport(1025).syn_ack())
            .forwards(ForwardServer, n.to_client().dport(40_001).syn_ack())
    }),
    ("two clients behind two routers are each answered by their own: the first", |n| {
        n.given(two_routers(n))
            .when(n.server().syn_ack())
            .forwards(ForwardServer, n.to_client().syn_ack())
    }),
    ("two clients behind two routers are each answered by their own: the second", |n| {
        n.given(two_routers(n))
            .when(n.server().dport(1025).syn_ack())
            .forwards(ForwardServer, n.to_client().dport(40_001).dst_mac(OTHER_ROUTER).syn_ack())
    }),
    ("a connection is answered by the router that it began by", |n| {
        n.given(n.answered().and(n.client().src_mac(OTHER_ROUTER).plain()))
            .when(n.server().plain())
            .forwards(ForwardServer, n.to_client().plain())
    }),
    ("a client's packet by another router is forwarded alike", |n| {
        n.given(n.established())
            .when(n.client().src_mac(OTHER_ROUTER).plain())
            .forwards(ForwardClient, n.to_backend().plain())
    }),
    ("a client on the backends' interface goes back out of it", |n| {
        n.when(n.client().by(n.back).syn()).returns(ForwardNew, n.to_backend().syn())
    }),
    ("a client on the backends' interface is answered there", |n| {
        n.given(vec![n.client().by(n.back).syn().frame()])
            .when(n.server().syn_ack())
            .returns(ForwardServer, n.to_client().syn_ack())
    }),
    ("a backend on the clients' interface is reached there", |n| {
        n.when(n.client().syn())
            .with(|_, backend| backend.hop.ifindex = n.front)
            .returns(ForwardNew, n.to_backend().syn())
    }),
    ("a backend's answer may come in by another interface", |n| {
        n.given(n.opened())
            .when(n.server().by(n.front).syn_ack())
            .returns(ForwardServer, n.to_client().syn_ack())
    }),
    ("a backend behind a router is addressed by the router", |n| {
        n.when(n.client().syn())
            .with(|_, backend| backend.hop.dst = addr::Mac(OTHER_ROUTER))
            .forwards(ForwardNew, n.to_backend().dst_mac(OTHER_ROUTER).syn())
    }),
    ("a backend whose neighbour is not resolved gets nothing", |n| {
        // The connection is there already, half open, for the retransmission.
        n.when(n.client().syn())
            .with(|_, backend| backend.hop.ifindex = 0)
            .drops(DropNoHop)
            .connections(1)
    }),
];

/// SYNs of two clients, each behind a router of its own.
fn two_routers(n: &Net) -> Vec<Frame> {
    n.opened().and(n.client().sport(40_001).src_mac(OTHER_ROUTER).syn())
}
