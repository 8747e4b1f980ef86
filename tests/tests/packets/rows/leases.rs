//! What this host does for addresses that it shares with another one, with a lease and without.
//!
//! The addresses of service and translation are those of one group. A row of [`GUARDED`] says what
//! becomes of its packet with a lease; without one, or after its end, the packet is dropped and
//! changes nothing. What is in the other tables goes the same way in each case.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use lb_common::verdict::Verdict::{
    DropFragment, DropNoLease, DropOptions, DropStrayReset, DropTruncated, ForwardClient,
    ForwardError, ForwardNew, ForwardServer, PassIcmp, PassNoService, PassNotIp, PassNotOurs,
    PassNotTcp, PassTruncated, ResetNoBackend, ResetNoFlow,
};
use lb_daemon::core::Slots;
use tests::lab::Family;

use crate::{
    asking::{REPLY, REQUEST, advertisement, arp, hidden_solicitation, solicitation, verification},
    frame::{ACK, Frame, QINQ, RST, VLAN},
    message::Kind,
    net::{FRONT, Net},
    row::{self, Lease, Named, Row},
    world::World,
};

const UDP: u8 = 17;
const VRRP: u8 = 112;
const LEASES: [Lease; 3] = [Lease::Held, Lease::Ended, Lease::None];

/// RFC 3768 and RFC 9568, 6.4.2: a backup MUST NOT answer ARP or neighbour solicitations for the
/// addresses, and MUST NOT accept packets to them; 6.4.3: a master MUST answer, and MUST forward.
#[test]
fn nothing_is_done_for_a_group_without_a_lease() -> Result<()> {
    each(&[(Family::V4, GUARDED), (Family::V6, GUARDED)], Row::guarded)?;
    each(&[(Family::V4, GUARDED_V4), (Family::V6, GUARDED_V6)], Row::guarded)
}

#[test]
fn what_asks_nothing_of_a_group_needs_no_lease() -> Result<()> {
    each(&[(Family::V4, FREE), (Family::V6, FREE)], Row::shared)?;
    each(&[(Family::V4, FREE_V4), (Family::V6, FREE_V6)], Row::shared)
}

#[test]
fn what_is_shared_with_nobody_needs_no_lease() -> Result<()> {
    each(&[(Family::V4, OWN), (Family::V6, OWN)], Row::beside)
}

