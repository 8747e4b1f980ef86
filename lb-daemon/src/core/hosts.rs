//! The addresses of backends that are given by host names: when to ask for them, and which to take.

mod choice;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use self::choice::Chosen;
use super::{
    Core,
    effect::Effect,
    notice::Notice,
    service::ServiceState,
    view::{HostStatus, ServiceStatus, State},
};
use crate::config::Config;

/// How long a resolver may take before its silence is told. What it answers then counts nevertheless.
/// For as long, a new name may fail to resolve before anyone acts on it.
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

/// One host name.
#[derive(Debug)]
struct Host {
    /// What it resolved to last; empty if it never did.
    addresses: BTreeSet<IpAddr>,
    /// When that was.
    resolved: Option<Instant>,
    /// Why it did not resolve when it was last asked for.
    failure: Option<String>,
    /// Until when it may yet turn out that it has the address of a backend that was there before; none
    /// once it has resolved.
    unsettled: Option<Instant>,
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
                    addresses: BTreeSet::new(),
                    resolved: None,
                    failure: None,
                    unsettled: Some(now + PATIENCE),
                    phase: Phase::Waiting { due: now },
                })
            });
        }
    }

    /// Whether every name has resolved, or failed to for too long.
    pub(super) fn are_settled(&self) -> bool {
        self.names.values().all(|host| host.unsettled.is_none())
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
        let asked = self.names.values().filter_map(|host| match host.phase {
            Phase::Waiting { due } => Some(due),
            Phase::Asked { at } => Some(at + PATIENCE),
            Phase::Silent { .. } => None,
        });
        asked.chain(self.names.values().filter_map(|host| host.unsettled)).min()
    }

    /// Notes which names were not answered, or have not resolved, for too long.
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
            // Those who wait for all names to resolve wait no longer.
            if host.unsettled.take_if(|until| *until <= now).is_some() {
                news.push(News { moves: true, notice: None });
            }
        }
        news
    }

    /// Takes in what a name resolves to, or why it does not.
    pub(super) fn heard(
        &mut self,
        name: &str,
        heard: Result<BTreeSet<IpAddr>, String>,
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
        match host.map(|host| (&host.failure, &host.addresses)) {
            Some((Some(failure), _)) => format!("{name} does not resolve: {failure}"),
            Some((None, addresses)) if !addresses.is_empty() => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                format!("no address of {name} can be used for it: {}", addresses.join(", "))
            }
            _ => format!("{name} has not been resolved yet"),
        }
    }
}

impl Core {
    /// Takes in what a host name resolves to, or why it does not.
    pub(super) fn resolved(
        &mut self,
        name: &str,
        heard: Result<BTreeSet<IpAddr>, String>,
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
    fn resolves(&mut self, name: &str, addresses: BTreeSet<IpAddr>, now: Instant) -> News {
        let is_first = self.unsettled.take().is_some();
        let recovers = self.failure.take().is_some();
        self.resolved = Some(now);
        let moves = is_first || self.addresses != addresses;
        self.addresses = addresses;
        let notice = Notice::Host { name: name.to_owned(), failure: None };
        News { moves, notice: recovers.then_some(notice) }
    }

    fn fails(&mut self, name: &str, failure: String) -> News {
        let is_news = self.failure.replace(failure.clone()).is_none();
        let notice = Notice::Host { name: name.to_owned(), failure: Some(failure) };
        News { moves: false, notice: is_news.then_some(notice) }
    }
}
