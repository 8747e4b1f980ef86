//! Frames that end too early, and length fields that lie.
//!
//! No frame is shorter than an Ethernet header: neither the kernel's test run nor a driver hands
//! one to a program.

use anyhow::{Result, ensure};
use lb_common::verdict::Verdict::{
    self, DropMalformed, DropTruncated, ForwardClient, ForwardNew, PassNotOurs, PassTruncated,
};
use tests::lab::Family;

use crate::{
    frame::{IP, TCP},
    net::Net,
    row::Named,
    world::World,
};

#[test]
fn lengths_are_not_believed() -> Result<()> {
    super::both(BOTH)?;
    crate::row::run(Family::V4, V4)?;
    crate::row::run(Family::V6, V6)
}

/// Whatever is cut off, nothing that is not there is looked at.
#[test]
fn a_frame_may_end_anywhere() -> Result<()> {
    for family in [Family::V4, Family::V6] {
        World::run(|world| {
            let net = Net::new(family, 1, world.arms);
            world.apply(&net.desired())?;
            let whole = net.client().syn().options(&[1; 8]).data(b"data").frame();
            for to_vip in [true, false] {
                let whole = if to_vip {
                    whole.clone()
                } else {
                    net.client().dst(net.elsewhere()).syn().data(b"data").frame()
                };
                for length in IP..whole.bytes.len() {
                    let expected = match length {
                        _ if length < net.tcp() => PassTruncated,
                        _ if to_vip => DropTruncated,
                        _ => PassNotOurs,
                    };
                    let verdict = world.decide(whole.clone().cut(length))?.verdict;
                    ensure!(
                        verdict == expected,
                        "{family:?}, {length} bytes: {verdict:?}, not {expected:?}"
                    );
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) const BOTH: &[Named] = &[
    ("a frame that is only an Ethernet header passes", |n| {
        n.when(n.client().syn().frame().cut(IP)).passes(PassTruncated)
    }),
    ("a frame that ends in its IP header passes", |n| {
        n.when(n.client().syn().frame().cut(n.tcp() - 1)).passes(PassTruncated)
    }),
    ("a frame that ends with its IP header is dropped", |n| {
        n.when(n.client().syn().frame().cut(n.tcp())).drops(DropTruncated)
    }),
    ("a frame to another address that ends with its IP header passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().frame().cut(n.tcp())).passes(PassNotOurs)
    }),
    ("a frame that ends in its TCP header is dropped", |n| {
        n.when(n.client().syn().frame().cut(n.tcp() + 19)).drops(DropTruncated)
    }),
    ("a frame to another address that ends in its TCP header passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().frame().cut(n.tcp() + 19)).passes(PassNotOurs)
    }),
    ("a frame that ends before its TCP options is dropped", |n| {
        n.when(n.client().syn().options(&[1; 8]).frame().cut(n.tcp() + 20)).drops(DropTruncated)
    }),
    ("a frame that ends in its data is dropped", |n| {
        n.given(n.established())
            .when(n.client().plain().data(b"data").frame().cut(n.tcp() + 23))
            .drops(DropTruncated)
    }),
    ("a packet that ends with its IP header, by its own word, is malformed", |n| {
        n.when(n.client().syn().claims(0)).drops(DropMalformed)
    }),
    ("a packet that ends in its TCP header, by its own word, is malformed", |n| {
        n.when(n.client().syn().claims(19)).drops(DropMalformed)
    }),
    ("a packet that ends in its TCP header, by its own word, to another address passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().claims(19)).passes(PassNotOurs)
    }),
    ("a packet that ends in its TCP options, by its own word, is malformed", |n| {
        n.when(n.client().syn().options(&[1; 8]).claims(27)).drops(DropMalformed)
    }),
    ("a packet that is shorter than its frame is followed by padding", |n| {
        n.when(n.client().syn().data(b"12345").claims(21))
            .forwards(ForwardNew, n.to_backend().syn().data(b"12345").claims(21))
    }),
    ("a packet that is one byte longer than its frame is truncated", |n| {
        n.when(n.client().syn().claims(21)).drops(DropTruncated)
    }),
    ("a packet of the greatest length in a small frame is truncated", |n| {
        n.when(n.client().syn().claims(65_515)).drops(DropTruncated)
    }),
    ("a packet to another address that is longer than its frame passes", |n| {
        n.when(n.client().dst(n.elsewhere()).syn().claims(21)).passes(PassNotOurs)
    }),
    ("a data offset of 0 is malformed", |n| {
        n.when(n.client().syn().frame().set(n.tcp() + 12, &[0x00])).drops(DropMalformed)
    }),
    ("a data offset of 4 is malformed", |n| {
        n.when(n.client().syn().frame().set(n.tcp() + 12, &[0x40])).drops(DropMalformed)
    }),
    ("a data offset of 4 to another address passes", |n| {
        let elsewhere = n.client().dst(n.elsewhere());
        n.when(elsewhere.syn().frame().set(n.tcp() + 12, &[0x40])).passes(PassNotOurs)
    }),
    ("a data offset beyond the segment is malformed", |n| {
        n.when(n.client().syn().frame().set(n.tcp() + 12, &[0x60])).drops(DropMalformed)
    }),
    ("a data offset beyond the segment, into padding, is malformed", |n| {
        n.when(n.client().syn().padding(40).frame().set(n.tcp() + 12, &[0xf0])).drops(DropMalformed)
    }),
    ("a data offset beyond the segment is malformed on a connection too", |n| {
        n.given(n.established())
            .when(n.client().plain().data(b"abc").frame().set(n.tcp() + 12, &[0x60]))
            .drops(DropMalformed)
    }),
    ("a data offset up to the segment's end leaves no data", |n| {
        n.given(n.established())
            .when(n.client().plain().options(&[1; 40]))
            .forwards(ForwardClient, n.to_backend().plain().options(&[1; 40]))
    }),
    ("padding to the least size of a frame stays where it is", |n| {
        n.given(n.established())
            .when(n.client().plain().padding(6))
            .forwards(ForwardClient, n.to_backend().plain().padding(6))
    }),
];

pub(super) const V4: &[Named] = &[
    ("IPv4: a total length below the header's is malformed", |n| {
        n.when(total_length(n, n.vip.ip(), 19)).drops(DropMalformed)
    }),
    ("IPv4: a total length of 0 is malformed", |n| {
        n.when(total_length(n, n.vip.ip(), 0)).drops(DropMalformed)
    }),
    ("IPv4: a total length of 0 to another address passes", |n| {
        n.when(total_length(n, n.elsewhere(), 0)).passes(PassNotOurs)
    }),
    ("IPv4: a header length below 5 is malformed", |n| {
        n.when(n.client().syn().frame().set(IP, &[0x44])).drops(DropMalformed)
    }),
    ("IPv4: a header length of 0 is malformed", |n| {
        n.when(n.client().syn().frame().set(IP, &[0x40])).drops(DropMalformed)
    }),
    ("IPv4: another version is malformed", |n| {
        n.when(n.client().syn().frame().set(IP, &[0x65])).drops(DropMalformed)
    }),
    ("IPv4: another version to another address passes", |n| {
        let elsewhere = n.client().dst(n.elsewhere());
        n.when(elsewhere.syn().frame().set(IP, &[0x65])).passes(PassNotOurs)
    }),
    ("IPv4: a header length of 15 in a short frame has options", |n| {
        n.when(n.client().syn().frame().set(IP, &[0x4f])).drops(Verdict::DropOptions)
    }),
];

pub(super) const V6: &[Named] = &[
    ("IPv6: another version is malformed", |n| {
        n.when(n.client().syn().frame().set(IP, &[0x40])).drops(DropMalformed)
    }),
    ("IPv6: another version to another address passes", |n| {
        let elsewhere = n.client().dst(n.elsewhere());
        n.when(elsewhere.syn().frame().set(IP, &[0x40])).passes(PassNotOurs)
    }),
    ("IPv6: a frame that ends before its extension header is truncated", |n| {
        let extended = n.client().syn().extension(0, &[TCP, 0, 1, 4, 0, 0, 0, 0]);
        n.when(extended.frame().cut(n.tcp())).drops(DropTruncated)
    }),
];

/// A SYN whose IPv4 header says it is so long.
fn total_length(n: &Net, to: std::net::IpAddr, length: u16) -> crate::frame::Frame {
    n.client().dst(to).syn().frame().set(IP + 2, &length.to_be_bytes())
}
