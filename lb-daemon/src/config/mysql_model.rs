//! What a MySQL check asks, validated.

use std::{
    fmt::{self, Display},
    path::PathBuf,
    time::Duration,
};

use regex::bytes::Regex;

/// A MySQL check. Without a login, the greeting is all that is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MysqlCheck {
    /// Who logs in, if anybody does.
    pub login: Option<MysqlLogin>,
    /// What is asked after the login, if anything is; nothing without a login.
    pub question: Option<MysqlQuestion>,
}

/// A user of MySQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlLogin {
    /// Its name.
    pub user: String,
    /// Its password; empty if it has none.
    pub password: Password,
    /// File that the password was read from, if it does not stand in the configuration.
    pub password_file: Option<PathBuf>,
}

/// A password, which no log shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// This text as a password.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// What is asked of a server, and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MysqlQuestion {
    /// Whether it is a synced member of a Galera cluster.
    Galera {
        /// Whether one that is a donor, or desynced, is good too.
        available_when_donor: bool,
        /// Whether one that is read-only is not.
        not_when_read_only: bool,
    },
    /// Whether it takes writes.
    Writable,
    /// Whether it is a replica that replicates.
    Replica {
        /// How far behind it may be, in whole seconds; as far as it likes if not set.
        max_lag: Option<Duration>,
    },
    /// A query of the operator's own; the first column of its first row is the answer.
    Sql {
        /// The query.
        query: String,
        /// The good answers; any if not set. `NULL` is none, and neither is no row.
        expect: Option<MysqlExpect>,
    },
}

/// Which answers to a query are good.
#[derive(Clone, Debug)]
pub enum MysqlExpect {
    /// Exactly this.
    Text(String),
    /// What has a match of this expression, anywhere.
    Regex(Regex),
}

impl MysqlExpect {
    /// Whether this answer is good.
    pub fn is_met_by(&self, answer: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.as_bytes() == answer,
            Self::Regex(regex) => regex.is_match(answer),
        }
    }
}

impl Display for MysqlExpect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

impl PartialEq for MysqlExpect {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl Eq for MysqlExpect {}
