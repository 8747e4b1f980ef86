//! A lab with two balancers, which share addresses.
//!
//! ```text
//!              ┌── front▐lb1▌back ──┐
//! client ── front        sync      back ══ servers        front, back, sync: bridges of the switch
//!              └── front▐lb2▌back ──┘
//! ```
//!
//! By `sync` the balancers talk to each other alone: of their connections, not of who is master.
//!
//! The addresses are in the [plan](super::plan). The virtual ones (one on each side and of each
//! family) are nobody's until a daemon puts them on its interfaces; the servers' way to everywhere
//! is by theirs.

use std::net::IpAddr;

use anyhow::Result;

use super::{
    Attached, Dir, EveryFrame, Family, Host, Interface, Namespace, bridge,
    plan::{BEFORE, BEFORE_BACKENDS, BEHIND, BETWEEN, CLIENT, PAIR, VIRTUAL, add, mac},
    topology::to_switch,
};

/// The whole lab. Dropping it ends its namespaces, and with them all interfaces, mounts and pins.
#[derive(Debug)]
pub struct Pair {
    dir: Dir,
    client: Host,
    twins: [Twin; 2],
    servers: Vec<Host>,
    switch: Namespace,
    _programs: Vec<Attached>,
}

/// One of the two balancers: a namespace with the interfaces `front`, `back` and `sync`.
#[derive(Debug)]
pub struct Twin {
    namespace: Namespace,
    number: u8,
    /// Its leg on the client's side.
    pub front: Leg,
    /// Its leg on the servers' side.
    pub back: Leg,
    /// Its leg on the other balancer's side.
    pub sync: Leg,
}

/// A cable from a balancer to the switch.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The balancer's interface.
    pub near: Interface,
    /// The switch's port.
    pub port: Interface,
}

impl Pair {
    /// A pair `lb1` and `lb2` with servers `s1`, `s2`, ..., 200 at most.
    pub fn new(servers: u8) -> Result<Self> {
        let names: Vec<_> = (1..=servers).map(|nth| format!("s{nth}")).collect();
        Self::named(&names)
    }

    /// A pair with servers of these names, 200 at most.
    pub fn named(servers: &[impl AsRef<str>]) -> Result<Self> {
        assert!(servers.len() <= 200, "there are addresses for 200 servers");
        let dir = Dir::new()?;
        let switch = Namespace::new("switch", &dir)?;
        let sides = [bridge(&switch, FRONT)?, bridge(&switch, BACK)?, bridge(&switch, SYNC)?];
        let [front, back, _] = &sides;
        let client = Namespace::new("client", &dir)?;
        let cable = to_switch((&client, "eth0"), front)?;
        let client = Host::settle(client, cable, (BEFORE, CLIENT), VIRTUAL)?;
        let servers = (1..).zip(servers).map(|(nth, name)| {
            let server = Namespace::new(name.as_ref(), &dir)?;
            let cable = to_switch((&server, "eth0"), back)?;
            Host::settle(server, cable, (BEHIND, BEFORE_BACKENDS + nth), VIRTUAL)
        });
        let servers = servers.collect::<Result<_>>()?;
        let [lb1, lb2] = PAIR;
        let twins = [Twin::new("lb1", lb1, &dir, &sides)?, Twin::new("lb2", lb2, &dir, &sides)?];
        // A veth only wakes up for frames that come by `XDP_TX` if there is a program at its end.
        let ports = twins.iter().flat_map(|twin| [&twin.front.port, &twin.back.port]);
        let programs = ports.map(|port| Attached::new(port, EveryFrame::Passes));
        let programs = programs.collect::<Result<_>>()?;
        Ok(Self { dir, client, twins, servers, switch, _programs: programs })
    }

    /// The directory with its logs and data.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The client.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The balancers, `lb1` first.
    pub fn twins(&self) -> &[Twin; 2] {
        &self.twins
    }

    /// The servers, `s1` first.
    pub fn servers(&self) -> &[Host] {
        &self.servers
    }

