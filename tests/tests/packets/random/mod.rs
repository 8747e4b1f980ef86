//! Packets that nobody thought of: whatever comes in, nothing invalid goes out, and no count leaks.
//!
//! Clients and backends are few, so that packets meet each other's connections; ports and table
//! are small, so that they run out. `TANDEM_PACKETS` sets the number of packets and
//! `TANDEM_PACKETS_SEED` the seed, which a failure prints along with the packet.

mod fence;
mod generate;
mod judge;
mod peer;

use std::{
    env,
    num::NonZeroU32,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    maps::{Tag, Tags},
    verdict::Verdict,
};
use lb_daemon::{
    config::{Balance, Global, Timeouts},
    core::{Desired, DesiredService, Slots},
};
use tests::lab::Family;

use self::{
    fence::{GROUPS, Leases, addresses},
    generate::Generator,
};
use crate::{
    frame::{QINQ, VLAN},
    net::Net,
    row::hex,
    world::World,
};

const PACKETS: u64 = 1_000_000;
const SEED: u64 = 1;

/// Threads that send at once. There may be fewer processors: then they interrupt each other.
const SENDERS: u64 = 4;

#[test]
fn nothing_invalid_goes_out_and_no_count_leaks() -> Result<()> {
    let (seed, packets) =
        (setting("TANDEM_PACKETS_SEED", SEED)?, setting("TANDEM_PACKETS", PACKETS)?);
    World::run_with(tight, |world| {
        let nets = [Family::V4, Family::V6].map(|family| Net::new(family, 0, world.arms));
        world.apply(&desired(&nets, LONG))?;
        send(world, &nets, seed, packets, Some(Leases::held(world, &nets, seed)?))?;
        let verdicts = world.read([])?.verdicts;
        let counted: u64 = verdicts.values().sum();
        ensure!(counted == packets, "{packets} packets, but {counted} verdicts");
        for verdict in Verdict::ALL {
            let count = verdicts[verdict.label()];
            match verdict {
                Verdict::DropInternal
                | Verdict::DropDying
                | Verdict::DropBusy
                | Verdict::DropNoFlow
                // There is no peer to wait for, ...
                | Verdict::DropHeld
                // ... and no daemon that has anybody wait for a place.
                | Verdict::DropQueued
                | Verdict::ResetNoPlace => {
                    ensure!(count == 0, "{count} packets were {}", verdict.label());
                }
                _ => ensure!(
                    count != 0 || packets < 100_000,
                    "no packet was {}: the generator is too tame",
                    verdict.label()
                ),
            }
        }
        leaves_nothing(world, &nets)
    })
}

#[test]
fn no_count_leaks_when_several_processors_are_at_it() -> Result<()> {
    on_several_processors(|_, _, _, _| Ok(()))
}

#[test]
fn no_count_leaks_when_a_peer_tells_of_its_connections_meanwhile() -> Result<()> {
    on_several_processors(peer::talk)
}

/// Sends packets from several processors while `meanwhile` runs, until it is to stop.
fn on_several_processors(
    meanwhile: fn(&World, &[Net; 2], u64, &AtomicBool) -> Result<()>,
) -> Result<()> {
    let (seed, packets) =
        (setting("TANDEM_PACKETS_SEED", SEED)?, setting("TANDEM_PACKETS", PACKETS)?);
    World::run_with(tight, |world| {
        let nets = [Family::V4, Family::V6].map(|family| Net::new(family, 0, world.arms));
        world.apply(&desired(&nets, LONG))?;
        Leases::held(world, &nets, seed)?;
        let (sender, all) = (&*world, &nets);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let beside = scope.spawn(|| meanwhile(sender, all, seed, &is_over));
            let senders: Vec<_> = (0..SENDERS)
                .map(|i| scope.spawn(move || send(sender, all, seed + i, packets / SENDERS, None)))
                .collect();
            let sent = senders.into_iter().map(|sender| sender.join().expect("no panic"));
            // All of them, before the other is told.
            let sent: Vec<Result<()>> = sent.collect();
            is_over.store(true, Ordering::Relaxed);
            let beside = beside.join().expect("no panic");
            sent.into_iter().collect::<Result<()>>().and(beside)
        })?;
        let verdicts = world.read([])?.verdicts;
        let unserved = verdicts[Verdict::DropNoLease.label()];
        ensure!(unserved == 0, "{unserved} packets were dropped for want of a lease that is held");
        let internal = verdicts[Verdict::DropInternal.label()];
        ensure!(internal == 0, "{internal} packets met an entry that cannot be explained");
        leaves_nothing(world, &nets)
    })
}

