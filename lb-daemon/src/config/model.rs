//! The validated model. Whoever holds a [`Config`] need not check anything again.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{
    check_model::Check,
    group_model::{Group, Process, Script},
};

/// A whole configuration file, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[global]`
    pub global: Global,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
    /// `[sync]`: the other host that is told of connections; none if there is none.
    pub sync: Option<Arc<Peer>>,
    /// `[[group]]`, in the order of the file; names are unique. At most [`MAX_GROUPS`].
    pub groups: Vec<Arc<Group>>,
    /// `[[script]]`, in the order of the file; names are unique.
    pub scripts: Vec<Arc<Script>>,
    /// `[[process]]`, in the order of the file; names are unique.
    pub processes: Vec<Arc<Process>>,
    /// `[[service]]`, in the order of the file; names are unique.
    pub services: Vec<Arc<Service>>,
}

/// Groups in one file.
pub const MAX_GROUPS: usize = 63;

/// What concerns the whole node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Name of this node in status, metrics and logs; the host's name by default.
    pub node: String,
    /// Interfaces the XDP program is attached to; at least one, no duplicates.
    pub interfaces: Vec<String>,
    /// How it is attached.
    pub xdp_mode: XdpMode,
    /// Connections the flow table of each address family has room for.
    pub maxconn: u32,
    /// Connections of each family that may be half open at once; a power of two.
    pub max_half_open: u32,
    /// Ports that clients are translated to.
    pub source_ports: RangeInclusive<u16>,
    /// Directory on a bpffs that maps and links are pinned under.
    pub bpffs: PathBuf,
    /// How often host names of backends are resolved.
    pub resolve_interval: Duration,
}

/// How the XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Native if the driver can, else generic.
    Auto,
    /// In the driver; an error if it can't.
    Native,
    /// In the kernel's generic receive path.
    Generic,
}

/// Where the daemon can be talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Unix socket of `tandem status`, `reload`, ...
    pub socket: PathBuf,
    /// Address of the Prometheus endpoint (`/metrics`); none if not set.
    pub metrics: Option<SocketAddr>,
    /// File that what operators said of backends is kept in.
    pub state_file: PathBuf,
}

/// How the daemon logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lowest level that is logged, as `tracing` names it: error, warn, info, debug, trace.
    pub level: String,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The other host, which is told of connections and tells of its own, so that they survive either.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// Address and port that this host talks to the other from and is called at.
    pub listen: SocketAddr,
    /// The other's. It is another address of the same family.
    pub peer: SocketAddr,
    /// Secret that both hosts share.
    pub key: String,
    /// File that it was read from, if it does not stand in the configuration.
    pub key_file: Option<PathBuf>,
    /// How long a host waits for the other's connections before it takes over from it although it
    /// does not have them all.
    pub preempt_wait: Duration,
    /// How long packets without a flow are dropped rather than answered by a RST after a takeover,
    /// unless it is known before that nothing is to come any more.
    pub grace: Duration,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's business.
        f.debug_struct("Peer")
            .field("listen", &self.listen)
            .field("peer", &self.peer)
            .field("preempt_wait", &self.preempt_wait)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// A virtual address and port (or several), and the backends behind it.
///
/// All its addresses are of one family: the translation does not change families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Addresses and ports clients connect to; at least one, none bound twice in the file.
    pub bind: Vec<SocketAddr>,
    /// Index in [`Config::groups`] of the group that holds its addresses, all of them; none if the
    /// host has them for itself.
    pub group: Option<usize>,
    /// How a backend is chosen.
    pub balance: Balance,
    /// When all active backends are down: all backups share (true) or the first one serves.
    pub allbackups: bool,
    /// Whether a client learns that it is connected only when the peer knows of the connection.
    pub synchronous: bool,
    /// Most connections that it has at once, those that only linger aside; none for no limit.
    pub maxconn: Option<NonZeroU32>,
    /// Idle timeouts.
    pub timeout: Timeouts,
    /// Addresses that clients are translated to, at most four; the address that the route to a
    /// backend prefers if empty.
    pub source: Vec<IpAddr>,
    /// Its backends, in the order of the file; names are unique within the service.
    pub backends: Vec<Backend>,
}

/// Balance algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Weighted turns.
    RoundRobin,
    /// Fewest connections by weight; ties in turn.
    LeastConn,
    /// Consistent hash of the client's address.
    Source,
    /// Consistent hash of the client's address and port.
    Hash,
}

impl Balance {
    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::LeastConn => "leastconn",
            Self::Source => "source",
            Self::Hash => "hash",
        }
    }
}

