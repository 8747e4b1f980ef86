//! The peer: when a host may take over from it, and what is told of it.

use super::{groups::group, *};
use crate::config::Peer;

fn config(name: &str, has_peer: bool) -> Arc<Config> {
    let mut config = groups::with(&[group(name)], &[], &[]).as_ref().clone();
    config.sync = has_peer.then(|| {
        Arc::new(Peer {
            listen: "10.4.4.1:5405".parse().expect("an address"),
            peer: "10.4.4.2:5405".parse().expect("an address"),
            key: "k".repeat(64),
            key_file: None,
            preempt_wait: Duration::from_secs(60),
            grace: Duration::from_secs(5),
        })
    });
    Arc::new(config)
}

impl Bench {
    /// Whether the election was told by the last event that this host is ready.
    fn ready(&self) -> Option<bool> {
        self.standing().map(|standing| standing.ready)
    }

    fn sync(&mut self, ready: bool) -> Option<bool> {
        self.event(Event::Sync { ready });
        self.ready()
    }
}

#[test]
fn without_a_peer_a_host_is_always_ready() {
    let mut bench = Bench::start(&config("gw", false));
    bench.links(&[("eth0", true)]);
    assert_eq!(bench.ready(), Some(true));
    for ready in [true, false] {
        assert_eq!(bench.sync(ready), None, "nobody may say so");
    }
    bench.links(&[("eth0", false)]);
    assert_eq!(bench.ready(), Some(true));
}

#[test]
fn with_a_peer_it_is_ready_only_when_told() {
    let mut bench = Bench::start(&config("gw", true));
    bench.links(&[("eth0", true)]);
    assert_eq!(bench.ready(), Some(false), "but the election begins");
    assert_eq!(bench.sync(false), None, "that is known");
    assert_eq!(bench.sync(true), Some(true));
    assert_eq!(bench.sync(true), None);
    bench.links(&[("eth0", false)]);
    assert_eq!(bench.ready(), Some(true), "a fault is another matter");
    assert_eq!(bench.sync(false), Some(false));
}

#[test]
fn it_may_be_ready_before_the_election_begins() {
    let mut bench = Bench::start(&config("gw", true));
    assert_eq!(bench.sync(true), None);
    bench.links(&[("eth0", true)]);
    assert_eq!(bench.ready(), Some(true));
}

#[test]
fn a_reload_that_adds_or_removes_the_peer_counts_at_once() {
    let mut bench = Bench::start(&config("gw", true));
    bench.links(&[("eth0", true)]);
    assert_eq!(bench.sync(true), Some(true));
    bench.event(Event::Config(config("gw", true)));
    assert_eq!(bench.ready(), None, "it is the same conversation");
    bench.event(Event::Config(config("gw", false)));
    assert_eq!(bench.sync(false), None, "a last word of the old one");
    bench.event(Event::Config(config("gw", true)));
    assert_eq!(bench.ready(), Some(false), "another one has yet to begin");
    bench.event(Event::Config(config("gw", false)));
    assert_eq!(bench.ready(), Some(true));
}

#[test]
fn what_becomes_of_the_conversation_is_told() {
    let mut bench = Bench::start(&config("gw", true));
    let address = "10.4.4.2:5405".parse().expect("an address");
    let (node, program) = ("lb2".to_owned(), "0.1.0".to_owned());
    bench.event(Event::Peer(PeerNews::Connected { address, node, program }));
    assert_eq!(bench.said(), "Info: connected to the peer at 10.4.4.2:5405: lb2, tandem 0.1.0\n");
    for news in [
        PeerNews::Lost { why: "the peer at P closed the connection".to_owned() },
        PeerNews::Failed { why: "the peer at P closed the connection".to_owned() },
    ] {
        bench.event(Event::Peer(news));
        assert_eq!(
            bench.said(),
            "Warn: the peer at P closed the connection; this host's connections are not kept in \
             two places\n"
        );
    }
}
