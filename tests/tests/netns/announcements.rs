//! Addresses on and off an interface, what the neighbours learn of them, and who else claims them.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_common::addr::Mac;
use lb_daemon::{
    config::Family,
    netlink::Addresses,
    vrrp_io::{Announcer, Claim, Claims},
};
use tests::lab::{Dir, Namespace, veth, wait::until};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PATIENCE: Duration = Duration::from_secs(10);

/// Two hosts on a cable, `wire` at both ends.
fn pair() -> Result<[Namespace; 2]> {
    let dir = Dir::new()?;
    let (ours, theirs) = (Namespace::new("ours", &dir)?, Namespace::new("theirs", &dir)?);
    let (near, far) = veth((&ours, "wire"), (&theirs, "wire"))?;
    near.set_mac("02:00:00:00:00:01")?;
    far.set_mac("02:00:00:00:00:02")?;
    for (end, host) in [(near, 1), (far, 2)] {
        end.address(&format!("10.1.0.{host}/24"))?;
        end.address(&format!("fd01::{host}/64"))?;
    }
    Ok([ours, theirs])
}

fn ifindex(host: &Namespace) -> Result<u32> {
    host.enter(|| Ok(Addresses::open()?.interface("wire")?.ifindex))
}

/// The shared addresses, with their prefixes.
fn shared() -> [(IpAddr, u8); 4] {
    [("10.1.0.100", 24), ("10.1.0.101", 32), ("fd01::100", 64), ("fd01::101", 128)]
        .map(|(ip, prefix)| (ip.parse().expect("an address"), prefix))
}

#[test]
fn addresses_come_and_go_any_number_of_times() -> Result<()> {
    let [ours, _theirs] = pair()?;
    let ifindex = ifindex(&ours)?;
    ours.enter(|| {
        let addresses = Addresses::open()?;
        let all = shared().map(|(ip, _)| ip);
        ensure!(addresses.present(ifindex, &all)?.is_empty(), "some are there");
        for _ in 0..2 {
            for _ in 0..2 {
                for (ip, prefix) in shared() {
                    addresses.add(ifindex, ip, prefix)?;
                }
                assert_eq!(addresses.present(ifindex, &all)?, all);
            }
            for _ in 0..2 {
                for (ip, prefix) in shared() {
                    addresses.remove(ifindex, ip, prefix)?;
                }
                ensure!(addresses.present(ifindex, &all)?.is_empty(), "some are there");
            }
        }
        // Our own ones are still there.
        let own: [IpAddr; 2] = ["10.1.0.1".parse()?, "fd01::1".parse()?];
        assert_eq!(addresses.present(ifindex, &own)?, own);
        Ok(())
    })
}

#[test]
fn an_address_is_as_keepalived_makes_it() -> Result<()> {
    let [ours, _theirs] = pair()?;
    // As it is on a host that was not told otherwise.
    ours.sysctl("net.ipv6.conf.all.accept_dad", "1")?;
    ours.sysctl("net.ipv6.conf.wire.accept_dad", "1")?;
    let ifindex = ifindex(&ours)?;
    ours.enter(|| {
        let addresses = Addresses::open()?;
        shared().iter().try_for_each(|(ip, prefix)| addresses.add(ifindex, *ip, *prefix).map(drop))
    })?;
    let list = ours.ip("address show dev wire")?;
    ensure!(!list.contains("tentative") && !list.contains("brd 10."), "{list}");
    for part in [
        "inet 10.1.0.100/24 scope global secondary wire",
        "inet 10.1.0.101/32 scope global wire",
        "inet6 fd01::100/64 scope global nodad",
        "inet6 fd01::101/128 scope global nodad deprecated",
    ] {
        ensure!(list.contains(part), "no {part:?} in {list}");
    }
    Ok(())
}

