//! One service at run time: its backends, their health, and who of them is eligible.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Instant};

use super::{
    SETTLE, Spread,
    backend::BackendState,
    balance::{self, Candidate},
    effect::{Desired, DesiredBackend, DesiredService, Effect, Slots, Subject},
    event::{Outcome, ProbeId},
    hops::Hops,
    notice::Notice,
    order::{BackendName, By, HUNDREDTHS},
    view::{BackendStatus, Counters, QueueStatus, ServiceStatus, State},
};
use crate::config::{Backend, Balance, Role, Service};

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

/// What came of an agent's answer.
#[derive(Debug)]
pub(super) struct AgentSaid {
    /// What the operator should know of it.
    pub(super) notices: Vec<Notice>,
    /// Whether it has overruled what an operator said.
    pub(super) has_overruled: bool,
    /// Whether its backend takes another number of connections now.
    pub(super) is_limited_anew: bool,
}

/// Where among the `services` of an earlier configuration this one is. If it was renamed, it is known by
/// its address.
pub(super) fn place_of(service: &Service, services: &[ServiceState]) -> Option<usize> {
    let has_name = |old: &ServiceState| old.config.name == service.name;
    let has_address = |old: &ServiceState| service.bind.iter().any(|b| old.identity == Some(*b));
    services.iter().position(has_name).or_else(|| services.iter().position(has_address))
}

