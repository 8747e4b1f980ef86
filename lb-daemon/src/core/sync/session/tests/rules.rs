//! The rules of a conversation, one by one.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::super::{Change, Conflict, Hello, Message, Scope, Tables},
    super::{Stage, limits::Limits, talk::DIGESTS},
    limits, milli,
    pair::{Pair, connection, tuple},
    settings,
};

/// Two hosts in sync, of which the first serves both groups.
pub(super) fn in_sync() -> Pair {
    let mut pair = Pair::new();
    pair.serve(0, &["a", "b"]);
    pair.connect();
    pair.settle();
    assert_eq!(pair.view(0).state, Stage::InSync);
    assert_eq!(pair.view(1).state, Stage::InSync);
    pair.said = [vec![], vec![]];
    pair
}

fn groups(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn the_lag_counts_from_when_the_program_reported_a_change() {
    let mut pair = in_sync();
    pair.tables[0].age = milli(300);
    pair.open(0, tuple(1, 1, 1000));
    pair.poll(0, 10);
    pair.now += milli(30);
    pair.settle();
    assert_eq!(pair.view(0).lag.last_seconds, Some(0.33));
}

#[test]
fn a_change_is_told_and_acknowledged() {
    let mut pair = in_sync();
    pair.open(0, tuple(1, 1, 1000));
    pair.poll(0, 10);
    assert_eq!(pair.view(0).queue.changes, 1);
    pair.now += milli(30);
    pair.settle();
    assert!(pair.tables[1].has(&tuple(1, 1, 1000)));
    let view = pair.view(0);
    assert_eq!(view.queue.changes, 0);
    assert_eq!(view.lag.last_seconds, Some(0.03));
    assert_eq!(view.lag.p99_seconds, Some(0.03));
    assert_eq!((view.totals.changes_sent, pair.view(1).totals.changes_received), (1, 1));
}

#[test]
fn what_was_adopted_is_not_told_back() {
    let mut pair = in_sync();
    pair.open(0, tuple(1, 1, 1000));
    pair.settle();
    let is_ack = |message: &Message| matches!(message, Message::Ack { .. });
    assert!(pair.said[1].iter().all(is_ack), "{:?}", pair.said[1]);
}

#[test]
fn who_joins_is_told_all_and_forgets_what_is_over() {
    let mut pair = Pair::new();
    for client in 0..50 {
        pair.open(0, tuple(client, 1, 1000 + client));
    }
    let over = tuple(99, 1, 1999);
    pair.open(1, over);
    pair.serve(0, &["a"]);
    pair.tables[0].happens(Change::Gone(over));
    pair.poll(0, 0);
    pair.poll(1, 0);
    pair.connect();
    pair.settle();
    assert_eq!(pair.tables[0].open().len(), 50);
    assert_eq!(pair.tables[1].open(), pair.tables[0].open());
    let totals = pair.view(1).totals;
    assert_eq!((totals.adopted, totals.forgotten, totals.changes_received), (50, 1, 0));
}

#[test]
fn a_group_that_this_host_serves_is_never_forgotten() {
    let mut pair = Pair::new();
    pair.open(0, tuple(1, 1, 1000));
    pair.open(1, tuple(2, 1, 2000));
    pair.serve(0, &["a"]);
    pair.serve(1, &["a"]);
    pair.connect();
    pair.settle();
    assert_eq!(pair.tables[0].open().len(), 2);
    assert_eq!(pair.tables[1].open().len(), 2);
}

#[test]
fn the_loser_of_a_split_brain_tells_what_it_has_before_it_forgets() {
    let mut pair = in_sync();
    pair.disconnect();
    pair.serve(1, &["a"]);
    pair.poll(1, 0);
    pair.open(1, tuple(1, 1, 2000));
    // Both have the same client.
    pair.open(0, tuple(2, 1, 1000));
    pair.open(1, tuple(2, 1, 2001));
    pair.serve(1, &[]);
    pair.connect();
    // The winner tells all it has while the loser cannot say a word.
    for _ in 0..10 {
        pair.poll(0, 10);
        assert_eq!(pair.hear(1), None);
        pair.poll(1, 0);
        assert_eq!(pair.hear(0), None);
    }
    assert!(pair.tables[1].has(&tuple(1, 1, 2000)));
    pair.settle();
    let both = BTreeSet::from([tuple(1, 1, 2000), tuple(2, 1, 1000)]);
    assert_eq!(pair.tables[0].open(), both);
    assert_eq!(pair.tables[1].open(), both);
}

#[test]
fn what_was_not_acknowledged_before_a_cut_is_told_after_it_by_who_serves_no_longer() {
    let mut pair = in_sync();
    pair.open(0, tuple(1, 1, 1000));
    pair.poll(0, 10);
    pair.serve(0, &[]);
    pair.poll(0, 10);
    pair.disconnect();
    pair.serve(1, &["a", "b"]);
    pair.poll(1, 0);
    pair.connect();
    pair.settle();
    assert!(pair.tables[1].has(&tuple(1, 1, 1000)));
    // But it is not owed for ever.
    assert_eq!(pair.sessions[0].owed, BTreeSet::new());
}

#[test]
fn changes_go_before_transfers() {
    let mut pair = in_sync();
    for client in 0..100 {
        pair.open(0, tuple(client, 1, 1000 + client));
        pair.settle();
    }
    let buckets = (0..=u8::MAX).collect();
    pair.hand(0, Message::Want(Scope { groups: groups(&["a"]), buckets }));
    pair.poll(0, 2);
    pair.said = [vec![], vec![]];
    pair.open(0, tuple(200, 1, 1200));
    pair.poll(0, 2);
    let [Message::Changes(_), Message::Transfer(_)] = &pair.said[0][..] else {
        panic!("{:?}", pair.said[0]);
    };
}

#[test]
fn a_slow_peer_is_told_all_anew_when_the_queue_overflows() {
    let mut pair = in_sync();
    for client in 0..100 {
        pair.open(0, tuple(client, 1, 1000 + client));
        pair.poll(0, 0);
    }
    assert!(pair.said[0].is_empty());
    pair.settle();
    assert_eq!(pair.view(0).totals.lost, 1);
    assert_eq!(pair.tables[1].open().len(), 100);
    assert!(pair.view(1).totals.connections_received > 0);
}

#[test]
fn a_peer_that_acknowledges_nothing_is_sent_no_more() {
    let mut pair = in_sync();
    for client in 0..100 {
        pair.open(0, tuple(client, 1, 1000 + client));
        pair.poll(0, 100);
    }
    assert_eq!(pair.view(0).queue.messages, limits().unacked as u64);
    for _ in 0..29 {
        pair.now += Duration::from_secs(1);
        pair.hand(0, Message::Alive);
        assert_eq!(pair.poll(0, 100), None);
    }
    pair.now += Duration::from_secs(1);
    pair.hand(0, Message::Alive);
    assert_eq!(pair.poll(0, 100).as_deref(), Some("the peer acknowledges nothing"));
}

#[test]
fn what_the_program_could_not_report_is_transferred() {
    let mut pair = in_sync();
    for client in 0..1100_u16 {
        // The ring has a thousand places, the table less.
        pair.open(0, tuple(client % 100, 1, 1000 + client % 100));
    }
    pair.settle();
    assert!(pair.view(0).totals.lost >= 1);
    assert_eq!(pair.tables[0].open(), pair.tables[1].open());
}

#[test]
fn silence_is_broken_every_second_and_ends_a_conversation_after_five() {
    let mut pair = in_sync();
    pair.now += Duration::from_secs(1);
    assert_eq!(pair.poll(0, 1), None);
    assert_eq!(pair.said[0], [Message::Alive]);
    let due = pair.sessions[0].next_deadline();
    assert!(due <= pair.now + Duration::from_secs(1), "{due:?} is later than a second from now");
    pair.now += Duration::from_secs(4);
    assert_eq!(pair.poll(0, 1).as_deref(), Some("the peer has said nothing for 5 s"));
}

#[test]
fn a_difference_is_found_and_repaired() {
    let mut pair = in_sync();
    for client in 0..40 {
        pair.open(0, tuple(client, 1, 1000 + client));
        pair.settle();
    }
    // One is lost, one is too much.
    let lost = tuple(7, 1, 1007);
    pair.tables[1].remove((lost.client, lost.bind));
    let wrong = [Change::Is(connection(tuple(99, 1, 1099)))];
    pair.tables[1].adopt(&wrong, Conflict::KeepOurs).unwrap();
    pair.pass(Duration::from_secs(10));
    assert_eq!(pair.view(1).totals.mismatches, 2);
    assert_eq!(pair.view(1).totals.repaired, 0);
    pair.pass(Duration::from_secs(11));
    assert_eq!(pair.view(1).totals.repaired, 2);
    assert_eq!(pair.tables[0].open(), pair.tables[1].open());
}

#[test]
fn digests_of_more_groups_than_messages_go_at_a_time_are_told_when_they_are_due() {
    let mut pair = in_sync();
    let names: Vec<String> = (0..20).map(|number| format!("group {number}")).collect();
    pair.serve(0, &names.iter().map(String::as_str).collect::<Vec<_>>());
    pair.settle();
    pair.now += DIGESTS;
    pair.hand(0, Message::Alive);
    pair.said = [vec![], vec![]];
    assert_eq!(pair.poll(0, limits().unacked), None);
    let is_digest = |message: &&Message| matches!(message, Message::Digest { .. });
    assert_eq!(pair.said[0].iter().filter(is_digest).count(), names.len());
    assert!(pair.sessions[0].next_deadline() > pair.now, "it asks to be called all the time");
}

#[test]
fn a_repair_that_does_not_help_is_tried_less_and_less_often() {
    let mut pair = in_sync();
    pair.tables[1] = super::model::Model::new(0, 10);
    pair.open(0, tuple(1, 1, 1000));
    pair.settle();
    pair.pass(Duration::from_secs(300));
    let repaired = pair.view(1).totals.repaired;
    assert!((3..=5).contains(&repaired), "{repaired} in 300 s");
}

#[test]
fn a_host_is_ready_when_it_has_all_that_the_peer_serves() {
    let mut pair = Pair::with(Limits { transfer: 1, ..limits() }, settings());
    pair.serve(0, &["a"]);
    for client in 0..50 {
        pair.open(0, tuple(client, 1, 1000 + client));
    }
    pair.poll(0, 0);
    pair.connect();
    for _ in 0..6 {
        pair.poll(0, 10);
        pair.hear(1);
        pair.poll(1, 10);
        pair.hear(0);
        assert!(!pair.sessions[1].is_ready(pair.now));
    }
    let why = pair.view(1).not_ready.unwrap();
    assert_eq!(
        (why.why.as_str(), why.at_most_seconds),
        ("the peer's connections are coming in", 20)
    );
    pair.settle();
    assert!(pair.sessions[1].is_ready(pair.now));
    // Nothing is to come from a peer that serves nothing.
    assert!(pair.sessions[0].is_ready(pair.now));
}

#[test]
fn a_host_that_hears_nothing_is_ready_after_a_while() {
    let mut pair = Pair::new();
    pair.now += Duration::from_millis(19_999);
    assert!(!pair.sessions[0].is_ready(pair.now));
    pair.now += milli(1);
    assert!(pair.sessions[0].is_ready(pair.now));
    pair.serve(0, &["a"]);
    pair.connect();
    pair.settle();
    pair.disconnect();
    assert!(!pair.sessions[1].is_ready(pair.now), "what the peer tells no one is missing");
    pair.now += settings().preempt_wait;
    assert!(pair.sessions[1].is_ready(pair.now));
}

#[test]
fn grace_ends_when_the_peer_has_given_the_group_up_and_told_everything() {
    let mut pair = in_sync();
    pair.open(0, tuple(1, 1, 1000));
    pair.serve(1, &["a"]);
    pair.poll(1, 10);
    assert!(pair.tables[1].grace.contains("a"), "the peer serves it still");
    pair.serve(0, &["b"]);
    // It is told before the group is given up, though there is room for one message only.
    pair.poll(0, 1);
    pair.hear(1);
    pair.poll(1, 10);
    assert!(pair.tables[1].grace.contains("a"));
    pair.poll(0, 10);
    pair.hear(1);
    pair.poll(1, 10);
    assert!(!pair.tables[1].grace.contains("a"));
    assert!(pair.tables[1].has(&tuple(1, 1, 1000)));
}

#[test]
fn grace_ends_when_the_link_is_down_and_all_was_there() {
    let mut pair = in_sync();
    pair.disconnect();
    pair.serve(1, &["a"]);
    pair.poll(1, 0);
    assert!(!pair.tables[1].grace.contains("a"));
    let mut alone = Pair::new();
    alone.serve(1, &["a"]);
    alone.poll(1, 0);
    assert!(alone.tables[1].grace.contains("a"), "it has never had the tables");
}

#[test]
fn what_became_silent_at_a_peer_is_not_over_here() {
    let mut pair = in_sync();
    pair.open(0, tuple(1, 1, 1000));
    pair.open(0, tuple(1, 2, 1001));
    pair.settle();
    pair.serve(1, &["a"]);
    pair.tables[0].happens(Change::Gone(tuple(1, 1, 1000)));
    pair.tables[0].happens(Change::Gone(tuple(1, 2, 1001)));
    pair.settle();
    assert!(pair.tables[1].has(&tuple(1, 1, 1000)));
    assert!(!pair.tables[1].has(&tuple(1, 2, 1001)));
}

#[test]
fn own_connections_of_groups_that_are_served_stay_and_others_give_way() {
    let mut pair = in_sync();
    pair.serve(1, &["b"]);
    for bind in [1, 2] {
        pair.tables[1].happens(Change::Is(connection(tuple(1, bind, 2000 + bind))));
        pair.open(0, tuple(1, bind, 1000 + bind));
    }
    pair.poll(0, 10);
    pair.hear(1);
    assert!(pair.tables[1].has(&tuple(1, 1, 1001)), "group a is the peer's");
    assert!(pair.tables[1].has(&tuple(1, 2, 2002)), "group b is served here too");
    assert_eq!(pair.view(1).totals.conflicts, 1);
}

#[test]
fn a_restart_of_both_hosts_one_after_the_other_loses_nothing() {
    let mut pair = Pair::new();
    // The daemon that reported it to nobody is gone, and nobody serves now.
    pair.tables[0].happens(Change::Is(connection(tuple(1, 1, 1000))));
    pair.connect();
    pair.settle();
    pair.serve(1, &["a"]);
    pair.settle();
    assert!(pair.tables[1].has(&tuple(1, 1, 1000)));
}

#[test]
fn a_cut_in_the_middle_of_a_transfer_forgets_nothing() {
    let mut pair = Pair::new();
    pair.open(1, tuple(1, 1, 1000));
    pair.poll(1, 0);
    pair.serve(0, &["a"]);
    // The other host knows it to be over.
    pair.tables[0].happens(Change::Gone(tuple(1, 1, 1000)));
    for client in 2..50 {
        pair.open(0, tuple(client, 1, 1000 + client));
    }
    pair.poll(0, 0);
    pair.connect();
    let mut turns = 0;
    while pair.tables[1].open().len() < 10 {
        assert!(turns < 40, "nothing is transferred");
        turns += 1;
        pair.poll(0, 3);
        pair.hear(1);
        pair.poll(1, 10);
        pair.hear(0);
    }
    assert_eq!(pair.view(1).state, Stage::Transferring);
    let before = pair.tables[1].open().len();
    assert!((2..48).contains(&before), "{before}");
    pair.disconnect();
    assert!(pair.tables[1].has(&tuple(1, 1, 1000)));
    pair.connect();
    pair.settle();
    assert_eq!(pair.tables[1].open(), pair.tables[0].open());
}

#[test]
fn nonsense_ends_the_conversation() {
    let nonsense = [
        Message::Transfer(vec![]),
        Message::TransferEnds { id: 77 },
        Message::TransferDone { id: 77 },
        Message::Ack { number: 1000, refused: 0 },
        Message::Hello(super::hello(1)),
        Message::Bye("it is late".to_owned()),
    ];
    for message in nonsense {
        let mut pair = in_sync();
        let why = pair.hand(0, message.clone());
        assert!(why.is_some(), "{message:?}");
        assert_eq!(pair.view(0).state, Stage::Disconnected);
    }
}

#[test]
fn the_tables_are_told_which_groups_the_peer_has_and_remember_it() {
    let mut pair = in_sync();
    pair.now += Duration::from_secs(1);
    pair.settle();
    assert_eq!(pair.tables[0].peers, groups(&["a", "b"]));
    let hello = Hello { groups: groups(&["a"]), ..super::hello(1) };
    pair.disconnect();
    pair.sessions[1].configure(hello, settings());
    pair.connect();
    pair.now += Duration::from_secs(1);
    pair.settle();
    pair.disconnect();
    pair.now += Duration::from_secs(1);
    pair.poll(0, 0);
    assert_eq!(pair.tables[0].peers, groups(&["a"]));
}

#[test]
fn another_configuration_begins_another_conversation() {
    let mut pair = in_sync();
    let mut hello = super::hello(0);
    pair.sessions[0].configure(hello.clone(), settings());
    assert_eq!(pair.poll(0, 10), None, "it is the same");
    hello.groups.insert("c".to_owned());
    pair.sessions[0].configure(hello, settings());
    assert_eq!(pair.poll(0, 10).as_deref(), Some("the configuration has changed"));
}
