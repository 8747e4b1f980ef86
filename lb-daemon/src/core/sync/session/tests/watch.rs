//! What must hold in the simulated world.

use std::{collections::BTreeSet, thread, time::Instant};

use super::{
    super::super::{Connection, Message, Tuple},
    super::Session,
    model::group_of,
    settings,
    world::{Host, Live, World},
};

/// How often things happened: a run in which they didn't has shown nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) steps: u64,
    pub(super) opened: u64,
    pub(super) takeovers: u64,
    pub(super) survivors: u64,
    pub(super) lost: u64,
    pub(super) splits: u64,
    pub(super) doubles: u64,
    pub(super) graces: u64,
    pub(super) zombies: u64,
    pub(super) missed: u64,
    pub(super) timeouts: u64,
    pub(super) conversations: u64,
    pub(super) transfers: u64,
    pub(super) cut_transfers: u64,
    pub(super) repaired: u64,
    pub(super) overflows: u64,
    pub(super) conflicts: u64,
    pub(super) full: u64,
    pub(super) settled: u64,
    pub(super) waits: u64,
    pub(super) half_closed: u64,
    pub(super) returned: u64,
    pub(super) answered: u64,
    pub(super) unacknowledged: u64,
}

/// The watcher.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) seed: u64,
    pub(super) tally: Tally,
    said: Vec<String>,
    /// Tables in which there is room for all.
    pub(super) is_large: bool,
    /// Since when each host has not been ready.
    unready: [Option<Instant>; 2],
    /// Whether a transfer is coming in.
    hearing: [bool; 2],
}

impl Watch {
    pub(super) fn new(seed: u64, places: [usize; 2]) -> Self {
        let mut watch = Self::default();
        watch.seed = seed;
        watch.is_large = places.iter().all(|&places| places >= 300);
        watch
    }

    pub(super) fn say(&mut self, what: String) {
        self.said.push(what);
    }

    pub(super) fn starts(&mut self, number: usize, now: Instant) {
        self.unready[number] = Some(now);
    }

    pub(super) fn dies(&mut self, number: usize) {
        self.unready[number] = None;
        self.tally.cut_transfers += u64::from(std::mem::take(&mut self.hearing[number]));
    }

    pub(super) fn hears(&mut self, number: usize, message: &Message) {
        match message {
            Message::Hello(_) => self.tally.conversations += 1,
            Message::TransferBegins { .. } => {
                self.tally.cut_transfers += u64::from(self.hearing[number]);
                self.hearing[number] = true;
                self.tally.transfers += 1;
            }
            Message::TransferEnds { .. } => self.hearing[number] = false,
            _ => {}
        }
    }

    /// A client's connection has come to an end: this host does not know it.
    pub(super) fn loses(&mut self, number: usize, live: &Live, hosts: &[Host; 2]) {
        self.tally.lost += 1;
        let tuple = &live.connection.tuple;
        let was_known = hosts[number].known.contains(tuple);
        assert!(!was_known || !self.is_large, "{number} has lost {tuple:?}");
    }

    pub(super) fn look(&mut self, world: &World) {
        for (number, host) in world.hosts.iter().enumerate() {
            for live in world.live.values() {
                let tuple = &live.connection.tuple;
                let found = host.tables.get((tuple.client, tuple.bind));
                let is_serving = host.tables.serving.contains(group_of(tuple.bind));
                // No flow is ever translated two ways, by a host that it comes to: not while two serve
                // it either.
                if live.at == number
                    && is_serving
                    && let Some(found) = found
                    && host.tables.has(&found.tuple)
                    && found.tuple != *tuple
                    && host.known.contains(tuple)
                {
                    panic!("{number} translates {tuple:?} as {found:?}");
                }
                // What was there once stays until it is over.
                let must_have = self.is_large && host.known.contains(tuple);
                let has = host.tables.has(tuple);
                assert!(has || !must_have, "{number} has no longer {tuple:?}, but {found:?}");
            }
            if let Some(session) = &host.session {
                self.waits(number, session, world.now);
            }
        }
    }

    /// Every wait to be ready has an end. A host that was ready for a moment only, between two messages, has
    /// another wait before it.
    pub(super) fn waits(&mut self, number: usize, session: &Session, now: Instant) {
        if session.is_ready(now) {
            self.tally.waits += u64::from(self.unready[number].take().is_some());
            return;
        }
        let since = *self.unready[number].get_or_insert(now);
        let waited = now.duration_since(since);
        let (view, longest) = (session.view(now), settings().preempt_wait);
        assert!(waited <= longest, "{number} is not ready for {waited:?}: {view:?}");
        let left = view.not_ready.expect("it is not").at_most_seconds;
        assert!(left <= longest.as_secs());
    }

    /// Nothing happens any more.
    pub(super) fn compare(&mut self, hosts: &[Host; 2]) {
        self.tally.settled += 1;
        for host in hosts {
            let totals = host.session.as_ref().expect("all are alive").view(Instant::now()).totals;
            self.tally.repaired += totals.repaired;
            self.tally.overflows += totals.lost;
            self.tally.conflicts += totals.conflicts;
            self.tally.full += totals.full;
        }
        let [ours, theirs] = [hosts[0].tables.connections(), hosts[1].tables.connections()];
        if self.is_large {
            let differ: BTreeSet<&Connection> = ours.symmetric_difference(&theirs).collect();
            assert!(differ.is_empty(), "differ in {differ:?}");
        }
    }
}

impl Watch {
    /// What one of two hosts knew that can talk with each other, both know in the end, unless another
    /// connection is in the way.
    pub(super) fn expect_on_both(&mut self, known: &[Tuple], hosts: &[Host; 2]) {
        for tuple in known {
            for (number, host) in hosts.iter().enumerate() {
                let is_there = host.tables.has(tuple) || host.tables.is_in_the_way_of(tuple);
                assert!(is_there || !self.is_large, "{number} was not told of {tuple:?}");
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() && !self.said.is_empty() {
            for said in self.said.iter().rev().take(40).rev() {
                eprintln!("{said}");
            }
            eprintln!("TANDEM_REPLICA_SEED={} has failed", self.seed);
        }
    }
}

impl Tally {
    pub(super) fn expect_everything(&self) {
        let counts = [
            self.takeovers,
            self.splits,
            self.graces,
            self.conversations,
            self.transfers,
            self.cut_transfers,
            self.repaired,
            self.overflows,
            self.survivors,
            self.conflicts,
            self.full,
            self.waits,
            self.returned,
            self.missed,
            self.half_closed,
            self.answered,
            self.unacknowledged,
        ];
        assert!(self.timeouts > 0);
        assert!(counts.iter().all(|&count| count > 10), "hardly anything happened: {self:?}");
    }
}
