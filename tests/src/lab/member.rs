//! What may hold the addresses of a [`Pair`]: the product or a peer, by one name each.

use std::net::SocketAddr;

use anyhow::Result;

use super::{
    Election, Family, Haproxy, Keepalived, Pair, Process, Service, Settings, Tandem, Ucarp,
};

/// One host's part in a pair. Dropping it kills it.
pub trait Member {
    /// The process that takes part in the election: to be stopped, frozen or killed.
    fn elector(&mut self) -> &mut Process;

    /// Starts the elector again after its end.
    fn start_again(&mut self) -> Result<()>;
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
        let bind: SocketAddr = (pair.vip(Family::V4), PORT).into();
        let twin = &pair.twins()[host];
        Ok(match self {
            Self::Tandem => {
                let service = Service::new("web", bind)
                    .set(&format!("source = [\"{}\"]", pair.source(Family::V4)))
                    .backends(pair.servers(), Family::V4, PORT);
                let group = election.for_tandem(pair, host, priority);
                Box::new(Tandem::start_on(
                    twin,
                    &Settings::of_pair(&format!("{group}\n{service}")),
                )?)
            }
            Self::Keepalived => {
                let servers = pair.servers().iter().map(|server| server.at(Family::V4, PORT));
                let _haproxy = Haproxy::start(twin, bind, &servers.collect::<Vec<_>>())?;
                let configuration = election.for_keepalived(pair, host, priority);
                let keepalived = Keepalived::start(twin, &configuration)?;
                Box::new(KeepalivedHost { keepalived, _haproxy })
            }
        })
    }
}

impl Member for Tandem {
    fn elector(&mut self) -> &mut Process {
        self.process_mut()
    }

    fn start_again(&mut self) -> Result<()> {
        Self::start_again(self)
    }
}

impl Member for Keepalived {
    fn elector(&mut self) -> &mut Process {
        self.process_mut()
    }

    fn start_again(&mut self) -> Result<()> {
        Self::start_again(self)
    }
}

impl Member for Ucarp {
    fn elector(&mut self) -> &mut Process {
        self.process_mut()
    }

    fn start_again(&mut self) -> Result<()> {
        Self::start_again(self)
    }
}

struct KeepalivedHost {
    keepalived: Keepalived,
    _haproxy: Haproxy,
}

impl Member for KeepalivedHost {
    fn elector(&mut self) -> &mut Process {
        self.keepalived.process_mut()
    }

    fn start_again(&mut self) -> Result<()> {
        self.keepalived.start_again()
    }
}
