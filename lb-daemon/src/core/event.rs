//! What can happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lb_common::{addr::Mac, maps::Tags};
use serde::{Deserialize, Serialize};

use super::{group, order::Override};
use crate::config::{Config, GroupAddress};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A valid configuration is to be put in force: at start and at each reload.
    Config(Arc<Config>),
    /// What operators said of backends to earlier daemons: once, before the first configuration.
    Overrides(Vec<Override>),
    /// A probe came to its end.
    Probed {
        /// The probe, as the core named it when asking for it.
        probe: ProbeId,
        /// What it found.
        outcome: Outcome,
    },
    /// Handshakes of clients with these backends have failed, as many in a row as are too many: how
    /// many times since this was told last, by the backend's number.
    Observed(BTreeMap<u16, u64>),
    /// An agent was asked.
    Agent {
        /// The question, as the core named it when asking for it.
        probe: ProbeId,
        /// Its line, without the end; or why there is none.
        heard: Result<String, Outcome>,
    },
    /// The answer to [`Effect::Resolve`](super::Effect::Resolve): how the kernel would reach
    /// `target`, or nothing if it has no route.
    Routed {
        /// The address asked for.
        target: IpAddr,
        /// The kernel's answer.
        route: Option<Route>,
    },
    /// The kernel learnt, confirmed or lost the link-layer address of a neighbour.
    Neighbour {
        /// Interface the neighbour is on.
        ifindex: u32,
        /// Its address.
        address: IpAddr,
        /// Its link-layer address, or nothing if it is not (or no longer) known.
        mac: Option<Mac>,
    },
    /// The answer to [`Effect::LookUp`](super::Effect::LookUp).
    Resolved {
        /// The host name.
        name: String,
        /// Its addresses; or why there are none, for people.
        heard: Result<BTreeSet<IpAddr>, String>,
    },
    /// A link, an address or a route changed: earlier [`Event::Routed`] answers may be wrong now.
    RoutesChanged,
    /// A walk of the flow tables ended.
    Walked {
        /// Numbers of the backends that connections were found for.
        backends: BTreeSet<u16>,
        /// Numbers of the services that connections were found for.
        services: BTreeSet<u16>,
    },
    /// The interfaces of this host, all of them, by name: at first, and whenever one comes, goes, is
    /// renamed, or goes up or down.
    Links(BTreeMap<String, Link>),
    /// A tracked script came to its end, or could not be run.
    Ran {
        /// The run, as the core named it when asking for it.
        run: RunId,
        /// How it ended.
        outcome: RunOutcome,
    },
    /// How many processes run, by the names that
    /// [`Effect::WatchProcesses`](super::Effect::WatchProcesses) asked for: at first, and whenever
    /// that changes.
    Processes(BTreeMap<String, u32>),
    /// The election tells that this host's role for a group changed, or that a conflict has healed.
    Group {
        /// The group's name.
        name: String,
        /// What changed.
        transition: group::Transition,
    },
    /// The election tells that another host claims an address that this one holds: once in a while
    /// for each address and claimant.
    Claimed {
        /// The group's name.
        name: String,
        /// Who claims what.
        claimed: Claimed,
    },
    /// The election tells that a group's adverts cannot be sent, or that they are sent again.
    Advertises {
        /// The group's name.
        name: String,
        /// Why they cannot be sent; nothing if they are.
        failure: Option<String>,
    },
    /// The election tells that it put an address onto its interface while it held the group: somebody
    /// had taken it off, or the kernel had not taken it before.
    PutBack {
        /// The group's name.
        name: String,
        /// The address.
        address: GroupAddress,
        /// Whether the kernel had not taken it before.
        was_missing: bool,
    },
    /// The conversation with the peer tells whether this host may take over from it: whenever that
    /// changes. At the beginning it may not.
    Sync {
        /// Whether it may: it has the peer's connections, or has waited long enough for them.
        ready: bool,
    },
    /// The conversation with the peer began, ended, or cannot be had: told once.
    Peer(PeerNews),
    /// The deadline that the core had named has come.
    Tick,
}

/// What the operator should know of the conversation with the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerNews {
    /// Both have said hello.
    Connected {
        /// The peer's `[sync] listen`, as this host has it.
        address: SocketAddr,
        /// Name of its node.
        node: String,
        /// Version of its program.
        program: String,
    },
    /// It has ended.
    Lost {
        /// Whose it was, and why, for people: a whole sentence.
        why: String,
    },
    /// There is none, although this host wants one; and why, if that is another reason than before.
    Failed {
        /// Whose, and why, for people: a whole sentence.
        why: String,
    },
}

