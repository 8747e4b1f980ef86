//! Groups of virtual addresses, and what decides which host holds them. The names are those of
//! keepalived and of FreeBSD's CARP.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

/// Virtual addresses that move together between two hosts: those clients connect to, and those
/// that the backends see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Unique name.
    pub name: String,
    /// Interface that adverts are sent and received by. If it is down, the group is in fault.
    pub interface: String,
    /// How the hosts agree on who holds it.
    pub protocol: Protocol,
    /// `virtual_ipaddress`, then `virtual_ipaddress_excluded`. May be empty. No address is in two
    /// groups.
    pub addresses: Vec<GroupAddress>,
    /// Whether the host with the higher priority takes over from a working one with a lower.
    pub preempt: bool,
    /// How long it waits before that, once it could.
    pub preempt_delay: Duration,
    /// What must be well for this host to hold the group.
    pub track: Track,
    /// What is run when its role changes.
    pub hooks: Hooks,
    /// How addresses are announced to the neighbours.
    pub announce: Announce,
}

impl Group {
    /// The interface with the virtual MAC address, and that; none if there shall be none.
    pub fn vmac(&self) -> Option<(&str, [u8; 6])> {
        match &self.protocol {
            Protocol::Vrrp(vrrp) => vrrp.vmac.as_deref().zip(Some(vrrp.virtual_mac())),
            Protocol::Carp(_) => None,
        }
    }

    /// Where the addresses are put: as configured, or on the interface with the virtual MAC address.
    /// There they have no route of their prefix, which would lead by that interface.
    pub fn places(&self) -> Vec<GroupAddress> {
        let mut places = self.addresses.clone();
        if let Protocol::Vrrp(Vrrp { vmac: Some(vmac), family, .. }) = &self.protocol {
            let is_there = |at: &&mut GroupAddress| {
                at.interface == self.interface && at.ip.is_ipv4() == (*family == Family::V4)
            };
            for place in places.iter_mut().filter(is_there) {
                place.interface.clone_from(vmac);
                place.prefix = if place.ip.is_ipv4() { 32 } else { 128 };
            }
        }
        places
    }
}

/// An address of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupAddress {
    /// The address.
    pub ip: IpAddr,
    /// Length of its prefix, in bits; 32 or 128 by default, as in keepalived.
    pub prefix: u8,
    /// Interface that has it; the group's own by default.
    pub interface: String,
    /// Whether adverts list it (VRRP) or vouch for it (CARP).
    pub advertised: bool,
}

/// A protocol of election. VRRP's and CARP's identifiers are spaces of their own, each per
/// interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 3768 and RFC 9568.
    Vrrp(Vrrp),
    /// As OpenBSD and FreeBSD speak it.
    Carp(Carp),
}

/// What VRRP needs.
#[derive(Clone, PartialEq, Eq)]
pub struct Vrrp {
    /// Version of the protocol.
    pub version: VrrpVersion,
    /// Virtual router identifier, 1 to 255; unique per interface, version's family and protocol.
    pub virtual_router_id: u8,
    /// 1 to 254; 255 is for the owner of the addresses, who preempts whatever the group says.
    pub priority: u8,
    /// Time between adverts: whole seconds to 255 s in version 2, whole centiseconds to 40.95 s in
    /// version 3.
    pub advert_int: Duration,
    /// Family of the adverts, that is, of the advertised addresses: IPv6 only in version 3.
    pub family: Family,
    /// Source address of adverts (`mcast_src_ip`, `unicast_src_ip`); the interface's first address
    /// of the family (link-local for IPv6) if none.
    pub source: Option<IpAddr>,
    /// Hosts that adverts are sent to one by one, and accepted from; multicast if empty.
    pub unicast_peers: Vec<IpAddr>,
    /// Simple password of version 2, 1 to 8 bytes; none for no authentication.
    pub auth_pass: Option<String>,
    /// File that the password was read from, if it does not stand in the configuration.
    pub auth_pass_file: Option<PathBuf>,
    /// Whether the checksum sent in version 3 over IPv4 covers a pseudo-header, as keepalived's does
    /// by default and RFC 9568 says it does not. Both forms are accepted.
    pub pseudo_header: bool,
    /// Interface with the virtual MAC address (RFC 9568, 7.3): made while this host is master, above
    /// the group's own, for the addresses of the adverts' family there. None if they have the MAC
    /// address of the group's own interface.
    pub vmac: Option<String>,
}

impl Vrrp {
    /// The virtual MAC address of the group's identifier and family.
    pub fn virtual_mac(&self) -> [u8; 6] {
        let family = match self.family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        [0x00, 0x00, 0x5e, 0x00, family, self.virtual_router_id]
    }
}

