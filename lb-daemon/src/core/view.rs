//! What an operator can see: the contents of `tandem status --json`, and the source of the table
//! and of the metrics.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{admission::QueueView, event::Reason, group::Role, sync};

/// The whole daemon at one moment. Times are seconds, ages are relative to the snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Name of this node.
    pub node: String,
    /// Version of the daemon.
    pub version: String,
    /// How long the daemon has been running.
    pub uptime_seconds: u64,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// Where the XDP program is attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// The flow tables, by family.
    pub tables: Vec<TableStatus>,
    /// The groups, in the order of the file.
    #[serde(default)]
    pub groups: Vec<GroupStatus>,
    /// How it stands between this host and its peer; none without `[sync]`.
    #[serde(default)]
    pub sync: Option<SyncStatus>,
    /// The services, in the order of the file.
    pub services: Vec<ServiceStatus>,
    /// What is kept of backends that are not in the configuration any more.
    #[serde(default)]
    pub orphans: Vec<OrphanStatus>,
    /// Why what operators said of backends is not on the disk; none if it is.
    #[serde(default)]
    pub not_kept: Option<String>,
    /// Why clients do not wait where connections are limited, but are turned away; none if they wait, or never
    /// have to.
    #[serde(default)]
    pub nobody_waits: Option<String>,
    /// Packets by verdict, all of them, also those that are zero.
    pub verdicts: BTreeMap<String, u64>,
    /// SYN-ACKs of synchronous services that were not held back, for want of room.
    pub unheld: u64,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Its file.
    pub path: String,
    /// Configurations put in force since the start; 1 after the start.
    pub generation: u64,
    /// How long it has been in force.
    pub age_seconds: u64,
    /// Why the last reload was refused, if it was.
    pub last_error: Option<String>,
}

/// An interface with the XDP program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `native` or `generic`: the mode in force.
    pub mode: String,
}

/// One family's flow table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TableStatus {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Connections with entries in the table, closed ones that still linger included.
    pub connections: u64,
    /// Connections there is room for.
    pub capacity: u64,
    /// Connections whose handshake is under way.
    pub half_open: u64,
    /// Half-open connections there is room for.
    pub half_open_capacity: u64,
    /// Half-open connections that had to make room for others.
    pub evicted: u64,
}

/// The conversation with the peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// This host's address and port.
    pub listen: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Callers that were hung up on since the daemon started: not the peer, or without its key.
    pub refused: u64,
    /// What the two say to each other.
    pub conversation: sync::View,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// `VRRPv2`, `VRRPv3` or `CARP`.
    pub protocol: String,
    /// Virtual router identifier, or virtual host identifier.
    pub id: u8,
    /// Interface that adverts are sent and received by.
    pub interface: String,
    /// Its addresses with their prefixes, `10.2.2.4/24`, and with their interface if that is another:
    /// `10.3.3.4/24 dev eth1`.
    pub addresses: Vec<String>,
    /// This host's role.
    pub role: Role,
    /// How long it has had that role.
    pub since_seconds: u64,
    /// Why it has that role, or none yet; for people.
    pub why: String,
    /// Why this host must not hold the group, for people; empty if it may.
    pub faults: Vec<String>,
    /// Configured priority; of CARP, 255 less `advskew`.
    pub priority: u8,
    /// Priority in force, with what is tracked.
    pub effective_priority: u8,
    /// Address of the other host that is master, if one is known.
    pub master: Option<IpAddr>,
    /// How long the data plane would serve the group without another advert being sent, in
    /// milliseconds; none if it does not.
    pub lease_ms: Option<u64>,
    /// Why this host's adverts cannot be sent, or what is wrong with those of another, for people;
    /// none if nothing is.
    #[serde(default)]
    pub problem: Option<String>,
    /// The last claim of another host to an address of the group, if it is not long ago.
    #[serde(default)]
    pub claim: Option<ClaimStatus>,
    /// Claims of other hosts to addresses that this one held, since the daemon started: repeated
    /// ones count once in ten seconds.
    #[serde(default)]
    pub claims: u64,
    /// How often an address was put back onto its interface that somebody else had taken off, since the
    /// daemon started.
    #[serde(default)]
    pub put_back: u64,
    /// Adverts since the daemon started.
    pub adverts: AdvertCounts,
    /// How often this host took each role since the daemon started, by the role's name; also
    /// `MASTER` for a conflict that has healed.
    pub taken: BTreeMap<String, u64>,
    /// The last changes of role, the newest first.
    pub transitions: Vec<TransitionStatus>,
    /// What it tracks.
    pub tracked: Vec<TrackedStatus>,
}

