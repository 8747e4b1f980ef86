//! What may hold the addresses of a [`Pair`]: the product or a peer, by one name each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use lb_daemon::config::Carp;

use super::{
    Election, Family, Haproxy, Keepalived, Namespace, Pair, Process, Service, Settings, Tandem,
    Ucarp,
};

/// One host's part in a pair. Dropping it kills it.
pub trait Member {
    /// The process that takes part in the election: to be stopped, frozen or killed.
    fn elector(&mut self) -> &mut Process;

    /// Starts the elector again after its end.
    fn start_again(&mut self) -> Result<()>;

    /// The daemon, if it is the product.
    fn tandem(&mut self) -> Option<&mut Tandem> {
        None
    }
}

/// What fails over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// The product.
    Tandem,
    /// keepalived, with an HAProxy in mode tcp on each host that runs all the time.
    Keepalived,
}

/// The port of the service at the virtual address, and of the servers.
pub const PORT: u16 = 80;

impl System {
    /// Starts it on one of the hosts, with a service of all servers at the virtual IPv4 address.
    pub fn start(
        self,
        pair: &Pair,
        host: usize,
        election: &Election,
        priority: u8,
    ) -> Result<Box<dyn Member>> {
        let twin = &pair.twins()[host];
        Ok(match self {
            Self::Tandem => {
                let group = election.for_tandem(pair, host, priority);
                Box::new(Tandem::start_on(twin, &settings(pair, &group))?)
            }
            Self::Keepalived => {
                let bind: SocketAddr = (pair.vip(Family::V4), PORT).into();
                let servers = pair.servers().iter().map(|server| server.at(Family::V4, PORT));
                let haproxy = Haproxy::start(twin, bind, &servers.collect::<Vec<_>>())?;
                let keepalived = KeepalivedMember::start(pair, host, election, priority)?;
                Box::new(WithHaproxy { keepalived, _haproxy: haproxy })
            }
        })
    }
}

/// Settings of the product on either host: groups, in TOML, and the service `web` of all servers,
/// if there are any, at the virtual IPv4 address.
pub fn settings(pair: &Pair, groups: &str) -> Settings {
    if pair.servers().is_empty() {
        return Settings::of_pair(groups);
    }
    let bind: SocketAddr = (pair.vip(Family::V4), PORT).into();
    let service = Service::new("web", bind)
        .set(&format!("source = [\"{}\"]", pair.source(Family::V4)))
        .backends(pair.servers(), Family::V4, PORT);
    Settings::of_pair(&format!("{groups}\n{service}"))
}

impl Member for Tandem {
    fn elector(&mut self) -> &mut Process {
        self.process_mut()
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

/// ucarp on a host of its own, with what it was told; it does not preempt.
pub struct UcarpMember {
    host: Namespace,
    source: Ipv4Addr,
    carp: Carp,
    address: Ipv4Addr,
    ucarp: Ucarp,
}

impl UcarpMember {
    /// Starts it for the virtual IPv4 address on the client's side.
    pub fn start(pair: &Pair, host: usize, carp: Carp) -> Result<Self> {
        let twin = &pair.twins()[host];
        let (IpAddr::V4(source), IpAddr::V4(address)) =
            (twin.address(Family::V4), pair.vip(Family::V4))
        else {
            unreachable!("they are of IPv4")
        };
        let host: Namespace = (**twin).clone();
        let ucarp = Ucarp::start(&host, "front", source, &carp, address, false)?;
        Ok(Self { host, source, carp, address, ucarp })
    }
}

impl Member for UcarpMember {
    fn elector(&mut self) -> &mut Process {
        self.ucarp.process_mut()
    }

    fn start_again(&mut self) -> Result<()> {
        ensure!(!self.elector().is_running(), "ucarp is still running");
        let Self { host, source, carp, address, .. } = self;
        self.ucarp = Ucarp::start(host, "front", *source, carp, *address, false)?;
        Ok(())
    }
}

struct WithHaproxy {
    keepalived: KeepalivedMember,
    _haproxy: Haproxy,
}

impl Member for WithHaproxy {
    fn elector(&mut self) -> &mut Process {
        self.keepalived.elector()
    }

    fn start_again(&mut self) -> Result<()> {
        self.keepalived.start_again()
    }
}
