//! What stands in the balancer's place, one at a time.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::maps::NextHop;
use lb_daemon::{
    config::{Balance, Limits, Timeouts},
    core::{Desired, DesiredBackend, DesiredService, Slots},
    dataplane::{self, Dataplane},
};
use nix::net::if_::if_nametoindex;

use super::{
    hosts::{BACK, FRONT, Hosts},
    traffic::PORTS,
};
use crate::{
    bench::balancer::global,
    lab::{Namespace, Process, wait::until},
};

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);
const SERVER_BY_CABLE: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 11);
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

/// A way from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// No balancer.
    Cable,
    /// The kernel forwards.
    Router,
    /// The kernel forwards and translates.
    Nftables,
    /// A proxy relays.
    Haproxy,
    /// The product.
    Tandem,
}

/// A carrier in place. Dropping it takes it away.
#[allow(dead_code, reason = "held for what dropping them does")]
pub(super) enum InPlace {
    /// There was nothing to do.
    Nothing,
    Rules(Rules),
    Proxy(Process),
    Program(Program),
}

impl InPlace {
    /// The process that does the work, if it is not the kernel that does.
    pub(super) fn process(&self) -> Option<u32> {
        match self {
            Self::Proxy(process) => Some(process.pid()),
            Self::Nothing | Self::Rules(_) | Self::Program(_) => None,
        }
    }
}

impl Carrier {
    /// Where the client finds the server, and the network of the addresses that it comes from.
    pub(super) fn way(self) -> (Ipv4Addr, Ipv4Addr) {
        let through = Ipv4Addr::new(10, 8, 0, 0);
        match self {
            Self::Cable => (SERVER_BY_CABLE, Ipv4Addr::new(10, 9, 0, 0)),
            Self::Router => (SERVER, through),
            Self::Nftables | Self::Haproxy | Self::Tandem => (VIRTUAL, through),
        }
    }

    pub(super) fn install(self, hosts: &Hosts) -> Result<InPlace> {
        Ok(match self {
            Self::Cable | Self::Router => InPlace::Nothing,
            Self::Nftables => InPlace::Rules(Rules::load(hosts)?),
            Self::Haproxy => InPlace::Proxy(proxy(hosts)?),
            Self::Tandem => InPlace::Program(Program::attach(hosts)?),
        })
    }
}

/// Rules of nftables.
pub(super) struct Rules(Namespace);

impl Rules {
    fn load(hosts: &Hosts) -> Result<Self> {
        let [first, .., last] = PORTS;
        let rules = format!(
            "table ip bench {{
                chain before {{
                    type nat hook prerouting priority dstnat
                    ip daddr {VIRTUAL} tcp dport {first}-{last} dnat to {SERVER}
                }}
                chain behind {{
                    type nat hook postrouting priority srcnat
                    ip daddr {SERVER} masquerade
                }}
            }}"
        );
        let file = hosts.dir.join("nftables.conf");
        fs::write(&file, rules)?;
        hosts.balancer.command("nft").arg("-f").arg(file).plain().run()?;
        // As long as the product remembers closed connections. With the default of two minutes,
        // those of earlier rounds would leave ever fewer ports to masquerade with.
        hosts.balancer.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "5")?;
        Ok(Self(hosts.balancer.clone()))
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        // Without it the next carrier fails, and says so.
        let _ = self.0.command("nft").args(["flush", "ruleset"]).plain().run();
    }
}

fn proxy(hosts: &Hosts) -> Result<Process> {
    let listen = PORTS.map(|port| {
        format!("listen p{port}\n  bind {VIRTUAL}:{port}\n  server s {SERVER}:{port}\n")
    });
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n{}",
        listen.concat()
    );
    let file = hosts.dir.join("haproxy.cfg");
    fs::write(&file, config)?;
    let process = hosts.balancer.command("haproxy").arg("-db").arg("-f").arg(file).spawn()?;
    let address = SocketAddr::from((VIRTUAL, PORTS[1]));
    hosts
        .client
        .enter(|| until("HAProxy", Duration::from_secs(5), || TcpStream::connect(address)))?;
    Ok(process)
}

/// The product's data plane, as its daemon would set it up.
pub(super) struct Program {
    balancer: Namespace,
    bpffs: PathBuf,
}

impl Program {
    fn attach(hosts: &Hosts) -> Result<Self> {
        let mut global = global(100_000, FRONT);
        global.interfaces.push(BACK.to_owned());
        let desired = desired(hosts)?;
        hosts.balancer.enter(|| -> Result<()> {
            let (mut dataplane, _) = Dataplane::open(&global, None)?;
            dataplane.apply(&desired)?;
            dataplane.attach(&global)
        })?;
        Ok(Self { balancer: hosts.balancer.clone(), bpffs: global.bpffs })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Without it the next carrier fails, and says so.
        let _ = self.balancer.enter(|| dataplane::detach(&self.bpffs));
    }
}

fn desired(hosts: &Hosts) -> Result<Desired> {
    let (src, dst) = hosts.last_hop()?;
    let ifindex = hosts.balancer.enter(|| if_nametoindex(BACK)).context("no interface back")?;
    let long = Duration::from_secs(3600);
    let mut desired = Desired::default();
    for (number, port) in (0..).zip(PORTS) {
        let service = DesiredService {
            bind: vec![(VIRTUAL, port).into()],
            balance: Balance::RoundRobin,
            slots: Slots([number].into()),
            maxconn: None,
            group: 0,
            synchronous: false,
            timeout: Timeouts {
                connect: long,
                queue: long,
                client: long,
                server: long,
                client_fin: long,
                server_fin: long,
            },
        };
        let backend = DesiredBackend {
            service: number,
            address: (SERVER, port).into(),
            weight: 1,
            limits: Limits::default(),
            sources: vec![BALANCER.into()],
            error_limit: None,
            hop: NextHop { ifindex, src, dst, ..NextHop::default() },
        };
        desired.services.insert(number, service);
        desired.backends.insert(number, backend);
    }
    Ok(desired)
}
