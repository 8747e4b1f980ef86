//! What was said of a backend at run time, beside what the configuration says: its administrative
//! state, its weight and its limit of connections.

use std::time::Instant;

use super::{
    order::{AdminState, BackendName, By, Order, Override, RuntimeMaxconn, RuntimeWeight},
    view::OverrideStatus,
};

/// What was said of a backend. Of its state, of its weight and of its limit, only the last word counts,
/// as in HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Administration {
    /// None if it is ready.
    state: Option<Said<AdminState>>,
    /// None if it is as configured.
    weight: Option<Said<RuntimeWeight>>,
    /// None if it is as configured.
    maxconn: Option<Said<RuntimeMaxconn>>,
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
            Order::Maxconn(RuntimeMaxconn::Configured) => self.maxconn.take().is_some(),
            Order::Maxconn(maxconn) => replace(&mut self.maxconn, maxconn, by, now),
        }
    }

    /// Forgets what an agent said.
    pub(super) fn forget_agent(&mut self) {
        self.state = self.state.filter(|said| said.by != By::Agent);
        self.weight = self.weight.filter(|said| said.by != By::Agent);
        self.maxconn = self.maxconn.filter(|said| said.by != By::Agent);
    }

    /// The administrative state.
    pub(super) fn state(&self) -> AdminState {
        self.state.map(|said| said.what).unwrap_or_default()
    }

    /// The weight in hundredths, if this one is configured.
    pub(super) fn weight(&self, configured: u16) -> u16 {
        self.weight.map_or(RuntimeWeight::CONFIGURED, |said| said.what).hundredths(configured)
    }

    /// The limit of connections that was said; none if it is as configured.
    pub(super) fn maxconn(&self) -> Option<RuntimeMaxconn> {
        self.maxconn.map(|said| said.what)
    }

    /// Whether all is as configured.
    pub(super) const fn is_empty(&self) -> bool {
        self.state.is_none() && self.weight.is_none() && self.maxconn.is_none()
    }

    /// When the last of it was said.
    pub(super) fn since(&self) -> Option<Instant> {
        let state = self.state.map(|said| said.since);
        let weight = self.weight.map(|said| said.since);
        state.max(weight).max(self.maxconn.map(|said| said.since))
    }

    /// What an operator said, to be kept; none if nothing.
    pub(super) fn to_keep(&self, backend: BackendName) -> Option<Override> {
        let kept = Override {
            backend,
            state: self.state.and_then(Said::by_operator),
            weight: self.weight.and_then(Said::by_operator),
            maxconn: self.maxconn.and_then(Said::by_operator),
        };
        self.is_an_operators().then_some(kept)
    }

    /// Whether some of it is an operator's word.
    pub(super) fn is_an_operators(&self) -> bool {
        let by = [
            self.state.map(|said| said.by),
            self.weight.map(|said| said.by),
            self.maxconn.map(|said| said.by),
        ];
        by.contains(&Some(By::Operator))
    }

    /// What an operator said to an earlier daemon.
    pub(super) fn kept(kept: &Override) -> Self {
        let by = By::Operator;
        Self {
            state: kept.state.map(|(what, since)| Said { what, by, since }),
            weight: kept.weight.map(|(what, since)| Said { what, by, since }),
            maxconn: kept.maxconn.map(|(what, since)| Said { what, by, since }),
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
        let maxconn =
            self.maxconn.map(|said| shown(Order::Maxconn(said.what), said.by, said.since));
        state.into_iter().chain(weight).chain(maxconn).collect()
    }
}

impl<T> Said<T> {
    /// What was said and since when, if an operator has said it.
    fn by_operator(self) -> Option<(T, Instant)> {
        (self.by == By::Operator).then_some((self.what, self.since))
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

    #[test]
    fn only_what_an_operator_said_is_kept() {
        let now = Instant::now();
        let mut said = Administration::default();
        let backend = BackendName { service: "mysql".to_owned(), backend: "db1".to_owned() };
        said.say(Order::Weight(RuntimeWeight::Absolute(3)), By::Agent, now);
        assert_eq!(said.to_keep(backend.clone()), None);
        said.say(Order::Maxconn(RuntimeMaxconn::Absolute(30)), By::Operator, now);
        let kept = said.to_keep(backend).expect("an operator has said something");
        assert_eq!((kept.state, kept.weight), (None, None));
        assert_eq!(kept.maxconn, Some((RuntimeMaxconn::Absolute(30), now)));
        said.forget_agent();
        assert_eq!(said, Administration::kept(&kept));
    }
}
