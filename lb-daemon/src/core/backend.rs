//! One backend at run time: its health, what was said of it, and what it is worth.

mod status;

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Spread,
    administration::Administration,
    agent::Agent,
    effect::{AgentRequest, ProbeRequest, Subject},
    event::{Outcome, ProbeId},
    health::Health,
    order::{AdminState, By, Order},
    slow_start::SlowStart,
};
use crate::config::{Backend, Limits, OnMarkedDown, Role};

/// A backend of the configuration in force.
#[derive(Debug)]
pub(super) struct BackendState {
    pub(super) config: Backend,
    pub(super) number: Option<u16>,
    administration: Administration,
    health: Option<Health>,
    /// How probes know it.
    subject: Arc<Subject>,
    agent: Option<Agent>,
    slow_start: SlowStart,
    /// Whether coming up is a recovery: it was down, or in maintenance, and not only never asked.
    recovers: bool,
    probe: Option<ProbeId>,
    /// When it was first known, or last went up or down, into another administrative state or out
    /// of it.
    since: Instant,
    /// Whether its connections are to end, because it went down, and have not been told to yet.
    to_end: bool,
}

/// What came of an agent's answer.
#[derive(Debug)]
pub(super) struct Heard {
    /// What it said that is new.
    pub(super) orders: Vec<Order>,
    /// Whether an operator had said otherwise.
    pub(super) has_overruled: bool,
    /// Whether the backend takes another number of connections now.
    pub(super) is_limited_anew: bool,
    /// Whether the backend is up, and why, if that is news.
    pub(super) turned: Option<(bool, Outcome)>,
}

impl BackendState {
    /// The backend of a new configuration, with the health of `old` at the same address. What was
    /// said of it goes by its name, and is for [`put`](Self::put).
    pub(super) fn new(
        config: Backend,
        subject: Subject,
        old: Option<Self>,
        now: Instant,
        spread: &mut Spread,
    ) -> Self {
        let subject = Arc::new(subject);
        let has_moved = old.as_ref().is_some_and(|old| old.config.address != config.address);
        let resolves =
            config.is_resolved() && old.as_ref().is_some_and(|old| !old.config.is_resolved());
        let mut this = match old {
            Some(old) => Self { config, subject, administration: Administration::default(), ..old },
            None => Self::unknown(config, subject, now),
        };
        let config = &this.config;
        if resolves {
            this.since = now;
        }
        this.number = None;
        this.to_end &= config.on_marked_down == OnMarkedDown::ShutdownSessions;
        this.health = config.check.as_ref().map(|check| {
            let turn = spread.next(check.inter);
            // Nobody knows yet whether it is well at its new address.
            let first = if has_moved { Duration::ZERO } else { turn };
            match this.health.take() {
                Some(mut health) => {
                    health.reconfigure(check.clone(), now, first);
                    health
                }
                None => Health::new(check.clone(), now, first),
            }
        });
        this.agent = config.agent.as_ref().map(|check| match this.agent.take() {
            Some(mut agent) => {
                agent.reconfigure(check.clone(), now);
                agent
            }
            None => Agent::new(check.clone(), now, spread.next(check.inter)),
        });
        this
    }

    /// One that nothing is known of.
    fn unknown(config: Backend, subject: Arc<Subject>, now: Instant) -> Self {
        Self {
            config,
            subject,
            number: None,
            administration: Administration::default(),
            health: None,
            agent: None,
            slow_start: SlowStart::default(),
            recovers: false,
            probe: None,
            since: now,
            to_end: false,
        }
    }

    /// What was said of it.
    pub(super) const fn administration(&self) -> &Administration {
        &self.administration
    }

    /// Puts in force what was said of a backend of this name under an earlier configuration, or to
    /// an earlier daemon. An agent that is not asked any more could never take its word back, so
    /// that is forgotten.
    pub(super) fn put(&mut self, administration: Administration, now: Instant) {
        self.administration = administration;
        let before = self.administration.state();
        if self.agent.is_none() {
            self.administration.forget_agent();
        }
        self.follow_administration(now);
        self.left(before, now);
    }

