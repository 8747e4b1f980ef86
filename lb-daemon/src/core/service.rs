//! One service at run time: its backends, their health, and who of them is eligible.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    SETTLE, Spread,
    balance::{self, Candidate},
    effect::{Desired, DesiredBackend, DesiredService, Effect, ProbeRequest, Slots, Subject},
    event::{Outcome, ProbeId},
    health::{Health, Transition},
    hops::{Hops, Unreachable},
    notice::Notice,
    view::{BackendStatus, Counters, ServiceStatus, State},
};
use crate::config::{Backend, Balance, OnMarkedDown, Role, Service};

/// A service of the configuration in force.
#[derive(Debug)]
pub(super) struct ServiceState {
    pub(super) config: Arc<Service>,
    pub(super) number: Option<u16>,
    pub(super) backends: Vec<BackendState>,
    /// What its number is given by: one of its addresses.
    pub(super) identity: Option<SocketAddr>,
    arranged: Option<Arranged>,
    /// When it was first known.
    known: Instant,
    /// Whether a backend was eligible when the operator was last told.
    was_up: Option<bool>,
    is_up: bool,
}

/// The last arrangement and what it was made from: a Maglev table is not made for every event.
#[derive(Debug)]
struct Arranged {
    balance: Balance,
    allbackups: bool,
    candidates: Vec<Candidate>,
    slots: Slots,
}

/// A backend of the configuration in force.
#[derive(Debug)]
pub(super) struct BackendState {
    pub(super) config: Backend,
    pub(super) number: Option<u16>,
    health: Option<Health>,
    /// How probes know it.
    subject: Arc<Subject>,
    probe: Option<ProbeId>,
    /// When it was first known.
    known: Instant,
    /// Whether its connections are to end, because it went down, and have not been told to yet.
    to_end: bool,
}

impl ServiceState {
    /// The service at place `id` of a new configuration, with the state of those of its backends that `old` had
    /// at the same address: it is the server there that is healthy or not, whatever its name.
    pub(super) fn new(
        id: usize,
        config: Arc<Service>,
        old: Option<Self>,
        now: Instant,
        spread: &mut Spread,
    ) -> Self {
        let lowest = config.bind.iter().min().copied();
        let new = Self {
            config: config.clone(),
            number: None,
            backends: Vec::new(),
            identity: lowest,
            arranged: None,
            known: now,
            was_up: None,
            is_up: false,
        };
        let mut this = old.unwrap_or(new);
        let mut before = std::mem::take(&mut this.backends);
        let backends = config
            .backends
            .iter()
            .zip(1..)
            .map(|(backend, place)| {
                let subject = Subject::new((id, &config), (place, backend));
                let same = |b: &BackendState| b.config.address == backend.address;
                let old = before.iter().position(same).map(|i| before.swap_remove(i));
                BackendState::new(backend.clone(), subject, old, now, spread)
            })
            .collect();
        // An address more or less does not make it another service.
        let identity = this.identity.filter(|address| config.bind.contains(address)).or(lowest);
        Self { config, number: None, backends, identity, ..this }
    }

