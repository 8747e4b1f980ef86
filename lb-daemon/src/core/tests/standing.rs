//! What tracked things add up to: every kind, weight, state and protocol.

use proptest::prelude::*;

use super::{
    super::standing::{Fact, Facts, standing, status, tracked, unknown},
    groups::{carp, group, track, vrrp},
    *,
};
use crate::config::{Group, Track, Tracked};

const KINDS: [Kind; 4] = [Kind::Interface, Kind::Script, Kind::Process, Kind::Service];

fn failed() -> Fact {
    Fact::Failed("broken".to_owned())
}

/// All of these facts, and the group's own interface being up.
fn facts(facts: &[(Kind, &str, Fact)]) -> Facts {
    let own = (Kind::Interface, "eth0", Fact::Well);
    let all = std::iter::once(&own).chain(facts);
    all.map(|(kind, name, fact)| ((*kind, (*name).to_owned()), fact.clone())).collect()
}

/// A group that tracks one thing, named `x`.
fn tracking(kind: Kind, weight: i16) -> Group {
    Group { track: track(&[(kind, "x", weight)]), ..group("gw") }
}

#[test]
fn each_weight_does_what_keepalived_has_it_do() {
    #[rustfmt::skip]
    let table = [
        // weight  well  failed  unknown  failure is a fault
        (    0,      0,      0,       0,  true),
        (    1,      1,      0,       0,  false),
        (  253,    253,      0,       0,  false),
        (   -1,      0,     -1,       0,  false),
        ( -253,      0,   -253,       0,  false),
    ];
    for kind in KINDS {
        for (weight, when_well, when_failed, when_unknown, is_fault) in table {
            let group = tracking(kind, weight);
            for (fact, adjustment) in
                [(Fact::Well, when_well), (failed(), when_failed), (Fact::Unknown, when_unknown)]
            {
                let row = format!("{kind} {weight} {fact:?}");
                let found = standing(&group, &facts(&[(kind, "x", fact.clone())]), true);
                assert_eq!(found.adjustment, adjustment, "{row}");
                let faults = if is_fault && fact == failed() {
                    vec![format!("{kind} x: broken")]
                } else {
                    Vec::new()
                };
                assert_eq!(found.faults, faults, "{row}");
                assert!(found.ready, "{row}");
            }
        }
    }
}

#[test]
fn in_carp_a_failure_demotes_by_the_amount_of_its_weight() {
    for kind in KINDS {
        for weight in [-253, -20, 20, 253] {
            let group = Group { protocol: carp(), ..tracking(kind, weight) };
            for (fact, adjustment) in
                [(Fact::Well, 0), (failed(), -i32::from(weight).abs()), (Fact::Unknown, 0)]
            {
                let found = standing(&group, &facts(&[(kind, "x", fact)]), true);
                assert_eq!((found.adjustment, found.faults.len()), (adjustment, 0), "{weight}");
            }
        }
        let group = Group { protocol: carp(), ..tracking(kind, 0) };
        let found = standing(&group, &facts(&[(kind, "x", failed())]), true);
        assert_eq!((found.adjustment, found.faults.len()), (0, 1));
    }
}

#[test]
fn the_owner_of_the_addresses_is_not_adjusted_but_has_faults() {
    for weight in [-20, 20] {
        for fact in [Fact::Well, failed()] {
            let group = Group { protocol: vrrp(255), ..tracking(Kind::Script, weight) };
            assert_eq!(standing(&group, &facts(&[(Kind::Script, "x", fact)]), true).adjustment, 0);
        }
    }
    let group = Group { protocol: vrrp(255), ..tracking(Kind::Script, 0) };
    assert_eq!(standing(&group, &facts(&[(Kind::Script, "x", failed())]), true).faults.len(), 1);
}

#[test]
fn weights_add_up() {
    let track = track(&[
        (Kind::Script, "a", 10),
        (Kind::Script, "b", -20),
        (Kind::Process, "a", -7),
        (Kind::Service, "s", 253),
        (Kind::Interface, "eth5", -40),
    ]);
    let group = Group { track, ..group("gw") };
    let facts = facts(&[
        (Kind::Script, "a", Fact::Well),
        (Kind::Script, "b", failed()),
        (Kind::Process, "a", failed()),
        (Kind::Service, "s", Fact::Well),
        (Kind::Interface, "eth5", failed()),
    ]);
    let found = standing(&group, &facts, true);
    assert_eq!((found.adjustment, found.faults), (10 - 20 - 7 + 253 - 40, vec![]));
}

