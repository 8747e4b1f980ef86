//! The validated model of health checks.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use regex::bytes::Regex;

use super::{mysql_model::MysqlCheck, tls_model::Tls};

/// A health check, all defaults resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Address and port that are checked.
    pub target: SocketAddr,
    /// Time from the start of one check to the start of the next.
    pub inter: Duration,
    /// The same while the state is changing.
    pub fastinter: Duration,
    /// The same while the backend is down.
    pub downinter: Duration,
    /// Consecutive successes that bring a backend up.
    pub rise: u32,
    /// Consecutive failures that take a backend down.
    pub fall: u32,
    /// Longest time for a whole check.
    pub timeout: Duration,
    /// Address that checks are made from; the kernel's choice if none.
    pub source: Option<IpAddr>,
    /// Whether TLS is spoken from the beginning; never with MySQL, whose TLS begins later.
    pub ssl: bool,
    /// How TLS is spoken; none if it never is.
    pub tls: Option<Arc<Tls>>,
    /// What is checked.
    pub kind: CheckKind,
}

impl Check {
    /// Whether the other one asks the same, however often and whatever follows from the answers.
    pub fn asks_the_same_as(&self, other: &Self) -> bool {
        (self.target, self.source, self.ssl) == (other.target, other.source, other.ssl)
            && self.tls == other.tls
            && self.kind == other.kind
    }
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Opens a TCP connection and closes it.
    Connect,
    /// Plays a script over a TCP connection.
    Tcp(Vec<TcpStep>),
    /// Sends an HTTP request.
    Http(HttpCheck),
    /// Talks to MySQL.
    Mysql(MysqlCheck),
    /// Runs a command.
    External(ExternalCheck),
}

impl CheckKind {
    /// Whether it may speak TLS although it does not from the beginning.
    pub fn may_begin_tls(&self) -> bool {
        let Self::Tcp(steps) = self else { return false };
        let connects = steps.iter().filter_map(|step| match &step.action {
            TcpAction::Connect(connect) => Some(connect),
            _ => None,
        });
        connects.into_iter().any(|connect| connect.ssl == Some(true))
    }
}

/// A step of a tcp-check, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpStep {
    /// What it does.
    pub action: TcpAction,
    /// What the operator calls it, in messages about it.
    pub comment: Option<String>,
}

/// What a step of a tcp-check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpAction {
    /// Opens another connection, and gives the one before up. If a script has such steps, it begins
    /// with one.
    Connect(TcpConnect),
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits until what came since the last send is as expected.
    Expect(TcpExpect),
}

/// Where a connection of a tcp-check goes. What is not said is as the check has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpConnect {
    /// Address.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: Option<u16>,
    /// Whether TLS is spoken.
    pub ssl: Option<bool>,
}

/// What is expected of what came since the last send, within its first 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpExpect {
    /// What is looked for.
    pub pattern: Pattern,
    /// Whether it must not be there.
    pub negated: bool,
    /// The verdict is final as soon as this many bytes have come. Without it, more is waited for
    /// until the pattern is found, or nothing more comes.
    pub min_recv: Option<u16>,
}

/// What an answer is searched for.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// These bytes, anywhere.
    String(Vec<u8>),
    /// A match of this expression, anywhere.
    Regex(Regex),
}

impl Pattern {
    /// Whether it is in `bytes`.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        match self {
            Self::String(wanted) if wanted.is_empty() => true,
            Self::String(wanted) => bytes.windows(wanted.len()).any(|window| window == wanted),
            Self::Regex(regex) => regex.is_match(bytes),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl Eq for Pattern {}

/// An HTTP check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Method, `OPTIONS` by default as in HAProxy.
    pub method: String,
    /// Path and query, `/` by default.
    pub uri: String,
    /// Version of the request.
    pub version: HttpVersion,
    /// Value of the `Host` header. By default, the target's address in HTTP/1.1, and none in
    /// HTTP/1.0.
    pub host: Option<String>,
    /// Names and values of more headers, in the order of the file.
    pub headers: Vec<(String, String)>,
    /// Body of the request; none if it is empty.
    pub body: String,
    /// What the answer must be like: all of it. At least one; a status of 200 to 399 by default.
    pub expects: Vec<HttpExpect>,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0
    V10,
    /// HTTP/1.1
    V11,
}

impl HttpVersion {
    /// The number, as configuration and protocol have it.
    pub const fn number(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
        }
    }
}

/// What is expected of an answer to an HTTP check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpExpect {
    /// What is looked for, and where.
    pub subject: HttpSubject,
    /// Whether it must not be there.
    pub negated: bool,
}

/// A part of an HTTP answer, and what is looked for there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpSubject {
    /// A status code within one of these ranges.
    Status(Vec<StatusRange>),
    /// A status code that, written out, this is in.
    StatusText(Pattern),
    /// A body that this is in.
    Body(Pattern),
}

/// An inclusive range of HTTP status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// Lowest accepted code.
    pub first: u16,
    /// Highest accepted code.
    pub last: u16,
}

impl StatusRange {
    /// Statuses that pass if nothing else is expected, as in HAProxy.
    pub const GOOD: Self = Self { first: 200, last: 399 };

    /// Whether `code` is one of them.
    pub const fn holds(self, code: u16) -> bool {
        self.first <= code && code <= self.last
    }
}

/// A command that says how a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalCheck {
    /// The program and its arguments; HAProxy's follow.
    pub command: Vec<String>,
    /// Its `PATH`, if that is not to be the usual one.
    pub path: Option<String>,
    /// User it runs as.
    pub user: String,
}
