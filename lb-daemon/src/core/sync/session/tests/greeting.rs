//! Who may talk with whom.

use super::{
    super::super::{Hello, Message},
    super::{Stage, greeting::compare},
    hello,
    pair::Pair,
};

/// What the two say of each other, the second with another greeting.
fn meet(change: impl Fn(&mut Hello)) -> Result<Vec<String>, String> {
    let mut other = hello(1);
    change(&mut other);
    compare(&hello(0), &other)
}

#[test]
fn hosts_that_are_configured_alike_have_nothing_to_tell_people() {
    assert_eq!(meet(|_| ()), Ok(vec![]));
}

#[test]
fn the_highest_version_that_both_speak_is_enough() {
    assert_eq!(meet(|other| other.versions = 1..=9), Ok(vec![]));
}

#[test]
fn a_peer_without_a_common_version_is_refused_by_the_programs_names() {
    let why = meet(|other| {
        other.versions = 2..=3;
        other.program = "7.0".to_owned();
    })
    .unwrap_err();
    assert_eq!(
        why,
        "second has Tandem 7.0, which speaks version 2 to 3 of the protocol, this host Tandem 0.1.0 \
         and 1: bring both to the same version of Tandem"
    );
}

#[test]
fn hosts_that_translate_to_the_same_ports_are_refused() {
    let why = meet(|other| other.source_ports = 1999..=2999).unwrap_err();
    assert!(why.contains("to the ports 1999 to 1999"), "{why}");
    assert_eq!(meet(|other| other.source_ports = 2000..=2000), Ok(vec![]));
}

#[test]
fn groups_that_only_one_has_are_told() {
    let notices = meet(|other| {
        other.groups.remove("a");
        other.groups.insert("c".to_owned());
    });
    let expected = [
        "only this host has the groups a: nothing of them is kept equal",
        "only second has the groups c: nothing of them is kept equal",
    ];
    assert_eq!(notices.unwrap(), expected);
}

#[test]
fn both_hosts_show_why_they_do_not_talk() {
    let mut pair = Pair::new();
    pair.sessions[1].hello.versions = 2..=2;
    pair.connect();
    let why = pair.hear(0).expect("the first refuses");
    assert!(pair.said[0].contains(&Message::Bye(why.clone())));
    pair.sessions[0].disconnected("closed", pair.now);
    assert_eq!(pair.view(0).state, Stage::Refused);
    assert_eq!(pair.view(0).why, why);
    assert!(pair.hear(1).is_some());
    assert_eq!(pair.view(1).state, Stage::Refused);
}

#[test]
fn whoever_does_not_say_who_it_is_is_not_listened_to() {
    let mut pair = Pair::new();
    pair.connect();
    assert_eq!(pair.hand(0, Message::Alive).as_deref(), Some("the peer does not say who it is"));
    assert_eq!(pair.view(0).state, Stage::Disconnected);
}

#[test]
fn nobody_is_waited_for_for_long() {
    let mut pair = Pair::new();
    pair.connect();
    pair.now += super::super::PEER_GONE;
    assert!(pair.poll(0, 10).is_some());
}
