//! What happens when something is used up, and that it can be used again.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_common::{
    maps::{MAX_BACKENDS, MAX_HOPS},
    verdict::Verdict::{
        self, DropNoHop, DropNoPort, DropTableFull, ForwardClient, ForwardNew, ForwardServer,
        ResetNoFlow,
    },
};
use lb_daemon::{config::Global, core::Slots};
use tests::lab::Family;

use crate::{
    frame::{Frame, IP, Segment, VLAN},
    net::Net,
    verify,
    world::World,
};

#[test]
fn a_full_table_takes_no_new_connection_and_serves_the_old_ones() -> Result<()> {
    let settings = |global: &mut Global| (global.maxconn, global.max_half_open) = (4, 16);
    with(settings, |world, n| {
        for client in 0..4 {
            decides(world, syn(n, client), ForwardNew)?;
        }
        decides(world, syn(n, 4), DropTableFull)?;
        decides(world, syn(n, 0), ForwardClient)?;
        decides(world, n.server().syn_ack(), ForwardServer)?;
        let table = world.table(n.family)?;
        ensure!(table.connections == 4 && table.half_open == 4, "{table:?}");
        ensure!(world.active(n.number)? == 4, "a connection is counted that was not opened");
        Ok(())
    })
}

#[test]
fn a_connection_that_was_reset_makes_no_room_in_a_full_table_but_its_client_may_return()
-> Result<()> {
    let settings = |global: &mut Global| (global.maxconn, global.max_half_open) = (2, 16);
    with(settings, |world, n| {
        decides(world, syn(n, 0), ForwardNew)?;
        decides(world, syn(n, 1), ForwardNew)?;
        decides(world, n.client().sport(40_000).rst(), ForwardClient)?;
        decides(world, syn(n, 2), DropTableFull)?;
        decides(world, syn(n, 0), ForwardNew)?;
        ensure!(world.active(n.number)? == 2);
        Ok(())
    })
}

#[test]
fn a_flood_of_syns_evicts_the_oldest_half_open_connections_only() -> Result<()> {
    let settings = |global: &mut Global| (global.maxconn, global.max_half_open) = (64, 8);
    with(settings, |world, n| {
        for frame in n.established() {
            world.send(&frame)?;
        }
        for client in 1..=20 {
            decides(world, syn(n, client), ForwardNew)?;
        }
        let table = world.table(n.family)?;
        ensure!(table.half_open == 8, "{} are half open", table.half_open);
        ensure!(table.connections == 9, "{} connections", table.connections);
        ensure!(table.evicted == 12, "{} were evicted", table.evicted);
        ensure!(world.active(n.number)? == 9);
        decides(world, n.client().plain(), ForwardClient)?;
        decides(world, syn(n, 20), ForwardClient)?;
        // The evicted ones are strangers now.
        decides(world, n.client().sport(40_012).plain(), ResetNoFlow)
    })
}

#[test]
fn source_addresses_multiply_the_ports() -> Result<()> {
    with(tiny_ports, |world, n| {
        let mut desired = n.desired();
        let other = n.elsewhere();
        if let Some(backend) = desired.backends.get_mut(&n.number) {
            backend.sources.push(other);
        }
        world.apply(&desired)?;
        let mut translations = BTreeSet::new();
        for client in 0..4 {
            translations.insert(translation(world, &syn(n, client))?);
        }
        let expected: BTreeSet<_> = [n.source.ip(), other]
            .into_iter()
            .flat_map(|ip| [5000, 5001].map(|port| (octets(ip), port)))
            .collect();
        ensure!(translations == expected, "{translations:?}");
        decides(world, syn(n, 4), DropNoPort)?;
        ensure!(world.active(n.number)? == 4);
        let table = world.table(n.family)?;
        ensure!(table.connections == 4 && table.half_open == 4, "{table:?}");
        Ok(())
    })
}

#[test]
fn a_port_is_taken_over_from_a_connection_that_only_lingers() -> Result<()> {
    with(tiny_ports, |world, n| {
        decides(world, syn(n, 0), ForwardNew)?;
        decides(world, syn(n, 1), ForwardNew)?;
        decides(world, syn(n, 2), DropNoPort)?;
        decides(world, n.server().dport(5001).rst(), ForwardServer)?;
        ensure!(translation(world, &syn(n, 2))? == (octets(n.source.ip()), 5001));
        ensure!(world.active(n.number)? == 2);
        ensure!(world.table(n.family)?.connections == 2);
        // The backend's answer goes to the new owner; the old one is a stranger.
        let answer = world.decide(n.server().dport(5001).syn_ack())?;
        ensure!(answer.frame == n.to_client().dport(40_002).syn_ack().frame().bytes);
        decides(world, n.client().sport(40_001).plain(), ResetNoFlow)
    })
}

