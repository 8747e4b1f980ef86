//! What was said of a backend at run time, beside what the configuration says: its administrative
//! state and its weight.

use std::time::Instant;

use super::{
    order::{AdminState, BackendName, By, Order, Override, RuntimeWeight},
    view::OverrideStatus,
};

/// What was said of a backend. Of its state and of its weight, only the last word counts, as in
/// HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Administration {
    /// None if it is ready.
    state: Option<Said<AdminState>>,
    /// None if it is as configured.
    weight: Option<Said<RuntimeWeight>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said<T> {
    what: T,
    by: By,
    since: Instant,
}

impl Administration {
    /// Takes in what is said, and tells whether that is anything new.
    pub(super) fn say(&mut self, order: Order, by: By, now: Instant) -> bool {
        match order {
            Order::State(AdminState::Ready) => self.state.take().is_some(),
            Order::State(state) => replace(&mut self.state, state, by, now),
            Order::Weight(RuntimeWeight::CONFIGURED) => self.weight.take().is_some(),
            Order::Weight(weight) => replace(&mut self.weight, weight, by, now),
        }
    }

    /// Forgets what an agent said.
    pub(super) fn forget_agent(&mut self) {
        self.state = self.state.filter(|said| said.by != By::Agent);
        self.weight = self.weight.filter(|said| said.by != By::Agent);
    }

    /// The administrative state.
    pub(super) fn state(&self) -> AdminState {
        self.state.map(|said| said.what).unwrap_or_default()
    }

    /// The weight in hundredths, if this one is configured.
    pub(super) fn weight(&self, configured: u16) -> u16 {
        self.weight.map_or(RuntimeWeight::CONFIGURED, |said| said.what).hundredths(configured)
    }

    /// Whether all is as configured.
    pub(super) const fn is_empty(&self) -> bool {
        self.state.is_none() && self.weight.is_none()
    }

    /// When the last of it was said.
    pub(super) fn since(&self) -> Option<Instant> {
        let state = self.state.map(|said| said.since);
        state.max(self.weight.map(|said| said.since))
    }

    /// What an operator said, to be kept; none if nothing.
    pub(super) fn to_keep(&self, backend: BackendName) -> Option<Override> {
        let state = self.state.filter(|said| said.by == By::Operator);
        let weight = self.weight.filter(|said| said.by == By::Operator);
        let kept = Override {
            backend,
            state: state.map(|said| (said.what, said.since)),
            weight: weight.map(|said| (said.what, said.since)),
        };
        (state.is_some() || weight.is_some()).then_some(kept)
    }

    /// Whether some of it is an operator's word.
    pub(super) fn is_an_operators(&self) -> bool {
        let is_theirs = |by: By| by == By::Operator;
        self.state.is_some_and(|said| is_theirs(said.by))
            || self.weight.is_some_and(|said| is_theirs(said.by))
    }

    /// What an operator said to an earlier daemon.
    pub(super) fn kept(kept: &Override) -> Self {
        let by = By::Operator;
        Self {
            state: kept.state.map(|(what, since)| Said { what, by, since }),
            weight: kept.weight.map(|(what, since)| Said { what, by, since }),
        }
    }

    /// What is shown of it.
    pub(super) fn status(&self, now: Instant) -> Vec<OverrideStatus> {
        let shown = |what: Order, by: By, since: Instant| OverrideStatus {
            what: what.to_string(),
            by: by.name().to_owned(),
            since_seconds: now.saturating_duration_since(since).as_secs(),
        };
        let state = self.state.map(|said| shown(Order::State(said.what), said.by, said.since));
        let weight = self.weight.map(|said| shown(Order::Weight(said.what), said.by, said.since));
        state.into_iter().chain(weight).collect()
    }
}

fn replace<T: PartialEq>(said: &mut Option<Said<T>>, what: T, by: By, now: Instant) -> bool {
    let is_new = said.as_ref().is_none_or(|before| before.what != what || before.by != by);
    if is_new {
        *said = Some(Said { what, by, since: now });
    }
    is_new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_word_counts_and_the_same_again_is_no_news() {
        let now = Instant::now();
        let mut said = Administration::default();
        assert!(!said.say(Order::State(AdminState::Ready), By::Operator, now), "it is");
        assert!(said.say(Order::State(AdminState::Maint), By::Operator, now));
        assert!(!said.say(Order::State(AdminState::Maint), By::Operator, now));
        assert!(said.say(Order::State(AdminState::Drain), By::Operator, now));
        assert_eq!(said.state(), AdminState::Drain);
        assert!(said.say(Order::Weight(RuntimeWeight::Absolute(3)), By::Operator, now));
        assert!(said.say(Order::State(AdminState::Ready), By::Operator, now));
        assert!(!said.is_empty(), "the weight is another thing");
        assert!(said.say(Order::Weight(RuntimeWeight::CONFIGURED), By::Operator, now));
        assert!(said.is_empty());
    }
}
