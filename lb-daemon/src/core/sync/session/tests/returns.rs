//! A host that comes back knows what nobody else does, and does not know what is over.

use std::collections::BTreeSet;

use lb_common::flow::{CLIENT_FIN, SERVER_FIN, SYN_ACK};

use super::{
    super::super::{Change, Conflict, Connection, Message, Tables},
    super::{Stage, limits::Limits, talk::DIGESTS},
    limits,
    pair::{Pair, connection, tuple},
    rules::in_sync,
    settings,
};

#[test]
fn what_only_a_host_that_comes_back_knows_is_not_forgotten() {
    let mut pair = in_sync();
    let [both, untold] = [tuple(1, 1, 1000), tuple(2, 1, 1001)];
    pair.open(0, both);
    pair.settle();
    pair.open(0, untold);
    pair.restart(0);
    pair.serve(0, &[]);
    pair.serve(1, &["a", "b"]);
    pair.poll(1, 0);
    // What the new master has is right if the two contradict each other.
    let [ours, theirs] = [tuple(3, 1, 2000), tuple(3, 1, 1002)];
    pair.tables[0].adopt(&[Change::Is(connection(theirs))], Conflict::KeepOurs).unwrap();
    pair.open(1, ours);
    pair.connect();
    pair.settle();
    for host in [0, 1] {
        assert_eq!(pair.tables[host].open(), BTreeSet::from([both, untold, ours]), "of {host}");
        assert_eq!(pair.view(host).state, Stage::InSync);
    }
}

#[test]
fn what_only_the_other_host_knows_is_not_forgotten_by_one_that_has_lost_its_tables() {
    let mut pair = in_sync();
    let known = tuple(1, 1, 1000);
    pair.open(0, known);
    pair.settle();
    // Its power fails, and the other one cannot take over before it is back.
    pair.restart(0);
    pair.tables[0] = pair.tables[0].wiped();
    pair.connect();
    pair.settle();
    pair.serve(0, &["a", "b"]);
    pair.settle();
    for host in [0, 1] {
        assert_eq!(pair.tables[host].open(), BTreeSet::from([known]), "of {host}");
        assert_eq!(pair.view(host).state, Stage::InSync);
    }
}

#[test]
fn what_ended_while_the_peer_was_away_does_not_come_back() {
    let mut pair = in_sync();
    let closed = |client| {
        let state = connection(tuple(client, 1, 1000 + client)).state | CLIENT_FIN | SERVER_FIN;
        Change::Is(Connection { state, ..connection(tuple(client, 1, 1000 + client)) })
    };
    for client in 0..4 {
        pair.open(0, tuple(client, 1, 1000 + client));
    }
    pair.settle();
    // Its end is on its way when the link is cut, or about to be.
    pair.tables[0].happens(closed(0));
    pair.poll(0, 10);
    pair.tables[0].happens(Change::Gone(tuple(1, 1, 1001)));
    pair.poll(0, 0);
    pair.restart(1);
    pair.tables[0].happens(closed(2));
    pair.poll(0, 0);
    pair.connect();
    // Or while the peer is telling of it.
    pair.poll(0, 10);
    pair.hear(1);
    pair.tables[0].happens(Change::Gone(tuple(3, 1, 1003)));
    pair.settle();
    assert_eq!(pair.tables[1].open(), BTreeSet::new());
    assert_eq!(pair.tables[0].open(), BTreeSet::new());
}

#[test]
fn what_the_peer_was_told_of_just_before_a_cut_does_not_come_back() {
    let mut pair = in_sync();
    let [before, after] = [1, 2].map(|client| tuple(client, 1, 1000 + client));
    pair.disconnect();
    pair.open(0, before);
    pair.poll(0, 10);
    pair.connect();
    // It is told of both, but does not come to say so.
    let mut turns = 0;
    while !pair.tables[1].has(&before) {
        assert!(turns < 20, "nothing is transferred");
        turns += 1;
        pair.poll(1, 10);
        pair.hear(0);
        pair.poll(0, 10);
        pair.hear(1);
    }
    pair.open(0, after);
    pair.poll(0, 10);
    pair.hear(1);
    assert!(pair.tables[1].has(&after));
    assert_eq!(pair.view(0).state, Stage::Transferring);
    pair.disconnect();
    for one in [before, after] {
        pair.tables[0].happens(Change::Gone(one));
    }
    pair.poll(0, 10);
    pair.connect();
    pair.settle();
    for host in [0, 1] {
        assert_eq!(pair.tables[host].open(), BTreeSet::new(), "of {host}");
    }
}

#[test]
fn what_timed_out_while_the_peer_was_away_comes_back_only_from_one_that_may_have_served() {
    for has_restarted in [false, true] {
        let mut pair = in_sync();
        let one = tuple(1, 1, 1000);
        pair.open(0, one);
        pair.settle();
        pair.disconnect();
        if has_restarted {
            // Nobody knows what the daemon before this one did.
            pair.restart(1);
        }
        pair.tables[0].expire(&one);
        pair.poll(0, 10);
        pair.poll(1, 10);
        pair.connect();
        pair.settle();
        for host in [0, 1] {
            assert_eq!(pair.tables[host].has(&one), has_restarted, "of {host}");
        }
    }
}

