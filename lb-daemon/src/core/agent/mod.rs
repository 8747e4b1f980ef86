//! The agent of one backend: when it is asked, and what its last answer was.

mod answer;

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use self::answer::{Answer, Word};
use super::{
    Core,
    effect::{AgentRequest, Effect},
    event::{Outcome, ProbeId, Reason},
    view::AgentStatus,
};
use crate::config::AgentCheck;

/// Most characters that are kept of what it said.
const LONGEST_SHOWN: usize = 200;

/// A backend's agent over time.
///
/// It can hold the backend down that its check finds up, and not the other way round. Its silence
/// changes nothing: that the server is there at all is for the check to say. It is asked in
/// maintenance, too: how else could it end one that it has begun?
#[derive(Clone, Debug)]
pub(super) struct Agent {
    check: Arc<AgentCheck>,
    phase: Phase,
    /// What it said of the server's health, and why, when it last did.
    health: Option<(Word, String)>,
    /// Whether nothing is known of it, and an earlier daemon may have heard that the server is down.
    is_distrusted: bool,
    /// How many connections the server is to have by its last word of that; zero for any number.
    maxconn: Option<u32>,
    /// As long as it was not asked: the limit that an earlier daemon held the server to.
    found_limit: Option<NonZeroU32>,
    last: Option<Last>,
    /// How long the last question and answer took.
    took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { due: Instant },
    Running { probe: ProbeId, started: Instant },
}

#[derive(Clone, Debug)]
struct Last {
    ended: Instant,
    /// The beginning of its line; or what was wrong, if there was none.
    heard: Result<String, Outcome>,
    /// The beginning of a word that has no meaning.
    unknown: Option<String>,
}

impl Agent {
    /// An agent that is asked first after `first`.
    pub(super) fn new(check: Arc<AgentCheck>, now: Instant, first: Duration) -> Self {
        Self {
            check,
            phase: Phase::Waiting { due: now + first },
            health: None,
            is_distrusted: false,
            maxconn: None,
            found_limit: None,
            last: None,
            took: Duration::ZERO,
        }
    }

    /// Puts new settings in force. Another agent is asked at once; what the one before said stays
    /// until it is heard.
    pub(super) fn reconfigure(&mut self, check: Arc<AgentCheck>, now: Instant) {
        if self.check != check {
            self.check = check;
            self.phase = Phase::Waiting { due: now };
        }
    }

    /// Takes the server for down until the agent was asked once, which is due now.
    pub(super) fn distrust(&mut self, now: Instant) {
        if self.last.is_none() {
            self.is_distrusted = true;
            self.phase = Phase::Waiting { due: now };
        }
    }

    /// Takes in to which limit an earlier daemon held the server, maybe by this agent's word.
    pub(super) fn found_limited(&mut self, limit: NonZeroU32) {
        if self.last.is_none() {
            self.found_limit = Some(limit);
        }
    }

    /// The limit that an earlier daemon held the server to, as long as this was not asked.
    pub(super) fn found_limit(&self) -> Option<NonZeroU32> {
        self.found_limit
    }

    /// When it is to be asked next; none while an answer is awaited.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { due } => Some(due),
            Phase::Running { .. } => None,
        }
    }

    /// The question, under the name `id`, if it is due.
    pub(super) fn start(&mut self, id: ProbeId, now: Instant) -> Option<AgentRequest> {
        if self.next_deadline().is_none_or(|due| due > now) {
            return None;
        }
        self.phase = Phase::Running { probe: id, started: now };
        let AgentCheck { target, send, inter } = self.check.as_ref();
        Some(AgentRequest { id, target: *target, send: send.clone(), timeout: *inter })
    }

    /// Takes in its line, or that there was none, if `probe` was the question; tells what the line
    /// says.
    pub(super) fn heard(
        &mut self,
        probe: ProbeId,
        heard: &Result<String, Outcome>,
        now: Instant,
    ) -> Option<Answer> {
        let Phase::Running { probe: awaited, started } = self.phase else { return None };
        if awaited != probe {
            return None;
        }
        self.phase = Phase::Waiting { due: now.max(started + self.check.inter) };
        self.is_distrusted = false;
        self.found_limit = None;
        self.took = now.saturating_duration_since(started);
        let answer = heard.as_ref().map(|line| Answer::read(line)).unwrap_or_default();
        let unknown = answer.unknown.as_deref().map(beginning);
        let heard = heard.as_deref().map(beginning).map_err(Clone::clone);
        self.last = Some(Last { ended: now, heard, unknown });
        if let Some(word) = answer.health {
            self.health = Some((word, answer.description.clone()));
        }
        self.maxconn = answer.maxconn.or(self.maxconn);
        Some(answer)
    }

    /// Whether it lets the backend be up.
    pub(super) fn is_up(&self) -> bool {
        !self.is_distrusted && self.health.as_ref().is_none_or(|(word, _)| *word == Word::Up)
    }

    /// What it said last of the server's health, as the outcome of a check.
    pub(super) fn outcome(&self) -> Outcome {
        let took = self.took;
        let reason = if self.is_up() { Reason::L7Ok } else { Reason::L7Status };
        Outcome { reason, detail: self.verdict(), took }
    }

    /// "its agent says down: the disk is full"
    pub(super) fn verdict(&self) -> String {
        match &self.health {
            None => "its agent has not answered yet".to_owned(),
            Some((word, why)) if why.is_empty() => format!("its agent says {word}"),
            Some((word, why)) => format!("its agent says {word}: {why}"),
        }
    }

    /// What an operator sees of it; none before it was asked.
    pub(super) fn status(&self, now: Instant) -> Option<AgentStatus> {
        let Last { ended, heard, unknown } = self.last.as_ref()?;
        let age = now.saturating_duration_since(*ended).as_millis();
        let unknown = unknown.as_ref().map(|word| format!("it says {word:?}, which means nothing"));
        let silent =
            heard.as_ref().err().map(|failure| format!("{} {}", failure.reason, failure.detail));
        Some(AgentStatus {
            up: self.is_up(),
            answer: heard.as_ref().ok().cloned(),
            problem: silent.or(unknown),
            maxconn: self.maxconn,
            age_ms: u64::try_from(age).unwrap_or(u64::MAX),
        })
    }
}

/// As much of a text as people read.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Core {
    /// Takes in what an agent said, or that it said nothing. Tells whether it was anything new.
    pub(super) fn agent(
        &mut self,
        probe: ProbeId,
        heard: &Result<String, Outcome>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let heard = self.services.iter_mut().find_map(|s| s.agent(probe, heard, now));
        let Some(said) = heard else { return false };
        // Whatever else it changes is told, if only in the log.
        let is_news = !said.notices.is_empty() || said.is_limited_anew;
        effects.extend(said.notices.into_iter().map(Effect::Notify));
        self.overrides_changed |= said.has_overruled;
        is_news
    }
}
