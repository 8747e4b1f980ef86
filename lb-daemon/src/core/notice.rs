//! What an operator should know of at once.

use std::{fmt, net::IpAddr};

use super::{
    event::{Claimed, Outcome, PeerNews, Reason},
    group::{Role, Transition},
    order::{BackendName, By, Order},
    view::Kind,
};
use crate::config::GroupAddress;

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A backend's health changed.
    Backend {
        /// Name of its service.
        service: String,
        /// Its name.
        backend: String,
        /// Its new state.
        up: bool,
        /// The check that decided it.
        outcome: Outcome,
        /// Healthy active backends that the service has now.
        active: usize,
        /// Healthy backups that the service has now.
        backup: usize,
    },
    /// Something was said of a backend at run time.
    Administered {
        /// Whose name.
        backend: BackendName,
        /// What.
        order: Order,
        /// Who said so.
        by: By,
    },
    /// What was said of backends that have not been in the configuration for long is not kept any
    /// longer.
    Forgotten {
        /// Of how many.
        backends: usize,
    },
    /// A service found its first eligible backend, or lost its last.
    Service {
        /// Its name.
        service: String,
        /// Its new state.
        up: bool,
    },
    /// Something that groups track, other than a service, failed or is well again.
    Tracked {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// Why it is failed; nothing if it is well.
        failure: Option<String>,
    },
    /// This host's role for a group changed, or a conflict has healed.
    Group {
        /// Its name.
        group: String,
        /// What changed.
        transition: Transition,
    },
    /// Another host claims an address that this one holds.
    Claimed {
        /// Name of the group that has it.
        group: String,
        /// Who claims what.
        claimed: Claimed,
    },
    /// An address was put back that somebody had taken off, or put that could not be before.
    PutBack {
        /// Name of its group.
        group: String,
        /// The address.
        address: GroupAddress,
        /// Whether it could not be put before.
        was_missing: bool,
    },
    /// A group's adverts cannot be sent, or are sent again.
    Advertises {
        /// Name of the group.
        group: String,
        /// Why they cannot be sent; nothing if they are.
        failure: Option<String>,
    },
    /// A host name of backends does not resolve, or resolves again.
    Host {
        /// The name.
        name: String,
        /// Why it does not; nothing if it does.
        failure: Option<String>,
    },
    /// The host name of a backend has another address.
    Moved {
        /// The backend.
        backend: BackendName,
        /// Its host name.
        host: String,
        /// Its address until now.
        from: IpAddr,
        /// Its address from now on.
        to: IpAddr,
    },
    /// The conversation with the peer began, ended, or cannot be had.
    Peer(PeerNews),
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good news.
    Info,
    /// Something is wrong, but served around.
    Warn,
    /// Clients are refused.
    Error,
}

impl Notice {
    /// How much it matters.
    pub const fn level(&self) -> Level {
        match self {
            Self::Backend { up: true, .. }
            | Self::Administered { .. }
            | Self::Service { up: true, .. }
            | Self::Tracked { failure: None, .. }
            | Self::Advertises { failure: None, .. }
            | Self::Host { failure: None, .. }
            | Self::Moved { .. }
            | Self::PutBack { was_missing: true, .. }
            | Self::Peer(PeerNews::Connected { .. }) => Level::Info,
            Self::Group { transition, .. } => match transition.to {
                Role::Fault => Level::Warn,
                Role::Init | Role::Backup | Role::Master => Level::Info,
            },
            Self::Backend { up: false, .. }
            | Self::Forgotten { .. }
            | Self::Tracked { failure: Some(_), .. }
            | Self::Claimed { .. }
            | Self::Advertises { failure: Some(_), .. }
            | Self::Host { failure: Some(_), .. }
            | Self::PutBack { was_missing: false, .. }
            | Self::Peer(PeerNews::Lost { .. } | PeerNews::Failed { .. }) => Level::Warn,
            Self::Service { up: false, .. } => Level::Error,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend { service, backend, up, outcome, active, backup } => write!(
                f,
                "backend {service}/{backend} is {}: {} {}{}; \
                 {active} active and {backup} backup left",
                if *up { "UP" } else { "DOWN" },
                outcome.reason,
                outcome.detail,
                match outcome.reason {
                    Reason::Observed => String::new(),
                    _ => format!(" in {} ms", outcome.took.as_millis()),
                },
            ),
            Self::Administered { backend, order, by } => {
                write!(f, "backend {backend}: {order}, by {}", by.name())
            }
            Self::Forgotten { backends } => write!(
                f,
                "what was said of {backends} backends at run time is forgotten: they have been gone \
                 for longest, and there are too many"
            ),
            Self::Service { service, up: true } => write!(f, "service {service} is UP"),
            Self::Service { service, up: false } => write!(
                f,
                "service {service} is DOWN: no backend is eligible, new connections are refused; \
                 `tandem status` says why"
            ),
            Self::Tracked { kind, name, failure: None } => write!(f, "{kind} {name} is well"),
            Self::Tracked { kind, name, failure: Some(why) } => {
                write!(f, "{kind} {name} has failed: {why}")
            }
            Self::Group { group, transition } => write!(
                f,
                "group {group} is {}, was {}; priority {}: {}",
                transition.to, transition.from, transition.priority, transition.why
            ),
            Self::Claimed { group, claimed: Claimed { address, mac, interface } } => write!(
                f,
                "address {address} of group {group} is on another host too: {mac} on {interface} \
                 claims it"
            ),
            Self::PutBack { group, address, was_missing } => {
                let GroupAddress { ip, prefix, interface, .. } = address;
                if *was_missing {
                    write!(f, "{ip}/{prefix} of group {group} is on {interface} now")
                } else {
                    write!(
                        f,
                        "{ip}/{prefix} of group {group} was taken off {interface} by somebody else, and \
                         is put back: keep other network software away from it"
                    )
                }
            }
            Self::Advertises { group, failure: None } => {
                write!(f, "adverts of group {group} are sent again")
            }
            Self::Advertises { group, failure: Some(why) } => write!(
                f,
                "adverts of group {group} cannot be sent, and without them this host does not \
                 serve it: {why}"
            ),
            Self::Host { name, failure: None } => write!(f, "{name} resolves again"),
            Self::Host { name, failure: Some(why) } => {
                write!(
                    f,
                    "{name} does not resolve, its backends keep the addresses that they have: {why}"
                )
            }
            Self::Moved { backend, host, from, to } => write!(
                f,
                "backend {backend} moves from {from} to {to}, which {host} is now; its connections \
                 stay where they are"
            ),
            Self::Peer(PeerNews::Connected { address, node, program }) => {
                write!(f, "connected to the peer at {address}: {node}, tandem {program}")
            }
            Self::Peer(PeerNews::Lost { why } | PeerNews::Failed { why }) => {
                write!(f, "{why}; this host's connections are not kept in two places")
            }
        }
    }
}
