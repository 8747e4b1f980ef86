//! FIN and RST from either side, and what follows.

use anyhow::Result;
use lb_common::verdict::Verdict::{ForwardClient, ForwardNew, ForwardServer};

use crate::{
    frame::{ACK, FIN, PSH, RST},
    net::And as _,
    row::Named,
};

#[test]
fn connections_end() -> Result<()> {
    super::both(BOTH)
}

pub(super) const BOTH: &[Named] = &[
    ("a client's FIN closes one direction only", |n| {
        n.given(n.established())
            .when(n.client().fin())
            .forwards(ForwardClient, n.to_backend().fin())
            .active(1)
    }),
    ("a backend's FIN closes one direction only", |n| {
        n.given(n.established())
            .when(n.server().fin())
            .forwards(ForwardServer, n.to_client().fin())
            .active(1)
    }),
    ("a FIN may carry data", |n| {
        n.given(n.established())
            .when(n.client().flags(FIN | PSH | ACK).ack(1).data(b"bye"))
            .forwards(ForwardClient, n.to_backend().flags(FIN | PSH | ACK).ack(1).data(b"bye"))
            .active(1)
    }),
    ("a half-closed connection carries data to the client", |n| {
        n.given(n.established().and(n.client().fin()))
            .when(n.server().plain().data(b"the rest"))
            .forwards(ForwardServer, n.to_client().plain().data(b"the rest"))
            .active(1)
    }),
    ("a half-closed connection carries data to the backend", |n| {
        n.given(n.established().and(n.server().fin()))
            .when(n.client().plain().data(b"the rest"))
            .forwards(ForwardClient, n.to_backend().plain().data(b"the rest"))
            .active(1)
    }),
    ("a retransmitted FIN of the client closes nothing more", |n| {
        n.given(n.established().and(n.client().fin()))
            .when(n.client().fin())
            .forwards(ForwardClient, n.to_backend().fin())
            .active(1)
    }),
    ("the backend's FIN after the client's closes", |n| {
        n.given(n.established().and(n.client().fin()))
            .when(n.server().fin())
            .forwards(ForwardServer, n.to_client().fin())
            .active(0)
            .connections(1)
    }),
    ("the client's FIN after the backend's closes", |n| {
        n.given(n.established().and(n.server().fin()))
            .when(n.client().fin())
            .forwards(ForwardClient, n.to_backend().fin())
            .active(0)
            .connections(1)
    }),
    ("FINs that cross close, and their ACK from the client goes on", |n| {
        n.given(n.established().and(n.client().fin()).and(n.server().fin()))
            .when(n.client().plain())
            .forwards(ForwardClient, n.to_backend().plain())
            .active(0)
    }),
    ("FINs that cross close, and their ACK from the backend goes on", |n| {
        n.given(n.established().and(n.server().fin()).and(n.client().fin()))
            .when(n.server().plain())
            .forwards(ForwardServer, n.to_client().plain())
            .active(0)
    }),
    ("the last ACK of a closed connection goes on", |n| {
        n.given(n.closed())
            .when(n.client().plain())
            .forwards(ForwardClient, n.to_backend().plain())
            .active(0)
    }),
    ("a retransmitted FIN of a closed connection goes on", |n| {
        n.given(n.closed())
            .when(n.server().fin())
            .forwards(ForwardServer, n.to_client().fin())
            .active(0)
    }),
    ("a closed connection that is reset is not closed twice", |n| {
        n.given(n.closed())
            .when(n.server().rst())
            .forwards(ForwardServer, n.to_client().rst())
            .active(0)
    }),
    ("a client's RST ends an established connection", |n| {
        n.given(n.established())
            .when(n.client().rst())
            .forwards(ForwardClient, n.to_backend().rst())
            .active(0)
            .connections(1)
    }),
    ("a backend's RST ends an established connection", |n| {
        n.given(n.established())
            .when(n.server().rst())
            .forwards(ForwardServer, n.to_client().rst())
            .active(0)
            .connections(1)
    }),
    ("a RST with ACK ends as well", |n| {
        n.given(n.established())
            .when(n.client().flags(RST | ACK).ack(5))
            .forwards(ForwardClient, n.to_backend().flags(RST | ACK).ack(5))
            .active(0)
    }),
    ("a refusing backend's RST ends a half-open connection", |n| {
        n.given(n.opened())
            .when(n.server().flags(RST | ACK).seq(0).ack(0x1000_0001))
            .forwards(ForwardServer, n.to_client().flags(RST | ACK).seq(0).ack(0x1000_0001))
            .active(0)
    }),
    ("a client's RST ends a half-open connection", |n| {
        n.given(n.opened())
            .when(n.client().rst())
            .forwards(ForwardClient, n.to_backend().rst())
            .active(0)
    }),
    ("a client's RST to the SYN-ACK ends a half-open connection", |n| {
        n.given(n.answered())
            .when(n.client().rst())
            .forwards(ForwardClient, n.to_backend().rst())
            .active(0)
    }),
    ("RSTs of both sides end a connection once", |n| {
        n.given(n.established().and(n.client().rst()))
            .when(n.server().rst())
            .forwards(ForwardServer, n.to_client().rst())
            .active(0)
    }),
    ("data under way after a RST goes on", |n| {
        n.given(n.established().and(n.client().rst()))
            .when(n.server().plain().data(b"late"))
            .forwards(ForwardServer, n.to_client().plain().data(b"late"))
            .active(0)
    }),
    ("a SYN onto a connection closed by FINs opens a new one with a new port", |n| {
        n.given(n.closed())
            .when(n.client().syn())
            .forwards(ForwardNew, n.to_backend().sport(1025).syn())
            .active(1)
            .connections(1)
    }),
    ("a SYN onto a connection that was reset opens a new one with a new port", |n| {
        n.given(n.established().and(n.server().rst()))
            .when(n.client().syn())
            .forwards(ForwardNew, n.to_backend().sport(1025).syn())
            .active(1)
            .connections(1)
    }),
    ("a SYN onto a refused connection opens a new one with a new port", |n| {
        n.given(n.opened().and(n.server().flags(RST | ACK)))
            .when(n.client().syn())
            .forwards(ForwardNew, n.to_backend().sport(1025).syn())
            .active(1)
            .connections(1)
    }),
    ("a SYN onto a half-closed connection keeps it", |n| {
        n.given(n.established().and(n.client().fin()))
            .when(n.client().syn())
            .forwards(ForwardClient, n.to_backend().syn())
            .active(1)
            .connections(1)
    }),
    ("after a new SYN the new port is answered to", |n| {
        n.given(n.closed().and(n.client().syn()))
            .when(n.server().dport(1025).syn_ack())
            .forwards(ForwardServer, n.to_client().syn_ack())
            .active(1)
    }),
    ("after a new SYN the old port is nobody's", |n| {
        n.given(n.closed().and(n.client().syn()))
            .when(n.server().fin())
            .passes(lb_common::verdict::Verdict::PassNotOurs)
            .active(1)
    }),
    ("a FIN before the handshake is complete goes on", |n| {
        n.given(n.opened())
            .when(n.client().flags(FIN))
            .forwards(ForwardClient, n.to_backend().flags(FIN))
            .active(1)
    }),
];