    /// When its checks are due.
    pub(super) fn deadlines_of_checks(&self) -> impl Iterator<Item = Instant> + '_ {
        self.backends.iter().filter_map(|b| b.health.as_ref()?.next_deadline())
    }

    /// When the operator is to be told that it did not come up.
    pub(super) fn deadline_but_of_checks(&self) -> Option<Instant> {
        self.was_up.is_none().then_some(self.known + SETTLE)
    }

    /// Takes in how a probe ended, if it was one of this service's.
    pub(super) fn probed(
        &mut self,
        probe: ProbeId,
        outcome: &Outcome,
        now: Instant,
    ) -> Option<Notice> {
        let backend = self.backends.iter_mut().find(|b| b.probe == Some(probe))?;
        backend.probe = None;
        let transition = backend.health.as_mut()?.finish(outcome, now)?;
        backend.to_end = transition == Transition::Down
            && backend.config.on_marked_down == OnMarkedDown::ShutdownSessions;
        let name = backend.config.name.clone();
        let left =
            |role| self.backends.iter().filter(|b| b.config.role == role && b.is_healthy()).count();
        Some(Notice::Backend {
            service: self.config.name.clone(),
            backend: name,
            up: transition == Transition::Up,
            outcome: outcome.clone(),
            active: left(Role::Active),
            backup: left(Role::Backup),
        })
    }

    /// Adds what the data plane shall know of this service.
    pub(super) fn desire(&mut self, hops: &Hops, group: u16, desired: &mut Desired) {
        let Some(number) = self.number else { return };
        let mut candidates = Vec::new();
        for backend in &self.backends {
            let (Some(id), Ok((hop, source))) =
                (backend.number, hops.hop(backend.config.address.ip()))
            else {
                continue;
            };
            let sources = if self.config.source.is_empty() {
                vec![source]
            } else {
                self.config.source.clone()
            };
            let address = backend.config.address;
            let weight = backend.config.weight;
            desired.backends.insert(
                id,
                DesiredBackend { service: number, address, weight: weight.max(1), sources, hop },
            );
            candidates.push(Candidate {
                number: id,
                address,
                role: backend.config.role,
                weight,
                usable: backend.is_healthy(),
            });
        }
        let slots = self.arrange(candidates);
        self.is_up = !slots.0.is_empty();
        desired.services.insert(
            number,
            DesiredService {
                bind: self.config.bind.clone(),
                balance: self.config.balance,
                slots,
                timeout: self.config.timeout,
                synchronous: self.config.synchronous,
                group,
            },
        );
    }

    /// The end of the connections of those that went down, if that is what was wished; to be called
    /// only on the host that serves them. One that does not keeps in mind what is to be done if it
    /// comes to serve.
    pub(super) fn end_sessions(&mut self) -> Vec<Effect> {
        let service = &self.config.name;
        let down = self.backends.iter_mut().filter(|b| b.to_end);
        down.filter_map(|b| {
            b.to_end = false;
            let backend = format!("{service}/{}", b.config.name);
            Some(Effect::EndSessions { number: b.number?, backend })
        })
        .collect()
    }

    /// Whether the service went up or down since the operator was last told.
    pub(super) fn turned(&mut self, now: Instant) -> Option<Notice> {
        let is_news = match self.was_up {
            Some(before) => before != self.is_up,
            // Backends become reachable one by one: not to be up at once is no news.
            None => self.is_up || now >= self.known + SETTLE,
        };
        is_news.then(|| {
            self.was_up = Some(self.is_up);
            Notice::Service { service: self.config.name.clone(), up: self.is_up }
        })
    }

    /// Whether a backend is eligible; nothing until that can be said.
    pub(super) fn is_up(&self) -> Option<bool> {
        self.was_up
    }

    pub(super) fn status(&self, hops: &Hops, counters: &Counters, now: Instant) -> ServiceStatus {
        let eligible = self.arranged.as_ref().map(|arranged| {
            balance::eligible(&arranged.candidates, arranged.allbackups)
                .iter()
                .map(|c| c.number)
                .collect::<Vec<_>>()
        });
        let eligible = eligible.unwrap_or_default();
        let backends = self
            .backends
            .iter()
            .map(|b| {
                let is_eligible = b.number.is_some_and(|n| eligible.contains(&n));
                b.status(is_eligible, hops, counters, now)
            })
            .collect();
        ServiceStatus {
            name: self.config.name.clone(),
            bind: self.config.bind.clone(),
            balance: self.config.balance.name().to_owned(),
            state: if self.is_up { State::Up } else { State::Down },
            backends,
        }
    }

    fn arrange(&mut self, candidates: Vec<Candidate>) -> Slots {
        let (balance, allbackups) = (self.config.balance, self.config.allbackups);
        if let Some(arranged) = &self.arranged
            && (arranged.balance, arranged.allbackups) == (balance, allbackups)
            && arranged.candidates == candidates
        {
            return arranged.slots.clone();
        }
        let slots = balance::arrange(balance, &balance::eligible(&candidates, allbackups));
        let arranged = Arranged { balance, allbackups, candidates, slots: slots.clone() };
        self.arranged = Some(arranged);
        slots
    }
}

