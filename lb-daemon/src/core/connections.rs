//! The connections of the flow tables, as an operator asks for them: which ones, and by which names.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use lb_common::flow;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A connection as the data plane has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's address and port.
    pub client: SocketAddr,
    /// What it connected to.
    pub bind: SocketAddr,
    /// What the backend takes it for.
    pub source: SocketAddr,
    /// The backend's address and port.
    pub server: SocketAddr,
    /// Number of the service.
    pub service: u16,
    /// Number of the backend.
    pub backend: u16,
    /// State bits, as in `lb_common::flow`.
    pub state: u8,
    /// How long the client has been silent.
    pub client_idle: Duration,
    /// How long the backend has been silent.
    pub server_idle: Duration,
    /// How long this host has known the connection.
    pub age: Duration,
    /// Whether the other host, or a daemon with other maps, told of it, and nothing of the client has
    /// come by here since.
    pub adopted: bool,
}

/// A connection as `tandem flows --json` shows it. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The client's address and port.
    pub client: SocketAddr,
    /// What it connected to.
    pub bind: SocketAddr,
    /// What the backend takes it for.
    pub source: SocketAddr,
    /// The backend's address and port.
    pub server: SocketAddr,
    /// Name of the service; none if it is not in the configuration any more.
    pub service: Option<String>,
    /// Name of the backend; none if it is not in the configuration any more.
    pub backend: Option<String>,
    /// How far it is.
    pub state: ConnectionState,
    /// How long the client has been silent: up to a 64th of the shorter timeout less than is said.
    pub client_idle_ms: u64,
    /// How long the backend has been silent, as exactly.
    pub server_idle_ms: u64,
    /// How long this host has known the connection.
    pub age_ms: u64,
    /// Whether the other host, or a daemon with other maps, told of it, and nothing of the client has
    /// come by here since.
    pub adopted: bool,
}

/// How far a connection is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// The handshake is under way.
    Opening,
    /// It is complete.
    Established,
    /// One side has closed its half.
    Closing,
    /// Both have, or one has reset it: only late packets are waited for.
    Closed,
}

impl ConnectionState {
    /// All of them, in the order of a connection's life.
    pub const ALL: [Self; 4] = [Self::Opening, Self::Established, Self::Closing, Self::Closed];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    /// The state that the bits of a life word say.
    pub const fn of(state: u8) -> Self {
        if flow::is_closed(state) {
            Self::Closed
        } else if flow::is_half_open(state) {
            Self::Opening
        } else if state & (flow::CLIENT_FIN | flow::SERVER_FIN) != 0 {
            Self::Closing
        } else {
            Self::Established
        }
    }
}

/// Which connections are asked for: those that all of it holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFilter {
    /// Name of their service.
    pub service: Option<String>,
    /// Name of their backend: `BACKEND`, or `SERVICE/BACKEND`.
    pub backend: Option<String>,
    /// Where their client is.
    pub client: Option<Prefix>,
    /// How far they are.
    pub state: Option<ConnectionState>,
}

/// Addresses that begin alike: `10.2.0.0/16`, `fd00::/8`, or a single one, `10.2.2.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// An address with that beginning.
    pub ip: IpAddr,
    /// Bits of the beginning.
    pub length: u8,
}

/// It is no address and no prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write an address or a prefix: 10.2.2.7, 10.2.0.0/16 or fd00::/8")]
pub struct NoPrefix;

impl FromStr for Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let (ip, length) = text.split_once('/').map_or((text, None), |(ip, n)| (ip, Some(n)));
        let ip: IpAddr = ip.parse().map_err(|_| NoPrefix)?;
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(all), str::parse).map_err(|_| NoPrefix)?;
        if length > all { Err(NoPrefix) } else { Ok(Self { ip, length }) }
    }
}

impl Prefix {
    /// Whether the address begins so.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(ours), IpAddr::V4(ip)) => {
                let rest = 32 - u32::from(self.length);
                u64::from(ours.to_bits()) >> rest == u64::from(ip.to_bits()) >> rest
            }
            (IpAddr::V6(ours), IpAddr::V6(ip)) => {
                let differing = (ours.to_bits() ^ ip.to_bits()).leading_zeros();
                differing >= u32::from(self.length)
            }
            _ => false,
        }
    }
}

/// The names of the services and backends in force, by their numbers in the data plane.
#[derive(Clone, Debug, Default)]
pub struct ConnectionNames {
    /// Names of services.
    pub services: BTreeMap<u16, String>,
    /// Names of backends, each with that of its service.
    pub backends: BTreeMap<u16, (String, String)>,
}

/// A filter names what does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: Vec<String>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, name, known } = self;
        if known.is_empty() {
            return write!(f, "there is no {what} {name}, as there are none at all");
        }
        write!(f, "there is no {what} {name}; there are: {}", known.join(", "))
    }
}

