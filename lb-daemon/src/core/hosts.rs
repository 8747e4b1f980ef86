//! The addresses of backends that are given by host names: when to ask for them, and which to take.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Core,
    effect::Effect,
    notice::Notice,
    order::BackendName,
    service::ServiceState,
    view::{HostStatus, ServiceStatus, State},
};
use crate::config::{self, Backend, Config, Service};

/// How long a resolver may take before its silence is told. What it answers then counts nevertheless.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a failure a name is asked for again that never had an address.
const RETRY: Duration = Duration::from_secs(1);

/// The host names of a configuration.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    names: BTreeMap<String, Host>,
    interval: Duration,
    /// The addresses in use.
    chosen: Chosen,
}

/// Names of service and host, and port.
type Key = (String, String, u16);
type Chosen = BTreeMap<Key, IpAddr>;

/// One host name.
#[derive(Debug)]
struct Host {
    /// What it resolved to last, in the resolver's order; empty if it never did.
    addresses: Vec<IpAddr>,
    /// When that was.
    resolved: Option<Instant>,
    /// Why it did not resolve when it was last asked for.
    failure: Option<String>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is to be asked for then.
    Waiting { due: Instant },
    /// It was asked for then.
    Asked { at: Instant },
    /// It was asked for then, and the silence since was told.
    Silent { at: Instant },
}

/// What an answer, or the lack of one, has changed.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Whether backends may have to move.
    pub(super) moves: bool,
    /// What the operator should know of.
    pub(super) notice: Option<Notice>,
}

impl Hosts {
    /// Follows exactly the host names of this configuration. New ones are asked for at once.
    pub(super) fn follow(&mut self, config: &Config, now: Instant) {
        self.interval = config.global.resolve_interval;
        let names =
            config.services.iter().flat_map(|s| &s.backends).filter_map(|b| b.host.as_ref());
        let mut before = std::mem::take(&mut self.names);
        for name in names {
            let host = before.remove(name);
            self.names.entry(name.clone()).or_insert_with(|| {
                host.unwrap_or(Host {
                    addresses: Vec::new(),
                    resolved: None,
                    failure: None,
                    phase: Phase::Waiting { due: now },
                })
            });
        }
    }

    /// Whether every name has had its first answer, or was not answered for too long.
    pub(super) fn are_settled(&self) -> bool {
        self.names.values().all(|host| host.resolved.is_some() || host.failure.is_some())
    }