#[test]
fn each_backend_has_all_the_ports() -> Result<()> {
    with(tiny_ports, |world, n| {
        let mut desired = n.desired();
        let mut second = desired.backends[&n.number].clone();
        second.address.set_port(8081);
        desired.backends.insert(n.number + 1, second);
        if let Some(service) = desired.services.get_mut(&0) {
            service.slots = Slots(vec![n.number, n.number + 1].into());
        }
        world.apply(&desired)?;
        for client in 0..4 {
            decides(world, syn(n, client), ForwardNew)?;
        }
        ensure!(world.active(n.number)? == 2 && world.active(n.number + 1)? == 2);
        decides(world, syn(n, 4), DropNoPort)
    })
}

#[test]
fn the_last_port_may_be_65535() -> Result<()> {
    let settings = |global: &mut Global| global.source_ports = 65_535..=65_535;
    with(settings, |world, n| {
        ensure!(translation(world, &syn(n, 0))? == (octets(n.source.ip()), 65_535));
        decides(world, n.server().dport(65_535).syn_ack(), ForwardServer)?;
        decides(world, syn(n, 1), DropNoPort)
    })
}

#[test]
fn clients_behind_one_router_share_a_hop_and_unused_hops_come_back() -> Result<()> {
    const HOPS: u32 = MAX_HOPS - MAX_BACKENDS;
    let settings = |global: &mut Global| (global.maxconn, global.max_half_open) = (32_768, 16_384);
    with(settings, |world, n| {
        let router = |number: u32| {
            let [a, b, c, d] = number.to_be_bytes();
            [0x06, 0, a, b, c, d]
        };
        let by_router = |number: u32| {
            let client = u16::try_from(number).expect("fewer routers than ports");
            n.client().sport(1024 + client).src_mac(router(number)).syn().frame().tagged(VLAN, 7)
        };
        for number in 0..HOPS {
            world.send(&by_router(number))?;
        }
        ensure!(u64::from(HOPS) == world.table(n.family)?.connections, "some were not opened");
        decides(world, by_router(HOPS), DropNoHop)?;
        let known = |port| n.client().src_mac(router(7)).sport(port).syn().frame();
        decides(world, known(60_000).tagged(VLAN, 7), ForwardNew)?;
        // A tag's priority makes no other hop, its number does.
        decides(world, known(60_001).tagged(VLAN, 7 | 0xe000), ForwardNew)?;
        decides(world, known(60_002).tagged(VLAN, 8), DropNoHop)?;
        decides(world, known(60_003), DropNoHop)?;
        // All the clients give up; without connections their hops are unused, and the sweeps
        // collect them.
        let mut desired = n.desired();
        if let Some(service) = desired.services.get_mut(&0) {
            service.timeout.connect = Duration::ZERO;
        }
        world.apply(&desired)?;
        let mut reaper = world.reaper()?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while world.decide(by_router(HOPS))?.verdict == DropNoHop {
            ensure!(Instant::now() < deadline, "no hop has come back");
            reaper.sweep()?;
        }
        Ok(())
    })
}

fn tiny_ports(global: &mut Global) {
    global.source_ports = 5000..=5001;
}

/// Runs a story for each family, with one service and one backend.
fn with(
    settings: impl Fn(&mut Global),
    story: impl Fn(&mut World, &Net) -> Result<()> + Send + Sync,
) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        World::run_with(&settings, |world| {
            let net = Net::new(family, 1, world.arms);
            world.apply(&net.desired())?;
            story(world, &net)
        })?;
    }
    Ok(())
}

/// The SYN of one of several clients.
fn syn(n: &Net, client: u16) -> Segment {
    n.client().sport(40_000 + client).syn()
}

#[track_caller]
fn decides(world: &World, segment: impl Into<Frame>, expected: Verdict) -> Result<()> {
    let at = std::panic::Location::caller().line();
    let verdict = world.decide(segment)?.verdict;
    ensure!(verdict == expected, "line {at}: {verdict:?}, not {expected:?}");
    Ok(())
}

/// What a SYN's client is translated to: address and port.
fn translation(world: &World, syn: &Segment) -> Result<(Vec<u8>, u16)> {
    let done = world.decide(syn.clone())?;
    ensure!(done.verdict == ForwardNew, "{:?}", done.verdict);
    verify::check(&done.frame)?;
    let tcp = verify::find(&done.frame)?.at;
    let source = if syn.from.is_ipv4() { IP + 12..IP + 16 } else { IP + 8..IP + 24 };
    let port = u16::from_be_bytes([done.frame[tcp], done.frame[tcp + 1]]);
    Ok((done.frame[source].to_vec(), port))
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
