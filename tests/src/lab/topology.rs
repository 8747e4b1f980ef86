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
//! The addresses are in the [plan](super::plan).

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
};

use anyhow::Result;

use super::{
    Attached, Dir, EveryFrame, Family, Interface, Namespace, bridge,
    plan::{
        BACKEND_NET, BALANCER, BEFORE, BEFORE_BACKENDS, BEHIND, CLIENT, CLIENT_NET, CROWD, NOBODY,
        NOWHERE, ROUTER, SOURCES, VIRTUAL, add, forward, mac, route,
    },
    veth,
};

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
    far_ends: Vec<Interface>,
    _programs: Vec<Attached>,
    backends: Vec<Host>,
    switch: Namespace,
    router: Option<Namespace>,
}

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

    /// A lab of this shape, with backends `b1`, `b2`, ... `backends` is at most 200.
    pub fn new(shape: Shape, backends: u8) -> Result<Self> {
        let names: Vec<_> = (1..=backends).map(|nth| format!("b{nth}")).collect();
        Self::named(shape, &names)
    }

    /// A lab of this shape, with backends of these names, 200 at most.
    pub fn named(shape: Shape, backends: &[impl AsRef<str>]) -> Result<Self> {
        assert!(backends.len() <= 200, "there are addresses for 200 backends");
        let dir = Dir::new()?;
        let client = Namespace::new("client", &dir)?;
        let balancer = Namespace::new("balancer", &dir)?;
        let switch = Namespace::new("switch", &dir)?;
        let lan = bridge(&switch, "lan")?;
        let cables = Cables::lay(shape, &client, &balancer, &lan)?;
        let (interfaces, far_ends): (Vec<_>, Vec<_>) = cables.arms.into_iter().unzip();

        let (arm_before, arm_behind) = (&interfaces[0], &interfaces[interfaces.len() - 1]);
        add(arm_before, BEFORE, BALANCER)?;
        add(arm_behind, BEHIND, BALANCER)?;
        let (client_net, backend_net, gateway) = match shape {
            Shape::TwoArm | Shape::OneArm => (BEFORE, BEHIND, BALANCER),
            Shape::Routed => (CLIENT_NET, BACKEND_NET, ROUTER),
        };
        let client = Host::settle(client, cables.client, (client_net, CLIENT), gateway)?;
        client.be_many()?;
        let backends = (1..).zip(backends).map(|(nth, name)| {
            let namespace = Namespace::new(name.as_ref(), &dir)?;
            let cable = to_switch((&namespace, "eth0"), &lan)?;
            Host::settle(namespace, cable, (backend_net, BEFORE_BACKENDS + nth), gateway)
        });
        let backends = backends.collect::<Result<_>>()?;

        let programs = far_ends.iter().map(|end| Attached::new(end, EveryFrame::Passes));
        let lab = Self {
            dir,
            shape,
            client,
            balancer,
            backends,
            switch,
            router: cables.router,
            _programs: programs.collect::<Result<_>>()?,
            interfaces,
            far_ends,
        };
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

    /// The far ends of the cables to the balancer's interfaces, in the same order.
    ///
    /// Each has an XDP program that passes everything: a veth only wakes up for frames that the
    /// balancer sends back by `XDP_TX` if there is a program at the far end too.
    pub fn far_ends(&self) -> &[Interface] {
        &self.far_ends
    }

    /// The backends, in the order of their names: `b1` first.
    pub fn backends(&self) -> &[Host] {
        &self.backends
    }

    /// All its namespaces: client, balancer, backends, and the switch and router between them.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let backends = self.backends.iter().map(|backend| &backend.namespace);
        let ends = [&self.client.namespace, &self.balancer, &self.switch];
        ends.into_iter().chain(backends).chain(&self.router)
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

    /// The address that the balancer has towards the backends.
    pub fn source(&self, family: Family) -> IpAddr {
        family.address(BEHIND, BALANCER)
    }

    /// Adds so many further addresses to the balancer's server side.
    pub fn add_sources(&self, family: Family, count: u8) -> Result<Vec<IpAddr>> {
        let [.., arm] = &self.interfaces[..] else { unreachable!("it has interfaces") };
        let bits = if family == Family::V4 { 32 } else { 128 };
        (0..count)
            .map(|nth| {
                let source = family.address(BEHIND, SOURCES + nth);
                arm.address(&format!("{source}/{bits}"))?;
                Ok(source)
            })
            .collect()
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
    pub fn address(&self, family: Family) -> IpAddr {
        family.address(self.net, self.number)
    }

    /// Its address and a port.
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }

    /// Pulls its cable.
    pub fn unplug(&self) -> Result<()> {
        self.far_end.down()
    }

    /// Plugs its cable in again.
    pub fn plug(&self) -> Result<()> {
        self.far_end.up()
    }

    /// Gives a namespace with a cable its addresses and the way to everywhere else.
    pub(super) fn settle(
        namespace: Namespace,
        (eth0, far_end): (Interface, Interface),
        (net, number): (u8, u8),
        gateway: u8,
    ) -> Result<Self> {
        eth0.set_mac(&mac(net, number))?;
        add(&eth0, net, number)?;
        route(&namespace, "default", net, gateway)?;
        Ok(Self { namespace, net, number, far_end })
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

/// The cables between client, balancer and what is between them, near end first.
struct Cables {
    client: (Interface, Interface),
    arms: Vec<(Interface, Interface)>,
    router: Option<Namespace>,
}

impl Cables {
    fn lay(
        shape: Shape,
        client: &Namespace,
        balancer: &Namespace,
        lan: &Interface,
    ) -> Result<Self> {
        let switch = lan.namespace();
        Ok(match shape {
            Shape::TwoArm => {
                let front = veth((balancer, "front"), (client, "eth0"))?;
                let back = to_switch((balancer, "back"), lan)?;
                let client = (front.1.clone(), front.0.clone());
                Self { client, arms: vec![front, back], router: None }
            }
            Shape::OneArm => {
                let client = to_switch((client, "eth0"), lan)?;
                Self { client, arms: vec![to_switch((balancer, "lan"), lan)?], router: None }
            }
            Shape::Routed => {
                let router = Namespace::new("client-router", client.dir())?;
                let client = veth((client, "eth0"), (&router, "client"))?;
                let front = veth((balancer, "front"), (&router, "balancer"))?;
                let back = veth((balancer, "back"), (switch, "balancer"))?;
                add(&client.1, CLIENT_NET, ROUTER)?;
                add(&front.1, BEFORE, ROUTER)?;
                add(&back.1, BEHIND, ROUTER)?;
                add(lan, BACKEND_NET, ROUTER)?;
                for (router, net) in [(&router, BEFORE), (switch, BEHIND)] {
                    forward(router, true)?;
                    route(router, "default", net, BALANCER)?;
                }
                Self { client, arms: vec![front, back], router: Some(router) }
            }
        })
    }
}

/// Lays a cable to a port of the switch, named after the namespace it comes from.
pub(super) fn to_switch(
    from: (&Namespace, &str),
    lan: &Interface,
) -> Result<(Interface, Interface)> {
    let (end, port) = veth(from, (lan.namespace(), from.0.name()))?;
    port.plug_into(lan)?;
    Ok((end, port))
}
