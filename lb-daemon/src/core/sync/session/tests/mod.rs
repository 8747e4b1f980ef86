//! Conversations, tested: rule by rule, and by simulation.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{super::Hello, Settings, VERSIONS, limits::Limits};

mod digests;
mod fate;
mod greeting;
mod held;
mod model;
mod pair;
// The one of the election, which is not to be seen from here.
#[allow(clippy::duplicate_mod)]
#[path = "../../../group/tests/pair/random.rs"]
mod random;
mod returns;
mod rules;
mod simulation;
mod watch;
mod world;

const fn milli(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An address of a kind, told from the others by its port.
const fn address(kind: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, kind)), port)
}

fn hello(number: usize) -> Hello {
    let (node, source_ports) =
        if number == 0 { ("first", 1000..=1999) } else { ("second", 2000..=2999) };
    Hello {
        versions: VERSIONS,
        program: "0.1.0".to_owned(),
        node: node.to_owned(),
        source_ports,
        groups: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
    }
}

const fn settings() -> Settings {
    Settings { preempt_wait: Duration::from_secs(20) }
}

/// So small that they are met.
const fn limits() -> Limits {
    Limits {
        queue: 60,
        batch: 8,
        places: 32,
        transfer: 2,
        drain: 16,
        drains: 4,
        unacked: 16,
        ended: 1000,
        hold: milli(100),
        held: 5,
    }
}