/// Another host claims an address that this one holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimStatus {
    /// The address.
    pub address: IpAddr,
    /// The other host's Ethernet address.
    pub mac: String,
    /// The interface that it was heard by.
    pub interface: String,
    /// How long ago.
    pub age_seconds: u64,
}

/// Adverts of a group since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertCounts {
    /// Sent.
    pub sent: u64,
    /// Received and taken for good.
    pub received: u64,
    /// Received and discarded, by reason.
    pub discarded: BTreeMap<String, u64>,
}

/// A change of role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionStatus {
    /// Role before.
    pub from: Role,
    /// Role after.
    pub to: Role,
    /// Priority in force then.
    pub priority: u8,
    /// Why, for people.
    pub why: String,
    /// How long ago it was.
    pub age_seconds: u64,
}

/// Something that a group tracks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedStatus {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What its state adds to the priority; zero if its failure is a fault.
    pub weight: i16,
    /// How it is.
    pub condition: Condition,
    /// Why it is failed, for people.
    pub failure: Option<String>,
}

/// Kind of a tracked thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An interface of this host.
    Interface,
    /// A script of the configuration.
    Script,
    /// A process of the configuration.
    Process,
    /// A service of the configuration.
    Service,
}

impl Kind {
    /// Its name in status, metrics and log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Script => "script",
            Self::Process => "process",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a tracked thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Not known yet: a script that has not run.
    Unknown,
    /// As it should be.
    Well,
    /// Not so.
    Failed,
}

/// Whether something serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Healthy.
    Up,
    /// Not healthy.
    #[default]
    Down,
    /// Healthy, but drained or of weight 0: keeps its connections and gets no new ones.
    Drain,
    /// In maintenance: not checked, and gets no new connections.
    Maint,
    /// Not checked, taken for healthy.
    Unchecked,
}

/// One service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its addresses and ports.
    pub bind: Vec<SocketAddr>,
    /// Its balance algorithm, by its name in the configuration.
    pub balance: String,
    /// Up if a new connection finds a backend.
    pub state: State,
    /// Connections that are not closed, those with backends included that are not configured any more.
    #[serde(default)]
    pub active: u64,
    /// Most connections that it may have; none for no limit.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Who waits for a place; none if nobody ever has to.
    #[serde(default)]
    pub queue: Option<QueueStatus>,
    /// Its backends, in the order of the file.
    pub backends: Vec<BackendStatus>,
}

/// One backend.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its number in the data plane.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its address and port; none as long as its host name does not resolve.
    pub address: Option<SocketAddr>,
    /// The host name that its address comes from; none if it has none.
    #[serde(default)]
    pub host: Option<HostStatus>,
    /// `active` or `backup`.
    pub role: String,
    /// Its configured weight.
    pub weight: u16,
    /// Its weight in force.
    #[serde(default)]
    pub effective_weight: f64,
    /// Most connections that it may have by its configuration; none for no limit.
    #[serde(default)]
    pub configured_limit: Option<u32>,
    /// Most connections that it may have by now; none for no limit.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Clients that wait for this very backend, because their address leads them to it.
    #[serde(default)]
    pub queue: u64,
    /// Most that ever did at once, since the daemon started.
    #[serde(default)]
    pub queue_most: u64,
    /// What was said of it at run time, and differs from the configuration.
    #[serde(default)]
    pub overrides: Vec<OverrideStatus>,
    /// How far its slow start is; none if there is none under way.
    #[serde(default)]
    pub slow_start: Option<SlowStartStatus>,
    /// Its health.
    pub state: State,
    /// How long it has been in this state.
    pub since_seconds: u64,
    /// Whether it gets new connections now.
    pub eligible: bool,
    /// Why a healthy backend is not eligible, for people.
    pub why: Option<String>,
    /// Its last check; none if it is not checked or was not yet.
    pub check: Option<CheckStatus>,
    /// What has come of failed handshakes of clients; none if nothing is to come of them.
    #[serde(default)]
    pub observe: Option<ObserveStatus>,
    /// What its agent said last; none if it has none, or it was not asked yet.
    #[serde(default)]
    pub agent: Option<AgentStatus>,
    /// Its traffic.
    pub traffic: Traffic,
}

/// The host name of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The name.
    pub name: String,
    /// How long ago it resolved; none if it never did.
    pub age_seconds: Option<u64>,
    /// Why it did not resolve when it was last asked for, for people; none if it did.
    pub problem: Option<String>,
}

