//! ICMP errors about packets of a connection go to whom the packet came from, translated.

use anyhow::{Result, ensure};
use lb_common::verdict::Verdict::{
    self, DropHopLimit, ForwardError, PassIcmp, PassNotTcp, PassTruncated,
};
use tests::lab::Family;

use crate::{
    frame::{Frame, IP, QINQ, Segment, VLAN},
    message::{Kind, Message},
    net::{And as _, Net},
    row::{self, Named, Row},
    world::World,
};

/// With ten bytes of data, so that a quotation may end before, in and behind the TCP header.
const DATA: &[u8] = b"ten bytes.";

#[test]
fn errors_reach_whom_they_are_for() -> Result<()> {
    super::both(BOTH)?;
    row::run(Family::V4, V4)?;
    row::run(Family::V6, V6)
}

/// Whatever is cut off or not quoted, nothing that is not there is looked at or believed.
#[test]
fn an_error_may_end_anywhere() -> Result<()> {
    for family in [Family::V4, Family::V6] {
        World::run(|world| {
            let net = Net::new(family, 1, world.arms);
            world.apply(&net.desired())?;
            for frame in net.established() {
                world.decide(frame)?;
            }
            let about = net.to_client().plain().data(DATA);
            let expect = |frame: Frame, expected: Verdict| {
                let (length, came) = (frame.bytes.len(), frame.bytes.clone());
                let done = world.decide(frame)?;
                ensure!(done.verdict == expected, "{length} bytes: {:?}", done.verdict);
                ensure!(expected == ForwardError || done.frame == came, "it was changed");
                Ok(())
            };
            let whole = net.client_error(&about, unreachable(&net)).frame();
            for length in IP..whole.bytes.len() {
                let too_short = length < net.tcp();
                let expected = if too_short { PassTruncated } else { PassIcmp };
                expect(whole.clone().cut(length), expected)?;
            }
            for quoted in 0..=20 + DATA.len() {
                let expected = if quoted < 8 { PassIcmp } else { ForwardError };
                let error = net.client_error(&about, unreachable(&net)).quotes(quoted);
                expect(error.frame(), expected)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) const BOTH: &[Named] = &[
    ("an unreachable client is reported to the backend", |n| to_backend(n, unreachable(n), 30)),
    ("an unreachable backend is reported to the client", |n| to_client(n, unreachable(n), 30)),
    ("an expired hop limit is reported to the backend", |n| to_backend(n, expired(n), 30)),
    ("an expired hop limit is reported to the client", |n| to_client(n, expired(n), 30)),
    ("a smaller MTU before the client is reported to the backend and kept", |n| {
        to_backend(n, too_big(n, 1400), 30)
    }),
    ("a smaller MTU before the backend is reported to the client and kept", |n| {
        to_client(n, too_big(n, 1280), 30)
    }),
    ("a parameter problem is reported to the backend with its pointer", |n| {
        to_backend(n, problem(n), 30)
    }),
    ("a parameter problem is reported to the client with its pointer", |n| {
        to_client(n, problem(n), 30)
    }),
    ("eight quoted bytes of TCP are enough for the backend", |n| to_backend(n, expired(n), 8)),
    ("eight quoted bytes of TCP are enough for the client", |n| to_client(n, expired(n), 8)),
    ("a TCP header quoted in part is translated up to its ports", |n| {
        to_backend(n, too_big(n, 1400), 16)
    }),
    ("a TCP header quoted without its data is translated with its checksum", |n| {
        to_client(n, too_big(n, 1400), 20)
    }),
    ("a quotation may end in the data, at an odd byte", |n| to_backend(n, unreachable(n), 27)),
    ("quoted TCP options are kept", |n| {
        let of = |segment: Segment| segment.syn_ack().options(&[2, 4, 5, 0xb4]);
        n.given(n.answered())
            .when(n.client_error(&of(n.to_client()), unreachable(n)))
            .forwards(ForwardError, n.error_to_backend(&of(n.server()).hops(63), unreachable(n)))
    }),
    ("an error about the SYN ends nothing", |n| {
        n.given(n.opened())
            .when(n.server_error(&n.to_backend().syn(), unreachable(n)))
            .forwards(ForwardError, n.error_to_client(&n.client().syn().hops(63), unreachable(n)))
            .active(1)
            .connections(1)
    }),
    ("an error about a closed connection is still delivered", |n| {
        n.given(n.closed())
            .when(n.server_error(&n.to_backend().plain(), unreachable(n)))
            .forwards(ForwardError, n.error_to_client(&n.client().plain().hops(63), unreachable(n)))
            .active(0)
    }),
    ("an error of the client itself is delivered", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), unreachable(n)).from(n.client.ip()))
            .forwards(
                ForwardError,
                n.error_to_backend(&n.server().plain().hops(63), unreachable(n)),
            )
    }),
    ("an error with a wrong checksum stays as wrong as it was", |n| {
        let about = (n.to_client().plain(), n.server().plain().hops(63));
        n.given(n.established())
            .when(n.client_error(&about.0, unreachable(n)).wrong_by(0x0123))
            .forwards(ForwardError, n.error_to_backend(&about.1, unreachable(n)).wrong_by(0x0123))
    }),
    ("a wrong quoted TCP checksum stays as wrong as it was", |n| {
        let of = |segment: Segment| segment.plain().wrong_by(0x0123);
        n.given(n.established())
            .when(n.client_error(&of(n.to_client()), unreachable(n)))
            .forwards(ForwardError, n.error_to_backend(&of(n.server()).hops(63), unreachable(n)))
    }),
    ("an error with a hop limit of 1 ends here", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), unreachable(n)).hops(1))
            .drops(DropHopLimit)
            .active(1)
    }),
    ("an error with a hop limit of 2 goes on with 1", |n| {
        n.given(n.established())
            .when(n.server_error(&n.to_backend().plain(), unreachable(n)).hops(2))
            .forwards(
                ForwardError,
                n.error_to_client(&n.client().plain().hops(63), unreachable(n)).hops(1),
            )
    }),
    ("an error by a VLAN loses its tag", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), unreachable(n)).frame().tagged(VLAN, 7))
            .forwards(
                ForwardError,
                n.error_to_backend(&n.server().plain().hops(63), unreachable(n)),
            )
    }),
    ("an error to a client of a VLAN in a VLAN gets its tags", |n| {
        let error = n.error_to_client(&n.client().plain().hops(63), unreachable(n)).frame();
        n.given(vec![n.client().syn().frame().tagged(VLAN, 7).tagged(QINQ, 8)])
            .when(n.server_error(&n.to_backend().plain(), unreachable(n)))
            .forwards(ForwardError, error.tagged(VLAN, 7).tagged(QINQ, 8))
    }),
    ("an error about a connection of nobody is the kernel's", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().dport(40_001).plain(), unreachable(n)))
            .passes(PassIcmp)
    }),
    ("an error about a packet the other way round is the kernel's", |n| {
        n.given(n.established())
            .when(n.client_error(&n.client().plain(), unreachable(n)))
            .passes(PassIcmp)
    }),
    ("an error about a UDP datagram is the kernel's", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain().protocol(17), unreachable(n)))
            .passes(PassIcmp)
    }),
    ("an error about a later fragment is the kernel's", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain().fragment(5, true), unreachable(n)))
            .passes(PassIcmp)
    }),
    ("an echo request is the kernel's, whatever it carries", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), (echo(n), 0, 0x0001_0001)))
            .passes(PassIcmp)
    }),
    ("a redirect is the kernel's", |n| {
        let redirect = if n.vip.is_ipv4() { 5 } else { 137 };
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), (redirect, 1, 0)))
            .passes(PassIcmp)
    }),
];

