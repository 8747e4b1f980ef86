//! Every decision of the daemon, and nothing else: no sockets, no maps, no clock.
//!
//! [`Event`]s go in, [`Effect`]s come out, `now` is always a parameter.

mod administration;
pub mod admission;
mod agent;
mod backend;
mod balance;
mod condition;
mod connections;
mod effect;
mod event;
pub mod group;
mod groups;
mod health;
mod hops;
mod hosts;
mod maglev;
mod notice;
mod numbers;
mod operator;
mod order;
mod process;
mod script;
mod service;
mod slow_start;
mod standing;
pub mod sync;
mod view;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::maps::{MAX_BACKENDS, MAX_SERVICES};

pub use self::{
    connections::{
        Connection, ConnectionCount, ConnectionCounts, ConnectionFilter, ConnectionNames,
        ConnectionState, Flow, NoPrefix, Prefix, Selection, UnknownName,
    },
    effect::{
        AgentRequest, Desired, DesiredBackend, DesiredService, Effect, HookRequest, Inventory,
        ProbeRequest, RunRequest, Slots, Subject,
    },
    event::{
        Claimed, Event, Exit, Link, Outcome, PeerNews, ProbeId, Reason, Route, RunId, RunOutcome,
    },
    groups::{CannotFailOver, hooks},
    health::{Health, Transition},
    notice::{Level, Notice},
    operator::UnknownBackend,
    order::{
        AdminState, BackendName, By, NoBackendName, NoMaxconn, NoWeight, Order, Override,
        RuntimeMaxconn, RuntimeWeight,
    },
    view::{
        AdvertCounts, AgentStatus, BackendStatus, CheckStatus, ClaimStatus, Condition,
        ConfigStatus, Counters, Election, Elections, GroupStatus, HostStatus, InterfaceStatus,
        Kind, ObserveStatus, OrphanStatus, OverrideStatus, QueueStatus, ServiceStatus,
        SlowStartStatus, State, Status, SyncStatus, TableStatus, TrackedStatus, Traffic,
        TransitionStatus,
    },
};
use self::{
    groups::Groups, hops::Hops, hosts::Hosts, numbers::Numbers, operator::Orphans,
    service::ServiceState,
};
use crate::config::{Backend, Config};

/// How long the ways to the backends may take to become known before anyone acts on it or worries.
const SETTLE: Duration = Duration::from_secs(1);

/// The state of the node and the one place where it changes.
#[derive(Debug)]
pub struct Core {
    config: Option<Arc<Config>>,
    generation: u64,
    configured: Instant,
    services: Vec<ServiceState>,
    /// What was said of backends that are not in the configuration.
    orphans: Orphans,
    /// Whether what operators said is to be kept anew.
    overrides_changed: bool,
    groups: Groups,
    /// By one of the addresses a service is bound to; the lowest, when it was first known.
    service_numbers: Numbers<SocketAddr>,
    /// By service number and address.
    backend_numbers: Numbers<(u16, SocketAddr)>,
    hops: Hops,
    hosts: Hosts,
    next_probe: u64,
    /// What the data plane was told last; nothing yet, after a start.
    applied: Option<Desired>,
    /// Numbers of backends that an earlier daemon kept from new connections.
    distrusted: BTreeSet<u16>,
    /// The limits that an earlier daemon held backends to, by their numbers.
    found_limits: BTreeMap<u16, NonZeroU32>,
    /// Until when the data plane may stay as an earlier daemon left it. Its backends serve on
    /// while the ways to them are found out again; without them, clients would be refused.
    settling: Option<Instant>,
}

impl Core {
    /// A core that knows no configuration yet, but what an earlier daemon left in the data plane.
    pub fn new(inventory: &Inventory, now: Instant) -> Self {
        let services = inventory.services.iter().filter_map(|(number, binds)| {
            let lowest = binds.iter().min()?;
            Some((*lowest, *number))
        });
        let backends = inventory.backends.iter().map(|(number, owner)| (*owner, *number));
        Self {
            config: None,
            generation: 0,
            configured: now,
            services: Vec::new(),
            orphans: Orphans::default(),
            overrides_changed: false,
            groups: Groups::new(inventory.groups.clone()),
            service_numbers: Numbers::new(limit(MAX_SERVICES), services),
            backend_numbers: Numbers::new(limit(MAX_BACKENDS), backends),
            hops: Hops::default(),
            hosts: Hosts::default(),
            next_probe: 0,
            applied: None,
            distrusted: inventory
                .backends
                .keys()
                .copied()
                .filter(|number| !inventory.serving.contains(number))
                .collect(),
            found_limits: inventory.limits.clone(),
            settling: (*inventory != Inventory::default()).then_some(now + SETTLE),
        }
    }

