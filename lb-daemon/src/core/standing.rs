//! How well this host is for a group, from all that the group tracks.
//!
//! The weights mean what they mean in keepalived:
//!
//! | weight   | while well    | while failed              | not known yet        |
//! |----------|---------------|---------------------------|----------------------|
//! | zero     | nothing       | a fault                   | nothing              |
//! | positive | adds itself   | nothing                   | nothing              |
//! | negative | nothing       | adds itself (a decrement) | nothing              |
//! | of CARP  | nothing       | takes its amount away     | nothing              |
//!
//! CARP has no more than demotion, so there the sign of a weight makes no difference. The owner of
//! the addresses, priority 255, is not adjusted (RFC 9568, section 5.2.4, leaves it no other
//! priority); a fault is one for it, too.

use std::collections::BTreeMap;

use super::{
    group::Standing,
    view::{Condition, Kind, TrackedStatus},
};
use crate::config::{Group, Protocol};

/// Priority of the owner of the addresses.
const OWNER: u8 = 255;

/// How one tracked thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// Nobody knows yet.
    Unknown,
    /// As it should be.
    Well,
    /// Not so; why, for people.
    Failed(String),
}

/// How all tracked things are. One that is missing is unknown.
pub(super) type Facts = BTreeMap<(Kind, String), Fact>;

/// What a group tracks, each thing once, with its weight.
///
/// Its own interface and those of its addresses always have weight zero: without one of them it
/// cannot be held, whatever the priority.
pub(super) fn tracked(group: &Group) -> Vec<(Kind, &str, i16)> {
    let mut all: Vec<(Kind, &str, i16)> = Vec::new();
    let own = group.addresses.iter().map(|address| address.interface.as_str());
    let own = std::iter::once(group.interface.as_str()).chain(own);
    let track = &group.track;
    let lists = [
        (Kind::Interface, &track.interfaces),
        (Kind::Script, &track.scripts),
        (Kind::Process, &track.processes),
        (Kind::Service, &track.services),
    ];
    let listed = lists
        .into_iter()
        .flat_map(|(kind, list)| list.iter().map(move |t| (kind, t.name.as_str(), t.weight)));
    for (kind, name, weight) in own.map(|name| (Kind::Interface, name, 0)).chain(listed) {
        if !all.iter().any(|(k, n, _)| (*k, *n) == (kind, name)) {
            all.push((kind, name, weight));
        }
    }
    all
}

/// This host's standing for a group. It is `ready` if it has the connections of the group's other
/// host, or shall not wait for them.
pub(super) fn standing(group: &Group, facts: &Facts, ready: bool) -> Standing {
    let mut adjustment = 0;
    let mut faults = Vec::new();
    for (kind, name, weight) in tracked(group) {
        let fact = fact(facts, kind, name);
        match fact {
            Fact::Failed(why) if weight == 0 => faults.push(format!("{kind} {name}: {why}")),
            fact => adjustment += contribution(&group.protocol, weight, fact),
        }
    }
    if matches!(&group.protocol, Protocol::Vrrp(vrrp) if vrrp.priority == OWNER) {
        adjustment = 0;
    }
    Standing { adjustment, faults, ready }
}

/// The first thing that a group tracks and that nobody knows about yet, if there is one.
pub(super) fn unknown<'a>(group: &'a Group, facts: &Facts) -> Option<(Kind, &'a str)> {
    let mut all = tracked(group).into_iter();
    let (kind, name, _) = all.find(|(kind, name, _)| *fact(facts, *kind, name) == Fact::Unknown)?;
    Some((kind, name))
}

/// What an operator sees of what a group tracks.
pub(super) fn status(group: &Group, facts: &Facts) -> Vec<TrackedStatus> {
    let all = tracked(group).into_iter();
    all.map(|(kind, name, weight)| {
        let (condition, failure) = match fact(facts, kind, name) {
            Fact::Unknown => (Condition::Unknown, None),
            Fact::Well => (Condition::Well, None),
            Fact::Failed(why) => (Condition::Failed, Some(why.clone())),
        };
        TrackedStatus { kind, name: name.to_owned(), weight, condition, failure }
    })
    .collect()
}

fn fact<'a>(facts: &'a Facts, kind: Kind, name: &str) -> &'a Fact {
    facts.get(&(kind, name.to_owned())).unwrap_or(&Fact::Unknown)
}

/// What something with a weight other than zero adds to the priority.
fn contribution(protocol: &Protocol, weight: i16, fact: &Fact) -> i32 {
    let weight = i32::from(weight);
    match (protocol, fact) {
        (Protocol::Carp(_), Fact::Failed(_)) => -weight.abs(),
        (Protocol::Vrrp(_), Fact::Failed(_)) => weight.min(0),
        (Protocol::Vrrp(_), Fact::Well) => weight.max(0),
        (Protocol::Carp(_), Fact::Well) | (_, Fact::Unknown) => 0,
    }
}