/// A lease ends by itself, and nothing needs to happen for it.
#[test]
fn a_lease_ends_in_time() -> Result<()> {
    const TERM: Duration = Duration::from_millis(200);

    for family in [Family::V4, Family::V6] {
        World::run(|world| {
            let net = Net::new(family, 1, world.arms);
            net.when(net.client().syn()).shared(Lease::None).apply(world)?;
            let end = Instant::now() + TERM;
            world.lease(row::GROUP, Some(end))?;
            let begun = world.decide(net.client().syn())?.verdict;
            ensure!(begun == ForwardNew || Instant::now() > end, "{begun:?} before the end");
            thread::sleep(end.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
            let over = world.decide(net.client().plain())?.verdict;
            ensure!(over == DropNoLease, "{over:?} after the end");
            Ok(())
        })?;
    }
    Ok(())
}

/// Runs tables with each kind of lease; all of them, also if some fail.
fn each(tables: &[(Family, &[Named])], with: fn(Row, Lease) -> Row) -> Result<()> {
    let mut failures = Vec::new();
    for lease in LEASES {
        for (family, rows) in tables {
            if let Err(error) = row::run_as(*family, rows, |_| Ok(()), |row| with(row, lease)) {
                failures.push(format!("lease {lease:?}: {error}"));
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

pub(super) const GUARDED: &[Named] = &[
    ("a SYN needs a lease", |n| {
        n.when(n.client().syn()).forwards(ForwardNew, n.to_backend().syn())
    }),
    ("a retransmitted SYN needs a lease", |n| {
        n.given(n.opened()).when(n.client().syn()).forwards(ForwardClient, n.to_backend().syn())
    }),
    ("data of a client needs a lease", |n| {
        n.given(n.established())
            .when(n.client().plain().data(b"data"))
            .forwards(ForwardClient, n.to_backend().plain().data(b"data"))
            .active(1)
    }),
    ("data of a server needs a lease", |n| {
        n.given(n.established())
            .when(n.server().plain().data(b"data"))
            .forwards(ForwardServer, n.to_client().plain().data(b"data"))
            .active(1)
    }),
    ("the answer of a server needs a lease", |n| {
        n.given(n.opened())
            .when(n.server().syn_ack())
            .forwards(ForwardServer, n.to_client().syn_ack())
    }),
    ("data of a client in a VLAN needs a lease", |n| {
        n.given(n.established())
            .when(n.client().plain().frame().tagged(VLAN, 7))
            .forwards(ForwardClient, n.to_backend().plain())
    }),
    ("a FIN needs a lease", |n| {
        n.given(n.established())
            .when(n.client().fin())
            .forwards(ForwardClient, n.to_backend().fin())
            .active(1)
    }),
    ("a stray segment is reset only with a lease", |n| {
        n.when(n.client().flags(ACK).ack(7)).returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("a service without backends resets only with a lease", |n| {
        n.when(n.client().syn())
            .with(|service, _| service.slots = Slots::default())
            .returns(ResetNoBackend, n.reset().flags(RST | ACK).ack(0x1000_0001))
    }),
    ("a stray RST is known for one only with a lease", |n| {
        n.when(n.client().rst()).drops(DropStrayReset)
    }),
    ("an error about a segment to the client needs a lease", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), unreachable(n)))
            .forwards(
                ForwardError,
                n.error_to_backend(&n.server().plain().hops(63), unreachable(n)),
            )
    }),
    ("an error about a segment to the server needs a lease", |n| {
        n.given(n.established())
            .when(n.server_error(&n.to_backend().plain(), unreachable(n)))
            .forwards(ForwardError, n.error_to_client(&n.client().plain().hops(63), unreachable(n)))
    }),
    ("an error about something else gets to the kernel only with a lease", |n| {
        n.when(n.client_error(&n.to_client().plain(), unreachable(n))).passes(PassIcmp)
    }),
    ("an echo request to a service's address needs a lease", |n| {
        n.when(echo(n, n.vip.ip())).passes(PassIcmp)
    }),
    ("an echo request to a translation's address needs a lease", |n| {
        n.when(echo(n, n.source.ip())).passes(PassIcmp)
    }),
    ("an echo request in a VLAN in a VLAN needs a lease", |n| {
        n.when(echo(n, n.vip.ip()).tagged(VLAN, 7).tagged(QINQ, 8)).passes(PassIcmp)
    }),
    ("TCP to a port without service needs a lease", |n| {
        n.when(n.client().dport(22).syn()).passes(PassNoService)
    }),
    ("TCP to an address that no service has needs a lease", |n| {
        n.when(n.client().dst(n.source.ip()).dport(22).syn()).passes(PassNotOurs)
    }),
    ("a server's segment without connection needs a lease to get to the kernel", |n| {
        n.when(n.server().plain()).passes(PassNotOurs)
    }),
    ("UDP to a service's address needs a lease", |n| {
        n.when(n.client().protocol(UDP)).passes(PassNotTcp)
    }),
    ("UDP to a translation's address needs a lease", |n| {
        n.when(n.client().dst(n.source.ip()).protocol(UDP)).passes(PassNotTcp)
    }),
    ("a first fragment to an address that no service has needs a lease", |n| {
        n.when(n.client().dst(n.source.ip()).syn().fragment(0, true)).passes(PassNotOurs)
    }),
    ("a later fragment to an address that no service has needs a lease", |n| {
        n.when(n.client().dst(n.source.ip()).data(&[1; 24]).fragment(8, false)).passes(PassNotOurs)
    }),
    ("a fragment of a UDP datagram needs a lease", |n| {
        n.when(n.client().protocol(UDP).fragment(8, true)).passes(PassNotTcp)
    }),
    ("VRRP to a shared address itself needs a lease", |n| {
        n.when(n.client().protocol(VRRP)).passes(PassNotTcp)
    }),
];

pub(super) const GUARDED_V4: &[Named] = &[
    ("an ARP request for a service's address needs a lease", |n| {
        n.when(arp(n, REQUEST, v4(n.client.ip()), v4(n.vip.ip()))).passes(PassNotIp)
    }),
    ("an ARP request for a translation's address needs a lease", |n| {
        n.when(arp(n, REQUEST, v4(n.client.ip()), v4(n.source.ip()))).passes(PassNotIp)
    }),
    ("an ARP request to this host alone needs a lease", |n| {
        let request = arp(n, REQUEST, v4(n.client.ip()), v4(n.vip.ip()));
        n.when(request.set(0, &FRONT)).passes(PassNotIp)
    }),
    ("an ARP probe, which has no sender yet, needs a lease", |n| {
        n.when(arp(n, REQUEST, Ipv4Addr::UNSPECIFIED, v4(n.vip.ip()))).passes(PassNotIp)
    }),
    ("an ARP request in a VLAN needs a lease", |n| {
        let request = arp(n, REQUEST, v4(n.client.ip()), v4(n.vip.ip()));
        n.when(request.tagged(VLAN, 7)).passes(PassNotIp)
    }),
    ("an ARP request in a VLAN in a VLAN needs a lease", |n| {
        let request = arp(n, REQUEST, v4(n.client.ip()), v4(n.vip.ip()));
        n.when(request.tagged(VLAN, 7).tagged(QINQ, 8)).passes(PassNotIp)
    }),
    ("a padded ARP request needs a lease", |n| {
        let mut request = arp(n, REQUEST, v4(n.client.ip()), v4(n.vip.ip()));
        request.bytes.extend([0xa5; 18]);
        n.when(request).passes(PassNotIp)
    }),
    ("IPv4: options to an address that no service has need a lease", |n| {
        n.when(n.client().dst(n.source.ip()).syn().ip_options(&[1; 4])).passes(PassNotOurs)
    }),
];

pub(super) const GUARDED_V6: &[Named] = &[
    ("a neighbour solicitation for a service's address needs a lease", |n| {
        n.when(solicitation(n, v6(n.vip.ip()))).passes(PassIcmp)
    }),
    ("a neighbour solicitation for a translation's address needs a lease", |n| {
        n.when(solicitation(n, v6(n.source.ip()))).passes(PassIcmp)
    }),
    ("a neighbour solicitation to the address itself needs a lease", |n| {
        n.when(verification(n, v6(n.vip.ip()))).passes(PassIcmp)
    }),
    ("a neighbour solicitation in a VLAN needs a lease", |n| {
        n.when(solicitation(n, v6(n.vip.ip())).tagged(VLAN, 7)).passes(PassIcmp)
    }),
    ("a neighbour solicitation in a VLAN in a VLAN needs a lease", |n| {
        let asked = solicitation(n, v6(n.vip.ip())).tagged(VLAN, 7);
        n.when(asked.tagged(QINQ, 8)).passes(PassIcmp)
    }),
    ("a neighbour solicitation behind extension headers needs a lease", |n| {
        n.when(hidden_solicitation(n, v6(n.vip.ip()))).passes(PassNotOurs)
    }),
    ("a neighbour solicitation that ends with its target needs a lease", |n| {
        n.when(solicitation(n, v6(n.vip.ip())).cut(14 + 40 + 24)).passes(PassIcmp)
    }),
    ("a truncated neighbour solicitation to the address itself needs a lease", |n| {
        n.when(verification(n, v6(n.vip.ip())).cut(14 + 40 + 8)).passes(PassIcmp)
    }),
];

pub(super) const FREE: &[Named] = &[
    // RFC 3768, 5.2.2, and RFC 9568, 5.1.1.2 and 5.1.2.2: they MUST NOT be forwarded; the kernel gets
    // them.
    ("adverts pass without a lease", |n| n.when(advert(n)).passes(PassNotTcp)),
    ("adverts in a VLAN pass without a lease", |n| {
        n.when(advert(n).tagged(VLAN, 7)).passes(PassNotTcp)
    }),
    ("adverts to this host's own address pass without a lease", |n| {
        n.when(n.client().dst(n.elsewhere()).protocol(VRRP).hops(255)).passes(PassNotTcp)
    }),
    ("TCP to another address passes without a lease", |n| {
        n.when(n.client().dst(n.elsewhere()).syn()).passes(PassNotOurs)
    }),
    ("an echo request to another address passes without a lease", |n| {
        n.when(echo(n, n.elsewhere())).passes(PassIcmp)
    }),
    ("a packet from a shared address passes without a lease", |n| {
        n.when(n.client().src(n.vip.ip()).dst(n.elsewhere()).syn()).passes(PassNotOurs)
    }),
    ("what ends in its IP header passes without a lease", |n| {
        n.when(n.client().syn().frame().cut(n.tcp() - 1)).passes(PassTruncated)
    }),
    ("a fragment to a service is dropped as one, whatever the lease", |n| {
        n.when(n.client().syn().fragment(0, true)).drops(DropFragment)
    }),
    ("a truncated segment to a service is dropped as one, whatever the lease", |n| {
        n.when(n.client().syn().frame().cut(n.tcp() + 19)).drops(DropTruncated)
    }),
];

pub(super) const FREE_V4: &[Named] = &[
    ("a gratuitous ARP request passes without a lease", |n| {
        n.when(arp(n, REQUEST, v4(n.vip.ip()), v4(n.vip.ip()))).passes(PassNotIp)
    }),
    ("an ARP reply passes without a lease", |n| {
        n.when(arp(n, REPLY, v4(n.vip.ip()), v4(n.elsewhere()))).passes(PassNotIp)
    }),
    ("an ARP reply to a shared address passes without a lease", |n| {
        n.when(arp(n, REPLY, v4(n.client.ip()), v4(n.vip.ip()))).passes(PassNotIp)
    }),
    ("an ARP request for another address passes without a lease", |n| {
        n.when(arp(n, REQUEST, v4(n.client.ip()), v4(n.elsewhere()))).passes(PassNotIp)
    }),
    ("an ARP request from a shared address passes without a lease", |n| {
        n.when(arp(n, REQUEST, v4(n.vip.ip()), v4(n.elsewhere()))).passes(PassNotIp)
    }),
    ("a truncated ARP request passes without a lease", |n| {
        n.when(arp(n, REQUEST, v4(n.client.ip()), v4(n.vip.ip())).cut(14 + 27)).passes(PassNotIp)
    }),
    ("ARP for another protocol passes without a lease", |n| {
        let request = arp(n, REQUEST, v4(n.client.ip()), v4(n.vip.ip()));
        n.when(request.set(16, &[0x86, 0xdd])).passes(PassNotIp)
    }),
    ("ARP with addresses of other lengths passes without a lease", |n| {
        let request = arp(n, REQUEST, v4(n.client.ip()), v4(n.vip.ip()));
        n.when(request.set(18, &[8, 4])).passes(PassNotIp)
    }),
    ("IPv4: options to a service are dropped as such, whatever the lease", |n| {
        n.when(n.client().syn().ip_options(&[1; 4])).drops(DropOptions)
    }),
];

pub(super) const FREE_V6: &[Named] = &[
    ("a neighbour solicitation for another address passes without a lease", |n| {
        n.when(solicitation(n, v6(n.elsewhere()))).passes(PassIcmp)
    }),
    ("a neighbour advertisement passes without a lease", |n| {
        n.when(advertisement(n, v6(n.vip.ip()))).passes(PassIcmp)
    }),
    ("a truncated neighbour solicitation passes without a lease", |n| {
        n.when(solicitation(n, v6(n.vip.ip())).cut(14 + 40 + 23)).passes(PassIcmp)
    }),
    ("a router advertisement passes without a lease", |n| {
        let advertised = advertisement(n, v6(n.vip.ip()));
        n.when(advertised.set(14 + 40, &[134])).passes(PassIcmp)
    }),
];

/// With an address beside the service's that a group has, which is [`Net::elsewhere`].
pub(super) const OWN: &[Named] = &[
    ("a service of this host alone takes connections without a lease", |n| {
        n.when(n.client().syn()).forwards(ForwardNew, n.to_backend().syn())
    }),
    ("a connection of this host alone goes on to the server without a lease", |n| {
        n.given(n.established())
            .when(n.client().plain())
            .forwards(ForwardClient, n.to_backend().plain())
    }),
    ("a connection of this host alone goes on to the client without a lease", |n| {
        n.given(n.established())
            .when(n.server().plain())
            .forwards(ForwardServer, n.to_client().plain())
    }),
    ("an error about a connection of this host alone needs no lease", |n| {
        n.given(n.established())
            .when(n.client_error(&n.to_client().plain(), unreachable(n)).from(n.client.ip()))
            .forwards(
                ForwardError,
                n.error_to_backend(&n.server().plain().hops(63), unreachable(n)),
            )
    }),
    ("a stray segment to this host alone is reset without a lease", |n| {
        n.when(n.client().flags(ACK).ack(7)).returns(ResetNoFlow, n.reset().seq(7))
    }),
    ("an echo request to an address of this host alone needs no lease", |n| {
        n.when(echo(n, n.vip.ip())).passes(PassIcmp)
    }),
    ("TCP to a port of this host alone without service needs no lease", |n| {
        n.when(n.client().dport(22).syn()).passes(PassNoService)
    }),
];

fn v4(ip: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(ip) = ip else { panic!("{ip} in a table of IPv4") };
    ip
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    let IpAddr::V6(ip) = ip else { panic!("{ip} in a table of IPv6") };
    ip
}

/// Of either protocol: the program does not tell VRRP and CARP apart.
fn advert(n: &Net) -> Frame {
    let to: IpAddr = match n.family {
        Family::V4 => [224, 0, 0, 18].into(),
        Family::V6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12).into(),
    };
    n.client().dst(to).dst_mac([0x01, 0, 0x5e, 0, 0, 0x12]).protocol(VRRP).hops(255).frame()
}

fn echo(n: &Net, to: IpAddr) -> Frame {
    let (protocol, request) = match n.family {
        Family::V4 => (1, 8),
        Family::V6 => (58, 128),
    };
    n.client().dst(to).protocol(protocol).frame().set(n.tcp(), &[request, 0])
}

fn unreachable(n: &Net) -> Kind {
    match n.family {
        Family::V4 => (3, 1, 0),
        Family::V6 => (1, 3, 0),
    }
}