    /// Takes in what is said of it, and tells whether that is anything new.
    pub(super) fn say(&mut self, order: Order, by: By, now: Instant) -> bool {
        let before = self.administration.state();
        let is_new = self.administration.say(order, by, now);
        if before != AdminState::Maint && self.is_in_maintenance() {
            self.go_down();
        }
        if self.administration.state() != before {
            self.follow_administration(now);
        }
        self.left(before, now);
        is_new
    }

    /// Acts on it if it is not in the administrative state any more that it was in `before`.
    fn left(&mut self, before: AdminState, now: Instant) {
        if self.administration.state() == before {
            return;
        }
        self.since = now;
        if before == AdminState::Maint && self.is_healthy() {
            self.recovers = true;
            self.come_up(now);
        }
    }

    /// Has checks run but in maintenance, and as long as its host name does not resolve. They begin anew
    /// after it: taken for up, and checked at once, as in HAProxy.
    fn follow_administration(&mut self, now: Instant) {
        let pauses = self.is_in_maintenance() || !self.config.is_resolved();
        if pauses {
            self.probe = None;
        }
        if let Some(health) = &mut self.health {
            if pauses {
                health.pause();
            } else {
                health.resume(now);
            }
        }
    }

    /// Takes it for down until its first check, due at once, says otherwise.
    pub(super) fn distrust(&mut self, now: Instant) {
        // Those that had no connections for another reason were hardly down.
        self.recovers = self.config.role == Role::Active
            && self.administration.state() == AdminState::Ready
            && self.weight() > 0;
        if let Some(health) = &mut self.health {
            health.distrust(now);
        }
        if let Some(agent) = &mut self.agent {
            agent.distrust(now);
        }
    }

    /// An earlier daemon held it to this limit. If that was by its agent's word, the agent says so again
    /// when it is asked: until then, it stays.
    pub(super) fn found_limited(&mut self, limit: NonZeroU32) {
        if let Some(agent) = &mut self.agent {
            agent.found_limited(limit);
        }
    }

    /// Takes in how the probe ended, if it was this one's. Tells whether it is up, if that is news.
    pub(super) fn probed(
        &mut self,
        probe: ProbeId,
        outcome: &Outcome,
        now: Instant,
    ) -> Option<bool> {
        if self.probe != Some(probe) {
            return None;
        }
        self.probe = None;
        let was_up = self.is_healthy();
        self.health.as_mut()?.finish(outcome, now);
        self.turned(was_up, now)
    }

    /// Takes in that too many handshakes with it have failed in a row, so many times. Tells whether it is
    /// up, and why, if that is news.
    pub(super) fn observed(&mut self, alarms: u64, now: Instant) -> Option<(bool, Outcome)> {
        let was_up = self.is_healthy();
        self.health.as_mut()?.observed(self.config.observe?, alarms, now);
        let up = self.turned(was_up, now)?;
        Some((up, self.health.as_ref()?.last_outcome()?.clone()))
    }

    /// Takes in what its agent said, if `probe` was the question.
    pub(super) fn agent_heard(
        &mut self,
        probe: ProbeId,
        heard: &Result<String, Outcome>,
        now: Instant,
    ) -> Option<Heard> {
        let (was_up, limits) = (self.is_healthy(), self.limits());
        let answer = self.agent.as_mut()?.heard(probe, heard, now)?;
        let was_operators = self.administration.is_an_operators();
        let orders: Vec<_> =
            answer.orders().filter(|order| self.say(*order, By::Agent, now)).collect();
        let has_overruled = was_operators && !orders.is_empty();
        let outcome = self.agent.as_ref()?.outcome();
        let turned = self.turned(was_up, now).map(|up| (up, outcome));
        Some(Heard { orders, has_overruled, is_limited_anew: self.limits() != limits, turned })
    }

    /// Acts on it if it went up or down, and tells which.
    fn turned(&mut self, was_up: bool, now: Instant) -> Option<bool> {
        let is_up = self.is_healthy();
        if is_up == was_up {
            return None;
        }
        self.since = now;
        if is_up {
            self.come_up(now);
        } else {
            self.go_down();
        }
        Some(is_up)
    }

