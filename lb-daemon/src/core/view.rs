//! What an operator can see: the contents of `tandem status --json`, and the source of the table
//! and of the metrics.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::event::Reason;

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
    /// The services, in the order of the file.
    pub services: Vec<ServiceStatus>,
    /// Packets by verdict, all of them, also those that are zero.
    pub verdicts: BTreeMap<String, u64>,
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

/// Whether something serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Healthy.
    Up,
    /// Not healthy.
    #[default]
    Down,
    /// Healthy, but weight 0: keeps its connections and gets no new ones.
    Drain,
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
    /// Its address and port.
    pub address: Option<SocketAddr>,
    /// `active` or `backup`.
    pub role: String,
    /// Its weight.
    pub weight: u16,
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
    /// Its traffic.
    pub traffic: Traffic,
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
    /// How many times the backend went down.
    pub downs: u64,
}

/// Traffic of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections that are not closed.
    pub active: u64,
    /// Connections opened.
    pub connections: u64,
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
    /// The flow tables.
    pub tables: Vec<TableStatus>,
    /// Packets by verdict.
    pub verdicts: BTreeMap<String, u64>,
}
