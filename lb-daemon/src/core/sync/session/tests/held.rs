//! SYN-ACKs that wait for the peer.

use lb_common::flow::SYN_ACK;

use super::{
    super::super::{Change, Connection, Message, Tables as _, Tuple},
    limits,
    pair::{Pair, tuple},
};

/// Two hosts in sync, of which the first serves both groups.
fn in_sync() -> Pair {
    let mut pair = Pair::new();
    pair.serve(0, &["a", "b"]);
    pair.connect();
    pair.settle();
    assert!(pair.tables[0].is_holding);
    pair
}

/// A backend answers on the first host.
fn answer(pair: &mut Pair, tuple: Tuple) {
    let connection = Connection { tuple, state: SYN_ACK, timestamp: 7 };
    pair.tables[0].happens(Change::Answered(connection));
}

#[test]
fn a_client_is_told_when_the_peer_has_acknowledged_and_no_sooner() {
    let mut pair = in_sync();
    answer(&mut pair, tuple(1, 1, 1000));
    assert_eq!(pair.poll(0, 10), None);
    assert!(pair.tables[0].released.is_empty());
    assert_eq!(pair.view(0).held, 1);
    assert_eq!(pair.hear(1), None);
    assert!(pair.tables[1].is_half_open(&tuple(1, 1, 1000)), "the peer has it");
    assert_eq!(pair.poll(1, 10), None);
    assert!(pair.tables[0].released.is_empty(), "it has not heard that yet");
    assert_eq!(pair.hear(0), None);
    assert_eq!(pair.tables[0].released, [tuple(1, 1, 1000)]);
    let view = pair.view(0);
    assert_eq!((view.held, view.totals.held, view.totals.unacknowledged), (0, 1, 0));
}

#[test]
fn an_acknowledgement_releases_what_it_is_for_and_nothing_more() {
    let mut pair = in_sync();
    answer(&mut pair, tuple(1, 1, 1000));
    pair.poll(0, 10);
    pair.hear(1);
    pair.poll(1, 10);
    answer(&mut pair, tuple(2, 1, 1001));
    pair.poll(0, 10);
    pair.hear(0);
    assert_eq!(pair.tables[0].released, [tuple(1, 1, 1000)]);
    pair.settle();
    assert_eq!(pair.tables[0].released, [tuple(1, 1, 1000), tuple(2, 1, 1001)]);
}

#[test]
fn each_waits_for_its_own_of_many_messages() {
    let mut pair = in_sync();
    let all: Vec<Tuple> = (0..5).map(|i| tuple(i, 1, 1000 + i)).collect();
    for (i, one) in all.iter().enumerate() {
        answer(&mut pair, *one);
        // The batch is full.
        for j in 0..7 {
            let n = 100 + 10 * u16::try_from(i).unwrap() + j;
            pair.open(0, tuple(n, 1, 1000 + n));
        }
    }
    pair.poll(0, 100);
    pair.poll(0, 100);
    pair.poll(0, 100);
    let messages = std::mem::take(&mut pair.lines[1]);
    for (count, message) in (1..).zip(messages) {
        pair.hand(1, message);
        pair.poll(1, 0);
        pair.hear(0);
        assert_eq!(pair.tables[0].released, all[..count.min(all.len())]);
    }
    assert_eq!(pair.tables[0].released, all);
}

#[test]
fn a_client_waits_no_longer_than_it_may_and_then_nobody_waits_until_the_peer_has_caught_up() {
    let mut pair = in_sync();
    answer(&mut pair, tuple(1, 1, 1000));
    pair.poll(0, 10);
    let end = pair.now + limits().hold;
    pair.now += limits().hold / 2;
    pair.poll(0, 10);
    assert!(pair.tables[0].released.is_empty());
    assert_eq!(pair.sessions[0].next_deadline(), end);
    pair.now = end;
    pair.poll(0, 10);
    assert_eq!(pair.tables[0].released, [tuple(1, 1, 1000)]);
    assert_eq!(pair.view(0).totals.unacknowledged, 1);
    assert!(!pair.tables[0].is_holding && !pair.view(0).is_holding);
    pair.settle();
    assert!(pair.tables[0].is_holding, "it has caught up");
    assert_eq!(pair.view(0).totals.held, 0, "it is not counted twice");
}

#[test]
fn a_client_waits_no_longer_because_its_answer_was_read_late() {
    let mut pair = in_sync();
    pair.tables[0].age = limits().hold / 2;
    answer(&mut pair, tuple(1, 1, 1000));
    pair.poll(0, 10);
    assert!(pair.tables[0].released.is_empty());
    assert_eq!(pair.sessions[0].next_deadline(), pair.now + limits().hold / 2);
    pair.now += limits().hold / 2;
    pair.poll(0, 10);
    assert_eq!(pair.tables[0].released, [tuple(1, 1, 1000)]);
}

#[test]
fn nobody_waits_for_a_peer_that_is_gone() {
    let mut pair = in_sync();
    answer(&mut pair, tuple(1, 1, 1000));
    pair.poll(0, 10);
    // One that was not read yet.
    answer(&mut pair, tuple(2, 1, 1001));
    pair.disconnect();
    assert!(pair.sessions[0].next_deadline() <= pair.now);
    pair.poll(0, 0);
    let released: std::collections::BTreeSet<_> = pair.tables[0].released.iter().collect();
    assert_eq!(released.len(), 2);
    assert!(!pair.tables[0].is_holding);
    assert_eq!(pair.view(0).totals.unacknowledged, 2);
}