impl fmt::Debug for Vrrp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password is nobody's business.
        f.debug_struct("Vrrp")
            .field("version", &self.version)
            .field("virtual_router_id", &self.virtual_router_id)
            .field("priority", &self.priority)
            .field("advert_int", &self.advert_int)
            .field("family", &self.family)
            .field("source", &self.source)
            .field("unicast_peers", &self.unicast_peers)
            .field("auth_pass_file", &self.auth_pass_file)
            .field("pseudo_header", &self.pseudo_header)
            .finish_non_exhaustive()
    }
}

/// Version of VRRP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VrrpVersion {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568: both families, centiseconds.
    V3,
}

/// Family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What CARP needs. Adverts are multicast over IPv4.
#[derive(Clone, PartialEq, Eq)]
pub struct Carp {
    /// Virtual host identifier, 1 to 255.
    pub vhid: u8,
    /// Key of the HMAC: at most 20 bytes, filled up with zeros; empty for none.
    pub pass: String,
    /// File that it was read from, if it does not stand in the configuration.
    pub pass_file: Option<PathBuf>,
    /// Seconds between adverts, 1 to 255, ...
    pub advbase: u8,
    /// ... and 256ths of a second on top, 0 to 254: the lower, the more preferred.
    pub advskew: u8,
}

impl fmt::Debug for Carp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password is nobody's business.
        f.debug_struct("Carp")
            .field("vhid", &self.vhid)
            .field("pass_file", &self.pass_file)
            .field("advbase", &self.advbase)
            .field("advskew", &self.advskew)
            .finish_non_exhaustive()
    }
}

/// What must be well for a host to hold a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Interfaces that must be up and have a carrier, the group's own and those of its addresses
    /// among them.
    pub interfaces: Vec<Tracked>,
    /// Names of [`Config::scripts`](super::Config::scripts).
    pub scripts: Vec<Tracked>,
    /// Names of [`Config::processes`](super::Config::processes).
    pub processes: Vec<Tracked>,
    /// Names of services that must have an eligible backend.
    pub services: Vec<Tracked>,
}

/// Something tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Its name.
    pub name: String,
    /// What it adds to the priority: a negative weight while it is failed, a positive one while it
    /// is well, -253 to 253. With zero, its failure is a fault: the host gives the group up. (In
    /// CARP a failure adds the weight's amount to the demotion, and so to `advskew`.)
    pub weight: i16,
}

/// A command that is run every now and then to see whether something is well: `vrrp_script`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Unique name.
    pub name: String,
    /// Program and arguments; no shell. The program is an absolute path, or a name to be looked for
    /// in the usual places.
    pub command: Vec<String>,
    /// Time from one start to the next.
    pub interval: Duration,
    /// When a run is ended and counts as failed.
    pub timeout: Duration,
    /// Successes in a row that make it well.
    pub rise: u32,
    /// Failures in a row that make it failed.
    pub fall: u32,
    /// User it runs as.
    pub user: String,
}

/// A process that must be running: `vrrp_track_process`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Unique name.
    pub name: String,
    /// Its command: the base name of its program or its own name (`comm`).
    pub process: String,
    /// Processes of that name that must be running, at least.
    pub quorum: u32,
    /// How long it may be absent, or must be back, before that counts.
    pub delay: Duration,
}

/// Commands that are run when a group's role changes, in the order of the changes, one at a time.
/// As in keepalived, those for one state are run as they stand; [`notify`](Self::notify) comes after
/// them and is given arguments. Programs are named as in [`Script`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// On becoming master, and again after a conflict has healed.
    pub notify_master: Option<Vec<String>>,
    /// On becoming backup.
    pub notify_backup: Option<Vec<String>>,
    /// On a fault.
    pub notify_fault: Option<Vec<String>>,
    /// On a stop of the daemon.
    pub notify_stop: Option<Vec<String>>,
    /// On each of these, with four more arguments: `INSTANCE`, the group's name, the new state
    /// (`MASTER`, `BACKUP`, `FAULT`, `STOP`), and the priority.
    pub notify: Option<Vec<String>>,
    /// User they run as.
    pub user: String,
    /// When one is ended that does not end by itself.
    pub timeout: Duration,
}

/// How a new master makes its addresses known: gratuitous ARP requests and unsolicited neighbour
/// advertisements. The names are keepalived's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Announcements of each address at once on taking over (`garp_master_repeat`).
    pub repeat: u32,
    /// When they are sent once more; zero for never (`garp_master_delay`).
    pub delay: Duration,
    /// Time between announcements for as long as it is master; zero for none
    /// (`garp_master_refresh`).
    pub refresh: Duration,
    /// Announcements of each address at each refresh (`garp_master_refresh_repeat`).
    pub refresh_repeat: u32,
}
