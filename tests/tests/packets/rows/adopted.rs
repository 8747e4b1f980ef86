//! Connections that the peer opened, and what comes for those of its that are not known here yet.

use anyhow::Result;
use lb_common::verdict::Verdict::{
    DropNoFlow, DropNoHop, DropStrayReset, ForwardClient, ForwardError, ForwardNew, ForwardServer,
    PassNotOurs, ResetNoFlow,
};

use crate::{
    frame::{ACK, Mac, VLAN},
    message::Kind,
    net::{And as _, Net},
    row::{Lease, Named, Row},
};

const OTHER_ROUTER: Mac = [2, 0, 0, 0, 0, 0x02];
const THIRD_ROUTER: Mac = [2, 0, 0, 0, 0, 0x03];

#[test]
fn connections_of_the_peers_go_on() -> Result<()> {
    super::both(BOTH)
}

#[test]
fn nothing_unknown_is_answered_after_a_takeover() -> Result<()> {
    super::both(GRACE)
}

pub(super) const BOTH: &[Named] = &[
    ("an adopted connection goes on to its backend", |n| {
        n.given(vec![])
            .adopted()
            .when(n.client().plain())
            .forwards(ForwardClient, n.to_backend().plain())
            .active(1)
            .connections(1)
    }),
    ("an adopted connection goes back by the way its client's packet came", |n| {
        n.given(vec![n.client().src_mac(OTHER_ROUTER).plain().frame()])
            .adopted()
            .when(n.server().plain())
            .forwards(ForwardServer, n.to_client().dst_mac(OTHER_ROUTER).plain())
    }),
    ("an adopted connection is no different with data in both directions", |n| {
        n.given(vec![].and(n.client().data(&[1; 777])).and(n.server().data(&[2; 1001])))
            .adopted()
            .when(n.client().data(&[3; 99]))
            .forwards(ForwardClient, n.to_backend().data(&[3; 99]))
    }),
    ("only the first packet shows an adopted connection its way", |n| {
        n.given(
            vec![]
                .and(n.client().src_mac(OTHER_ROUTER).plain())
                .and(n.client().src_mac(THIRD_ROUTER).plain()),
        )
        .adopted()
        .when(n.server().plain())
        .forwards(ForwardServer, n.to_client().dst_mac(OTHER_ROUTER).plain())
    }),
    ("the way of an adopted connection is in a VLAN if its client is", |n| {
        n.given(vec![n.client().plain().frame().tagged(VLAN, 7)])
            .adopted()
            .when(n.server().plain())
            .forwards(ForwardServer, n.to_client().plain().frame().tagged(VLAN, 7))
    }),
    ("what the backend sends before its client is heard of is dropped", |n| {
        n.given(vec![]).adopted().when(n.server().plain()).drops(DropNoHop).active(1)
    }),
    ("an error for a client that was not heard of is dropped", |n| {
        n.given(vec![])
            .adopted()
            .when(n.server_error(&n.to_backend().plain(), expired(n)).from(n.backend.ip()))
            .drops(DropNoHop)
    }),
    ("an error about what goes to the client is passed on to the backend", |n| {
        n.given(vec![n.client().plain().frame()])
            .adopted()
            .when(n.client_error(&n.to_client().plain(), expired(n)).from(n.client.ip()))
            .forwards(ForwardError, n.error_to_backend(&n.server().plain().hops(63), expired(n)))
    }),
    ("an adopted connection ends as any other", |n| {
        n.given(vec![].and(n.client().fin()).and(n.server().plain()))
            .adopted()
            .when(n.server().fin())
            .forwards(ForwardServer, n.to_client().fin())
            .active(0)
            .connections(1)
    }),
    ("an adopted connection's client may open another one when it is closed", |n| {
        n.given(vec![n.client().rst().frame()])
            .adopted_by(7000)
            .when(n.client().syn())
            .forwards(ForwardNew, n.to_backend().syn())
            .active(1)
            .connections(1)
    }),
    ("a new connection does not use an adopted one's port", |n| {
        n.given(vec![])
            .adopted()
            .when(n.client().sport(40_001).syn())
            .forwards(ForwardNew, n.to_backend().sport(1025).syn())
            .active(2)
            .connections(2)
    }),
];

pub(super) const GRACE: &[Named] = &[
    ("grace: a segment without connection is dropped", |n| {
        graceful(n.when(n.client().flags(ACK).ack(7)).drops(DropNoFlow))
    }),
    ("grace: a RST is dropped as always", |n| {
        graceful(n.when(n.client().rst()).drops(DropStrayReset))
    }),
    ("grace: a SYN opens a connection", |n| {
        graceful(n.when(n.client().syn()).forwards(ForwardNew, n.to_backend().syn()))
    }),
    ("grace: a connection goes on", |n| {
        let row = n.given(n.established()).when(n.client().plain());
        graceful(row.forwards(ForwardClient, n.to_backend().plain()))
    }),
    ("grace: a backend's segment without connection is dropped", |n| {
        graceful(n.when(n.server().plain()).drops(DropNoFlow))
    }),
    ("grace: a backend's segment to the peer's half of the ports is dropped", |n| {
        graceful(n.when(n.server().dport(32_768).plain()).drops(DropNoFlow))
    }),
    ("grace: a SYN to a source address is the kernel's", |n| {
        graceful(n.when(n.server().syn()).passes(PassNotOurs))
    }),
    ("grace: what is to no translation port is the kernel's", |n| {
        graceful(n.when(n.server().dport(65_000).plain()).passes(PassNotOurs))
    }),
    ("grace: what is to nobody's address is the kernel's", |n| {
        graceful(n.when(n.client().dst(n.elsewhere()).plain()).passes(PassNotOurs))
    }),
    ("without grace, a segment without connection is reset", |n| {
        let row = n.when(n.client().flags(ACK).ack(7)).returns(ResetNoFlow, n.reset().seq(7));
        row.shared(Lease::Held)
    }),
    ("without grace, a backend's segment without connection is the kernel's", |n| {
        n.when(n.server().plain()).passes(PassNotOurs).shared(Lease::Held)
    }),
    ("grace is of a group", |n| {
        // The service is in none.
        let row = n.when(n.client().flags(ACK).ack(7)).returns(ResetNoFlow, n.reset().seq(7));
        row.beside(Lease::Held).grace()
    }),
];

fn graceful(row: Row) -> Row {
    row.shared(Lease::Held).grace()
}

fn expired(n: &Net) -> Kind {
    if n.vip.is_ipv4() { (11, 0, 0) } else { (3, 0, 0) }
}