/// An interface of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number: another one after it was removed and made again.
    pub ifindex: u32,
    /// Whether it is set up and has a carrier.
    pub up: bool,
}

/// A claim to an address that this host holds, by ARP or by a neighbour advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The address.
    pub address: IpAddr,
    /// The Ethernet address of the host that claims it.
    pub mac: Mac,
    /// The interface that the claim came in by.
    pub interface: String,
}

/// Names one run of a script; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// How a run of a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// Whether it ended in time and with exit status 0.
    pub passed: bool,
    /// The last line of its output; of a failure, first what failed.
    pub detail: String,
}

/// Names one probe; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId(pub u64);

/// How the kernel would reach an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Interface that packets leave by, and that knows the neighbour.
    pub ifindex: u32,
    /// That interface's own link-layer address.
    pub mac: Mac,
    /// The router, or the target itself if it is on the link.
    pub via: IpAddr,
    /// The source address that the kernel would choose.
    pub source: IpAddr,
    /// Where a frame can be put on the wire: that interface, and if it is a VLAN's, the one below
    /// with the VLAN's tag, and so on down to the network card.
    pub exits: Vec<Exit>,
}

/// An interface by which a frame can leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ifindex: u32,
    /// The VLAN tags that a frame needs there.
    pub tags: Tags,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The layer that succeeded or failed.
    pub reason: Reason,
    /// What exactly, for people: an error, a status code, the beginning of an answer.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
}

/// Why a check passed or failed, by HAProxy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The connection was accepted, and that was all that was asked.
    #[serde(rename = "L4OK")]
    L4Ok,
    /// No answer to the SYN in time.
    #[serde(rename = "L4TOUT")]
    L4Timeout,
    /// The connection was refused, or no way leads there.
    #[serde(rename = "L4CON")]
    L4Connection,
    /// TLS was agreed upon, and that was all that was asked.
    #[serde(rename = "L6OK")]
    L6Ok,
    /// The backend did not get TLS done in time.
    #[serde(rename = "L6TOUT")]
    L6Timeout,
    /// The backend speaks no TLS, or none that is agreeable; or its certificate is not good.
    #[serde(rename = "L6RSP")]
    L6Response,
    /// A tcp-check's script was played to its end, or an HTTP answer was as expected.
    #[serde(rename = "L7OK")]
    L7Ok,
    /// The answer did not come in time.
    #[serde(rename = "L7TOUT")]
    L7Timeout,
    /// The answer was not what was expected, not understood, or cut short.
    #[serde(rename = "L7RSP")]
    L7Response,
    /// Another status code came than those accepted.
    #[serde(rename = "L7STS")]
    L7Status,
    /// No check: too many handshakes of clients in a row failed ("health analysis").
    #[serde(rename = "HANA")]
    Observed,
    /// This host could not even try: no socket, no source address.
    #[serde(rename = "SOCKERR")]
    Socket,
    /// An external check's command exited with 0.
    #[serde(rename = "PROCOK")]
    ProcessOk,
    /// It ended otherwise, or could not be run.
    #[serde(rename = "PROCERR")]
    ProcessError,
    /// It did not end in time.
    #[serde(rename = "PROCTOUT")]
    ProcessTimeout,
}

impl Reason {
    /// Whether the check passed.
    pub const fn passed(self) -> bool {
        matches!(self, Self::L4Ok | Self::L6Ok | Self::L7Ok | Self::ProcessOk)
    }

    /// HAProxy's name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::L4Ok => "L4OK",
            Self::L4Timeout => "L4TOUT",
            Self::L4Connection => "L4CON",
            Self::L6Ok => "L6OK",
            Self::L6Timeout => "L6TOUT",
            Self::L6Response => "L6RSP",
            Self::L7Ok => "L7OK",
            Self::L7Timeout => "L7TOUT",
            Self::L7Response => "L7RSP",
            Self::L7Status => "L7STS",
            Self::Observed => "HANA",
            Self::Socket => "SOCKERR",
            Self::ProcessOk => "PROCOK",
            Self::ProcessError => "PROCERR",
            Self::ProcessTimeout => "PROCTOUT",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
