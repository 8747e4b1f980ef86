//! From the first SYN to an established connection.

use anyhow::Result;
use lb_common::verdict::Verdict::{
    DropBadFlags, DropStrayReset, ForwardClient, ForwardNew, ForwardServer, PassNoService,
    PassNotOurs, ResetNoBackend,
};
use lb_daemon::core::Slots;

use crate::{
    frame::{ACK, CWR, ECE, FIN, PSH, RST, SYN},
    net::And as _,
    row::Named,
};

#[test]
fn connections_open() -> Result<()> {
    super::both(BOTH)
}

pub(super) const BOTH: &[Named] = &[
    ("a SYN opens a connection", |n| {
        n.when(n.client().syn()).forwards(ForwardNew, n.to_backend().syn()).active(1).connections(1)
    }),
    ("a SYN with data opens a connection and keeps its data", |n| {
        n.when(n.client().syn().data(b"fast open"))
            .forwards(ForwardNew, n.to_backend().syn().data(b"fast open"))
            .active(1)
    }),
    ("a SYN with TCP options keeps them", |n| {
        n.when(n.client().syn().options(&OPTIONS))
            .forwards(ForwardNew, n.to_backend().syn().options(&OPTIONS))
    }),
    ("a SYN that asks for ECN opens a connection", |n| {
        n.when(n.client().flags(SYN | ECE | CWR))
            .forwards(ForwardNew, n.to_backend().flags(SYN | ECE | CWR))
    }),
    ("a SYN with PSH opens a connection", |n| {
        n.when(n.client().flags(SYN | PSH)).forwards(ForwardNew, n.to_backend().flags(SYN | PSH))
    }),
    ("a retransmitted SYN keeps its translation", |n| {
        n.given(n.opened())
            .when(n.client().syn())
            .forwards(ForwardClient, n.to_backend().syn())
            .active(1)
            .connections(1)
    }),
    ("a SYN retransmitted after the answer keeps its translation", |n| {
        n.given(n.answered())
            .when(n.client().syn())
            .forwards(ForwardClient, n.to_backend().syn())
            .active(1)
    }),
    ("a second client's connection gets the next port", |n| {
        n.given(n.opened())
            .when(n.client().sport(40_001).syn())
            .forwards(ForwardNew, n.to_backend().sport(1025).syn())
            .active(2)
            .connections(2)
    }),
    ("a SYN-ACK goes to the client", |n| {
        n.given(n.opened())
            .when(n.server().syn_ack())
            .forwards(ForwardServer, n.to_client().syn_ack())
            .active(1)
    }),
    ("a retransmitted SYN-ACK goes to the client", |n| {
        n.given(n.established())
            .when(n.server().syn_ack())
            .forwards(ForwardServer, n.to_client().syn_ack())
    }),
    ("the ACK of the handshake goes to the backend", |n| {
        n.given(n.answered())
            .when(n.client().plain())
            .forwards(ForwardClient, n.to_backend().plain())
            .active(1)
    }),
    ("the client's ACK overtakes the SYN-ACK", |n| {
        n.given(n.opened()).when(n.client().plain()).forwards(ForwardClient, n.to_backend().plain())
    }),
    ("data from the client goes to the backend", |n| {
        n.given(n.established())
            .when(n.client().plain().data(b"SELECT 1"))
            .forwards(ForwardClient, n.to_backend().plain().data(b"SELECT 1"))
    }),
    ("data from the backend goes to the client", |n| {
        n.given(n.established())
            .when(n.server().plain().data(b"one row"))
            .forwards(ForwardServer, n.to_client().plain().data(b"one row"))
    }),
    ("a backend that speaks first may", |n| {
        n.given(n.answered())
            .when(n.server().plain().data(b"220 ready"))
            .forwards(ForwardServer, n.to_client().plain().data(b"220 ready"))
    }),
    ("a full-sized segment goes through", |n| {
        n.given(n.established())
            .when(n.client().plain().data(&[0xc3; 1440]))
            .forwards(ForwardClient, n.to_backend().plain().data(&[0xc3; 1440]))
    }),
    ("a SYN on an established connection is the backend's to answer", |n| {
        n.given(n.established())
            .when(n.client().syn().seq(77))
            .forwards(ForwardClient, n.to_backend().syn().seq(77))
            .active(1)
            .connections(1)
    }),
    ("a challenge ACK goes to the client", |n| {
        n.given(n.established().and(n.client().syn()))
            .when(n.server().plain())
            .forwards(ForwardServer, n.to_client().plain())
    }),
    ("a SYN from the backend on its flow goes to the client", |n| {
        n.given(n.opened()).when(n.server().syn()).forwards(ForwardServer, n.to_client().syn())
    }),
    ("a SYN with FIN opens nothing", |n| {
        n.when(n.client().flags(SYN | FIN)).drops(DropBadFlags).active(0).connections(0)
    }),
    ("a SYN with RST is a stray RST", |n| {
        n.when(n.client().flags(SYN | RST)).drops(DropStrayReset).connections(0)
    }),
    ("a SYN with every flag is a stray RST", |n| {
        n.when(n.client().flags(0xff)).drops(DropStrayReset).connections(0)
    }),
    ("with no eligible backend a SYN is refused", |n| {
        n.when(n.client().syn())
            .with(|service, _| service.slots = Slots::default())
            .returns(ResetNoBackend, n.reset().flags(RST | ACK).ack(0x1000_0001))
            .connections(0)
    }),
    ("with no eligible backend the refusal acknowledges the SYN's data", |n| {
        n.when(n.client().syn().data(b"fast open"))
            .with(|service, _| service.slots = Slots::default())
            .returns(ResetNoBackend, n.reset().flags(RST | ACK).ack(0x1000_000a))
    }),
    ("with no eligible backend the refusal does not acknowledge padding", |n| {
        n.when(n.client().syn().padding(6))
            .with(|service, _| service.slots = Slots::default())
            .returns(ResetNoBackend, n.reset().flags(RST | ACK).ack(0x1000_0001))
    }),
    ("with no eligible backend the refusal of a SYN with options is bare", |n| {
        n.when(n.client().syn().options(&OPTIONS).class(0x10))
            .with(|service, _| service.slots = Slots::default())
            .returns(ResetNoBackend, n.reset().flags(RST | ACK).ack(0x1000_0001))
    }),
    ("the refusal's acknowledgement wraps", |n| {
        n.when(n.client().syn().seq(u32::MAX))
            .with(|service, _| service.slots = Slots::default())
            .returns(ResetNoBackend, n.reset().flags(RST | ACK).ack(0))
    }),
    ("with no eligible backend a SYN with FIN is dropped", |n| {
        n.when(n.client().flags(SYN | FIN))
            .with(|service, _| service.slots = Slots::default())
            .drops(DropBadFlags)
    }),
    ("a client's port may be 1", |n| {
        n.when(n.client().sport(1).syn()).forwards(ForwardNew, n.to_backend().syn())
    }),
    ("a client's port may be 65535", |n| {
        n.when(n.client().sport(65535).syn()).forwards(ForwardNew, n.to_backend().syn())
    }),
    ("a client's port may be 0", |n| {
        n.when(n.client().sport(0).syn()).forwards(ForwardNew, n.to_backend().syn())
    }),
    ("a service's port may be 1", |n| {
        n.when(n.client().dport(1).syn())
            .with(|service, _| service.bind[0].set_port(1))
            .forwards(ForwardNew, n.to_backend().syn())
    }),
    ("a service's port may be 65535", |n| {
        n.when(n.client().dport(65535).syn())
            .with(|service, _| service.bind[0].set_port(65535))
            .forwards(ForwardNew, n.to_backend().syn())
    }),
    ("a backend's port may be 1", |n| {
        n.when(n.client().syn())
            .with(|_, backend| backend.address.set_port(1))
            .forwards(ForwardNew, n.to_backend().dport(1).syn())
    }),
    ("a backend's port may be 65535", |n| {
        n.when(n.client().syn())
            .with(|_, backend| backend.address.set_port(65535))
            .forwards(ForwardNew, n.to_backend().dport(65535).syn())
    }),
    ("a service may be bound to several ports", |n| {
        let mut second = n.vip;
        second.set_port(8443);
        n.given(n.opened())
            .with(|service, _| service.bind.push(second))
            .when(n.client().dport(8443).syn())
            .forwards(ForwardNew, n.to_backend().sport(1025).syn())
            .active(2)
    }),
    ("an answer from a port beside the backend's is nobody's", |n| {
        n.given(n.opened()).when(n.server().sport(8081).syn_ack()).passes(PassNotOurs)
    }),
    ("an answer to a port beside the translation's is nobody's", |n| {
        n.given(n.opened()).when(n.server().dport(1025).syn_ack()).passes(PassNotOurs)
    }),
    ("a SYN to the virtual address on a port without service is the kernel's", |n| {
        n.when(n.client().dport(22).syn()).passes(PassNoService).connections(0)
    }),
    ("a SYN to another address is the kernel's", |n| {
        n.when(n.client().dst(n.elsewhere()).syn()).passes(PassNotOurs).connections(0)
    }),
];

/// MSS, SACK permitted, window scale. What becomes of timestamps is told in `timestamps`.
const OPTIONS: [u8; 12] = [2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 1, 1, 0];
