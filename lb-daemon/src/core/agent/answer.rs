//! What the words of an agent's answer say: HAProxy's, and read as it reads them.

use std::fmt;

use crate::core::order::{AdminState, Order, RuntimeMaxconn, RuntimeWeight};

/// Most characters that are kept of a reason.
const LONGEST_REASON: usize = 200;

/// An agent's answer: what it does not speak of is not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Answer {
    /// The administrative state it wants.
    pub(in crate::core) state: Option<AdminState>,
    /// How the server is.
    pub(in crate::core) health: Option<Word>,
    /// The share of the configured weight it wants.
    pub(in crate::core) weight: Option<RuntimeWeight>,
    /// How many connections it wants at most.
    pub(in crate::core) maxconn: Option<u32>,
    /// What it says after a sharp, for people.
    pub(in crate::core) description: String,
    /// The first word that has no meaning, if there is one.
    pub(in crate::core) unknown: Option<String>,
}

/// An agent's word for how the server is. All but [`Up`](Self::Up) have the same effect, and tell
/// people different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Word {
    Up,
    /// It is not there, as it seems.
    Down,
    /// It is there, and does not do what it should.
    Fail,
    /// It was stopped on purpose.
    Stopped,
}

impl Word {
    const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Fail, Self::Stopped];

    const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Fail => "fail",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Answer {
    /// Reads a line, without its end. Words are parted by spaces, tabs and commas; of several of the
    /// same kind, the last counts; upper case is as good as lower.
    pub(in crate::core) fn read(line: &str) -> Self {
        let mut answer = Self::default();
        let mut rest = line;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if let Some(description) = rest.strip_prefix('#') {
                answer.description = description.trim().chars().take(LONGEST_REASON).collect();
                return answer;
            }
            if rest.is_empty() {
                return answer;
            }
            let (word, after) = match rest.split_once([' ', '\t', ',']) {
                Some((word, _)) => (word, &rest[word.len()..]),
                None => (rest, ""),
            };
            answer.take(word);
            rest = after;
        }
    }

    fn take(&mut self, word: &str) {
        let lower = word.to_ascii_lowercase();
        let states = [AdminState::Ready, AdminState::Drain, AdminState::Maint];
        if let Some(health) = Word::ALL.into_iter().find(|known| known.name() == lower) {
            self.health = Some(health);
        } else if let Some(state) = states.into_iter().find(|known| known.name() == lower) {
            self.state = Some(state);
        } else if let Some(Ok(limit)) = lower.strip_prefix("maxconn:").map(str::parse) {
            self.maxconn = Some(limit);
        } else if let Ok(weight @ RuntimeWeight::Percent(_)) = lower.parse()
            && lower.ends_with('%')
        {
            self.weight = Some(weight);
        } else if self.unknown.is_none() {
            self.unknown = Some(word.to_owned());
        }
    }

    /// What is to be changed of the backend, in the order in which HAProxy does it.
    pub(in crate::core) fn orders(&self) -> impl Iterator<Item = Order> + use<> {
        let state = self.state.map(Order::State);
        let maxconn = self.maxconn.map(RuntimeMaxconn::Absolute).map(Order::Maxconn);
        state.into_iter().chain(self.weight.map(Order::Weight)).chain(maxconn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Random;

    #[test]
    fn every_word_of_haproxys_is_known() {
        let answer = Answer::read("75%,maxconn:30\tmaint down # the disk is full, sorry ");
        let expected = Answer {
            state: Some(AdminState::Maint),
            health: Some(Word::Down),
            weight: Some(RuntimeWeight::Percent(75)),
            maxconn: Some(30),
            description: "the disk is full, sorry".to_owned(),
            unknown: None,
        };
        assert_eq!(answer, expected);
        for (line, word) in [("up", Word::Up), ("FAIL", Word::Fail), (" ,stopped,", Word::Stopped)]
        {
            assert_eq!(Answer::read(line).health, Some(word), "{line:?}");
        }
        assert_eq!(Answer::read("Ready").state, Some(AdminState::Ready));
        assert_eq!(Answer::read("drain").state, Some(AdminState::Drain));
        assert_eq!(Answer::read(""), Answer::default());
    }

    #[test]
    fn of_several_words_of_a_kind_the_last_counts() {
        let answer = Answer::read("up down 10% 20% ready drain maxconn:1 maxconn:2");
        assert_eq!(answer.health, Some(Word::Down));
        assert_eq!(answer.weight, Some(RuntimeWeight::Percent(20)));
        assert_eq!(answer.state, Some(AdminState::Drain));
        assert_eq!(answer.maxconn, Some(2));
    }

    #[test]
    fn a_word_without_meaning_changes_nothing_and_is_told() {
        for word in ["hello", "75", "%", "75%x", "maxconn:", "maxconn:x", "configured", "up#now"] {
            let answer = Answer::read(&format!("{word} 50% nonsense"));
            assert_eq!(answer.unknown.as_deref(), Some(word));
            assert_eq!(answer.weight, Some(RuntimeWeight::Percent(50)), "the rest counts");
            assert_eq!((answer.health, answer.state, answer.maxconn), (None, None, None));
        }
    }

    /// Two hundred thousand lines, half of them cut, grown or changed in a few bytes, and half noise.
    #[test]
    fn no_line_makes_the_reader_panic() {
        let line = "75%,maxconn:30\tmaint down ready # the disk is füll".as_bytes();
        let mut random = Random::new();
        let mut weights = 0;
        for _ in 0..200_000 {
            let answer = Answer::read(&String::from_utf8_lossy(&random.spoil(line)));
            assert!(answer.description.chars().count() <= LONGEST_REASON);
            weights += u32::from(answer.weight.is_some());
        }
        assert!(weights > 1000, "hardly any was an answer");
    }
}
