//! A limit of connections that is said at run time.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The greatest limit that can be configured, and so the greatest that an operator can say.
const GREATEST: u32 = 8_388_608;

/// A limit of connections to use instead of the configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RuntimeMaxconn {
    /// The one that the configuration says.
    Configured,
    /// So many connections; zero for any number.
    Absolute(u32),
}

/// It is no limit of connections.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write a number of connections, 0 to 8388608, where 0 is no limit, or `configured`")]
pub struct NoMaxconn;

impl RuntimeMaxconn {
    /// What it comes to if this limit is configured; none for no limit.
    pub(in crate::core) fn limit(self, configured: Option<NonZeroU32>) -> Option<NonZeroU32> {
        match self {
            Self::Configured => configured,
            Self::Absolute(maxconn) => NonZeroU32::new(maxconn),
        }
    }
}

impl FromStr for RuntimeMaxconn {
    type Err = NoMaxconn;

    fn from_str(text: &str) -> Result<Self, NoMaxconn> {
        if text == "configured" {
            return Ok(Self::Configured);
        }
        // `parse` would take a plus.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoMaxconn);
        }
        let maxconn = text.parse().ok().filter(|maxconn| *maxconn <= GREATEST);
        maxconn.map(Self::Absolute).ok_or(NoMaxconn)
    }
}

impl TryFrom<String> for RuntimeMaxconn {
    type Error = NoMaxconn;

    fn try_from(text: String) -> Result<Self, NoMaxconn> {
        text.parse()
    }
}

impl From<RuntimeMaxconn> for String {
    fn from(maxconn: RuntimeMaxconn) -> Self {
        maxconn.to_string()
    }
}

impl fmt::Display for RuntimeMaxconn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("configured"),
            Self::Absolute(maxconn) => maxconn.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_in_the_configuration() {
        for (text, maxconn) in [
            ("0", RuntimeMaxconn::Absolute(0)),
            ("300", RuntimeMaxconn::Absolute(300)),
            ("8388608", RuntimeMaxconn::Absolute(GREATEST)),
            ("configured", RuntimeMaxconn::Configured),
        ] {
            assert_eq!(text.parse(), Ok(maxconn));
            assert_eq!(maxconn.to_string(), text);
        }
        for text in ["", "-1", "+1", "1.5", "50%", "8388609", "99999999999", "300 ", "none"] {
            assert_eq!(text.parse::<RuntimeMaxconn>(), Err(NoMaxconn), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_no_limit_whatever_is_configured() {
        let configured = NonZeroU32::new(300);
        assert_eq!(RuntimeMaxconn::Configured.limit(configured), configured);
        assert_eq!(RuntimeMaxconn::Configured.limit(None), None);
        assert_eq!(RuntimeMaxconn::Absolute(0).limit(configured), None);
        assert_eq!(RuntimeMaxconn::Absolute(7).limit(None), NonZeroU32::new(7));
    }
}