#[test]
fn nobody_waits_in_a_new_conversation_for_what_the_old_one_was_to_acknowledge() {
    let mut pair = in_sync();
    answer(&mut pair, tuple(1, 1, 1000));
    pair.poll(0, 10);
    pair.disconnect();
    // Before anything was polled in between.
    pair.connect();
    assert!(pair.sessions[0].next_deadline() <= pair.now);
    pair.poll(0, 10);
    assert_eq!(pair.tables[0].released, [tuple(1, 1, 1000)]);
    assert_eq!(pair.view(0).totals.unacknowledged, 1);
}

#[test]
fn there_is_a_bound_to_how_many_wait() {
    let mut pair = in_sync();
    let many = u16::try_from(limits().held).unwrap() + 3;
    for client in 0..many {
        answer(&mut pair, tuple(client, 1, 1000 + client));
    }
    pair.poll(0, 10);
    assert_eq!(pair.tables[0].released, [0, 1, 2].map(|n| tuple(n, 1, 1000 + n)));
    pair.settle();
    assert_eq!(pair.tables[0].released.len(), usize::from(many));
    let totals = pair.view(0).totals;
    assert_eq!((totals.unacknowledged, totals.held), (3, u64::from(many) - 3));
}

#[test]
fn nobody_waits_for_changes_that_were_thrown_away() {
    let mut pair = in_sync();
    answer(&mut pair, tuple(500, 1, 1500));
    for client in 0..80 {
        pair.open(0, tuple(client, 1, 1000 + client));
    }
    pair.poll(0, 0);
    assert_eq!(pair.view(0).totals.lost, 1);
    assert_eq!(pair.tables[0].released, [tuple(500, 1, 1500)]);
    assert_eq!(pair.view(0).totals.unacknowledged, 1);
    pair.settle();
    assert_eq!(pair.tables[1].open().len(), 81, "the half-open one is transferred too");
}

#[test]
fn what_comes_to_nothing_is_forgotten_by_the_peer() {
    let mut pair = in_sync();
    answer(&mut pair, tuple(1, 1, 1000));
    pair.settle();
    pair.tables[0].happens(Change::Gone(tuple(1, 1, 1000)));
    pair.settle();
    assert!(pair.tables[1].open().is_empty());
}

#[test]
fn a_host_that_serves_the_group_takes_no_half_open_connection_of_the_peers() {
    let mut pair = in_sync();
    pair.serve(1, &["a"]);
    answer(&mut pair, tuple(1, 1, 1000));
    pair.settle();
    assert!(pair.tables[1].open().is_empty());
    assert_eq!(pair.tables[0].released, [tuple(1, 1, 1000)]);
    let totals = pair.view(0).totals;
    assert_eq!((totals.held, totals.unacknowledged), (0, 1), "the peer does not know it");
}

#[test]
fn a_host_that_has_given_the_group_up_takes_half_open_connections_before_all_it_has_is_told() {
    let mut pair = in_sync();
    for client in 100..150 {
        pair.open(0, tuple(client, 1, 1000 + client));
        pair.settle();
    }
    pair.serve(1, &["a"]);
    pair.settle();
    pair.serve(1, &[]);
    pair.poll(1, 10);
    pair.hear(0);
    let one = tuple(1, 1, 1000);
    answer(&mut pair, one);
    pair.poll(0, 10);
    pair.hear(1);
    assert!(pair.tables[1].is_half_open(&one));
    let is_end = |message: &Message| matches!(message, Message::TransferEnds { .. });
    assert!(!pair.lines[0].iter().any(is_end), "it has told all");
    pair.settle();
    let totals = pair.view(0).totals;
    assert_eq!((totals.held, totals.unacknowledged), (1, 0));
}

/// The first host has told of an answered connection and is lost, with its tables; the other one takes
/// over. Returns the pair before the first is back.
fn handed_over(one: Tuple) -> Pair {
    let mut pair = in_sync();
    answer(&mut pair, one);
    pair.settle();
    pair.restart(0);
    pair.tables[0] = pair.tables[0].wiped();
    pair.serve(1, &["a", "b"]);
    pair.poll(1, 10);
    pair
}

#[test]
fn what_was_handed_over_is_told_to_the_host_that_comes_back_without_it() {
    let one = tuple(1, 1, 1000);
    let mut pair = handed_over(one);
    pair.connect();
    pair.settle();
    assert!(pair.tables[0].is_half_open(&one), "it would be lost with the next takeover");
    assert_eq!(pair.tables[0].digest("a"), pair.tables[1].digest("a"));
    // What becomes of it is told as of any other.
    pair.tables[1].expire(&one);
    pair.settle();
    assert!(pair.tables[0].open().is_empty());
}

#[test]
fn what_was_handed_over_is_told_to_the_host_that_serves_again_without_it() {
    let one = tuple(1, 1, 1000);
    let mut pair = handed_over(one);
    pair.serve(1, &[]);
    pair.serve(0, &["a", "b"]);
    pair.poll(1, 10);
    pair.connect();
    pair.settle();
    assert!(pair.tables[0].is_half_open(&one));
}

#[test]
fn what_was_handed_over_and_came_to_nothing_unheard_is_forgotten() {
    let mut pair = in_sync();
    answer(&mut pair, tuple(1, 1, 1000));
    pair.settle();
    pair.disconnect();
    pair.tables[0].expire(&tuple(1, 1, 1000));
    pair.poll(0, 10);
    pair.connect();
    pair.settle();
    assert!(pair.tables[1].open().is_empty());
}