    /// What is between all of them.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// All its namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let hosts = [&self.client].into_iter().chain(&self.servers).map(|host| &**host);
        hosts.chain(self.twins.iter().map(|twin| &**twin)).chain([&self.switch])
    }

    /// The virtual address on the client's side.
    pub fn vip(&self, family: Family) -> IpAddr {
        family.address(BEFORE, VIRTUAL)
    }

    /// The virtual address on the servers' side.
    pub fn source(&self, family: Family) -> IpAddr {
        family.address(BEHIND, VIRTUAL)
    }

    /// Has the balancers hear nothing of each other where the others are, while everybody else hears
    /// both. What is between the two alone [stays](Self::part).
    pub fn divide(&self) -> Result<()> {
        self.twins.iter().flat_map(Twin::legs).try_for_each(|leg| leg.set_port("isolated on"))
    }

    /// Has the balancers hear each other again.
    pub fn unite(&self) -> Result<()> {
        self.twins.iter().flat_map(Twin::legs).try_for_each(|leg| leg.set_port("isolated off"))
    }

    /// Has client and servers take a balancer for the one that has the virtual IPv4 addresses: whatever
    /// they hear if the `state` of what they know is `permanent`, until they hear otherwise if it is
    /// `stale`.
    pub fn lead(&self, host: usize, state: &str) -> Result<()> {
        let twin = &self.twins[host];
        let behind = self.servers.iter().map(|it| (it, self.source(Family::V4), &twin.back.near));
        let before = (&self.client, self.vip(Family::V4), &twin.front.near);
        behind.chain([before]).try_for_each(|(from, address, to)| {
            let mac = to.mac()?;
            from.ip(&format!("neighbour replace {address} lladdr {mac} nud {state} dev eth0"))?;
            Ok(())
        })
    }

    /// Has the switch carry nothing between the two balancers alone, without any interface losing its
    /// carrier.
    pub fn part(&self) -> Result<()> {
        self.twins.iter().try_for_each(|twin| twin.sync.set_port("state 0"))
    }

    /// Has it carry that again.
    pub fn rejoin(&self) -> Result<()> {
        self.twins.iter().try_for_each(|twin| twin.sync.set_port("state 3"))
    }
}

/// The bridge on the client's side, and the balancers' interfaces there.
const FRONT: &str = "front";
/// The bridge on the servers' side, and the balancers' interfaces there.
const BACK: &str = "back";
/// The bridge between the balancers, and their interfaces there.
const SYNC: &str = "sync";

impl Twin {
    /// `sides` are the bridges of the three legs.
    fn new(name: &str, number: u8, dir: &Dir, sides: &[Interface; 3]) -> Result<Self> {
        let namespace = Namespace::new(name, dir)?;
        let lay = |side: &Interface, net| {
            let port = format!("{name}-{}", side.name());
            let (near, port) = super::veth((&namespace, side.name()), (side.namespace(), &port))?;
            port.plug_into(side)?;
            near.set_mac(&mac(net, number))?;
            add(&near, net, number)?;
            anyhow::Ok(Leg { near, port })
        };
        let [front, back, sync] = sides;
        let (front, back) = (lay(front, BEFORE)?, lay(back, BEHIND)?);
        let sync = lay(sync, BETWEEN)?;
        Ok(Self { namespace, number, front, back, sync })
    }

    /// Its own address on the client's side.
    pub fn address(&self, family: Family) -> IpAddr {
        family.address(BEFORE, self.number)
    }

    /// The MAC of its leg on the client's side.
    pub fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, BEFORE, self.number]
    }

    /// Its address on the other balancer's side.
    pub fn between(&self, family: Family) -> IpAddr {
        family.address(BETWEEN, self.number)
    }

    /// Both legs towards the others.
    pub fn legs(&self) -> [&Leg; 2] {
        [&self.front, &self.back]
    }

    /// Cuts it off from everybody, without any interface losing its carrier: a switch that fails.
    pub fn cut_off(&self) -> Result<()> {
        self.all_legs().into_iter().try_for_each(|leg| leg.set_port("state 0"))
    }

    /// Has the switch carry its frames again.
    pub fn reconnect(&self) -> Result<()> {
        self.all_legs().into_iter().try_for_each(|leg| leg.set_port("state 3"))
    }

    /// Makes it vanish from the network as if it had lost its power. It does not come back: its
    /// interfaces are gone.
    pub fn power_off(&self) -> Result<()> {
        self.all_legs().into_iter().try_for_each(|leg| leg.port.remove())
    }

    fn all_legs(&self) -> [&Leg; 3] {
        [&self.front, &self.back, &self.sync]
    }
}

impl std::ops::Deref for Twin {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Leg {
    /// Pulls the cable: the balancer's interface loses its carrier.
    pub fn pull(&self) -> Result<()> {
        self.port.down()
    }

    /// Plugs the cable in again.
    pub fn plug(&self) -> Result<()> {
        self.port.up()
    }

    fn set_port(&self, setting: &str) -> Result<()> {
        let bridge = self.port.namespace().command("bridge");
        let link = bridge.args(["link", "set", "dev", self.port.name()]);
        link.args(setting.split(' ')).plain().run().map(drop)
    }
}
