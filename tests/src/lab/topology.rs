//! Ready-made labs: a client, a balancer, backends, and what lies between them.
//!
//! ```text
//! two_arm   client ──front▐balancer▌back── switch ══ backends
//!
//! one_arm   client ──┐
//!                    switch ══ backends        both networks on one interface of the balancer
//!          balancer▌lan
//!
//! routed    client ── router ──front▐balancer▌back── router ══ backends
//! ```
//!
//! Everything has an IPv4 and an IPv6 address, `10.x.0.h` and `fd00:x::h`, with the same network
//! `x` and host `h` in both:
//!
//! | x | network | hosts |
//! |---|---|---|
//! | 1 | before the balancer | 1 balancer, 10 client, 100 and up virtual addresses, 254 router |
//! | 2 | behind the balancer | 1 balancer, 11 and up backends, 250 nobody, 254 router |
//! | 3 | the client's, if routed | 10 client, 254 router |
//! | 4 | the backends', if routed | 11 and up backends, 250 nobody, 254 router |
//! | 8 | a crowd: every address is the client's as well, to be many clients | |
//! | 9 | nowhere: routed to the client, who drops it, to be a client that never answers | |

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Deref,
};

use anyhow::Result;

use super::{Dir, Interface, Namespace, bridge, veth};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the balancer stands between client and backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Client side and server side on different interfaces.
    TwoArm,
    /// Both on the same interface.
    OneArm,
    /// On different interfaces, and each side behind a router.
    Routed,
}

/// A client or a backend: a namespace with one interface, `eth0`.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: Namespace,
    net: u8,
    number: u8,
    far_end: Interface,
}

/// The whole lab. Dropping it ends its namespaces, and with them all interfaces, mounts and pins.
#[derive(Debug)]
pub struct Lab {
    dir: Dir,
    shape: Shape,
    client: Host,
    balancer: Namespace,
    interfaces: Vec<Interface>,
    backends: Vec<Host>,
    switch: Namespace,
    router: Option<Namespace>,
}

const BEFORE: u8 = 1;
const BEHIND: u8 = 2;
const CLIENT_NET: u8 = 3;
const BACKEND_NET: u8 = 4;
const CROWD: u8 = 8;
const NOWHERE: u8 = 9;

const BALANCER: u8 = 1;
const CLIENT: u8 = 10;
const FIRST_BACKEND: u8 = 11;
const VIRTUAL: u8 = 100;
const NOBODY: u8 = 250;
const ROUTER: u8 = 254;

impl Lab {
    /// Client and backends on different interfaces of the balancer, `front` and `back`.
    pub fn two_arm(backends: u8) -> Result<Self> {
        Self::new(Shape::TwoArm, backends)
    }

    /// Client and backends on the same interface of the balancer, `lan`, in different networks.
    pub fn one_arm(backends: u8) -> Result<Self> {
        Self::new(Shape::OneArm, backends)
    }

    /// Client and backends behind routers, on the interfaces `front` and `back`.
    pub fn routed(backends: u8) -> Result<Self> {
        Self::new(Shape::Routed, backends)
    }

