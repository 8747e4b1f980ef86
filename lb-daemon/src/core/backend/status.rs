//! What an operator sees of a backend.

use std::{net::IpAddr, num::NonZeroU32, time::Instant};

use super::BackendState;
use crate::core::{
    agent::Agent,
    health::Health,
    hops::{Hops, Unreachable},
    order::{AdminState, HUNDREDTHS},
    view::{BackendStatus, Counters, ObserveStatus, SlowStartStatus, State},
};

impl BackendState {
    /// What an operator sees of it.
    pub(in crate::core) fn status(
        &self,
        eligible: bool,
        hops: &Hops,
        counters: &Counters,
        now: Instant,
    ) -> BackendStatus {
        let traffic = self.number.and_then(|n| counters.backends.get(&n).copied());
        BackendStatus {
            id: self.number.unwrap_or_default(),
            name: self.config.name.clone(),
            address: Some(self.config.address),
            // Of its host name, the core knows more.
            host: None,
            role: self.config.role.name().to_owned(),
            weight: self.config.weight,
            effective_weight: f64::from(self.weight()) / f64::from(HUNDREDTHS),
            configured_limit: self.config.limits.maxconn.map(NonZeroU32::get),
            limit: self.limits().maxconn.map(NonZeroU32::get),
            overrides: self.administration.status(now),
            slow_start: self.slow_start.ends(self.config.slowstart).map(|end| SlowStartStatus {
                percent: self.slow_start.percent(),
                left_seconds: end.saturating_duration_since(now).as_secs(),
            }),
            state: self.state(),
            since_seconds: now.saturating_duration_since(self.since).as_secs(),
            eligible,
            why: if eligible { None } else { self.why_not(hops) },
            observe: self.config.observe.map(|observe| ObserveStatus {
                error_limit: observe.error_limit,
                on_error: observe.on_error.name().to_owned(),
                alarms: self.health.as_ref().map_or(0, Health::alarms),
            }),
            check: self.health.as_ref().and_then(|h| h.status(now)),
            agent: self.agent.as_ref().and_then(|agent| agent.status(now)),
            traffic: traffic.unwrap_or_default(),
            // Who waits is known to the service.
            ..BackendStatus::default()
        }
    }

    fn state(&self) -> State {
        match self.administration.state() {
            AdminState::Maint => State::Maint,
            _ if !self.is_healthy() => State::Down,
            AdminState::Drain => State::Drain,
            AdminState::Ready if self.weight() == 0 => State::Drain,
            AdminState::Ready if self.health.is_some() || self.agent.is_some() => State::Up,
            AdminState::Ready => State::Unchecked,
        }
    }

    /// Why it gets no new connections, unless its check says so.
    fn why_not(&self, hops: &Hops) -> Option<String> {
        let ip: IpAddr = self.config.address.ip();
        Some(match (self.administration.state(), hops.hop(ip)) {
            (AdminState::Maint, _) => "maintenance".to_owned(),
            _ if !self.is_healthy() => {
                let agent = self.agent.as_ref().filter(|agent| !agent.is_up());
                return agent.map(Agent::verdict);
            }
            (AdminState::Drain, _) => "drained".to_owned(),
            (AdminState::Ready, Err(Unreachable::NotAttached(interface))) => format!(
                "it is reached by {interface}, where the XDP program is not: add it to [global] \
                 interfaces"
            ),
            (AdminState::Ready, Err(Unreachable::NoRoute)) => {
                format!("this host has no route to {ip}")
            }
            (AdminState::Ready, Err(Unreachable::Resolving)) => {
                format!("the link-layer address on the way to {ip} is not resolved")
            }
            (AdminState::Ready, Ok(_)) if self.number.is_none() => {
                "the data plane has no free number for it until old connections end".to_owned()
            }
            (AdminState::Ready, Ok(_)) if self.weight() == 0 => "weight 0".to_owned(),
            (AdminState::Ready, Ok(_)) => "backup, not needed".to_owned(),
        })
    }
}