/// For each backend of a new configuration, the one of the old that is the same server: by its host
/// name, or else by its address.
fn predecessors(backends: &[Backend], mut old: Vec<BackendState>) -> Vec<Option<BackendState>> {
    let mut take = |is_same: &dyn Fn(&Backend) -> bool| {
        let place = old.iter().position(|old| is_same(&old.config))?;
        Some(old.swap_remove(place))
    };
    // All of the names first: the address that one has now may have been another's.
    let by_name: Vec<_> =
        backends.iter().map(|backend| take(&|old| old.has_same_host_as(backend))).collect();
    let both = by_name.into_iter().zip(backends);
    both.map(|(old, backend)| old.or_else(|| take(&|old| old.has_same_address_as(backend))))
        .collect()
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
        let before = predecessors(&config.backends, std::mem::take(&mut this.backends));
        let backends = config
            .backends
            .iter()
            .zip(before)
            .zip(1..)
            .map(|((backend, old), place)| {
                let subject = Subject::new((id, &config), (place, backend));
                BackendState::new(backend.clone(), subject, old, now, spread)
            })
            .collect();
        // An address more or less does not make it another service.
        let identity = this.identity.filter(|address| config.bind.contains(address)).or(lowest);
        Self { config, number: None, backends, identity, ..this }
    }

    /// When its checks and its agents are due.
    pub(super) fn deadlines_of_questions(&self) -> impl Iterator<Item = Instant> + '_ {
        self.backends.iter().flat_map(BackendState::deadlines_of_questions)
    }

    /// When something else of its backends is due, and when the operator is to be told that it did not
    /// come up.
    pub(super) fn deadlines_but_of_questions(&self) -> impl Iterator<Item = Instant> + '_ {
        let backends = self.backends.iter().filter_map(BackendState::deadline_but_of_questions);
        backends.chain(self.was_up.is_none().then_some(self.known + SETTLE))
    }

    /// Takes in how a probe ended, if it was one of this service's.
    pub(super) fn probed(
        &mut self,
        probe: ProbeId,
        outcome: &Outcome,
        now: Instant,
    ) -> Option<Notice> {
        let (nth, up) = self
            .backends
            .iter_mut()
            .enumerate()
            .find_map(|(nth, b)| Some((nth, b.probed(probe, outcome, now)?)))?;
        Some(self.health_notice(nth, up, outcome.clone()))
    }

    /// Takes in of which backends, by their numbers, too many handshakes have failed in a row, and how
    /// many times.
    pub(super) fn observed(&mut self, alarms: &BTreeMap<u16, u64>, now: Instant) -> Vec<Notice> {
        let mut turned = Vec::new();
        for (nth, backend) in self.backends.iter_mut().enumerate() {
            let alarms = backend.number.and_then(|number| alarms.get(&number));
            turned.extend(alarms.and_then(|n| Some((nth, backend.observed(*n, now)?))));
        }
        let notices = turned.into_iter();
        notices.map(|(nth, (up, outcome))| self.health_notice(nth, up, outcome)).collect()
    }

    /// Takes in what an agent said, if it was asked of one of this service's backends.
    pub(super) fn agent(
        &mut self,
        probe: ProbeId,
        heard: &Result<String, Outcome>,
        now: Instant,
    ) -> Option<AgentSaid> {
        let mut backends = self.backends.iter_mut().enumerate();
        let (nth, heard) =
            backends.find_map(|(nth, b)| Some((nth, b.agent_heard(probe, heard, now)?)))?;
        let backend = BackendName {
            service: self.config.name.clone(),
            backend: self.backends[nth].config.name.clone(),
        };
        let (has_overruled, is_limited_anew) = (heard.has_overruled, heard.is_limited_anew);
        let said = heard.orders.into_iter().map(|order| Notice::Administered {
            backend: backend.clone(),
            order,
            by: By::Agent,
        });
        let health = heard.turned.map(|(up, outcome)| self.health_notice(nth, up, outcome));
        Some(AgentSaid { notices: said.chain(health).collect(), has_overruled, is_limited_anew })
    }

    fn health_notice(&self, nth: usize, up: bool, outcome: Outcome) -> Notice {
        let left =
            |role| self.backends.iter().filter(|b| b.config.role == role && b.is_usable()).count();
        Notice::Backend {
            service: self.config.name.clone(),
            backend: self.backends[nth].config.name.clone(),
            up,
            outcome,
            active: left(Role::Active),
            backup: left(Role::Backup),
        }
    }

    /// Adds what the data plane shall know of this service.
    pub(super) fn desire(&mut self, hops: &Hops, group: u16, desired: &mut Desired) {
        let Some(number) = self.number else { return };
        let unit = self.unit_of_weight();
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
            let weight = backend.weight() / unit;
            desired.backends.insert(
                id,
                DesiredBackend {
                    service: number,
                    address,
                    weight: weight.max(1),
                    limits: backend.limits(),
                    sources,
                    error_limit: backend.config.observe.map(|observe| observe.error_limit),
                    hop,
                },
            );
            candidates.push(Candidate {
                number: id,
                address,
                role: backend.config.role,
                weight,
                usable: backend.is_usable(),
            });
        }
        if self.is_limited() {
            desired.limited.insert(number);
        }
        let slots = self.arrange(candidates);
        self.is_up = !slots.0.is_empty();
        desired.services.insert(
            number,
            DesiredService {
                bind: self.config.bind.clone(),
                balance: self.config.balance,
                slots,
                maxconn: self.config.maxconn,
                timeout: self.config.timeout,
                synchronous: self.config.synchronous,
                group,
            },
        );
    }

    /// Whether it may have so many connections at most, or one of its backends may.
    fn is_limited(&self) -> bool {
        self.config.maxconn.is_some() || self.backends.iter().any(BackendState::is_limited)
    }

    /// The end of the connections of those that went down, if that is what was wished; to be called
    /// only on the host that serves them. One that does not keeps in mind what is to be done if it
    /// comes to serve.
    pub(super) fn end_sessions(&mut self) -> Vec<Effect> {
        let service = &self.config.name;
        let down = self.backends.iter_mut().filter_map(|b| b.take_end().then_some(b));
        down.filter_map(|b| {
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
        let queue = self.number.and_then(|number| counters.queues.get(&number));
        let waiting = queue.cloned().unwrap_or_default();
        let backends = self
            .backends
            .iter()
            .map(|b| {
                let is_eligible = b.number.is_some_and(|n| eligible.contains(&n));
                b.status(is_eligible, hops, counters, now)
            })
            .map(|status: BackendStatus| {
                let (queue, queue_most) =
                    waiting.bound.get(&status.id).copied().unwrap_or_default();
                BackendStatus { queue, queue_most, ..status }
            })
            .collect();
        ServiceStatus {
            name: self.config.name.clone(),
            bind: self.config.bind.clone(),
            balance: self.config.balance.name().to_owned(),
            state: if self.is_up { State::Up } else { State::Down },
            active: self.number.and_then(|n| counters.active.get(&n).copied()).unwrap_or_default(),
            limit: self.config.maxconn.map(NonZeroU32::get),
            queue: queue.map(QueueStatus::from),
            backends,
        }
    }

    /// In what the data plane counts weights: whole ones, or hundredths if some are not whole.
    fn unit_of_weight(&self) -> u16 {
        let are_whole = self.backends.iter().all(|b| b.weight().is_multiple_of(HUNDREDTHS));
        if are_whole { HUNDREDTHS } else { 1 }
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