    /// A lab of this shape. `backends` is at most 200.
    pub fn new(shape: Shape, backends: u8) -> Result<Self> {
        assert!(backends <= 200, "the address plan has room for 200 backends");
        let dir = Dir::new()?;
        let client = Namespace::new("client", &dir)?;
        let balancer = Namespace::new("balancer", &dir)?;
        let switch = Namespace::new("switch", &dir)?;
        let lan = bridge(&switch, "lan")?;
        let mut router = None;

        // The client's cable and the balancer's interfaces.
        let (client_cable, interfaces) = match shape {
            Shape::TwoArm => {
                let (client_end, front) = veth((&client, "eth0"), (&balancer, "front"))?;
                let back = to_switch((&balancer, "back"), &lan)?.0;
                ((client_end, front.clone()), vec![front, back])
            }
            Shape::OneArm => {
                let client_cable = to_switch((&client, "eth0"), &lan)?;
                let arm = to_switch((&balancer, "lan"), &lan)?.0;
                (client_cable, vec![arm])
            }
            Shape::Routed => {
                let router = router.insert(Namespace::new("client-router", &dir)?);
                let cable = veth((&client, "eth0"), (router, "client"))?;
                let (front, uplink) = veth((&balancer, "front"), (router, "balancer"))?;
                let (back, downlink) = veth((&balancer, "back"), (&switch, "balancer"))?;
                add(&cable.1, CLIENT_NET, ROUTER)?;
                add(&uplink, BEFORE, ROUTER)?;
                add(&downlink, BEHIND, ROUTER)?;
                add(&lan, BACKEND_NET, ROUTER)?;
                for (router, net) in [(&*router, BEFORE), (&switch, BEHIND)] {
                    forward(router, true)?;
                    route(router, "default", net, BALANCER)?;
                }
                (cable, vec![front, back])
            }
        };

        let (client_net, backend_net) = match shape {
            Shape::TwoArm | Shape::OneArm => (BEFORE, BEHIND),
            Shape::Routed => (CLIENT_NET, BACKEND_NET),
        };
        let (arm_before, arm_behind) = (&interfaces[0], &interfaces[interfaces.len() - 1]);
        add(arm_before, BEFORE, BALANCER)?;
        add(arm_behind, BEHIND, BALANCER)?;

        client_cable.0.set_mac(&mac(client_net, CLIENT))?;
        let client =
            Host { namespace: client, net: client_net, number: CLIENT, far_end: client_cable.1 };
        let gateway = if shape == Shape::Routed { ROUTER } else { BALANCER };
        client.settle(&client_cable.0, gateway)?;
        client.be_many()?;

        let mut hosts = Vec::new();
        for number in (FIRST_BACKEND..).take(backends.into()) {
            let name = format!("b{}", number - FIRST_BACKEND + 1);
            let namespace = Namespace::new(&name, &dir)?;
            let (eth0, far_end) = to_switch((&namespace, "eth0"), &lan)?;
            eth0.set_mac(&mac(backend_net, number))?;
            let host = Host { namespace, net: backend_net, number, far_end };
            host.settle(&eth0, gateway)?;
            hosts.push(host);
        }

        let backends = hosts;
        let lab = Self { dir, shape, client, balancer, interfaces, backends, switch, router };
        for family in Family::BOTH {
            lab.add_virtual(lab.vip(family))?;
            lab.lead_the_way(family)?;
        }
        Ok(lab)
    }

    /// How the balancer stands in it.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The directory with its logs and data.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The client.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The balancer.
    pub fn balancer(&self) -> &Namespace {
        &self.balancer
    }

    /// The balancer's interfaces: client side and server side, or the one that is both.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The backends, `b1` first.
    pub fn backends(&self) -> &[Host] {
        &self.backends
    }

    /// The virtual address.
    pub fn vip(&self, family: Family) -> IpAddr {
        family.address(BEFORE, VIRTUAL)
    }

    /// The virtual IPv4 address.
    pub fn vip4(&self) -> IpAddr {
        self.vip(Family::V4)
    }

    /// The virtual IPv6 address.
    pub fn vip6(&self) -> IpAddr {
        self.vip(Family::V6)
    }

    /// Adds a virtual address to the client side of the balancer. Those of [`Lab::vip`] are there.
    pub fn add_virtual(&self, address: IpAddr) -> Result<()> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        self.interfaces[0].address(&format!("{address}/{bits}"))
    }

    /// An address beside the backends that nobody has: what is sent there vanishes, without an
    /// error, as with a host that has lost its power.
    pub fn nobody(&self, family: Family) -> IpAddr {
        family.address(self.backend_net(), NOBODY)
    }

    /// One of 65,536 further addresses of the client, to be many clients.
    pub fn crowd(&self, family: Family, number: u16) -> IpAddr {
        family.many(CROWD, number)
    }

    /// One of 65,536 addresses on the client's side that never answer, not even by a reset.
    pub fn nowhere(&self, family: Family, number: u16) -> IpAddr {
        family.many(NOWHERE, number)
    }

    /// Lets the balancer's kernel route between client and backends. Off at the start, so that
    /// only the balancer proper can carry anything.
    pub fn let_kernel_forward(&self, on: bool) -> Result<()> {
        forward(&self.balancer, on)
    }

    fn backend_net(&self) -> u8 {
        if self.shape == Shape::Routed { BACKEND_NET } else { BEHIND }
    }

    /// The routes of balancer and router, and what makes an address nobody's.
    fn lead_the_way(&self, family: Family) -> Result<()> {
        let nobody = self.nobody(family);
        let to_client = if self.router.is_some() { ROUTER } else { CLIENT };
        for net in [CROWD, NOWHERE] {
            route(&self.balancer, &family.network(net), BEFORE, to_client)?;
        }
        let Some(router) = &self.router else {
            let [.., arm] = &self.interfaces[..] else { unreachable!("it has interfaces") };
            let entry = format!("{nobody} lladdr {} dev {}", mac(BEHIND, NOBODY), arm.name());
            return self.balancer.ip(&format!("neigh add {entry} nud permanent")).map(drop);
        };
        for net in [CROWD, NOWHERE] {
            route(router, &family.network(net), CLIENT_NET, CLIENT)?;
        }
        route(&self.balancer, &family.network(CLIENT_NET), BEFORE, ROUTER)?;
        route(&self.balancer, &family.network(BACKEND_NET), BEHIND, ROUTER)?;
        self.switch.ip(&format!("route add blackhole {nobody}")).map(drop)
    }
}

