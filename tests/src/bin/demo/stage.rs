//! The stage: the lab, the servers in it and the two balancers in front of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_daemon::{
    admin::client,
    core::{BackendStatus, GroupStatus, State, Status, group::Role},
};
use tests::lab::{Family, Host, MariaDb, Nginx, Pair, Tandem, Twin, wait::until};

use crate::{
    config::{self, DATABASES, GROUP, MYSQL, WEB, WEBSERVERS, Wishes},
    lasting::Lasting,
};

/// How long a balancer may take to see what happened, to a backend or to the other balancer: many
/// times what the settings of [`config`] need, for slow machines.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that is brought up. Dropping it takes everything down.
#[derive(Debug)]
pub(crate) struct Stage {
    tandems: [Tandem; 2],
    servers: BTreeMap<&'static str, Server>,
    /// The balancer whose cable on the clients' side is pulled.
    unplugged: Option<usize>,
    pub(crate) wishes: Wishes,
    /// The session that outlives the balancers, once it is open.
    pub(crate) lasting: Option<Lasting>,
    pub(crate) pair: Pair,
}

/// A server on a host of its own.
#[derive(Debug)]
enum Server {
    Database(MariaDb),
    Web(Nginx),
}

/// The balancers' indices.
pub(crate) const BALANCERS: [usize; 2] = [0, 1];

impl Stage {
    /// Brings everything up, and calls `step` before each step.
    pub(crate) fn set(step: impl Fn(&str)) -> Result<Self> {
        step("hosts in network namespaces: client, lb1, lb2, db1, db2, web1, web2");
        let pair = Pair::named(&[&DATABASES[..], &WEBSERVERS].concat())?;
        step("MariaDB on db1 and db2, nginx on web1 and web2");
        let servers = start_all(&pair)?;
        step("tandem on lb1 and lb2: first health checks, first election");
        let wishes = Wishes::default();
        let start = |host: usize| {
            Tandem::start_on(&pair.twins()[host], &config::settings(&pair, host, &wishes))
        };
        // The second one finds a master, so that the demo always begins in the same way.
        let first = start(0)?;
        let what = "the first balancer is the master";
        first.wait_until(what, PATIENCE, |status| has_role(status, Role::Master))?;
        let tandems = [first, start(1)?];
        let stage = Self { tandems, servers, unplugged: None, wishes, lasting: None, pair };
        for host in BALANCERS {
            stage.wait_for_all(host)?;
        }
        stage.wait_for_role(1, Role::Backup)?;
        Ok(stage)
    }

    /// The virtual address and port of the web service.
    pub(crate) fn web(&self) -> SocketAddr {
        (self.pair.vip(Family::V4), WEB).into()
    }

    /// The virtual address and port of the MySQL service.
    pub(crate) fn mysql(&self) -> SocketAddr {
        (self.pair.vip(Family::V4), MYSQL).into()
    }