pub(super) const V4: &[Named] = &[
    ("IPv4: a closed port is reported to the client", |n| to_client(n, (3, 3, 0), 30)),
    ("IPv4: a filter's refusal is reported to the client", |n| to_client(n, (3, 13, 0), 30)),
    ("IPv4: an unreachable network is reported to the backend", |n| to_backend(n, (3, 0, 0), 8)),
    ("IPv4: a reassembly that took too long is reported", |n| to_backend(n, (11, 1, 0), 30)),
    ("IPv4: a source quench is the kernel's", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), (4, 0, 0)))
            .passes(PassIcmp)
    }),
    ("IPv4: a quotation with options is the kernel's", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain().ip_options(&[1; 4]), unreachable(n)))
            .passes(PassIcmp)
    }),
    ("IPv4: an error about a first fragment is delivered", |n| {
        let of = |segment: Segment| segment.plain().data(&[7; 24]).fragment(0, true);
        n.given(n.established())
            .when(n.client_error(&of(n.to_client()), unreachable(n)))
            .forwards(ForwardError, n.error_to_backend(&of(n.server()).hops(63), unreachable(n)))
    }),
    ("IPv4: an error in a fragment is not looked at", |n| {
        let error = n.client_error(&n.to_client().plain(), unreachable(n)).frame();
        n.given(n.established()).when(error.set(IP + 6, &[0x20, 0])).passes(PassNotTcp)
    }),
    ("IPv4: an error whose total length is 0 is the kernel's", |n| {
        let error = n.client_error(&n.to_client().plain(), unreachable(n)).frame();
        n.given(n.established()).when(error.set(IP + 2, &[0, 0])).passes(PassIcmp)
    }),
];

