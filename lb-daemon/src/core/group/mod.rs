//! Who of two hosts holds a group of addresses: the election, pure as all of the core.
//!
//! A [`Group`](crate::config::Group) of the configuration has one state machine, fed with
//! [`Input`]s and asked for [`Output`]s. It is driven by a thread that nothing can hold up (see
//! `election`), not by the daemon's loop; the two tell each other about changes.

use std::{fmt, net::IpAddr, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use crate::config::{self, VrrpVersion};

mod announcements;
mod backup;
mod carp;
mod identity;
mod lease;
mod leases;
mod machine;
mod master;
mod record;
mod replay;
mod rules;
#[cfg(test)]
mod tests;
mod vrrp;

pub use identity::identity;
pub use leases::{Leases, Lost};
pub use machine::Group;
pub use record::{Counts, Discard, Past};

/// Role of this host for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Neither holds nor wants the group: just started, or stopped.
    #[default]
    Init,
    /// Ready to take over.
    Backup,
    /// Holds the group.
    Master,
    /// Something tracked has failed: does not take part.
    Fault,
}

impl Role {
    /// The name keepalived gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Backup => "BACKUP",
            Self::Master => "MASTER",
            Self::Fault => "FAULT",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An advert's contents, as far as the election is concerned. What can be told from a packet alone
/// (hop limit, checksum, lengths, password, HMAC) was verified before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advert {
    /// VRRP.
    Vrrp(VrrpAdvert),
    /// CARP.
    Carp(CarpAdvert),
}

/// A VRRP advert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpAdvert {
    /// Version.
    pub version: VrrpVersion,
    /// Virtual router identifier.
    pub virtual_router_id: u8,
    /// 0 to 255; zero when its sender stops.
    pub priority: u8,
    /// Time between adverts, in centiseconds (whole seconds in version 2).
    pub interval: u16,
    /// The addresses, in the order of the packet.
    pub addresses: Vec<IpAddr>,
}

/// A CARP advert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarpAdvert {
    /// Virtual host identifier.
    pub vhid: u8,
    /// Seconds between its sender's adverts.
    pub advbase: u8,
    /// 256ths of a second on top.
    pub advskew: u8,
    /// By how much its sender is demoted.
    pub demotion: u8,
    /// The replay counter.
    pub counter: u64,
}

/// An advert that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub source: IpAddr,
    /// What it says.
    pub advert: Advert,
}

/// How well this host is, as far as a group is concerned: worked out by the daemon's loop from all
/// that is tracked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What is added to the configured priority (VRRP) or taken from it: the sum of the weights.
    /// For CARP, its negation is the demotion.
    pub adjustment: i32,
    /// Why this host must not hold the group, for people; empty if it may.
    pub faults: Vec<String>,
    /// Whether it may take over from a working master: its tables are whole.
    pub ready: bool,
}

/// A group of the configuration, and its number in the data plane: 1 to
/// [`MAX_GROUPS`](crate::config::MAX_GROUPS), the same for as long as the group is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The number.
    pub number: u16,
    /// The group.
    pub config: Arc<config::Group>,
}

/// What the daemon's loop tells the thread of the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// These are the groups from now on. Those that are no longer among them are given up.
    Configure(Vec<Numbered>),
    /// [`Input::Standing`] of a group: not before all that it tracks is known, and then whenever it
    /// changes.
    Standing {
        /// Name of the group.
        group: String,
        /// How well this host is for it.
        standing: Standing,
    },
    /// [`Input::Failover`] of a group.
    Failover {
        /// Name of the group.
        group: String,
    },
    /// The daemon stops: give all groups up.
    Stop,
}

/// What happens to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An advert of its protocol and identifier came in by its interface.
    Advert(Received),
    /// The host's standing is this now. The first one starts the election.
    Standing(Standing),
    /// The same, where a lease was found that a process before this one has left, and that this one
    /// has claimed: if it runs until a time to come, the election starts with this host as master.
    Resume {
        /// The first standing.
        standing: Standing,
        /// Until when the lease runs.
        lease: Instant,
    },
    /// The operator has this host hand over: it gives the group up as if it stopped, and does not
    /// preempt its successor; it takes over again only if that one is gone.
    Failover,
    /// The daemon stops.
    Stop,
    /// The answer to an [`Output::Send`]: whether the advert went out to all who should have it, or
    /// why not.
    Sent(Result<(), String>),
    /// The deadline has come, or something else made the driver look.
    Tick,
}

/// What is to be done, in this order. A [`Send`](Self::Send) is answered by [`Input::Sent`] before
/// anything else, and what comes of that is done before the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Serve the group until then; or, with nothing, no longer from now on.
    Lease(Option<Instant>),
    /// Send this to the peers.
    Send(Advert),
    /// Put the addresses on their interfaces, or take them off.
    Hold(bool),
    /// Announce the addresses to the neighbours.
    Announce {
        /// How often each.
        times: u32,
    },
    /// The role is another now, or (from master to master) a conflict has healed: hooks are due,
    /// and the log should tell.
    Changed(Transition),
}

/// A change of role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Role before.
    pub from: Role,
    /// Role now.
    pub to: Role,
    /// Priority in force (CARP: 255 less `advskew` in force, at least 0), for the hooks.
    pub priority: u8,
    /// Why, for people.
    pub why: String,
    /// Whether this host only goes on in the role that the daemon before had: for everybody else
    /// nothing has changed, so no hooks are due.
    pub carries_on: bool,
}