    /// It has recovered: from a failure, or after maintenance.
    fn come_up(&mut self, now: Instant) {
        self.to_end = false;
        if !self.is_in_maintenance() && std::mem::take(&mut self.recovers) {
            self.slow_start.begin(self.config.slowstart, now);
        }
    }

    /// Goes on with its slow start.
    pub(super) fn climb(&mut self, now: Instant) {
        self.slow_start.advance(self.config.slowstart, now);
    }

    fn go_down(&mut self) {
        self.slow_start.stop();
        self.recovers = true;
        self.to_end = self.config.on_marked_down == OnMarkedDown::ShutdownSessions;
    }

    /// Whether its connections are to end, which is told once.
    pub(super) fn take_end(&mut self) -> bool {
        std::mem::take(&mut self.to_end)
    }

    /// Up, as far as its check and its agent tell; what has neither is taken for up, if it has an address.
    fn is_healthy(&self) -> bool {
        self.config.is_resolved()
            && self.health.as_ref().is_none_or(Health::is_up)
            && self.agent.as_ref().is_none_or(Agent::is_up)
    }

    fn is_in_maintenance(&self) -> bool {
        self.administration.state() == AdminState::Maint
    }

    /// Healthy, and ready for new connections by what was said of it.
    pub(super) fn is_usable(&self) -> bool {
        self.is_healthy() && self.administration.state() == AdminState::Ready
    }

    /// Its weight in hundredths: the configured one, or what was said of it, and of that its share
    /// during a slow start, but not nothing.
    pub(super) fn weight(&self) -> u16 {
        let weight = self.administration.weight(self.config.weight);
        let share = u32::from(weight) * u32::from(self.slow_start.percent()) / 100;
        u16::try_from(share).unwrap_or(weight).max(weight.min(1))
    }

    /// Its limits: the configured number of connections, or what was said of it, and of that its share
    /// during a slow start, but not none. No more than an earlier daemon allowed, as long as its agent was
    /// not asked.
    pub(super) fn limits(&self) -> Limits {
        let limits = self.config.limits;
        let maxconn = self.administration.maxconn().map_or_else(
            || tighter(limits.maxconn, self.agent.as_ref().and_then(Agent::found_limit)),
            |said| said.limit(limits.maxconn),
        );
        let percent = u64::from(self.slow_start.percent());
        let climbed = |whole: NonZeroU32| {
            let share = u32::try_from(u64::from(whole.get()) * percent / 100).unwrap_or(u32::MAX);
            NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN)
        };
        Limits { maxconn: maxconn.map(climbed), ..limits }
    }

    /// Whether it may have so many connections at most: by what is configured, though an operator may have
    /// lifted that for a while, or by what was said of it.
    pub(super) fn is_limited(&self) -> bool {
        self.config.limits.maxconn.is_some() || self.limits().maxconn.is_some()
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

    /// The next question to its agent, under the name `id`, if it is due.
    pub(super) fn ask_agent(&mut self, id: ProbeId, now: Instant) -> Option<AgentRequest> {
        self.agent.as_mut().filter(|_| self.config.is_resolved())?.start(id, now)
    }

    /// When its check and its agent are due.
    pub(super) fn deadlines_of_questions(&self) -> impl Iterator<Item = Instant> + use<> {
        let check = self.health.as_ref().and_then(Health::next_deadline);
        let agent = self.agent.as_ref().filter(|_| self.config.is_resolved());
        check.into_iter().chain(agent.and_then(Agent::next_deadline))
    }

    /// When something else of it is due.
    pub(super) fn deadline_but_of_questions(&self) -> Option<Instant> {
        self.slow_start.next_deadline()
    }
}

/// The smaller one of two limits of connections; none is no limit.
fn tighter(one: Option<NonZeroU32>, other: Option<NonZeroU32>) -> Option<NonZeroU32> {
    one.into_iter().chain(other).min()
}
