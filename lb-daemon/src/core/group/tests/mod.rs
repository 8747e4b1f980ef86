//! The election, tested: by tables, by the sections of the RFCs, and by simulation.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::config::{self, Announce, Carp, Family, Hooks, Protocol, Track, Vrrp};

mod announcements;
mod bench;
mod carp_table;
mod lease;
mod one_way;
mod pair;
mod resume;
mod rfc3768;
mod rfc9568;
mod standing;
mod vrrp_table;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Address of a host.
const fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

/// A group that preempts, without delayed or repeated announcements.
fn group(protocol: Protocol) -> config::Group {
    config::Group {
        name: "front".to_owned(),
        interface: "eth0".to_owned(),
        protocol,
        addresses: vec![config::GroupAddress {
            ip: host(100),
            prefix: 24,
            interface: "eth0".to_owned(),
            advertised: true,
        }],
        preempt: true,
        preempt_delay: Duration::ZERO,
        track: Track::default(),
        hooks: Hooks {
            notify_master: None,
            notify_backup: None,
            notify_fault: None,
            notify_stop: None,
            notify: None,
            user: "nobody".to_owned(),
            timeout: seconds(10),
        },
        announce: Announce {
            repeat: 5,
            delay: Duration::ZERO,
            refresh: Duration::ZERO,
            refresh_repeat: 1,
        },
    }
}

fn vrrp(version: VrrpVersion, priority: u8, interval: Duration) -> Protocol {
    Protocol::Vrrp(Vrrp {
        version,
        virtual_router_id: 51,
        priority,
        advert_int: interval,
        family: Family::V4,
        source: None,
        unicast_peers: Vec::new(),
        auth_pass: None,
        auth_pass_file: None,
        pseudo_header: true,
        vmac: None,
    })
}

fn carp(advbase: u8, advskew: u8) -> Protocol {
    Protocol::Carp(Carp { vhid: 1, pass: String::new(), pass_file: None, advbase, advskew })
}

/// A host that is well and may take over.
fn well() -> Standing {
    Standing { adjustment: 0, faults: Vec::new(), ready: true }
}
