//! Two hosts' tables kept equal: what one reports the other adopts ([`copies`]), and forwards as if it had
//! opened it ([`takeover`]). How reports come is in [`reports`].
//!
//! The two are data planes with the same interfaces, each the other's peer. They number everything
//! differently, as two hosts do.

mod copies;
mod reports;
mod takeover;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    addr::Mac,
    maps::NextHop,
    verdict::Verdict::{self, DropNoHop, ForwardServer},
};
use lb_daemon::{
    config::Peer,
    core::{
        Desired, Slots,
        sync::{
            Adopted, Change, Conflict, Connection, Cursor, Reported, Scope, Tables as _, Tuple,
        },
    },
    dataplane::{FindWay, Replica},
};
use tests::lab::Family;

use crate::{
    frame::Frame,
    net::{FIRST_PORT, FRONT, Net, ROUTER},
    verify,
    world::{Done, World},
};

pub(crate) const GROUP: &str = "web";
const LONG: Duration = Duration::from_secs(3600);
/// The first port of the upper half of 1024 to 32767.
const UPPER_PORT: u16 = 16_896;

/// One of the two.
pub(crate) struct Host {
    pub(crate) world: World,
    pub(crate) replica: Replica,
    pub(crate) desired: Desired,
    pub(crate) group: u16,
    pub(crate) service: u16,
    pub(crate) backend: u16,
    /// The way that the kernel knows to whatever client.
    way: Arc<Mutex<Option<NextHop>>>,
}

impl Host {
    fn new(
        mut world: World,
        n: &Net,
        [group, service, backend]: [u16; 3],
        names: &[(&str, u16)],
    ) -> Result<Self> {
        let net = n.desired();
        let (first, only) = (net.services[&0].clone(), net.backends[&n.number].clone());
        let mut desired = Desired {
            shared: BTreeMap::from([(n.vip.ip(), group), (n.source.ip(), group)]),
            groups: names.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
            ..Desired::default()
        };
        let mut first = first;
        (first.group, first.slots) = (group, Slots(vec![backend].into()));
        desired.services.insert(service, first);
        let mut only = only;
        only.service = service;
        desired.backends.insert(backend, only);
        world.apply(&desired)?;
        let way = Arc::new(Mutex::new(None));
        let replica = world.replica(find(&way))?;
        Ok(Self { world, replica, desired, group, service, backend, way })
    }

    fn find(&self) -> FindWay {
        find(&self.way)
    }

    /// The kernel knows the way to the clients of this net, or none.
    pub(crate) fn knows(&self, net: Option<&Net>) {
        *self.way.lock().expect("no panic") = net.map(|n| NextHop {
            ifindex: n.front,
            src: Mac(FRONT),
            dst: Mac(ROUTER),
            ..NextHop::default()
        });
    }

    pub(crate) fn serve(&self) -> Result<()> {
        self.world.lease(self.group, Some(Instant::now() + LONG))
    }

    /// Sends frames that are all forwarded.
    pub(crate) fn tell(&self, frames: &[Frame]) -> Result<()> {
        for frame in frames {
            let verdict = self.world.decide(frame.clone())?.verdict;
            ensure!(verdict.label().starts_with("forward"), "{verdict:?}");
        }
        Ok(())
    }

    pub(crate) fn changes(&mut self) -> Result<Vec<Change>> {
        Ok(self.reported()?.into_iter().map(|reported| reported.change).collect())
    }

    fn reported(&mut self) -> Result<Vec<Reported>> {
        let mut reported = Vec::new();
        self.replica.changes(usize::MAX, &mut reported)?;
        Ok(reported)
    }

    pub(crate) fn adopt(&mut self, changes: &[Change], conflict: Conflict) -> Result<Adopted> {
        self.replica.adopt(changes, conflict)
    }

    pub(crate) fn active(&self) -> Result<u64> {
        self.world.active(self.backend)
    }

    /// What a scan finds that goes in steps of odd sizes.
    pub(crate) fn scan(&mut self, scope: &Scope) -> Vec<Connection> {
        let mut found = Vec::new();
        let mut cursor = Some(Cursor::default());
        for places in [1, 777, 100_000, 5].into_iter().cycle() {
            let Some(at) = cursor else { break };
            cursor = self.replica.scan(scope, at, places, &mut found);
        }
        found
    }

    fn wait_for_repair(&mut self, n: &Net) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            self.replica.repair()?;
            let done = self.world.decide(n.server().plain())?;
            if done.verdict != DropNoHop {
                return out(&done, ForwardServer, n.to_client().plain());
            }
            ensure!(Instant::now() < deadline, "no way is found");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn find(way: &Arc<Mutex<Option<NextHop>>>) -> FindWay {
    let way = Arc::clone(way);
    Box::new(move |_| *way.lock().expect("no panic"))
}

/// Runs a story for each family.
pub(crate) fn pair(
    story: impl Fn(&mut Host, &mut Host, &Net) -> Result<()> + Send + Sync,
) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let peers = [("10.9.0.1:7000", "10.9.0.2:7000"), ("10.9.0.2:7000", "10.9.0.1:7000")];
        let peers = peers.map(|(listen, peer)| Peer {
            listen: listen.parse().expect("an address"),
            peer: peer.parse().expect("an address"),
            key: String::new(),
            key_file: None,
            preempt_wait: LONG,
            grace: LONG,
        });
        World::run_pair(&peers, |one, two| {
            let n = Net::new(family, 1, one.arms);
            let mut one = Host::new(one, &n, [1, 0, 1], &[(GROUP, 1), ("other", 2)])?;
            let mut two = Host::new(two, &n, [9, 4, 77], &[("other", 1), (GROUP, 9)])?;
            story(&mut one, &mut two, &n).with_context(|| format!("{family:?}"))
        })?;
    }
    Ok(())
}

/// Another client's connection: the `i`th after the first.
pub(crate) fn nth(n: &Net, i: u16) -> Net {
    let mut n = n.clone();
    n.client.set_port(40_000 + i);
    n.source.set_port(FIRST_PORT + i);
    n
}

pub(crate) fn tuple(n: &Net) -> Tuple {
    Tuple { client: n.client, bind: n.vip, source: n.source, backend: n.backend }
}

pub(crate) fn all() -> Scope {
    Scope { groups: BTreeSet::from([GROUP.to_owned()]), buckets: BTreeSet::new() }
}

/// Fails unless this came out, valid in every sum.
pub(crate) fn out(done: &Done, verdict: Verdict, expected: impl Into<Frame>) -> Result<()> {
    ensure!(done.verdict == verdict, "{:?}, not {verdict:?}", done.verdict);
    verify::check(&done.frame)?;
    ensure!(done.frame == expected.into().bytes, "another packet came out");
    Ok(())
}