/// Who waits for a place at a service's backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Clients that wait now, those that wait for a certain backend included.
    pub waiting: u64,
    /// Most that ever did at once, since the daemon started.
    pub most: u64,
    /// For how long the first of them has been waiting, in milliseconds; zero if nobody waits.
    pub oldest_ms: u64,
    /// Clients that had to wait, since the daemon started, ...
    pub queued: u64,
    /// ... those that did so for too long, and were answered by a RST, ...
    pub timed_out: u64,
    /// ... and those that were so at once, because as many waited as may.
    pub refused: u64,
}

impl From<&QueueView> for QueueStatus {
    fn from(view: &QueueView) -> Self {
        let &QueueView { waiting, most, queued, timed_out, refused, oldest, .. } = view;
        let oldest_ms = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        Self { waiting, most, oldest_ms, queued, timed_out, refused }
    }
}

/// The slow start of a backend that has recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowStartStatus {
    /// Share of its weight that it has by now, in per cent.
    pub percent: u16,
    /// How long until it has all of it.
    pub left_seconds: u64,
}

/// Something that was said of a backend at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideStatus {
    /// What: `drain`, `maint`, `weight 50%`, `maxconn 30`.
    pub what: String,
    /// Who said so: `operator`.
    pub by: String,
    /// How long ago.
    pub since_seconds: u64,
}

/// What was said of a backend that is not in the configuration any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanStatus {
    /// Name of the service.
    pub service: String,
    /// Name of the backend.
    pub backend: String,
    /// What was said.
    pub overrides: Vec<OverrideStatus>,
}

/// The last check of a backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckStatus {
    /// How it ended.
    pub reason: Reason,
    /// What exactly, for people.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How long ago it ended, in milliseconds.
    pub age_ms: u64,
    /// How many checks passed since the daemon started.
    pub passed: u64,
    /// How many checks failed since the daemon started.
    pub failed: u64,
    /// How many of these came since the last that passed.
    #[serde(default)]
    pub failing: u64,
    /// How many times the backend went down.
    pub downs: u64,
}

/// Failed handshakes of clients as a sign of a backend's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserveStatus {
    /// How many in a row are too many.
    pub error_limit: u32,
    /// What comes of too many: `fastinter`, `fail-check`, `sudden-death`, `mark-down`.
    pub on_error: String,
    /// How many times there were too many since the daemon started.
    pub alarms: u64,
}

/// The last answer of a backend's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Whether it lets the backend be up, by what it said last of its health.
    pub up: bool,
    /// Its line; none if it was silent.
    pub answer: Option<String>,
    /// Why there was no line, or what of it has no meaning; for people.
    pub problem: Option<String>,
    /// How many connections it wants at most, if it has said so.
    pub maxconn: Option<u32>,
    /// How long ago it answered, or did not, in milliseconds.
    pub age_ms: u64,
}

/// Traffic of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections that are not closed.
    pub active: u64,
    /// Connections opened.
    pub connections: u64,
    /// Those of them that it refused, or did not answer.
    #[serde(default)]
    pub connection_errors: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients: whole IP packets.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients: whole IP packets.
    pub bytes_out: u64,
}

/// What the data plane has counted, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Traffic by backend number.
    pub backends: BTreeMap<u16, Traffic>,
    /// Connections that are not closed, by service number.
    pub active: BTreeMap<u16, u64>,
    /// Who waits for a place, by service number.
    pub queues: BTreeMap<u16, QueueView>,
    /// The flow tables.
    pub tables: Vec<TableStatus>,
    /// Packets by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// SYN-ACKs that should have waited for the peer, and were sent on for want of room.
    pub unheld: u64,
}

/// What the elections have come to, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Elections {
    /// By name of the group.
    pub groups: BTreeMap<String, Election>,
}

/// One group's election.
#[derive(Clone, Debug)]
pub struct Election {
    /// This host's role.
    pub role: Role,
    /// Since when.
    pub since: Instant,
    /// Priority in force; of CARP, 255 less `advskew` in force.
    pub priority: u8,
    /// Address of the other host that is master, if one is known.
    pub master: Option<IpAddr>,
    /// Until when the data plane serves the group; none if it does not.
    pub lease: Option<Instant>,
    /// Why it has that role, for people.
    pub why: String,
    /// Why the last advert could not be sent, or what is wrong with the last that came in, for people;
    /// none if nothing is.
    pub problem: Option<String>,
    /// Adverts since the daemon started.
    pub adverts: AdvertCounts,
}
