//! What may hold the addresses of a [`Pair`]: the product or a peer, by one name each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use lb_daemon::config::Carp;
use nix::sys::signal::Signal;

use super::{
    Election, Family, Haproxy, Keepalived, Namespace, Packaged, Pair, Process, Service, Settings,
    Tandem, Ucarp,
};

/// One host's part in a pair. Dropping it kills it.
pub trait Member: Send {
    /// The process that takes part in the election: to be stopped, frozen or killed.
    fn elector(&mut self) -> &mut Process;

    /// Kills, by `SIGKILL`, everything on the host that elects or balances.
    fn crash(&mut self) {
        self.elector().kill();
    }

    /// Asks the elector to hand over and end, and does not wait for it.
    fn retire(&mut self) -> Result<()> {
        self.elector().signal(Signal::SIGTERM)
    }

    /// Starts again what has ended.
    fn start_again(&mut self) -> Result<()>;

    /// The daemon, if it is the product.
    fn tandem(&mut self) -> Option<&mut Tandem> {
        None
    }

    /// The product and its systemd, if it is run by one.
    fn packaged(&self) -> Option<&Packaged> {
        None
    }
}

/// What fails over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// The product, in which each host knows of its own connections only.
    Tandem,
    /// The product, the hosts of which tell each other of their connections.
    Replicating,
    /// The same, and clients learn that they are connected only when both hosts know of it.
    Synchronous,
    /// keepalived, with an `HAProxy` in mode tcp on each host that runs all the time.
    Keepalived,
}

/// The port of the service `web` at the virtual address, and of the servers.
pub const PORT: u16 = 80;
/// The port at which the hosts of a pair tell each other of their connections.
pub const SYNC_PORT: u16 = 7646;
/// The secret that they share.
pub const SYNC_KEY: &str = "the secret of the lab, which is no secret at all";

impl System {
    /// Starts it on one of the hosts, with a service of all servers at the virtual IPv4 address for
    /// each of these ports.
    pub fn start(
        self,
        pair: &Pair,
        ports: &[u16],
        host: usize,
        election: &Election,
        priority: u8,
    ) -> Result<Box<dyn Member>> {
        let twin = &pair.twins()[host];
        Ok(match self {
            Self::Tandem => {
                // A server that still has the connections of the host that was lost must not take a
                // new one of the other for one of them.
                let ports_of_its_own = ["1024-16895", "16896-32767"][host];
                let group = election.for_tandem(pair, host, priority);
                let settings = settings(pair, ports, &group)
                    .global(&format!("source_ports = \"{ports_of_its_own}\""));
                Box::new(Tandem::start_on(twin, &settings)?)
            }
            Self::Replicating | Self::Synchronous => {
                let group = election.for_tandem(pair, host, priority);
                let sync = sync(pair, host, SYNC_KEY);
                let defaults = match self {
                    Self::Synchronous => "\n[defaults]\nsynchronous = true\n",
                    _ => "",
                };
                let text = group + &sync + defaults;
                Box::new(Tandem::start_on(twin, &settings(pair, ports, &text))?)
            }
            Self::Keepalived => {
                let service = |port: &u16| {
                    let servers = pair.servers().iter().map(|server| server.at(Family::V4, *port));
                    ((pair.vip(Family::V4), *port).into(), servers.collect())
                };
                let services: Vec<_> = ports.iter().map(service).collect();
                let haproxy = Haproxy::start(twin, &services)?;
                let keepalived = KeepalivedMember::start(pair, host, election, priority)?;
                Box::new(WithHaproxy { keepalived, haproxy })
            }
        })
    }
}

/// Settings of the product on either host: groups, in TOML, and, if there are servers, a service of
/// all of them at the virtual IPv4 address for each of these ports: `web` on [`PORT`], `p7000` on
/// another.
pub fn settings(pair: &Pair, ports: &[u16], groups: &str) -> Settings {
    let mut text = format!("{groups}\n");
    let ports = if pair.servers().is_empty() { &[] } else { ports };
    for &port in ports {
        let name = if port == PORT { "web".to_owned() } else { format!("p{port}") };
        let bind: SocketAddr = (pair.vip(Family::V4), port).into();
        let service = Service::new(name, bind)
            .set(&format!("source = [\"{}\"]", pair.source(Family::V4)))
            .backends(pair.servers(), Family::V4, port);
        text += &service.to_string();
    }
    Settings::of_pair(&text)
}