/// Sends packets and judges what comes out. With leases, these come and go meanwhile.
fn send(
    world: &World,
    nets: &[Net; 2],
    seed: u64,
    packets: u64,
    mut leases: Option<Leases<'_>>,
) -> Result<()> {
    let mut generator = Generator::new(nets.clone(), seed);
    for number in 0..packets {
        let frame = generator.next();
        leases.as_mut().map_or(Ok(()), Leases::turn)?;
        let judged = world.send(&frame).and_then(|done| {
            let fenced = leases.as_ref().map_or(Ok(()), |leases| leases.judge(&frame.bytes, &done));
            fenced
                .and_then(|()| judge::judge(&frame.bytes, &done))
                .with_context(|| format!("{:?}: {}", done.action, hex(&done.frame)))?;
            generator.learn(&done);
            Ok(())
        });
        judged.with_context(|| {
            format!("seed {seed}, packet {number}, in by {}: {}", frame.ifindex, hex(&frame.bytes))
        })?;
    }
    Ok(())
}

/// Lets every connection expire, and then finds no trace of one.
fn leaves_nothing(world: &mut World, nets: &[Net; 2]) -> Result<()> {
    world.apply(&desired(nets, Duration::ZERO))?;
    let mut reaper = world.reaper()?;
    // Closed connections linger for five seconds.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reaper.sweep()?.backends.is_empty() {
        ensure!(Instant::now() < deadline, "connections are still there");
        thread::sleep(Duration::from_millis(100));
    }
    let counters = world.read(1..=BACKENDS)?;
    for table in &counters.tables {
        ensure!(
            table.connections == 0,
            "the count of {} connections leaks: {table:?}",
            table.family
        );
        ensure!(table.half_open == 0, "the count of half-open connections leaks: {table:?}");
    }
    for (number, traffic) in counters.backends {
        ensure!(traffic.active == 0, "the count of backend {number} leaks: {traffic:?}");
    }
    Ok(())
}

const LONG: Duration = Duration::from_secs(3600);

/// Backends are numbered from 1: those of IPv4, then those of IPv6.
const BACKENDS: u16 = 10;

/// Translation ports.
const PORTS: RangeInclusive<u16> = 20_000..=20_005;

/// Ports of services; the last has no eligible backend.
const SERVICES: [(u16, Balance); 4] = [
    (443, Balance::RoundRobin),
    (81, Balance::LeastConn),
    (82, Balance::Hash),
    (80, Balance::Source),
];

fn tight(global: &mut Global) {
    global.maxconn = 48;
    global.max_half_open = 64;
    global.source_ports = PORTS;
}

fn desired(nets: &[Net; 2], timeout: Duration) -> Desired {
    let mut desired = Desired::default();
    for ((net, first), group) in nets.iter().zip([1, 1 + BACKENDS / 2]).zip(GROUPS) {
        desired.shared.extend(addresses(net).map(|address| (address, group)));
        for number in first..first + BACKENDS / 2 {
            let net = Net::new(net.family, number, (net.front, net.back));
            let mut backend = net.desired().backends.remove(&number).expect("its own");
            backend.sources.push(net.elsewhere());
            backend.weight = number;
            // Some are in a VLAN, or in a VLAN in a VLAN.
            backend.hop.tags = tags(number - first);
            // One takes few connections.
            if number == first + 3 {
                backend.limits.maxconn = NonZeroU32::new(2);
            }
            // One is not resolved.
            if number == first {
                backend.hop.ifindex = 0;
            }
            desired.backends.insert(number, backend);
        }
        for (port, balance) in SERVICES {
            let mut bind = net.vip;
            bind.set_port(port);
            let slots = match balance {
                Balance::Source => vec![],
                // One that has fewer ports than these clients want.
                Balance::Hash => vec![first + 1],
                _ => (first..first + BACKENDS / 2).collect(),
            };
            let number = u16::try_from(desired.services.len()).expect("a few");
            let timeout = Timeouts {
                connect: timeout,
                queue: timeout,
                client: timeout,
                server: timeout,
                client_fin: timeout,
                server_fin: timeout,
            };
            let service = DesiredService {
                bind: vec![bind],
                balance,
                slots: Slots(slots.into()),
                maxconn: NonZeroU32::new(16).filter(|_| balance == Balance::RoundRobin),
                timeout,
                group,
                synchronous: false,
            };
            desired.services.insert(number, service);
        }
    }
    desired
}

fn tags(vlans: u16) -> Tags {
    let tag = |protocol: u16, vlan: u16| Tag { protocol: protocol.to_be(), vlan: vlan.to_be() };
    match vlans {
        3 => Tags([tag(VLAN, 5), Tag::default()]),
        4 => Tags([tag(QINQ, 6), tag(VLAN, 7)]),
        _ => Tags::default(),
    }
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(default),
    }
}