    /// The names to ask for now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self
            .names
            .iter_mut()
            .filter(|(_, host)| matches!(host.phase, Phase::Waiting { due } if due <= now));
        due.map(|(name, host)| {
            host.phase = Phase::Asked { at: now };
            name.clone()
        })
        .collect()
    }

    /// When something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.names.values().filter_map(|host| match host.phase {
            Phase::Waiting { due } => Some(due),
            Phase::Asked { at } => Some(at + PATIENCE),
            Phase::Silent { .. } => None,
        });
        deadlines.min()
    }

    /// Notes which names were not answered for too long.
    pub(super) fn wait(&mut self, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        for (name, host) in &mut self.names {
            if let Phase::Asked { at } = host.phase
                && at + PATIENCE <= now
            {
                host.phase = Phase::Silent { at };
                let failure = format!("no answer within {} s", PATIENCE.as_secs());
                news.push(host.fails(name, failure));
            }
        }
        news
    }

    /// Takes in what a name resolves to, or why it does not.
    pub(super) fn heard(
        &mut self,
        name: &str,
        heard: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) -> News {
        let Some(host) = self.names.get_mut(name) else { return News::default() };
        let asked = match host.phase {
            // Asked for under an earlier configuration.
            Phase::Waiting { .. } => now,
            Phase::Asked { at } | Phase::Silent { at } => at,
        };
        let news = match heard {
            Ok(addresses) => host.resolves(name, addresses, now),
            Err(failure) => host.fails(name, failure),
        };
        let pause = if host.resolved.is_some() { self.interval } else { self.interval.min(RETRY) };
        host.phase = Phase::Waiting { due: now.max(asked + pause) };
        news
    }

    /// The configuration with the addresses that its backends have by now, and which of them move.
    pub(super) fn resolve(&mut self, config: &Arc<Config>) -> (Arc<Config>, Vec<Notice>) {
        if self.names.is_empty() {
            return (config.clone(), Vec::new());
        }
        let binds = config.services.iter().flat_map(|service| &service.bind).copied().collect();
        let before = std::mem::take(&mut self.chosen);
        let mut resolved = Config::clone(config);
        let mut moved = Vec::new();
        for service in &mut resolved.services {
            if service.backends.iter().any(|backend| backend.host.is_some()) {
                let service = Arc::make_mut(service);
                self.resolve_service(service, &binds, &before);
                moved.extend(self.moved(service, &before));
            }
        }
        (Arc::new(resolved), moved)
    }

    /// A backend stays where it is for as long as its name has that address. Else it moves to the first
    /// that has the service's family and is nobody else's; if there is none, it stays as well.
    fn resolve_service(
        &mut self,
        service: &mut Service,
        binds: &BTreeSet<SocketAddr>,
        before: &Chosen,
    ) {
        let is_v4 = service.bind.first().is_some_and(SocketAddr::is_ipv4);
        let addresses = |name: &str| match self.names.get(name) {
            Some(host) => &host.addresses[..],
            None => &[],
        };
        let keys: Vec<_> = service.backends.iter().map(|backend| key(service, backend)).collect();
        let given = service.backends.iter().filter(|backend| backend.host.is_none());
        let fixed: BTreeSet<SocketAddr> =
            given.map(|backend| backend.address).chain(binds.iter().copied()).collect();
        let is_fixed = |ip: IpAddr, key: &Key| fixed.contains(&SocketAddr::new(ip, key.2));
        let stays = |key: &Key| {
            let ip = *before.get(key)?;
            (addresses(&key.1).contains(&ip) && !is_fixed(ip, key)).then_some(ip)
        };
        let mut taken = fixed.clone();
        taken.extend(
            keys.iter().flatten().filter_map(|key| Some(SocketAddr::new(stays(key)?, key.2))),
        );
        for (backend, key) in service.backends.iter_mut().zip(keys) {
            let Some(key) = key else { continue };
            let is_free = |ip: &IpAddr| !taken.contains(&SocketAddr::new(*ip, key.2));
            let is_good =
                |ip: &IpAddr| is_free(ip) && ip.is_ipv4() == is_v4 && config::is_forwardable(*ip);
            let first = || addresses(&key.1).iter().copied().find(is_good);
            let last = || before.get(&key).copied().filter(is_free);
            let ip = stays(&key).or_else(first).or_else(last);
            if let Some(ip) = ip {
                taken.insert((ip, key.2).into());
                *backend = backend.at(ip);
                self.chosen.insert(key, ip);
            }
        }
    }

    /// The backends of a service that have another address than before.
    fn moved<'a>(
        &'a self,
        service: &'a Service,
        before: &'a Chosen,
    ) -> impl Iterator<Item = Notice> + 'a {
        service.backends.iter().filter_map(|backend| {
            let key = key(service, backend)?;
            let (from, to) = (*before.get(&key)?, *self.chosen.get(&key)?);
            let (service, backend) = (service.name.clone(), backend.name.clone());
            (from != to).then_some(Notice::Moved {
                backend: BackendName { service, backend },
                host: key.1,
                from,
                to,
            })
        })
    }

    /// Adds what an operator sees of the names of a service's backends.
    pub(super) fn show(&self, service: &ServiceState, status: &mut ServiceStatus, now: Instant) {
        for (backend, status) in service.backends.iter().zip(&mut status.backends) {
            let Some(name) = &backend.config.host else { continue };
            status.host = self.status(name, now);
            if !backend.config.is_resolved() {
                status.address = None;
                if status.state == State::Down {
                    status.why = Some(self.why_not(name));
                }
            }
        }
    }

    fn status(&self, name: &str, now: Instant) -> Option<HostStatus> {
        let host = self.names.get(name)?;
        Some(HostStatus {
            name: name.to_owned(),
            age_seconds: host.resolved.map(|at| now.saturating_duration_since(at).as_secs()),
            problem: host.failure.clone(),
        })
    }

    /// Why a backend of this name has no address.
    fn why_not(&self, name: &str) -> String {
        let host = self.names.get(name);
        match host.map(|host| (&host.failure, host.addresses.as_slice())) {
            Some((Some(failure), _)) => format!("{name} does not resolve: {failure}"),
            None | Some((None, [])) => format!("{name} has not been resolved yet"),
            Some((None, addresses)) => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                format!("no address of {name} can be used for it: {}", addresses.join(", "))
            }
        }
    }
}

/// What the address of a backend goes by, if it has a host name.
fn key(service: &Service, backend: &Backend) -> Option<Key> {
    let host = backend.host.clone()?;
    Some((service.name.clone(), host, backend.address.port()))
}

impl Core {
    /// Takes in what a host name resolves to, or why it does not.
    pub(super) fn resolved(
        &mut self,
        name: &str,
        heard: Result<Vec<IpAddr>, String>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let news = self.hosts.heard(name, heard, now);
        self.act_on(news, now, effects);
    }

    /// Asks for the host names that it is time to ask for.
    pub(super) fn look_up(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for news in self.hosts.wait(now) {
            self.act_on(news, now, effects);
        }
        effects.extend(self.hosts.due(now).into_iter().map(Effect::LookUp));
    }

    fn act_on(&mut self, news: News, now: Instant, effects: &mut Vec<Effect>) {
        effects.extend(news.notice.map(Effect::Notify));
        if let Some(config) = self.config.clone().filter(|_| news.moves) {
            self.put_in_force(&config, now, effects);
        }
    }
}

impl Host {
    fn resolves(&mut self, name: &str, addresses: Vec<IpAddr>, now: Instant) -> News {
        let is_first = self.resolved.is_none() && self.failure.is_none();
        let recovers = self.failure.take().is_some();
        self.resolved = Some(now);
        // Many name servers change the order with each answer, for those who take the first.
        let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
        let moves = is_first || set(&self.addresses) != set(&addresses);
        self.addresses = addresses;
        let notice = Notice::Host { name: name.to_owned(), failure: None };
        News { moves, notice: recovers.then_some(notice) }
    }

    fn fails(&mut self, name: &str, failure: String) -> News {
        let is_first = self.resolved.is_none() && self.failure.is_none();
        let is_news = self.failure.replace(failure.clone()).is_none();
        let notice = Notice::Host { name: name.to_owned(), failure: Some(failure) };
        // Those who wait for all names to be answered wait no longer.
        News { moves: is_first, notice: is_news.then_some(notice) }
    }
}