impl BackendState {
    fn new(
        config: Backend,
        subject: Subject,
        old: Option<Self>,
        now: Instant,
        spread: &mut Spread,
    ) -> Self {
        let (mut health, probe, known, to_end) = match old {
            Some(old) => (old.health, old.probe, old.known, old.to_end),
            None => (None, None, now, false),
        };
        let to_end = to_end
            && config.check.is_some()
            && config.on_marked_down == OnMarkedDown::ShutdownSessions;
        health = config.check.as_ref().map(|check| {
            let first: Duration = spread.next(check.inter);
            match health {
                Some(mut health) => {
                    health.reconfigure(check.clone(), now, first);
                    health
                }
                None => Health::new(check.clone(), now, first),
            }
        });
        Self { config, number: None, health, subject: Arc::new(subject), probe, known, to_end }
    }

    /// Takes it for down until its first check, due at once, says otherwise.
    pub(super) fn distrust(&mut self, now: Instant) {
        if let Some(health) = &mut self.health {
            health.distrust(now);
        }
    }

    /// Up, as far as its check tells; a backend without a check is taken for up.
    fn is_healthy(&self) -> bool {
        self.health.as_ref().is_none_or(Health::is_up)
    }

    /// The next probe, under the name `id`, if it is due.
    pub(super) fn start_probe(&mut self, id: ProbeId, now: Instant) -> Option<ProbeRequest> {
        let health = self.health.as_mut()?;
        if !health.start(now) {
            return None;
        }
        self.probe = Some(id);
        let (check, subject) = (health.check().clone(), self.subject.clone());
        Some(ProbeRequest { id, check, subject })
    }

    fn status(
        &self,
        eligible: bool,
        hops: &Hops,
        counters: &Counters,
        now: Instant,
    ) -> BackendStatus {
        let state = match &self.health {
            Some(health) if !health.is_up() => State::Down,
            _ if self.config.weight == 0 => State::Drain,
            Some(_) => State::Up,
            None => State::Unchecked,
        };
        let since = self.health.as_ref().map_or(self.known, Health::since);
        let traffic = self.number.and_then(|n| counters.backends.get(&n).copied());
        BackendStatus {
            id: self.number.unwrap_or_default(),
            name: self.config.name.clone(),
            address: Some(self.config.address),
            role: self.config.role.name().to_owned(),
            weight: self.config.weight,
            state,
            since_seconds: now.saturating_duration_since(since).as_secs(),
            eligible,
            why: if eligible { None } else { self.why_not(hops) },
            check: self.health.as_ref().and_then(|h| h.status(now)),
            traffic: traffic.unwrap_or_default(),
        }
    }

    /// Why a healthy backend gets no new connections.
    fn why_not(&self, hops: &Hops) -> Option<String> {
        if !self.is_healthy() {
            return None;
        }
        let ip: IpAddr = self.config.address.ip();
        Some(match hops.hop(ip) {
            Err(Unreachable::NotAttached(interface)) => format!(
                "it is reached by {interface}, where the XDP program is not: add it to [global] \
                 interfaces"
            ),
            Err(Unreachable::NoRoute) => format!("this host has no route to {ip}"),
            Err(Unreachable::Resolving) => {
                format!("the link-layer address on the way to {ip} is not resolved")
            }
            Ok(_) if self.number.is_none() => {
                "the data plane has no free number for it until old connections end".to_owned()
            }
            Ok(_) if self.config.weight == 0 => "weight 0".to_owned(),
            Ok(_) => "backup, not needed".to_owned(),
        })
    }
}
