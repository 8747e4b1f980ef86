//! Checksums at the edges of one's complement arithmetic, which has two zeros.

use anyhow::Result;
use lb_common::verdict::Verdict::{ForwardClient, ForwardNew, ForwardServer};
use tests::lab::Family;

use crate::{
    frame::{IP, Segment},
    net::Net,
    row::{self, Named},
};

#[test]
fn checksums_hold_at_the_edges() -> Result<()> {
    super::both(BOTH)?;
    row::run(Family::V4, V4)
}

pub(super) const BOTH: &[Named] = &[
    ("a TCP checksum that comes as 0 goes on right", |n| {
        let data = data_for(n, &n.client().plain(), 0);
        n.given(n.established())
            .when(n.client().plain().data(&data))
            .forwards(ForwardClient, n.to_backend().plain().data(&data))
    }),
    ("a TCP checksum of 65535 is the other 0 and goes on right", |n| {
        let data = data_for(n, &n.client().plain(), 0);
        n.given(n.established())
            .when(n.client().plain().data(&data).checksum(0xffff))
            .forwards(ForwardClient, n.to_backend().plain().data(&data))
    }),
    ("a TCP checksum that becomes 0 is right", |n| {
        let data = data_for(n, &n.to_backend().plain(), 0);
        n.given(n.established())
            .when(n.client().plain().data(&data))
            .forwards(ForwardClient, n.to_backend().plain().data(&data))
    }),
    ("a TCP checksum that becomes 65534 is right", |n| {
        let data = data_for(n, &n.to_client().plain(), 0xfffe);
        n.given(n.established())
            .when(n.server().plain().data(&data))
            .forwards(ForwardServer, n.to_client().plain().data(&data))
    }),
    ("a TCP checksum that becomes 1 is right", |n| {
        let data = data_for(n, &n.to_client().plain(), 1);
        n.given(n.established())
            .when(n.server().plain().data(&data))
            .forwards(ForwardServer, n.to_client().plain().data(&data))
    }),
    ("a wrong TCP checksum stays as wrong as it was", |n| {
        n.given(n.established())
            .when(n.client().plain().data(b"spoilt").wrong_by(0x0100))
            .forwards(ForwardClient, n.to_backend().plain().data(b"spoilt").wrong_by(0x0100))
    }),
    ("a TCP checksum that was never computed stays wrong", |n| {
        let right = checksum(n, &n.client().plain());
        n.given(n.established())
            .when(n.client().plain().checksum(0))
            .forwards(ForwardClient, n.to_backend().plain().wrong_by(!right))
    }),
    ("data of an odd length goes on right", |n| {
        n.given(n.established())
            .when(n.client().plain().data(b"odd"))
            .forwards(ForwardClient, n.to_backend().plain().data(b"odd"))
    }),
    ("data of all ones goes on right", |n| {
        n.given(n.established())
            .when(n.server().plain().data(&[0xff; 1000]))
            .forwards(ForwardServer, n.to_client().plain().data(&[0xff; 1000]))
    }),
    ("data of all zeros goes on right", |n| {
        n.given(n.established())
            .when(n.server().plain().data(&[0; 1000]))
            .forwards(ForwardServer, n.to_client().plain().data(&[0; 1000]))
    }),
];

pub(super) const V4: &[Named] = &[
    ("IPv4: a header checksum that comes as 0 goes on right", |n| {
        let id = id_for(&n.client().syn(), 0);
        n.when(n.client().syn().id(id)).forwards(ForwardNew, n.to_backend().syn().id(id))
    }),
    ("IPv4: a header checksum that becomes 0 is right", |n| {
        let id = id_for(&n.to_backend().syn(), 0);
        n.when(n.client().syn().id(id)).forwards(ForwardNew, n.to_backend().syn().id(id))
    }),
    ("IPv4: a header checksum that becomes 65534 is right", |n| {
        let id = id_for(&n.to_backend().syn(), 0xfffe);
        n.when(n.client().syn().id(id)).forwards(ForwardNew, n.to_backend().syn().id(id))
    }),
    ("IPv4: a header checksum of 65535 is the other 0 and goes on right", |n| {
        let id = id_for(&n.client().syn(), 0);
        let packet = n.client().syn().id(id).frame().set(IP + 10, &[0xff, 0xff]);
        n.when(packet).forwards(ForwardNew, n.to_backend().syn().id(id))
    }),
];

/// Two bytes of data that give the segment this checksum.
fn data_for(n: &Net, segment: &Segment, wanted: u16) -> [u8; 2] {
    // The checksum of the segment with the data 0 tells what is missing.
    let now = checksum(n, &segment.clone().data(&[0, 0]));
    let missing = (u32::from(now) + 0xffff - u32::from(wanted)) % 0xffff;
    let data = u16::try_from(missing).expect("less than 65535").to_be_bytes();
    assert_eq!(checksum(n, &segment.clone().data(&data)), wanted);
    data
}

fn checksum(n: &Net, segment: &Segment) -> u16 {
    word(&segment.frame().bytes, n.tcp() + 16)
}

/// An identification that gives the IPv4 header this checksum.
fn id_for(segment: &Segment, wanted: u16) -> u16 {
    (0..=u16::MAX)
        .find(|id| word(&segment.clone().id(*id).frame().bytes, IP + 10) == wanted)
        .expect("one of them does")
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
