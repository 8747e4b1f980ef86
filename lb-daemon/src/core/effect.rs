//! What is to be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use lb_common::{
    addr::Mac,
    maps::{NextHop, Tags},
};

use super::{
    event::{ProbeId, RunId},
    group::Command,
    notice::Notice,
    order::Override,
};
use crate::config::{Backend, Balance, Check, Limits, Script, Service, Timeouts};

/// Something an adapter is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Data plane: make the maps say this.
    Apply(Desired),
    /// Data plane: end all connections of the backend with this number, which is down.
    EndSessions {
        /// Its number.
        number: u16,
        /// Its name with that of its service, for the log: `mysql/db1`.
        backend: String,
    },
    /// Probes: run this one and answer with [`Event::Probed`](super::Event::Probed).
    Probe(ProbeRequest),
    /// Probes: ask this agent and answer with [`Event::Agent`](super::Event::Agent).
    AskAgent(AgentRequest),
    /// Resolver: find the addresses of this host name and answer with
    /// [`Event::Resolved`](super::Event::Resolved).
    LookUp(String),
    /// Netlink: ask the kernel how it reaches this address, make it learn the neighbour on the
    /// way, and answer with [`Event::Routed`](super::Event::Routed) and
    /// [`Event::Neighbour`](super::Event::Neighbour).
    Resolve(IpAddr),
    /// Data plane: a neighbour has another link-layer address now. Frames back to clients that
    /// came by it go there.
    Moved {
        /// Where its frames come in: interface and VLAN tags.
        links: BTreeSet<(u32, Tags)>,
        /// Its address until now.
        from: Mac,
        /// Its address from now on.
        to: Mac,
    },
    /// Tracking: run this script and answer with [`Event::Ran`](super::Event::Ran).
    RunScript(RunRequest),
    /// Tracking: count the processes of these names from now on, and no others; answer with
    /// [`Event::Processes`](super::Event::Processes).
    WatchProcesses(BTreeSet<String>),
    /// Election: this is new.
    Election(Command),
    /// Overrides: keep these, and no others, for the daemons to come.
    Keep(Vec<Override>),
    /// Hooks: run these commands after those of the same group that were asked for before.
    Hook(HookRequest),
    /// Log: tell the operator.
    Notify(Notice),
}

/// What an earlier daemon left in the data plane, so that the same services and backends get the
/// same numbers again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Bound addresses by service number.
    pub services: BTreeMap<u16, Vec<SocketAddr>>,
    /// Service number and address by backend number.
    pub backends: BTreeMap<u16, (u16, SocketAddr)>,
    /// Numbers of the backends that got new connections.
    pub serving: BTreeSet<u16>,
    /// Most connections that backends might have, by their numbers; those that might have any number are
    /// not here.
    pub limits: BTreeMap<u16, NonZeroU32>,
    /// Number of each group with a lease that has not ended, by the
    /// [`identity`](super::group::identity) of its election.
    pub groups: BTreeMap<u64, u16>,
}

/// A probe to run once, now.
#[derive(Clone, Debug)]
pub struct ProbeRequest {
    /// To be named in the answer.
    pub id: ProbeId,
    /// Whom to ask, what, and when to give up.
    pub check: Arc<Check>,
    /// Whose health is asked for.
    pub subject: Arc<Subject>,
}

/// A backend whose health is asked for, as an external command is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name of its service.
    pub service: String,
    /// Place of that in the configuration, from 1.
    pub service_id: usize,
    /// The first address that clients connect to.
    pub bind: SocketAddr,
    /// Name of the backend.
    pub backend: String,
    /// Its place in its service, from 1.
    pub backend_id: usize,
    /// Its address, whatever address is checked.
    pub address: SocketAddr,
    /// Its configured limit of connections; zero for none.
    pub maxconn: u32,
}

impl Subject {
    /// The backend and its service, each with its place.
    pub fn new(
        (service_id, service): (usize, &Service),
        (backend_id, backend): (usize, &Backend),
    ) -> Self {
        Self {
            service: service.name.clone(),
            service_id,
            bind: service.bind[0],
            backend: backend.name.clone(),
            backend_id,
            address: backend.address,
            maxconn: backend.limits.maxconn.map_or(0, NonZeroU32::get),
        }
    }
}

/// An agent to ask once, now.
#[derive(Clone, Debug)]
pub struct AgentRequest {
    /// To be named in the answer.
    pub id: ProbeId,
    /// Whom to ask.
    pub target: SocketAddr,
    /// What to send first; nothing if empty.
    pub send: String,
    /// When to give up: for all of it.
    pub timeout: Duration,
}

/// A script to run once, now.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// To be named in the answer.
    pub id: RunId,
    /// What to run.
    pub script: Arc<Script>,
}

/// Commands to run because a group's role changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRequest {
    /// Name of the group.
    pub group: String,
    /// Programs with all their arguments, to be run one after the other, whether they fail or not.
    pub commands: Vec<Vec<String>>,
    /// User they run as.
    pub user: String,
    /// When each is ended that does not end by itself.
    pub timeout: Duration,
}

/// The whole state the data plane shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Services by number, below [`MAX_SERVICES`](lb_common::maps::MAX_SERVICES).
    pub services: BTreeMap<u16, DesiredService>,
    /// Backends by number, below [`MAX_BACKENDS`](lb_common::maps::MAX_BACKENDS).
    pub backends: BTreeMap<u16, DesiredBackend>,
    /// Addresses that this host shares with others, by the number of their group: without a lease,
    /// nothing may get through to them.
    pub shared: BTreeMap<IpAddr, u16>,
    /// Numbers of the groups, by name: the other host knows them by that.
    pub groups: BTreeMap<String, u16>,
    /// Numbers of the services that are limited, or have a backend that is, whether that can serve now or
    /// not: there somebody may have to wait.
    pub limited: BTreeSet<u16>,
}

/// A service as the data plane shall know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// Addresses and ports, all of one family.
    pub bind: Vec<SocketAddr>,
    /// How to choose among `slots`.
    pub balance: Balance,
    /// Whom to choose among.
    pub slots: Slots,
    /// Most connections that it may have; none for no limit.
    pub maxconn: Option<NonZeroU32>,
    /// Timeouts.
    pub timeout: Timeouts,
    /// Number of the group that has its addresses; zero if this host has them for itself.
    pub group: u16,
    /// Whether SYN-ACKs are held back until the peer knows of the connection.
    pub synchronous: bool,
}

/// Backend numbers, arranged as the balance algorithm wants them; empty if none is eligible.
///
/// Shared, because thousands of them are passed on and compared with every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots(pub Arc<[u16]>);

/// A backend as the data plane shall know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredBackend {
    /// Number of its service.
    pub service: u16,
    /// Address and port.
    pub address: SocketAddr,
    /// Effective weight, at least 1; in the same unit as those of the service's other backends.
    pub weight: u16,
    /// How many connections it may have by now, and how many SYNs may wait for it.
    pub limits: Limits,
    /// Addresses to translate clients to: one to four, of the backend's family.
    pub sources: Vec<IpAddr>,
    /// How many failed handshakes in a row are too many; none if nobody wants to know.
    pub error_limit: Option<u32>,
    /// Where its frames go.
    pub hop: NextHop,
}