pub(super) const V6: &[Named] = &[
    ("IPv6: a closed port is reported to the client", |n| to_client(n, (1, 4, 0), 30)),
    ("IPv6: a filter's refusal is reported to the client", |n| to_client(n, (1, 1, 0), 30)),
    ("IPv6: a reassembly that took too long is reported", |n| to_backend(n, (3, 1, 0), 30)),
    ("IPv6: an error of an unknown type is the kernel's", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), (127, 0, 0)))
            .passes(PassIcmp)
    }),
    ("IPv6: a quotation with an extension header is the kernel's", |n| {
        let about = n.to_client().plain().extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]);
        n.given(n.established()).when(n.client_error(&about, unreachable(n))).passes(PassIcmp)
    }),
    ("IPv6: an error in a header of another version is the kernel's", |n| {
        let error = n.client_error(&n.to_client().plain(), unreachable(n)).frame();
        n.given(n.established()).when(error.set(IP, &[0x40])).passes(PassIcmp)
    }),
    ("IPv6: a quoted header of another version is the kernel's", |n| {
        let error = n.client_error(&n.to_client().plain(), unreachable(n)).frame();
        n.given(n.established()).when(error.set(n.tcp() + 8, &[0x40])).passes(PassIcmp)
    }),
];

fn unreachable(n: &Net) -> Kind {
    if n.vip.is_ipv4() { (3, 1, 0) } else { (1, 3, 0) }
}

fn expired(n: &Net) -> Kind {
    if n.vip.is_ipv4() { (11, 0, 0) } else { (3, 0, 0) }
}

fn too_big(n: &Net, mtu: u32) -> Kind {
    if n.vip.is_ipv4() { (3, 4, mtu) } else { (2, 0, mtu) }
}

/// With a pointer to the version, whose byte translation does not move.
fn problem(n: &Net) -> Kind {
    if n.vip.is_ipv4() { (12, 0, 1 << 24) } else { (4, 0, 1) }
}

fn echo(n: &Net) -> u8 {
    if n.vip.is_ipv4() { 8 } else { 128 }
}

/// An error about data to the client, with so many bytes of it quoted, goes to the backend.
fn to_backend(n: &Net, kind: Kind, quoted: usize) -> Row {
    let arrives: Message = n.client_error(&n.to_client().plain().data(DATA), kind);
    let about = n.server().plain().data(DATA).hops(63);
    n.given(n.established().and(n.server().plain().data(DATA)))
        .when(arrives.quotes(quoted))
        .forwards(ForwardError, n.error_to_backend(&about, kind).quotes(quoted))
        .active(1)
}

/// An error about data to the backend, with so many bytes of it quoted, goes to the client.
fn to_client(n: &Net, kind: Kind, quoted: usize) -> Row {
    let arrives: Message = n.server_error(&n.to_backend().plain().data(DATA), kind);
    let about = n.client().plain().data(DATA).hops(63);
    n.given(n.established().and(n.client().plain().data(DATA)))
        .when(arrives.quotes(quoted))
        .forwards(ForwardError, n.error_to_client(&about, kind).quotes(quoted))
        .active(1)
}
