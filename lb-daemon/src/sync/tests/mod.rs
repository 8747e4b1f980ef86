//! Two sync threads, or one and a peer that misbehaves, on the loopback interface.

mod model;
mod stranger;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::model::{Host, Shared, addresses, config, connection, hello, pair, pair_serving, wait};
use super::*;
use crate::core::sync::{Change, Stage};

#[test]
fn two_hosts_meet_and_are_ready() {
    let mut hosts = pair();
    for host in &mut hosts {
        wait("being ready", || {
            host.listen();
            host.ready == Some(true)
        });
        assert!(host.view().conversation.ready);
    }
    let [low, high] = &hosts;
    let names = [low, high].map(|host| host.view().conversation.peer.expect("has said it").node);
    assert_eq!(names, ["lb2", "lb1"]);
    let expected = PeerNews::Connected {
        address: high.view().listen,
        node: "lb2".to_owned(),
        program: "0.1.0".to_owned(),
    };
    assert_eq!(low.news.last(), Some(&expected));
}

#[test]
fn it_does_not_matter_who_is_there_first() {
    for first in [0, 1] {
        let ends = addresses();
        let start = |which: usize| Host::start(ends[which], ends[1 - which], &Shared::default());
        let mut one = start(first);
        std::thread::sleep(Duration::from_millis(300));
        let mut other = start(1 - first);
        one.is_connected();
        other.is_connected();
    }
}

#[test]
fn a_hundred_thousand_changes_arrive_in_order() {
    const MANY: u32 = 100_000;
    let hosts = pair_serving();
    // By and by, as a program would report them.
    for first in (0..MANY).step_by(1000) {
        hosts[0].tables.open(first..first + 1000);
        std::thread::sleep(Duration::from_millis(1));
    }
    wait("the last change", || hosts[1].tables.get().connections.len() == MANY as usize);
    assert!(hosts[1].tables.get().connections == hosts[0].tables.get().connections);
    let adopted = std::mem::take(&mut hosts[1].tables.get().adopted);
    let mut expected = (0..MANY).map(|number| Change::Is(connection(number)));
    assert!(adopted.into_iter().eq(expected.by_ref()), "up to {:?}", expected.next());
    wait("the acknowledgement", || hosts[0].view().conversation.queue.changes == 0);
}

#[test]
fn what_was_there_before_comes_too() {
    let [low, high] = addresses();
    for serving in [0, 1] {
        let tables = [Shared::default(), Shared::default()];
        tables[serving].get().serves = true;
        tables[serving].open(0..5000);
        tables[serving].get().reports.clear();
        let _hosts = [Host::start(low, high, &tables[0]), Host::start(high, low, &tables[1])];
        wait("the transfer", || tables[1 - serving].get().connections.len() == 5000);
    }
}

#[test]
fn another_key_is_told_once_by_both() {
    let [low, high] = addresses();
    let other = Peer { key: "another key of thirty-two letters".to_owned(), ..config(high, low) };
    let mut hosts = [
        Host::start(low, high, &Shared::default()),
        Host::start_with(other, hello(high, low), &Shared::default()),
    ];
    for host in &mut hosts {
        host.fails("has another key ([sync] key)");
    }
    // Several tries later.
    std::thread::sleep(Duration::from_millis(2500));
    for host in &mut hosts {
        host.listen();
        let keys = host
            .news
            .iter()
            .filter(|news| matches!(news, PeerNews::Failed { why } if why.contains("another key")));
        assert_eq!(keys.count(), 1, "{:?}", host.news);
        assert_eq!(host.ready, None);
    }
    let why = format!("the peer at {high} has another key ([sync] key)");
    assert_eq!(hosts[0].news.last(), Some(&PeerNews::Failed { why }));
    assert!(hosts[1].view().refused >= 2, "{:?}", hosts[1].view());
}

#[test]
fn a_host_of_another_version_is_refused() {
    let [low, high] = addresses();
    let later = Hello { versions: 7..=9, program: "9.0.0".to_owned(), ..hello(high, low) };
    let mut hosts = [
        Host::start(low, high, &Shared::default()),
        Host::start_with(config(high, low), later, &Shared::default()),
    ];
    for host in &mut hosts {
        host.fails("0.1.0");
        host.fails("9.0.0");
    }
    std::thread::sleep(Duration::from_millis(2500));
    for host in &mut hosts {
        host.listen();
        assert!(host.news.len() <= 3, "told again and again: {:#?}", host.news);
        let is_connected = |news: &PeerNews| matches!(news, PeerNews::Connected { .. });
        assert!(!host.news.iter().any(is_connected), "{:#?}", host.news);
    }
}

