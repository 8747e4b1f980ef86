//! A peer that tells whatever comes to its mind, and connections that are ended before their time.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use lb_common::{
    flow::{ADOPT, ADOPT_FAILED, ADOPT_NEW, ADOPT_OVER, FORGET, GROUP, NO_HOP, groups},
    maps::{ADOPT_BATCH, MAX_BACKENDS, REAP_ANYWAY},
};

use super::{BACKENDS, PORTS, SERVICES, generate::Random};
use crate::{
    net::Net,
    replica::{Order, Replica},
    world::World,
};

/// How often it tells something at least.
const ROUNDS: u32 = 100;

/// Tells of connections in both families until it is to stop; of such as the generator's packets may
/// belong to.
pub(super) fn talk(world: &World, nets: &[Net; 2], seed: u64, stop: &AtomicBool) -> Result<()> {
    let mut random = Random::new(seed);
    let mut replicas = Vec::new();
    for net in nets {
        let mut replica = Replica::open(world, net.family)?;
        replica.report(true)?;
        replicas.push(replica);
    }
    let (mut entered, mut rounds) = (0, 0);
    // Where the programs take long to load, the packets are through by now.
    while rounds < ROUNDS || !stop.load(Ordering::Relaxed) {
        rounds += 1;
        let which = random.below(nets.len());
        let orders: Vec<Order> =
            (0..=random.below(ADOPT_BATCH - 1)).map(|_| order(nets, which, &mut random)).collect();
        for (outcome, _) in replicas[which].adopt(&orders)? {
            ensure!((ADOPT_NEW..=ADOPT_FAILED).contains(&outcome), "an outcome of {outcome}");
            entered += u64::from(outcome == ADOPT_NEW);
        }
        if random.chance(30) {
            let places = groups(0) as usize * GROUP;
            let mut place = || u32::try_from(random.below(places)).unwrap_or(0) | REAP_ANYWAY;
            let places: Vec<u32> = (0..20).map(|_| place()).collect();
            replicas[which].reap(&places)?;
        }
    }
    ensure!(entered > 0, "nothing that the peer told of was entered");
    Ok(())
}

fn order(nets: &[Net; 2], which: usize, random: &mut Random) -> Order {
    let net = &nets[which];
    let mut below = |limit: u16| u16::try_from(random.below(limit.into())).unwrap_or(0);
    let of_family = u16::try_from(which).unwrap_or(0);
    let number = of_family * BACKENDS / 2 + 1 + below(BACKENDS / 2);
    let hosts = Net::new(net.family, number, (net.front, net.back));
    let service = below(4);
    let mut order = hosts.adoption(PORTS.start() + below(6));
    let client = Net::new(net.family, below(8), (net.front, net.back)).client.ip();
    order.key.0 = (client, 40_000 + below(48)).into();
    order.key.1.set_port(SERVICES[usize::from(service)].0);
    order.service = of_family * 4 + service;
    order.state = below(128).to_be_bytes()[1];
    order.what = [ADOPT, ADOPT, ADOPT_OVER, ADOPT_OVER, FORGET][usize::from(below(5))];
    if below(4) == 0 {
        order.reverse.1.set_ip(net.elsewhere());
    }
    // One of a client's, if there are so many already.
    let of_client = u16::try_from(MAX_BACKENDS).unwrap_or(NO_HOP) + below(16);
    order.hop = if below(4) == 0 { of_client } else { NO_HOP };
    order
}
