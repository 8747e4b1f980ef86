//! The stage: the lab, the servers in it and the balancer in front of them.

use std::{collections::BTreeMap, net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use lb_daemon::core::{State, Status};
use tests::lab::{Host, Lab, MariaDb, Nginx, Settings, Shape, Tandem};

use crate::config::{self, DATABASES, MYSQL, WEB, WEBSERVERS, Wishes};

/// How long the balancer may take to see what happened to a backend: many times what the checks
/// of [`config::services`] need, for slow machines.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that is brought up. Dropping it takes everything down.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) tandem: Tandem,
    servers: BTreeMap<&'static str, Server>,
    pub(crate) wishes: Wishes,
    pub(crate) lab: Lab,
}

/// A server on a host of its own.
#[derive(Debug)]
enum Server {
    Database(MariaDb),
    Web(Nginx),
}

impl Stage {
    /// Brings everything up, and calls `step` before each step.
    pub(crate) fn set(step: impl Fn(&str)) -> Result<Self> {
        step("hosts in network namespaces: client, balancer, db1, db2, web1, web2, web3");
        let names = [&DATABASES[..], &WEBSERVERS].concat();
        let lab = Lab::named(Shape::TwoArm, &names)?;
        step("MariaDB on db1 and db2, nginx on web1, web2 and web3");
        let servers = start_all(&lab)?;
        step("tandem on the balancer, and its first health checks");
        let wishes = Wishes::default();
        let tandem = Tandem::start(&lab, &config::services(&lab, &wishes))?;
        let stage = Self { tandem, servers, wishes, lab };
        stage.tandem.wait_until("all backends are up", PATIENCE, |status| {
            status.services.iter().flat_map(|one| &one.backends).all(|one| one.state == State::Up)
        })?;
        Ok(stage)
    }

    /// The virtual address and port of the web service.
    pub(crate) fn web(&self) -> SocketAddr {
        (self.lab.vip4(), WEB).into()
    }

    /// The virtual address and port of the MySQL service.
    pub(crate) fn mysql(&self) -> SocketAddr {
        (self.lab.vip4(), MYSQL).into()
    }

    /// The names of the backends, in the order of the configuration.
    pub(crate) fn backends() -> impl Iterator<Item = &'static str> {
        WEBSERVERS.into_iter().chain(DATABASES)
    }

    /// Whether the server of a backend runs.
    pub(crate) fn runs(&mut self, backend: &str) -> bool {
        match self.servers.get_mut(backend) {
            Some(Server::Database(server)) => server.process_mut().is_running(),
            Some(Server::Web(server)) => server.process_mut().is_running(),
            None => false,
        }
    }

    /// Kills the server of a backend.
    pub(crate) fn kill(&mut self, backend: &str) {
        match self.servers.get_mut(backend) {
            Some(Server::Database(server)) => server.process_mut().kill(),
            Some(Server::Web(server)) => server.process_mut().kill(),
            None => {}
        }
    }

    /// Starts the server of a backend again.
    pub(crate) fn start(&mut self, backend: &str) -> Result<()> {
        let host = host(&self.lab, backend)?;
        match self.servers.get_mut(backend) {
            Some(Server::Database(server)) => server.restart(),
            Some(Server::Web(server)) => {
                *server = Nginx::start(host, WEB)?;
                Ok(())
            }
            None => bail!("there is no backend {backend}"),
        }
    }

    /// Writes the configuration with these wishes, and has the balancer read it.
    ///
    /// If it is refused, the file goes back to what is in force.
    pub(crate) fn configure(&mut self, wishes: Wishes) -> Result<String> {
        self.write(&wishes)?;
        let answer = self.tandem.reload();
        match answer {
            Ok(_) => self.wishes = wishes,
            Err(_) => self.write(&self.wishes)?,
        }
        answer
    }

    fn write(&self, wishes: &Wishes) -> Result<()> {
        self.tandem.configure(&Settings::new(&self.lab, &config::services(&self.lab, wishes)))
    }

    /// Waits until the balancer says that a backend is in a state.
    pub(crate) fn wait_for(&self, backend: &str, state: State) -> Result<Status> {
        let what = format!("{backend} is {state:?}").to_lowercase();
        self.tandem.wait_until(&what, PATIENCE, |status| {
            find(status, backend).is_some_and(|one| one.state == state)
        })
    }
}

/// A backend in a status.
pub(crate) fn find<'a>(
    status: &'a Status,
    backend: &str,
) -> Option<&'a lb_daemon::core::BackendStatus> {
    status.services.iter().flat_map(|one| &one.backends).find(|one| one.name == backend)
}

fn host<'a>(lab: &'a Lab, name: &str) -> Result<&'a Host> {
    let host = lab.backends().iter().find(|host| host.name() == name);
    host.with_context(|| format!("there is no host {name}"))
}

/// Starts all servers at once: a `MariaDB` takes its time.
fn start_all(lab: &Lab) -> Result<BTreeMap<&'static str, Server>> {
    thread::scope(|scope| {
        let databases = DATABASES.map(|name| {
            let start = move || MariaDb::start(host(lab, name)?, MYSQL).map(Server::Database);
            (name, scope.spawn(start))
        });
        let webs = WEBSERVERS.map(|name| {
            let start = move || Nginx::start(host(lab, name)?, WEB).map(Server::Web);
            (name, scope.spawn(start))
        });
        let join = |(name, thread): (_, thread::ScopedJoinHandle<'_, Result<Server>>)| {
            Ok((name, thread.join().expect("starting a server does not panic")?))
        };
        databases.into_iter().chain(webs).map(join).collect()
    })
}