/// A filter, its names replaced by numbers.
#[derive(Clone, Debug)]
pub struct Selection {
    services: Option<BTreeSet<u16>>,
    backends: Option<BTreeSet<u16>>,
    client: Option<Prefix>,
    state: Option<ConnectionState>,
}

impl Selection {
    /// Whether the connection is one of those that are asked for.
    pub fn has(&self, flow: &Flow) -> bool {
        self.services.as_ref().is_none_or(|services| services.contains(&flow.service))
            && self.backends.as_ref().is_none_or(|backends| backends.contains(&flow.backend))
            && self.client.is_none_or(|client| client.contains(flow.client.ip()))
            && self.state.is_none_or(|state| state == ConnectionState::of(flow.state))
    }
}

impl ConnectionNames {
    /// What a filter means here.
    ///
    /// # Errors
    ///
    /// If it names a service or backend that is not in force.
    pub fn select(&self, filter: ConnectionFilter) -> Result<Selection, UnknownName> {
        let ConnectionFilter { service, backend, client, state } = filter;
        let services = service.map(|name| self.services_called(&name)).transpose()?;
        let backends = backend.map(|name| self.backends_called(&name)).transpose()?;
        Ok(Selection { services, backends, client, state })
    }

    fn services_called(&self, name: &str) -> Result<BTreeSet<u16>, UnknownName> {
        let found = self.services.iter().filter(|(_, service)| *service == name);
        let found: BTreeSet<u16> = found.map(|(number, _)| *number).collect();
        let known = || self.services.values().cloned().collect();
        non_empty(found, "service", name, known)
    }

    fn backends_called(&self, name: &str) -> Result<BTreeSet<u16>, UnknownName> {
        let found =
            self.backends.iter().filter(|(_, (service, backend))| match name.split_once('/') {
                Some(both) => both == (service, backend),
                None => backend == name,
            });
        let found: BTreeSet<u16> = found.map(|(number, _)| *number).collect();
        let path = |(service, backend): &(String, String)| format!("{service}/{backend}");
        non_empty(found, "backend", name, || self.backends.values().map(path).collect())
    }

    /// The connection by the names of its service and backend.
    pub fn name(&self, flow: &Flow) -> Connection {
        Connection {
            client: flow.client,
            bind: flow.bind,
            source: flow.source,
            server: flow.server,
            service: self.services.get(&flow.service).cloned(),
            backend: self.backends.get(&flow.backend).map(|(_, backend)| backend.clone()),
            state: ConnectionState::of(flow.state),
            client_idle_ms: millis(flow.client_idle),
            server_idle_ms: millis(flow.server_idle),
            age_ms: millis(flow.age),
            adopted: flow.adopted,
        }
    }
}

fn non_empty(
    found: BTreeSet<u16>,
    what: &'static str,
    name: &str,
    known: impl FnOnce() -> Vec<String>,
) -> Result<BTreeSet<u16>, UnknownName> {
    if found.is_empty() {
        return Err(UnknownName { what, name: name.to_owned(), known: known() });
    }
    Ok(found)
}

/// How many connections a backend has, by their state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCount {
    /// Name of the service; none if it is not in the configuration any more.
    pub service: Option<String>,
    /// Name of the backend; none if it is not in the configuration any more.
    pub backend: Option<String>,
    /// Those whose handshake is under way.
    pub opening: u64,
    /// Those that are established, and neither side has closed its half.
    pub established: u64,
    /// Those of which one side has closed its half.
    pub closing: u64,
    /// Those that are over and linger for late packets.
    pub closed: u64,
    /// Of all these, those that the other host told of, and of whose clients nothing has come by here.
    pub adopted: u64,
}

impl ConnectionCount {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.opening + self.established + self.closing + self.closed
    }
}

/// Counts connections by backend; see [`ConnectionCount`].
#[derive(Debug, Default)]
pub struct ConnectionCounts(BTreeMap<(u16, u16), ConnectionCount>);

impl ConnectionCounts {
    /// Counts one more.
    pub fn add(&mut self, flow: &Flow) {
        let count = self.0.entry((flow.service, flow.backend)).or_default();
        match ConnectionState::of(flow.state) {
            ConnectionState::Opening => count.opening += 1,
            ConnectionState::Established => count.established += 1,
            ConnectionState::Closing => count.closing += 1,
            ConnectionState::Closed => count.closed += 1,
        }
        count.adopted += u64::from(flow.adopted);
    }

    /// The counts by names, in the order of these.
    pub fn finish(self, names: &ConnectionNames) -> Vec<ConnectionCount> {
        let counts = self.0.into_iter().map(|((service, backend), count)| ConnectionCount {
            service: names.services.get(&service).cloned(),
            backend: names.backends.get(&backend).map(|(_, backend)| backend.clone()),
            ..count
        });
        let mut counts: Vec<_> = counts.collect();
        counts.sort_by(|a, b| (&a.service, &a.backend).cmp(&(&b.service, &b.backend)));
        counts
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