/// A `[sync]` for one of the hosts, over the cable between them.
pub fn sync(pair: &Pair, host: usize, key: &str) -> String {
    let at = |host: usize| SocketAddr::new(pair.twins()[host].between(Family::V4), SYNC_PORT);
    let (listen, peer) = (at(host), at(1 - host));
    format!("\n[sync]\nlisten = \"{listen}\"\npeer = \"{peer}\"\nkey = \"{key}\"\n")
}

impl Member for Tandem {
    fn elector(&mut self) -> &mut Process {
        self.process_mut()
    }

    fn retire(&mut self) -> Result<()> {
        self.elector().signal(Signal::SIGINT)
    }

    fn start_again(&mut self) -> Result<()> {
        Self::start_again(self)
    }

    fn tandem(&mut self) -> Option<&mut Tandem> {
        Some(self)
    }
}

/// keepalived on a host of its own, with what it was told.
pub struct KeepalivedMember {
    host: Namespace,
    configuration: String,
    keepalived: Keepalived,
}

impl KeepalivedMember {
    /// Starts it.
    pub fn start(pair: &Pair, host: usize, election: &Election, priority: u8) -> Result<Self> {
        let configuration = election.for_keepalived(pair, host, priority);
        let host: Namespace = (*pair.twins()[host]).clone();
        let keepalived = Keepalived::start(&host, &configuration)?;
        Ok(Self { host, configuration, keepalived })
    }
}

impl Member for KeepalivedMember {
    fn elector(&mut self) -> &mut Process {
        self.keepalived.process_mut()
    }

    fn start_again(&mut self) -> Result<()> {
        ensure!(!self.elector().is_running(), "keepalived is still running");
        self.keepalived = Keepalived::start(&self.host, &self.configuration)?;
        Ok(())
    }
}

/// ucarp on a host of its own, with what it was told.
pub struct UcarpMember {
    host: Namespace,
    source: Ipv4Addr,
    carp: Carp,
    address: Ipv4Addr,
    preempt: bool,
    ucarp: Ucarp,
}

impl UcarpMember {
    /// Starts it for the virtual IPv4 address on the client's side.
    pub fn start(pair: &Pair, host: usize, carp: Carp, preempt: bool) -> Result<Self> {
        let twin = &pair.twins()[host];
        let (IpAddr::V4(source), IpAddr::V4(address)) =
            (twin.address(Family::V4), pair.vip(Family::V4))
        else {
            unreachable!("they are of IPv4")
        };
        let host: Namespace = (**twin).clone();
        let ucarp = Ucarp::start(&host, "front", source, &carp, address, preempt)?;
        Ok(Self { host, source, carp, address, preempt, ucarp })
    }
}

impl Member for UcarpMember {
    fn elector(&mut self) -> &mut Process {
        self.ucarp.process_mut()
    }

    fn start_again(&mut self) -> Result<()> {
        ensure!(!self.elector().is_running(), "ucarp is still running");
        let Self { host, source, carp, address, preempt, .. } = self;
        self.ucarp = Ucarp::start(host, "front", *source, carp, *address, *preempt)?;
        Ok(())
    }
}

struct WithHaproxy {
    keepalived: KeepalivedMember,
    haproxy: Haproxy,
}

impl Member for WithHaproxy {
    fn elector(&mut self) -> &mut Process {
        self.keepalived.elector()
    }

    fn crash(&mut self) {
        // As good as at once: the other one ends while the first is waited for.
        let _ = self.elector().signal(Signal::SIGKILL);
        self.haproxy.kill();
        self.elector().kill();
    }

    fn start_again(&mut self) -> Result<()> {
        if !self.haproxy.is_running() {
            self.haproxy.start_again()?;
        }
        self.keepalived.start_again()
    }
}
