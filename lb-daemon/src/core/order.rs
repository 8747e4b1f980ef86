//! What can be said of a backend at run time: in what words, by whom, and of which backend.

mod maxconn;

use std::{fmt, str::FromStr, time::Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::maxconn::{NoMaxconn, RuntimeMaxconn};

/// A hundred of them are a weight of one.
pub(super) const HUNDREDTHS: u16 = 100;

/// The greatest weight.
const GREATEST: u16 = 256;

/// A backend as operators name it: `mysql/db1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BackendName {
    /// Name of its service.
    pub service: String,
    /// Its own name.
    pub backend: String,
}

/// It is not the name of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write SERVICE/BACKEND, as in mysql/db1")]
pub struct NoBackendName;

impl FromStr for BackendName {
    type Err = NoBackendName;

    fn from_str(text: &str) -> Result<Self, NoBackendName> {
        let (service, backend) = text.split_once('/').ok_or(NoBackendName)?;
        if service.is_empty() || backend.is_empty() {
            return Err(NoBackendName);
        }
        Ok(Self { service: service.to_owned(), backend: backend.to_owned() })
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.backend)
    }
}

/// A backend's administrative state, by HAProxy's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// As its checks say.
    #[default]
    Ready,
    /// It is checked, keeps its connections, and gets no new ones.
    Drain,
    /// It is not checked, and gets no new connections. Those it has go on, unless
    /// `on_marked_down` ends them.
    Maint,
}

impl AdminState {
    /// HAProxy's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// A weight to use instead of the configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RuntimeWeight {
    /// This one, 0 to 256.
    Absolute(u16),
    /// So many per cent of the configured one.
    Percent(u16),
}

/// It is no weight.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write a weight of 0 to 256, a percentage of the configured one (50%), or `configured`")]
pub struct NoWeight;

impl RuntimeWeight {
    /// The weight that the configuration says.
    pub const CONFIGURED: Self = Self::Percent(100);

    /// What it comes to, in hundredths, if this weight is configured: 256 at most, as in HAProxy.
    /// Unlike there, a part of a small weight is not rounded: half of one is a half, not nothing.
    pub(super) fn hundredths(self, configured: u16) -> u16 {
        let greatest = u32::from(GREATEST * HUNDREDTHS);
        let hundredths = match self {
            Self::Absolute(weight) => u32::from(weight) * u32::from(HUNDREDTHS),
            Self::Percent(percent) => u32::from(configured) * u32::from(percent),
        };
        u16::try_from(hundredths.min(greatest)).unwrap_or(u16::MAX)
    }
}

impl FromStr for RuntimeWeight {
    type Err = NoWeight;

    fn from_str(text: &str) -> Result<Self, NoWeight> {
        if text == "configured" {
            return Ok(Self::CONFIGURED);
        }
        let (number, is_percent) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        // `parse` would take a plus.
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoWeight);
        }
        let number: u16 = number.parse().map_err(|_| NoWeight)?;
        match is_percent {
            true => Ok(Self::Percent(number)),
            false if number <= GREATEST => Ok(Self::Absolute(number)),
            false => Err(NoWeight),
        }
    }
}

impl TryFrom<String> for RuntimeWeight {
    type Error = NoWeight;

    fn try_from(text: String) -> Result<Self, NoWeight> {
        text.parse()
    }
}

impl From<RuntimeWeight> for String {
    fn from(weight: RuntimeWeight) -> Self {
        weight.to_string()
    }
}

impl fmt::Display for RuntimeWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(weight) => weight.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// What is to be changed of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Its administrative state.
    State(AdminState),
    /// Its weight.
    Weight(RuntimeWeight),
    /// How many connections it may have.
    Maxconn(RuntimeMaxconn),
}

impl Order {
    /// Whether it undoes what was said before.
    pub(super) fn is_as_configured(self) -> bool {
        match self {
            Self::State(state) => state == AdminState::Ready,
            Self::Weight(weight) => weight == RuntimeWeight::CONFIGURED,
            Self::Maxconn(maxconn) => maxconn == RuntimeMaxconn::Configured,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => f.write_str(state.name()),
            Self::Weight(RuntimeWeight::CONFIGURED) => f.write_str("weight as configured"),
            Self::Weight(weight) => write!(f, "weight {weight}"),
            Self::Maxconn(RuntimeMaxconn::Configured) => f.write_str("maxconn as configured"),
            Self::Maxconn(maxconn) => write!(f, "maxconn {maxconn}"),
        }
    }
}

/// What an operator has said of a backend: it outlives the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Of whom.
    pub backend: BackendName,
    /// Its administrative state, and since when; none if it is ready.
    pub state: Option<(AdminState, Instant)>,
    /// Its weight, and since when; none if it is the configured one.
    pub weight: Option<(RuntimeWeight, Instant)>,
    /// Its limit of connections, and since when; none if it is the configured one.
    pub maxconn: Option<(RuntimeMaxconn, Instant)>,
}

/// Who says something of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A person, or a tool of theirs.
    Operator,
    /// The backend's agent.
    Agent,
}

impl By {
    /// The word for it in status and log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Agent => "agent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_written_as_haproxy_writes_them() {
        for (text, weight) in [
            ("0", RuntimeWeight::Absolute(0)),
            ("256", RuntimeWeight::Absolute(256)),
            ("0%", RuntimeWeight::Percent(0)),
            ("50%", RuntimeWeight::Percent(50)),
            ("300%", RuntimeWeight::Percent(300)),
        ] {
            assert_eq!(text.parse(), Ok(weight));
            assert_eq!(weight.to_string(), text);
        }
        assert_eq!("configured".parse(), Ok(RuntimeWeight::CONFIGURED));
        for text in ["", "%", "257", "-1", "+1", "1.5", "50 %", "50%%", "70000%", "half"] {
            assert_eq!(text.parse::<RuntimeWeight>(), Err(NoWeight), "{text:?}");
        }
    }

    #[test]
    fn a_percentage_is_of_the_configured_weight_and_keeps_its_fractions() {
        assert_eq!(RuntimeWeight::Percent(50).hundredths(100), 50 * HUNDREDTHS);
        assert_eq!(RuntimeWeight::Percent(50).hundredths(1), HUNDREDTHS / 2);
        assert_eq!(RuntimeWeight::Percent(300).hundredths(100), 256 * HUNDREDTHS);
        assert_eq!(RuntimeWeight::Percent(u16::MAX).hundredths(256), 256 * HUNDREDTHS);
        assert_eq!(RuntimeWeight::Absolute(7).hundredths(100), 7 * HUNDREDTHS);
        assert_eq!(RuntimeWeight::Percent(0).hundredths(100), 0);
    }

    #[test]
    fn backends_are_named_with_their_service() {
        let name: BackendName = "mysql/db1".parse().unwrap();
        assert_eq!((name.service.as_str(), name.backend.as_str()), ("mysql", "db1"));
        for text in ["", "db1", "/db1", "mysql/", "/"] {
            assert_eq!(text.parse::<BackendName>(), Err(NoBackendName), "{text:?}");
        }
    }
}