impl Host {
    /// Its address.
    pub fn ip(&self, family: Family) -> IpAddr {
        family.address(self.net, self.number)
    }

    /// Its address and a port.
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }

    /// Pulls its cable.
    pub fn unplug(&self) -> Result<()> {
        self.far_end.down()
    }

    /// Plugs its cable in again.
    pub fn plug(&self) -> Result<()> {
        self.far_end.up()
    }

    fn settle(&self, eth0: &Interface, gateway: u8) -> Result<()> {
        add(eth0, self.net, self.number)?;
        route(&self.namespace, "default", self.net, gateway)
    }

    fn be_many(&self) -> Result<()> {
        for family in Family::BOTH {
            let (crowd, nowhere) = (family.network(CROWD), family.network(NOWHERE));
            self.ip_of(family, &format!("route add local {crowd} dev lo"))?;
            self.ip_of(family, &format!("route add blackhole {nowhere}"))?;
        }
        // A route makes an address local, but IPv6 would only let go a socket from one that is set.
        self.namespace.sysctl("net.ipv6.ip_nonlocal_bind", "1")?;
        // Nobody listens on the client, so nearly all ports can be its own.
        self.namespace.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    }

    fn ip_of(&self, family: Family, arguments: &str) -> Result<()> {
        self.namespace.ip(&format!("{} {arguments}", family.flag())).map(drop)
    }
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Family {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn address(self, net: u8, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, net, 0, host).into(),
            // Read in decimal on both sides: fd00:2::11 belongs to 10.2.0.11.
            Self::V6 => format!("fd00:{net}::{host}").parse().expect("decimal digits are valid"),
        }
    }

    fn many(self, net: u8, number: u16) -> IpAddr {
        match self {
            Self::V4 => {
                let [high, low] = number.to_be_bytes();
                Ipv4Addr::new(10, net, high, low).into()
            }
            Self::V6 => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, number).into(),
        }
    }

    fn network(self, net: u8) -> String {
        match self {
            Self::V4 if net >= CROWD => format!("10.{net}.0.0/16"),
            Self::V4 => format!("10.{net}.0.0/24"),
            Self::V6 => format!("fd00:{net}::/64"),
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// Lays a cable to a port of the switch, named after the namespace it comes from.
fn to_switch(from: (&Namespace, &str), lan: &Interface) -> Result<(Interface, Interface)> {
    let (end, port) = veth(from, (lan.namespace(), from.0.name()))?;
    port.plug_into(lan)?;
    Ok((end, port))
}

fn add(interface: &Interface, net: u8, host: u8) -> Result<()> {
    interface.address(&format!("{}/24", Family::V4.address(net, host)))?;
    interface.address(&format!("{}/64", Family::V6.address(net, host)))
}

fn forward(namespace: &Namespace, on: bool) -> Result<()> {
    let value = if on { "1" } else { "0" };
    namespace.sysctl("net.ipv4.ip_forward", value)?;
    namespace.sysctl("net.ipv6.conf.all.forwarding", value)
}

/// Routes `to` (a network of one family, or `default` for both) by way of a host.
fn route(namespace: &Namespace, to: &str, net: u8, via: u8) -> Result<()> {
    for family in Family::BOTH {
        let concerned = to == "default" || to.contains(':') == (family == Family::V6);
        if concerned {
            let via = family.address(net, via);
            namespace.ip(&format!("{} route add {to} via {via}", family.flag()))?;
        }
    }
    Ok(())
}

fn mac(net: u8, host: u8) -> String {
    format!("02:00:00:00:{net:02}:{host:02x}")
}