    /// Takes an event in, and says what is to be done.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.is_routine(&event, now, &mut effects) {
            self.change(event, now, &mut effects);
        }
        self.start_probes(now, &mut effects);
        effects
    }

    /// Takes in what a check or an agent found, and tells whether nothing but that comes of this
    /// event: hundreds of times a second, a backend is asked how it is and found as it was.
    fn is_routine(&mut self, event: &Event, now: Instant, effects: &mut Vec<Effect>) -> bool {
        match event {
            Event::Probed { probe, outcome } => !self.probed(*probe, outcome, now, effects),
            Event::Agent { probe, heard } => !self.agent(*probe, heard, now, effects),
            Event::Tick => self.deadlines_but_of_questions().all(|deadline| deadline > now),
            _ => false,
        }
    }

    /// Takes in an event that may change more than when a backend is asked next.
    fn change(&mut self, event: Event, now: Instant, effects: &mut Vec<Effect>) {
        match event {
            Event::Config(config) => self.configure(&config, now, effects),
            Event::Overrides(overrides) => self.orphans = Orphans::kept(&overrides),
            Event::Observed(alarms) => {
                let services = self.services.iter_mut();
                let notices = services.flat_map(|service| service.observed(&alarms, now));
                effects.extend(notices.map(Effect::Notify));
            }
            Event::Resolved { name, heard } => self.resolved(&name, heard, now, effects),
            Event::Routed { target, route } => self.hops.routed(target, route),
            Event::Neighbour { ifindex, address, mac } => {
                if let Some((from, to)) = self.hops.neighbour(ifindex, address, mac) {
                    effects.push(Effect::Moved { links: self.hops.links(ifindex), from, to });
                }
            }
            Event::RoutesChanged => {
                effects.extend(self.hops.all().into_iter().map(Effect::Resolve));
            }
            Event::Walked { backends, services } => {
                self.backend_numbers.walked(&backends);
                self.service_numbers.walked(&services);
            }
            Event::Links(links) => self.groups.links(links),
            Event::Ran { run, outcome } => self.groups.ran(run, &outcome, now),
            Event::Processes(counts) => self.groups.counted(counts, now),
            Event::Group { name, transition } => {
                self.groups.changed(&name, transition, now, effects);
            }
            Event::Claimed { name, claimed } => {
                effects.extend(self.groups.claimed(&name, claimed, now).map(Effect::Notify));
            }
            Event::Advertises { name: group, failure } => {
                effects.push(Effect::Notify(Notice::Advertises { group, failure }));
            }
            Event::PutBack { name, address, was_missing } => {
                let notice = self.groups.put_back(&name, address, was_missing);
                effects.extend(notice.map(Effect::Notify));
            }
            Event::Sync { ready } => self.groups.synced(ready),
            Event::Peer(news) => effects.push(Effect::Notify(Notice::Peer(news))),
            // What it found is noted already.
            Event::Probed { .. } | Event::Agent { .. } | Event::Tick => {}
        }
        self.follow(now, effects);
    }

    /// What follows from whatever has changed.
    fn follow(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.keep_overrides(effects);
        self.climb(now);
        self.look_up(now, effects);
        effects.extend(self.hops.due(now).into_iter().map(Effect::Resolve));
        self.number();
        self.apply(now, effects);
        self.groups.track(&self.services, now, effects);
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let questions = self.services.iter().flat_map(ServiceState::deadlines_of_questions);
        questions.chain(self.deadlines_but_of_questions()).min()
    }

    /// When something is due that may change more than when a backend is asked next.
    fn deadlines_but_of_questions(&self) -> impl Iterator<Item = Instant> + '_ {
        let services = self.services.iter().flat_map(ServiceState::deadlines_but_of_questions);
        let tracked = self.groups.deadlines();
        let ways = self.hops.next_deadline().into_iter().chain(self.hosts.next_deadline());
        services.chain(tracked).chain(ways).chain(self.settling)
    }

    /// The numbers of the backends in force, to read their counters by.
    pub fn backends(&self) -> impl Iterator<Item = u16> + '_ {
        self.services.iter().flat_map(|s| &s.backends).filter_map(|b| b.number)
    }

    /// The numbers of the services in force, to read their counters by.
    pub fn services(&self) -> impl Iterator<Item = u16> + '_ {
        self.services.iter().filter_map(|service| service.number)
    }

    /// The numbers of those whose failed handshakes count.
    pub fn observed(&self) -> impl Iterator<Item = u16> + '_ {
        let backends = self.services.iter().flat_map(|s| &s.backends);
        backends.filter(|b| b.config.observe.is_some()).filter_map(|b| b.number)
    }

    /// The names of what connections refer to by numbers.
    pub fn connection_names(&self) -> ConnectionNames {
        let mut names = ConnectionNames::default();
        for service in &self.services {
            let name = &service.config.name;
            names.services.extend(service.number.map(|number| (number, name.clone())));
            names.backends.extend(service.backends.iter().filter_map(|backend| {
                Some((backend.number?, (name.clone(), backend.config.name.clone())))
            }));
        }
        names
    }

    /// Has this host hand a group over to the other one: what is to be done for it.
    pub fn failover(&self, group: &str) -> Result<Effect, CannotFailOver> {
        self.groups.failover(group)
    }

    /// What an operator can see of the core; the rest of [`Status`] is left empty.
    pub fn status(&self, counters: &Counters, elections: &Elections, now: Instant) -> Status {
        Status {
            node: self.config.as_ref().map(|c| c.global.node.clone()).unwrap_or_default(),
            config: ConfigStatus {
                generation: self.generation,
                age_seconds: now.saturating_duration_since(self.configured).as_secs(),
                ..ConfigStatus::default()
            },
            tables: counters.tables.clone(),
            verdicts: counters.verdicts.clone(),
            unheld: counters.unheld,
            groups: self.groups.status(elections, now),
            services: self
                .services
                .iter()
                .map(|service| {
                    let mut status = service.status(&self.hops, counters, now);
                    self.hosts.show(service, &mut status, now);
                    status
                })
                .collect(),
            orphans: self.orphans.status(now),
            ..Status::default()
        }
    }

    /// Puts a configuration in force.
    fn configure(&mut self, config: &Arc<Config>, now: Instant, effects: &mut Vec<Effect>) {
        self.hosts.follow(config, now);
        self.put_in_force(config, now, effects);
        self.groups.configure(config, now, effects);
        self.config = Some(config.clone());
        self.generation += 1;
        self.configured = now;
    }

    /// Puts the services of a configuration in force, with the addresses that host names have by now.
    /// Services and backends that stay keep their state.
    fn put_in_force(&mut self, config: &Arc<Config>, now: Instant, effects: &mut Vec<Effect>) {
        let (config, moved) = self.hosts.resolve(config, &self.services);
        effects.extend(moved.into_iter().map(Effect::Notify));
        let said = self.take_overrides();
        let mut before = std::mem::take(&mut self.services);
        let checked = config.services.iter().flat_map(|s| &s.backends);
        let asked = |b: &Backend| usize::from(b.check.is_some()) + usize::from(b.agent.is_some());
        let mut spread = Spread::new(checked.map(asked).sum());
        self.services = config
            .services
            .iter()
            .zip(1..)
            .map(|(service, id)| {
                let old = service::place_of(service, &before).map(|i| before.remove(i));
                ServiceState::new(id, service.clone(), old, now, &mut spread)
            })
            .collect();

        self.hand_out(said, now, effects);
        let binds: BTreeSet<SocketAddr> = self.services.iter().filter_map(|s| s.identity).collect();
        self.service_numbers.keep(&binds);
        self.number();
        for backend in self.services.iter_mut().flat_map(|s| &mut s.backends) {
            if backend.number.is_some_and(|number| self.distrusted.remove(&number)) {
                backend.distrust(now);
            }
            if let Some(limit) = backend.number.and_then(|n| self.found_limits.remove(&n)) {
                backend.found_limited(limit);
            }
        }
        let owners = self
            .services
            .iter()
            .filter_map(|s| Some((s.number?, s)))
            .flat_map(|(number, s)| s.backends.iter().map(move |b| (number, b.config.address)))
            .collect();
        // Until then, a backend may turn out to be one that was there before.
        if self.hosts.are_settled() {
            self.distrusted.clear();
            self.found_limits.clear();
            self.backend_numbers.keep(&owners);
        }

        let targets = self.services.iter().flat_map(|s| &s.backends);
        let targets = targets.filter(|b| b.config.is_resolved());
        let targets: Vec<IpAddr> = targets.map(|b| b.config.address.ip()).collect();
        self.hops.attach(config.global.interfaces.iter().cloned().collect());
        effects.extend(self.hops.follow(targets).into_iter().map(Effect::Resolve));
    }

    /// Gives numbers to those services and backends that have none.
    fn number(&mut self) {
        for service in &mut self.services {
            let Some(identity) = service.identity else {
                continue;
            };
            service.number = self.service_numbers.give(&identity);
            let Some(number) = service.number else {
                continue;
            };
            for backend in service.backends.iter_mut().filter(|b| b.config.is_resolved()) {
                backend.number = self.backend_numbers.give(&(number, backend.config.address));
            }
        }
    }

    /// Notes what a probe found, and says whether a backend went up or down by it.
    fn probed(
        &mut self,
        probe: ProbeId,
        outcome: &Outcome,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let mut services = self.services.iter_mut();
        let notice = services.find_map(|service| service.probed(probe, outcome, now));
        let has_turned = notice.is_some();
        effects.extend(notice.map(Effect::Notify));
        has_turned
    }

    /// Goes on with slow starts.
    fn climb(&mut self, now: Instant) {
        for backend in self.services.iter_mut().flat_map(|s| &mut s.backends) {
            backend.climb(now);
        }
    }

    fn start_probes(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for backend in self.services.iter_mut().flat_map(|s| &mut s.backends) {
            let id = ProbeId(self.next_probe);
            if let Some(request) = backend.start_probe(id, now) {
                self.next_probe += 1;
                effects.push(Effect::Probe(request));
            }
            let id = ProbeId(self.next_probe);
            if let Some(request) = backend.ask_agent(id, now) {
                self.next_probe += 1;
                effects.push(Effect::AskAgent(request));
            }
        }
    }

    /// Tells the data plane what changed, and the operator which services went up or down by it.
    fn apply(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let may_wait = self.settling.is_some_and(|until| now < until);
        let are_settled = self.hops.are_settled() && self.hosts.are_settled();
        if self.config.is_none() || may_wait && !are_settled {
            return;
        }
        self.settling = None;
        let mut desired = Desired {
            shared: self.groups.addresses().collect(),
            groups: self.groups.numbers().collect(),
            ..Desired::default()
        };
        for service in &mut self.services {
            let group = self.groups.number_of(service.config.group);
            service.desire(&self.hops, group, &mut desired);
            effects.extend(service.turned(now).map(Effect::Notify));
        }
        if self.applied.as_ref() != Some(&desired) {
            self.applied = Some(desired.clone());
            effects.push(Effect::Apply(desired));
        }
        // From here on, no new connections come to those that are down.
        for service in &mut self.services {
            if self.groups.serves(service.config.group) {
                effects.extend(service.end_sessions());
            }
        }
    }
}

/// Spreads the first checks of many backends over their interval.
pub(crate) struct Spread {
    count: u32,
    given: u32,
}

impl Spread {
    fn new(count: usize) -> Self {
        Self { count: u32::try_from(count).unwrap_or(u32::MAX).max(1), given: 0 }
    }

    /// A part of `interval`, another one at each call.
    fn next(&mut self, interval: Duration) -> Duration {
        let part = interval / self.count * self.given;
        self.given = (self.given + 1) % self.count;
        part
    }
}

fn limit(capacity: u32) -> u16 {
    u16::try_from(capacity).unwrap_or(u16::MAX)
}