#[test]
fn a_host_that_stops_says_all_it_has_to_say_and_takes_leave() {
    const MANY: u32 = 20_000;
    let [mut low, mut high] = pair_serving();
    low.tables.open(0..MANY);
    let begun = Instant::now();
    low.sync.stop();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    high.loses("tandem stops on lb1");
    assert_eq!(high.tables.get().connections.len(), MANY as usize);
}

#[test]
fn a_host_that_stops_does_not_wait_for_a_peer_that_is_not_there() {
    let [low, high] = addresses();
    let mut host = Host::start(low, high, &Shared::default());
    host.fails("cannot be reached");
    let begun = Instant::now();
    host.sync.stop();
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn a_peer_that_dies_in_the_middle_of_a_transfer_gets_it_all_when_it_is_back() {
    const MANY: u32 = 20_000;
    let [low, high] = addresses();
    let (tables, others) = (Shared::default(), Shared::default());
    tables.get().serves = true;
    tables.open(0..MANY);
    tables.get().reports.clear();
    others.get().dies_after = Some(MANY as usize / 2);
    let mut host = Host::start(low, high, &tables);
    let mut peer = Host::start(high, low, &others);
    peer.hears(
        "dying",
        |news| matches!(news, PeerNews::Failed { why } if why.contains("ended by a panic")),
    );
    drop(peer);
    host.loses("closed the connection");
    assert!(others.get().connections.len() < MANY as usize);

    // Meanwhile one is gone, and the peer has not heard of it.
    let gone = connection(0).tuple;
    tables.get().connections.remove(&gone);
    tables.get().reports.push_back(Change::Gone(gone));
    others.get().dies_after = None;
    let _peer = Host::start(high, low, &others);
    wait("equal tables", || others.get().connections == tables.get().connections);
    assert_eq!(others.get().connections.len(), MANY as usize - 1);
}

#[test]
fn a_reload_ends_the_conversation_only_if_it_must() {
    let [mut low, mut high] = pair();
    let (a, b) = (low.view().listen, high.view().listen);
    let longer = Peer { preempt_wait: Duration::from_secs(300), ..config(a, b) };
    low.sync.configure(Arc::new(longer), hello(a, b));
    std::thread::sleep(Duration::from_millis(300));
    low.is_undisturbed();

    let other_key = |listen, peer| {
        Arc::new(Peer {
            key: "the key of the next year, and long".to_owned(),
            ..config(listen, peer)
        })
    };
    low.sync.configure(other_key(a, b), hello(a, b));
    low.loses("another configuration");
    low.fails("another key");
    high.loses("");
    low.news.clear();
    high.news.clear();
    high.sync.configure(other_key(b, a), hello(b, a));
    low.is_connected();
    high.is_connected();
}

#[test]
fn a_host_whose_conversation_ends_by_a_panic_says_so_and_does_not_wait_for_ever() {
    let [low, high] = addresses();
    let (tables, others) = (Shared::default(), Shared::default());
    tables.get().serves = true;
    tables.open(0..100);
    others.get().dies_after = Some(50);
    let _host = Host::start(low, high, &tables);
    let impatient = Peer { preempt_wait: Duration::from_millis(300), ..config(high, low) };
    let mut peer = Host::start_with(impatient, hello(high, low), &others);
    peer.fails("ended by a panic");
    wait("being ready", || {
        peer.listen();
        peer.ready == Some(true)
    });
    // Nobody has asked before.
    let SyncStatus { listen, conversation, .. } = peer.view();
    assert_eq!((listen, conversation.state), (high, Stage::Disconnected));
    assert!(conversation.why.contains("ended by a panic"), "{}", conversation.why);
}

/// It may have been asked before there was an answer.
#[test]
fn the_view_says_why_there_is_no_conversation() {
    let [low, high] = addresses();
    let mut host = Host::start(low, high, &Shared::default());
    host.fails("cannot be reached");
    let conversation = host.view().conversation;
    assert_eq!(conversation.state, Stage::Disconnected);
    assert!(conversation.why.contains(&format!("the peer at {high} cannot be reached")));
}
