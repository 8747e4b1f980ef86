//! Segments to a service that belong to no connection (RFC 9293, section 3.10.7.1).

use anyhow::Result;
use lb_common::verdict::Verdict::{DropStrayReset, PassNoService, PassNotOurs, ResetNoFlow};

use crate::{
    frame::{ACK, FIN, PSH, RST, SYN, URG},
    row::Named,
};

#[test]
fn strangers_are_answered_like_by_a_host_that_knows_no_connection() -> Result<()> {
    super::both(BOTH)
}

pub(super) const BOTH: &[Named] = &[
    ("an unknown ACK is reset at the number it acknowledges", |n| {
        n.when(n.client().flags(ACK).ack(0xdead_beef))
            .returns(ResetNoFlow, n.reset().seq(0xdead_beef))
            .connections(0)
    }),
    ("unknown data is reset at the number it acknowledges", |n| {
        n.when(n.client().flags(PSH | ACK).ack(7).data(b"who are you"))
            .returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("an unknown FIN with ACK is reset at the number it acknowledges", |n| {
        n.when(n.client().flags(FIN | ACK).ack(7)).returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("an unknown SYN-ACK is reset at the number it acknowledges", |n| {
        n.when(n.client().flags(SYN | ACK).ack(7)).returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("an unknown ACK of 0 is reset at 0", |n| {
        n.when(n.client().flags(ACK).ack(0)).returns(ResetNoFlow, n.reset().seq(0))
    }),
    ("an unknown segment without flags is acknowledged by the reset", |n| {
        n.when(n.client().flags(0).data(b"four"))
            .returns(ResetNoFlow, n.reset().flags(RST | ACK).ack(0x1000_0004))
    }),
    ("an unknown FIN without ACK is acknowledged by the reset", |n| {
        n.when(n.client().flags(FIN))
            .returns(ResetNoFlow, n.reset().flags(RST | ACK).ack(0x1000_0001))
    }),
    ("an unknown FIN without ACK is acknowledged with its data", |n| {
        n.when(n.client().flags(FIN).data(b"four"))
            .returns(ResetNoFlow, n.reset().flags(RST | ACK).ack(0x1000_0005))
    }),
    ("padding is not acknowledged", |n| {
        n.when(n.client().flags(FIN).data(b"1").padding(5))
            .returns(ResetNoFlow, n.reset().flags(RST | ACK).ack(0x1000_0002))
    }),
    ("options are not acknowledged", |n| {
        n.when(n.client().flags(URG).options(&[1; 40]).data(b"1"))
            .returns(ResetNoFlow, n.reset().flags(RST | ACK).ack(0x1000_0001))
    }),
    ("the reset's acknowledgement wraps", |n| {
        n.when(n.client().flags(FIN).seq(0xffff_fffe).data(b"four"))
            .returns(ResetNoFlow, n.reset().flags(RST | ACK).ack(3))
    }),
    ("a reset carries nothing over from what it answers", |n| {
        n.when(n.client().flags(ACK | PSH).ack(7).class(0xfe).window(9).urgent(3).reserved(0xf))
            .returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("a reset goes back to the router the segment came by", |n| {
        const OTHER: [u8; 6] = [2, 0, 0, 0, 7, 7];
        n.when(n.client().src_mac(OTHER).flags(ACK).ack(7))
            .returns(ResetNoFlow, n.reset().dst_mac(OTHER).seq(7))
    }),
    ("a reset does not mind a hop limit of 1", |n| {
        n.when(n.client().flags(ACK).ack(7).hops(1)).returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("a reset goes back by the interface the segment came in by", |n| {
        n.when(n.client().by(n.back).flags(ACK).ack(7)).returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("a full-sized unknown segment is answered by a bare reset", |n| {
        n.when(n.client().flags(ACK).ack(7).data(&[7; 1440])).returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("an unknown RST is dropped", |n| n.when(n.client().rst()).drops(DropStrayReset)),
    ("an unknown RST with ACK is dropped", |n| {
        n.when(n.client().flags(RST | ACK).ack(7)).drops(DropStrayReset)
    }),
    ("an unknown RST with data is dropped", |n| {
        n.when(n.client().rst().data(b"text")).drops(DropStrayReset)
    }),
    ("an unknown ACK to a port without service is the kernel's", |n| {
        n.when(n.client().dport(22).plain()).passes(PassNoService)
    }),
    ("an unknown RST to a port without service is the kernel's", |n| {
        n.when(n.client().dport(22).rst()).passes(PassNoService)
    }),
    ("an unknown segment from a backend is the kernel's", |n| {
        n.when(n.server().plain()).passes(PassNotOurs)
    }),
    ("a client of another port than the connection's is a stranger", |n| {
        n.given(n.established())
            .when(n.client().sport(40_001).flags(ACK).ack(7))
            .returns(ResetNoFlow, n.reset().dport(40_001).seq(7))
            .active(1)
    }),
    ("a client of another address than the connection's is a stranger", |n| {
        n.given(n.established())
            .when(n.client().src(n.elsewhere()).flags(ACK).ack(7))
            .returns(ResetNoFlow, n.reset().dst(n.elsewhere()).seq(7))
            .active(1)
    }),
];