#[test]
fn the_first_address_of_a_prefix_goes_alone() -> Result<()> {
    let [ours, _theirs] = pair()?;
    ours.sysctl("net.ipv4.conf.all.promote_secondaries", "0")?;
    ours.sysctl("net.ipv4.conf.wire.promote_secondaries", "0")?;
    let ifindex = ifindex(&ours)?;
    ours.enter(|| {
        let addresses = Addresses::open()?;
        let [one, other]: [IpAddr; 2] = ["10.9.0.1".parse()?, "10.9.0.2".parse()?];
        addresses.add(ifindex, one, 24)?;
        addresses.add(ifindex, other, 24)?;
        addresses.remove(ifindex, one, 24)?;
        assert_eq!(addresses.present(ifindex, &[one, other])?, [other]);
        Ok(())
    })
}

#[test]
fn an_interface_that_is_gone_has_no_addresses_to_take_off() -> Result<()> {
    let [ours, _theirs] = pair()?;
    let ifindex = ifindex(&ours)?;
    ours.ip("link delete wire")?;
    ours.enter(|| {
        let addresses = Addresses::open()?;
        for (ip, prefix) in shared() {
            addresses.remove(ifindex, ip, prefix)?;
            addresses.add(ifindex, ip, prefix).expect_err("nowhere to put it");
        }
        addresses.interface("wire").expect_err("it is gone");
        Ok(())
    })
}

/// RFC 3768 and RFC 9568, 6.4.2: what a host broadcasts once it is master.
#[test]
fn neighbours_believe_an_announcement() -> Result<()> {
    let [ours, theirs] = pair()?;
    let ifindex = ifindex(&ours)?;
    let announcer = ours.enter(Announcer::open)?;
    for ip in ["10.1.0.100", "fd01::100"] {
        // Somebody else had it, and they have talked lately.
        let old = format!("neighbour replace {ip} lladdr 02:00:00:00:00:99 dev wire nud reachable");
        theirs.ip(&old)?;
        let address = ip.parse()?;
        until("the neighbour", PATIENCE, || {
            // The kernel believes no second change of IPv4 within a second of the first.
            announcer.announce(ifindex, OURS, address)?;
            let now = theirs.ip(&format!("neighbour show {ip} dev wire"))?;
            ensure!(now.contains("02:00:00:00:00:01"), "{now}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn only_a_router_announces_one() -> Result<()> {
    let [ours, theirs] = pair()?;
    let ifindex = ifindex(&ours)?;
    let announcer = ours.enter(Announcer::open)?;
    for (forwarding, expected) in [("0", false), ("1", true)] {
        ours.sysctl("net.ipv6.conf.wire.forwarding", forwarding)?;
        let old = "neighbour replace fd01::100 lladdr 02:00:00:00:00:99 dev wire nud stale";
        theirs.ip(old)?;
        ours.enter(|| announcer.announce(ifindex, OURS, "fd01::100".parse().expect("valid")))?;
        until("the neighbour", PATIENCE, || {
            let now = theirs.ip("neighbour show fd01::100 dev wire")?;
            ensure!(now.contains("02:00:00:00:00:01"), "{now}");
            assert_eq!(now.contains("router"), expected, "{now}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_address_that_another_host_claims_is_noticed() -> Result<()> {
    let [ours, theirs] = pair()?;
    let (near, far) = (ifindex(&ours)?, ifindex(&theirs)?);
    let [us, them] = [&ours, &theirs].map(|host| host.enter(Announcer::open));
    let (us, them) = (us?, them?);
    for (family, ip, other) in
        [(Family::V4, "10.1.0.100", "10.1.0.9"), (Family::V6, "fd01::100", "fd01::9")]
    {
        let (ip, other): (IpAddr, IpAddr) = (ip.parse()?, other.parse()?);
        let claims = ours.enter(|| Claims::open(near, family))?;
        let held = BTreeSet::from([ip]);
        ours.enter(|| us.announce(near, OURS, ip))?;
        theirs.enter(|| them.announce(far, THEIRS, other))?;
        theirs.enter(|| them.announce(far, OURS, ip))?;
        theirs.enter(|| them.announce(far, THEIRS, ip))?;
        // The first three are our own, for an address that is not ours, and from our address.
        let claim = until("the claim", PATIENCE, || {
            claims.next(&held, OURS)?.ok_or_else(|| anyhow::anyhow!("none yet"))
        })?;
        assert_eq!(claim, Claim { ip, mac: THEIRS });
        assert_eq!(claims.next(&held, OURS)?, None);
    }
    Ok(())
}