/// Even if someone gives them a weight, or forgets them.
#[test]
fn the_interfaces_of_a_group_and_its_addresses_are_always_a_matter_of_fault() {
    let all = [(Kind::Interface, "eth0", -5), (Kind::Interface, "eth9", 3)];
    let mut group = Group { track: track(&all), ..group("gw") };
    group.addresses.push(groups::address("10.3.3.4", "eth1"));
    group.addresses.push(groups::address("10.3.3.5", "eth1"));
    let interface = |name, weight| (Kind::Interface, name, weight);
    assert_eq!(tracked(&group), [interface("eth0", 0), interface("eth1", 0), interface("eth9", 3)]);
    let found = standing(&group, &facts(&[(Kind::Interface, "eth1", failed())]), true);
    assert_eq!(found.faults, ["interface eth1: broken"]);
}

#[test]
fn the_first_unknown_thing_is_named() {
    let all = [(Kind::Script, "a", 0), (Kind::Process, "b", 5)];
    let group = Group { track: track(&all), ..group("gw") };
    assert_eq!(unknown(&group, &Facts::new()), Some((Kind::Interface, "eth0")));
    assert_eq!(unknown(&group, &facts(&[])), Some((Kind::Script, "a")));
    let known = facts(&[(Kind::Script, "a", failed())]);
    assert_eq!(unknown(&group, &known), Some((Kind::Process, "b")));
    let known = facts(&[(Kind::Script, "a", failed()), (Kind::Process, "b", Fact::Well)]);
    assert_eq!(unknown(&group, &known), None);
    let conditions: Vec<_> = status(&group, &known).iter().map(|t| t.condition).collect();
    assert_eq!(conditions, [Condition::Well, Condition::Failed, Condition::Well]);
}

/// Anything tracked, with how it is.
fn things() -> impl Strategy<Value = Vec<(usize, i16, u8)>> {
    prop::collection::vec((0_usize..4, -253_i16..=253, 0_u8..3), 0..12)
}

proptest! {
    /// What fails never makes this host a better one, in whatever company and protocol.
    #[test]
    fn a_failure_never_improves_a_standing(things in things(), at in any::<usize>(), is_carp: bool) {
        let names: Vec<String> = (0..things.len()).map(|i| format!("t{i}")).collect();
        let all: Vec<_> =
            things.iter().zip(&names).map(|((k, w, _), n)| (KINDS[*k], n.as_str(), *w)).collect();
        let protocol = if is_carp { carp() } else { vrrp(100) };
        let group = Group { track: track(&all), protocol, ..group("gw") };
        let given: Vec<_> = things
            .iter()
            .zip(&all)
            .map(|((.., fact), (kind, name, _))| {
                let fact = [Fact::Unknown, Fact::Well, failed()][usize::from(*fact)].clone();
                (*kind, *name, fact)
            })
            .collect();
        let before = standing(&group, &facts(&given), true);
        if let Some(at) = at.checked_rem(given.len()) {
            let mut worse = given.clone();
            worse[at].2 = failed();
            let after = standing(&group, &facts(&worse), true);
            prop_assert!(after.adjustment <= before.adjustment);
            prop_assert!(after.faults.len() >= before.faults.len());
        }
    }
}

#[test]
fn lists_of_tracked_things_keep_their_kinds_apart() {
    let tracked = |name: &str| vec![Tracked { name: name.to_owned(), weight: 1 }];
    let kinds = [
        (Kind::Interface, "a", 1),
        (Kind::Script, "b", 1),
        (Kind::Process, "c", 1),
        (Kind::Service, "d", 1),
    ];
    let expected = Track {
        interfaces: tracked("a"),
        scripts: tracked("b"),
        processes: tracked("c"),
        services: tracked("d"),
    };
    assert_eq!(track(&kinds), expected);
    let group = Group { track: expected, ..group("gw") };
    assert_eq!(super::super::standing::tracked(&group)[1..], kinds);
}
