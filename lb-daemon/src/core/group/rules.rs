//! What the protocols of election differ in. All that they have in common is in `machine`.

use std::{cmp::Ordering, fmt, net::IpAddr, time::Duration};

use super::{Advert, Received, carp, record::Discard, vrrp};
use crate::config;

/// One protocol's rules, for one group.
pub(super) trait Rules: fmt::Debug + Send {
    /// Puts another configuration of the same election in force.
    fn reconfigure(&mut self, group: &config::Group);

    /// Puts another sum of weights in force.
    fn adjust(&mut self, adjustment: i32);

    /// Priority in force, for people and hooks: the higher, the more preferred.
    fn priority(&self) -> u8;

    /// Whether this host owns the addresses: it is master whenever it can be.
    fn is_owner(&self) -> bool;

    /// Time between this host's adverts as a master.
    fn interval(&self) -> Duration;

    /// Unit of waiting for a master that was not heard yet.
    fn patience(&self) -> Duration;

    /// How long a lease lasts that an advert renews.
    fn lease(&self) -> Duration;

    /// How long after the farewell of a master that advertised every `interval` this host waits.
    fn skew(&self, interval: Duration) -> Duration;

    /// How long a master that advertises every `interval` may be silent.
    fn master_down(&self, interval: Duration) -> Duration;

    /// Whether a host that preempts does so with the advert that shows it could, rather than when
    /// the time of a master that it ignores is up.
    fn preempts_at_once(&self) -> bool;

    /// The next advert of a master.
    fn advert(&mut self) -> Advert;

    /// The last advert of a master that gives way to one that advertises every `interval`. Whoever
    /// else hears it must not wait for that one with less patience.
    fn last_word(&mut self, interval: Duration) -> Advert;

    /// The advert that says that nobody is master now.
    fn farewell(&mut self) -> Advert;

    /// The replay counter of the last advert; zero if the protocol has none.
    fn counter(&self) -> u64 {
        0
    }

    /// What an advert means for a host with this address.
    fn judge(&mut self, received: &Received, source: IpAddr) -> Verdict;
}

/// What an advert means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing: it must be discarded.
    Discard(Discard, String),
    /// Its sender gives the group up.
    Farewell,
    /// Its sender takes itself for the master.
    Claim(Claim),
}

/// A claim to be master.
#[derive(Debug)]
pub(super) struct Claim {
    /// Whether a master gives way to it. Of two hosts that claim, exactly one has to.
    pub(super) wins: bool,
    /// How it compares with this host, addresses aside: a backup that preempts may take over from
    /// one that is less.
    pub(super) strength: Ordering,
    /// Whether its sender says that it owns the addresses.
    pub(super) is_owner: bool,
    /// Whether its adverts come so seldom that it would be taken for dead between them.
    pub(super) is_too_slow: bool,
    /// Unit of waiting for its next advert.
    pub(super) interval: Duration,
    /// What is wrong about it though it is heeded.
    pub(super) complaint: Option<(Discard, String)>,
}

/// The rules of a group's protocol.
///
/// `counter` is where CARP's replay counter begins.
pub(super) fn of(group: &config::Group, counter: u64) -> Box<dyn Rules> {
    match &group.protocol {
        config::Protocol::Vrrp(config) => Box::new(vrrp::Vrrp::new(group, config.clone())),
        config::Protocol::Carp(config) => Box::new(carp::Carp::new(config.clone(), counter)),
    }
}