    /// The names of the backends, in the order of the configuration.
    pub(crate) fn backends() -> impl Iterator<Item = &'static str> {
        WEBSERVERS.into_iter().chain(DATABASES)
    }

    /// A balancer.
    pub(crate) fn twin(&self, host: usize) -> &Twin {
        &self.pair.twins()[host]
    }

    /// What runs on a balancer, or did before it was killed.
    pub(crate) fn tandem(&self, host: usize) -> &Tandem {
        &self.tandems[host]
    }

    /// Whether the daemon of a balancer runs.
    pub(crate) fn is_alive(&mut self, host: usize) -> bool {
        self.tandems[host].process_mut().is_running()
    }

    /// Kills the daemon of a balancer by `kill -9`.
    pub(crate) fn kill_tandem(&mut self, host: usize) {
        self.tandems[host].kill9();
    }

    /// Starts the daemon of a balancer again.
    pub(crate) fn start_tandem(&mut self, host: usize) -> Result<()> {
        self.tandems[host].start_again()
    }

    /// Runs `tandem failover` on a balancer, and hands back what it said.
    pub(crate) fn hand_over(&self, host: usize) -> Result<String> {
        let tandem = &self.tandems[host];
        tandem.verb(&["failover", GROUP, "--socket"]).arg(tandem.socket()).run()
    }

    /// Pulls the cable of a balancer on the clients' side.
    pub(crate) fn pull(&mut self, host: usize) -> Result<()> {
        self.twin(host).front.pull()?;
        self.unplugged = Some(host);
        Ok(())
    }

    /// Plugs the cable in that is pulled, if one is, and says whose it was.
    pub(crate) fn plug(&mut self) -> Result<Option<usize>> {
        let host = self.unplugged.take();
        if let Some(host) = host {
            self.twin(host).front.plug()?;
        }
        Ok(host)
    }

    /// What a balancer says about itself, if it is alive.
    pub(crate) fn status(&self, host: usize) -> Option<Status> {
        client::status(self.tandems[host].socket()).ok()
    }

    /// The balancer that says that it is the master.
    pub(crate) fn master(&self) -> Result<usize> {
        let masters = BALANCERS.into_iter().filter(|&host| {
            self.status(host).is_some_and(|status| has_role(&status, Role::Master))
        });
        match masters.collect::<Vec<_>>()[..] {
            [master] => Ok(master),
            [] => bail!("no balancer is the master"),
            _ => bail!("both balancers say that they are the master"),
        }
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
        let host = host(&self.pair, backend)?;
        match self.servers.get_mut(backend) {
            Some(Server::Database(server)) => server.restart(),
            Some(Server::Web(server)) => {
                *server = Nginx::start(host, WEB)?;
                Ok(())
            }
            None => bail!("there is no backend {backend}"),
        }
    }

    /// Writes the configuration with these wishes for both balancers, and has those that are alive
    /// read it.
    ///
    /// If it is refused, the files go back to what is in force.
    pub(crate) fn configure(&mut self, wishes: Wishes) -> Result<()> {
        self.write(&wishes)?;
        let alive: Vec<_> = BALANCERS.into_iter().filter(|&host| self.is_alive(host)).collect();
        // Both shall say what they think of it.
        let answers: Vec<_> = alive.into_iter().map(|host| self.tandems[host].reload()).collect();
        let answer = answers.into_iter().try_for_each(|answer| answer.map(drop));
        match answer {
            Ok(()) => self.wishes = wishes,
            Err(_) => self.write(&self.wishes)?,
        }
        answer
    }

    fn write(&self, wishes: &Wishes) -> Result<()> {
        BALANCERS.into_iter().try_for_each(|host| {
            self.tandems[host].configure(&config::settings(&self.pair, host, wishes))
        })
    }

    /// Waits until a balancer says that a backend is in a state.
    pub(crate) fn wait_for(&self, host: usize, backend: &str, state: State) -> Result<Status> {
        let what = format!("{backend} is {state:?} on {}", self.twin(host).name()).to_lowercase();
        self.tandems[host].wait_until(&what, PATIENCE, |status| {
            find(status, backend).is_some_and(|one| one.state == state)
        })
    }

    /// Waits until a balancer says that all backends are up.
    pub(crate) fn wait_for_all(&self, host: usize) -> Result<()> {
        Self::backends().try_for_each(|backend| self.wait_for(host, backend, State::Up).map(drop))
    }

    /// Waits until a balancer has a role, and hands back when it was seen to have it.
    pub(crate) fn wait_for_role(&self, host: usize, role: Role) -> Result<Instant> {
        let what = format!("{} is {role}", self.twin(host).name());
        // Closer than a status by the command, which is a process for each look.
        until(&what, PATIENCE, || {
            let status = self.status(host).context("it does not answer")?;
            ensure!(has_role(&status, role), "the groups are {:?}", status.groups);
            Ok::<_, anyhow::Error>(Instant::now())
        })
    }
}

/// A backend in a status.
pub(crate) fn find<'a>(status: &'a Status, backend: &str) -> Option<&'a BackendStatus> {
    status.services.iter().flat_map(|one| &one.backends).find(|one| one.name == backend)
}

/// The group in a status.
pub(crate) fn group(status: &Status) -> Option<&GroupStatus> {
    status.groups.iter().find(|group| group.name == GROUP)
}

fn has_role(status: &Status, role: Role) -> bool {
    group(status).is_some_and(|group| group.role == role)
}

fn host<'a>(pair: &'a Pair, name: &str) -> Result<&'a Host> {
    let host = pair.servers().iter().find(|host| host.name() == name);
    host.with_context(|| format!("there is no host {name}"))
}

/// Starts all servers at once: a `MariaDB` takes its time.
fn start_all(pair: &Pair) -> Result<BTreeMap<&'static str, Server>> {
    thread::scope(|scope| {
        let databases = DATABASES.map(|name| {
            let start = move || MariaDb::start(host(pair, name)?, MYSQL).map(Server::Database);
            (name, scope.spawn(start))
        });
        let webs = WEBSERVERS.map(|name| {
            let start = move || Nginx::start(host(pair, name)?, WEB).map(Server::Web);
            (name, scope.spawn(start))
        });
        let join = |(name, thread): (_, thread::ScopedJoinHandle<'_, Result<Server>>)| {
            Ok((name, thread.join().expect("starting a server does not panic")?))
        };
        databases.into_iter().chain(webs).map(join).collect()
    })
}