/// Timeouts of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Longest time for a handshake with a backend.
    pub connect: Duration,
    /// Longest time that a client waits for a place where connections are limited; as
    /// [`connect`](Self::connect) by default.
    pub queue: Duration,
    /// Longest silence of a client.
    pub client: Duration,
    /// Longest silence of a backend.
    pub server: Duration,
    /// Longest silence of a client once either side has closed its half of the connection; as
    /// [`client`](Self::client) by default.
    pub client_fin: Duration,
    /// Longest silence of a backend from then on; as [`server`](Self::server) by default.
    pub server_fin: Duration,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Name, unique within the service.
    pub name: String,
    /// Address and port. As long as a host name is not resolved, the address is unspecified
    /// (`0.0.0.0`); so are those of check and agent, if they are asked at the backend's own.
    pub address: SocketAddr,
    /// Host name that stands in place of the address; none if there is none.
    pub host: Option<String>,
    /// Share of new connections, 0 to 256; 0 drains.
    pub weight: u16,
    /// How many connections it takes.
    pub limits: Limits,
    /// When it is used.
    pub role: Role,
    /// What becomes of its connections when its check finds it down.
    pub on_marked_down: OnMarkedDown,
    /// How long its weight climbs after a recovery; none if it has all of it at once.
    pub slowstart: Option<Duration>,
    /// What comes of handshakes with it that fail; none if nothing does. There is one only where there
    /// is a check.
    pub observe: Option<Observe>,
    /// Its health check; none if checks are disabled.
    pub check: Option<Arc<Check>>,
    /// Its agent, which says more of it; none if there is none.
    pub agent: Option<Arc<AgentCheck>>,
}

/// How many connections a backend takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most connections that it has at once, those that only linger aside; none for no limit.
    pub maxconn: Option<NonZeroU32>,
    /// Most clients that wait for a place; none for no limit.
    pub maxqueue: Option<NonZeroU32>,
}

impl Backend {
    /// The same at the address `ip`, which its host name resolves to.
    #[must_use]
    pub fn at(&self, ip: IpAddr) -> Self {
        let place = |target: SocketAddr| {
            let ip = if target.ip().is_unspecified() { ip } else { target.ip() };
            SocketAddr::new(ip, target.port())
        };
        let check = |check: &Check| Check { target: place(check.target), ..check.clone() };
        let agent =
            |agent: &AgentCheck| AgentCheck { target: place(agent.target), ..agent.clone() };
        Self {
            address: place(self.address),
            check: self.check.as_deref().map(|it| Arc::new(check(it))),
            agent: self.agent.as_deref().map(|it| Arc::new(agent(it))),
            ..self.clone()
        }
    }

    /// Whether its address is known.
    pub const fn is_resolved(&self) -> bool {
        !self.address.ip().is_unspecified()
    }

    /// Whether this and another one, of another configuration, have the same host name and port.
    pub fn has_same_host_as(&self, other: &Self) -> bool {
        self.host.is_some()
            && self.host == other.host
            && self.address.port() == other.address.port()
    }

    /// Whether this and another one, of another configuration, have the same address, and it is known.
    pub fn has_same_address_as(&self, other: &Self) -> bool {
        self.address == other.address && self.is_resolved()
    }
}

/// How failed handshakes of clients count as a sign of a backend's health, all defaults resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observe {
    /// How many in a row count.
    pub error_limit: u32,
    /// What comes of so many.
    pub on_error: OnError,
}

/// What comes of too many failed handshakes in a row. The next check comes sooner in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Nothing else.
    FastInter,
    /// They are a failed check.
    FailCheck,
    /// They are a failed check, and the next one takes the backend down.
    SuddenDeath,
    /// The backend is down.
    MarkDown,
}

impl OnError {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::FastInter, Self::FailCheck, Self::SuddenDeath, Self::MarkDown];

    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FastInter => "fastinter",
            Self::FailCheck => "fail-check",
            Self::SuddenDeath => "sudden-death",
            Self::MarkDown => "mark-down",
        }
    }
}

/// An agent on a backend, all defaults resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCheck {
    /// Address and port that it is asked at.
    pub target: SocketAddr,
    /// What it is sent; nothing if empty.
    pub send: String,
    /// Time from the start of one question to the start of the next, and longest time for an answer.
    pub inter: Duration,
}

/// When a backend is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Always.
    Active,
    /// Only when no active backend is usable.
    Backup,
}

impl Role {
    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Backup => "backup",
        }
    }
}

/// What becomes of a backend's connections when it goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMarkedDown {
    /// They stay, for as long as both sides have them.
    None,
    /// They end: the next packet of either side is answered by a RST.
    ShutdownSessions,
}

impl OnMarkedDown {
    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ShutdownSessions => "shutdown-sessions",
        }
    }
}