#[test]
fn what_the_peer_was_told_of_as_answered_does_not_come_back_after_its_end() {
    let mut pair = in_sync();
    let established = connection(tuple(1, 1, 1000));
    let answered = Connection { state: SYN_ACK, ..established };
    pair.tables[0].happens(Change::Answered(answered));
    pair.settle();
    pair.disconnect();
    let state = established.state | CLIENT_FIN | SERVER_FIN;
    for connection in [established, Connection { state, ..established }] {
        pair.tables[0].happens(Change::Is(connection));
        pair.poll(0, 10);
    }
    pair.tables[0].purge();
    pair.connect();
    pair.settle();
    for host in [0, 1] {
        assert_eq!(pair.tables[host].open(), BTreeSet::new(), "of {host}");
    }
}

#[test]
fn a_host_is_not_ready_because_it_has_told_a_master_all_it_has() {
    let mut pair = Pair::with(Limits { transfer: 1, ..limits() }, settings());
    pair.serve(0, &["a"]);
    for client in 0..50 {
        pair.open(0, tuple(client, 1, 1000 + client));
    }
    pair.poll(0, 0);
    pair.connect();
    let is_done = |message: &Message| matches!(message, Message::TransferDone { .. });
    let mut turns = 0;
    while !pair.said[0].iter().any(is_done) {
        assert!(turns < 20, "it does not ask");
        turns += 1;
        pair.poll(0, 1);
        pair.hear(1);
        pair.poll(1, 10);
        pair.hear(0);
    }
    pair.hear(1);
    assert!(!pair.sessions[1].is_ready(pair.now));
    pair.settle();
    assert!(pair.sessions[1].is_ready(pair.now));
}

#[test]
fn what_grew_silent_at_one_of_two_masters_that_talk_goes_on_by_the_other() {
    let mut pair = in_sync();
    let [one, two, ended] = [1, 2, 3].map(|client| tuple(client, 1, 1000 + client));
    for open in [one, two, ended] {
        pair.open(0, open);
    }
    pair.settle();
    pair.serve(1, &["a", "b"]);
    pair.settle();
    let ended_later = tuple(4, 1, 1004);
    pair.open(0, ended_later);
    pair.settle();
    assert!(pair.tables[1].has(&ended_later), "each is told what opens at the other");
    // The packets go to the second, which gives way in the end.
    pair.tables[0].expire(&one);
    for over in [ended, ended_later] {
        pair.tables[0].happens(Change::Gone(over));
    }
    pair.settle();
    // This one's end is under way then.
    pair.tables[0].expire(&two);
    pair.poll(0, 10);
    pair.serve(1, &[]);
    pair.hear(1);
    pair.settle();
    pair.pass(3 * DIGESTS);
    for host in [0, 1] {
        assert_eq!(pair.tables[host].open(), BTreeSet::from([one, two]), "of {host}");
        assert_eq!(pair.view(host).state, Stage::InSync);
    }
}

#[test]
fn grace_lasts_until_the_other_of_two_masters_has_told_all_it_has() {
    let mut pair = Pair::with(Limits { transfer: 1, ..limits() }, settings());
    pair.serve(1, &["a"]);
    pair.connect();
    pair.settle();
    pair.serve(0, &["a"]);
    pair.settle();
    let one = tuple(1, 1, 2000);
    pair.open(1, one);
    pair.settle();
    pair.tables[0].expire(&one);
    pair.settle();
    assert!(!pair.tables[0].has(&one) && pair.tables[0].grace.contains("a"));
    pair.serve(1, &[]);
    let mut turns = 0;
    while pair.tables[0].grace.contains("a") {
        assert!(turns < 20, "it does not end");
        turns += 1;
        pair.poll(1, 1);
        let said = std::mem::take(&mut pair.lines[0]);
        for message in said {
            assert_eq!(pair.hand(0, message), None);
            pair.poll(0, 10);
            assert!(pair.tables[0].has(&one) || pair.tables[0].grace.contains("a"));
        }
        pair.hear(1);
    }
    assert!(pair.tables[0].has(&one));
}

#[test]
fn two_masters_do_not_wait_for_each_other() {
    let mut pair = Pair::new();
    pair.open(0, tuple(1, 1, 1000));
    pair.open(1, tuple(2, 1, 2000));
    for host in [0, 1] {
        pair.serve(host, &["a", "b"]);
        pair.poll(host, 0);
    }
    pair.connect();
    pair.settle();
    for host in [0, 1] {
        assert_eq!(pair.view(host).state, Stage::InSync);
        assert_eq!(pair.tables[host].open().len(), 2);
    }
}

#[test]
fn what_grew_silent_at_one_of_two_parted_hosts_goes_on_by_the_other() {
    let mut pair = in_sync();
    let one = tuple(1, 1, 1000);
    pair.open(0, one);
    pair.settle();
    pair.disconnect();
    // Both serve now, and the packets go to the second.
    pair.serve(1, &["a", "b"]);
    pair.poll(1, 10);
    pair.tables[0].expire(&one);
    pair.poll(0, 10);
    pair.serve(1, &[]);
    pair.poll(1, 10);
    pair.connect();
    pair.settle();
    for host in [0, 1] {
        assert_eq!(pair.tables[host].open(), BTreeSet::from([one]), "of {host}");
        assert_eq!(pair.view(host).state, Stage::InSync);
    }
}
