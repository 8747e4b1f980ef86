//! Two hosts with a peer each, clients that connect to whoever serves, and all that may befall them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use lb_common::flow::{ESTABLISHED, SYN_ACK};

use super::{
    super::super::{Change, Connection, Message, Tables, Tuple},
    super::{Session, Stage},
    limits, milli,
    model::{Key, Model, group_of, key},
    random::Random,
    settings,
    watch::Watch,
};

pub(super) const GROUPS: [&str; 2] = ["a", "b"];

/// A host: its tables outlive its daemon, and leases its death by nothing.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) session: Option<Session>,
    pub(super) tables: Model,
    /// Next port of its half.
    pub(super) port: u16,
    /// Connections that have been in its tables.
    pub(super) known: BTreeSet<Tuple>,
    /// Until when its daemon is held up.
    pub(super) stalled: Option<Instant>,
    /// SYN-ACKs that its session has said it did not wait for.
    excused: u64,
    /// What is on its way to it, and when it arrives.
    inbox: VecDeque<(Instant, Message)>,
}

/// A client's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// The host that its packets come to.
    pub(super) at: usize,
    /// Whether neither side sends anything: then it goes on though its host does not know it.
    pub(super) is_idle: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) epoch: Instant,
    pub(super) hosts: [Host; 2],
    pub(super) random: Random,
    /// Whether there is a link between the sessions.
    pub(super) linked: bool,
    /// Whether there could be one.
    pub(super) cut: bool,
    links_at: Instant,
    /// Both serve all groups until then.
    pub(super) split: Option<Instant>,
    pub(super) live: BTreeMap<Key, Live>,
    calm: bool,
    /// How many in a hundred blows it is spared.
    pub(super) mercy: u64,
    pub(super) watch: Watch,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let now = Instant::now();
        let ring = random.pick(&[4, 1000, 1000, 1000]);
        let places = [random.pick(&[40, 300, 300, 300]), 300];
        let mercy = random.pick(&[0, 60, 90, 98]);
        let watch = Watch::new(seed, places);
        let hosts = places.map(|places| Host {
            session: None,
            tables: Model::new(places, ring),
            port: 0,
            known: BTreeSet::new(),
            stalled: None,
            excused: 0,
            inbox: VecDeque::new(),
        });
        let mut world = Self {
            now,
            epoch: now,
            hosts,
            random,
            linked: false,
            cut: false,
            links_at: now,
            split: None,
            live: BTreeMap::new(),
            calm: false,
            mercy,
            watch,
        };
        world.start(0);
        world.start(1);
        world
    }

    pub(super) fn step(&mut self) {
        self.watch.tally.steps += 1;
        let advance = self.random.pick(&[0, 1, 1, 1, 2, 5, 20, 200]);
        self.pass(milli(advance));
        self.look();
        self.befall();
        self.look();
    }

    /// Lets time go by, and everything happen that is due.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.acknowledge();
        self.link();
        for number in [0, 1] {
            let host = &mut self.hosts[number];
            host.stalled.take_if(|until| *until <= self.now || self.calm);
            if host.stalled.is_none() {
                self.deliver(number);
                self.poll(number);
            }
        }
    }

    fn look(&mut self) {
        // What sends nothing gives way to what a host has in its place.
        self.live.retain(|_, live| {
            let tuple = &live.connection.tuple;
            !live.is_idle || !self.hosts.iter().any(|host| host.tables.is_in_the_way_of(tuple))
        });
        let mut watch = std::mem::take(&mut self.watch);
        watch.look(self);
        self.watch = watch;
    }

    fn link(&mut self) {
        let alive = self.hosts.iter().all(|host| host.session.is_some());
        if self.linked || self.cut || !alive || self.now < self.links_at {
            return;
        }
        self.linked = true;
        self.say(format_args!("linked"));
        for host in [0, 1] {
            let mut out = Vec::new();
            self.hosts[host].session.as_mut().unwrap().connected(self.now, &mut out);
            self.send(host, out);
        }
    }

    /// The link is gone, with all that was under way.
    pub(super) fn unlink(&mut self, why: &str) {
        for host in &mut self.hosts {
            host.inbox.clear();
            if let Some(session) = &mut host.session {
                session.disconnected(why, self.now);
            }
        }
        if self.linked {
            self.say(format_args!("unlinked: {why}"));
        }
        // What was under way to a new master does not come in time.
        for (number, group) in [(0, "a"), (0, "b"), (1, "a"), (1, "b")] {
            if self.split.is_none() && self.hosts[number].tables.serving.contains(group) {
                self.drop_unknown(number, group);
            }
        }
        self.linked = false;
        self.links_at = self.now + milli(200 + self.random.below(1800));
    }

    fn send(&mut self, from: usize, messages: Vec<Message>) {
        let to = &mut self.hosts[1 - from].inbox;
        let last = to.back().map_or(self.now, |&(at, _)| at);
        let at = last.max(self.now + milli(self.random.pick(&[0, 1, 3, 30])));
        to.extend(messages.into_iter().map(|message| (at, message)));
    }

    fn deliver(&mut self, number: usize) {
        let mut limit = self.random.pick(&[1, 3, 100, 100, 100]);
        if self.calm {
            limit = 1000;
        }
        for _ in 0..limit {
            let host = &mut self.hosts[number];
            if host.inbox.front().is_none_or(|&(at, _)| at > self.now) {
                return;
            }
            let (_, message) = host.inbox.pop_front().unwrap();
            let session = host.session.as_mut().unwrap();
            self.watch.hears(number, &message);
            let mut out = Vec::new();
            let result = session.receive(message, &mut host.tables, self.now, &mut out);
            self.watch.waits(number, session, self.now);
            host.known.extend(std::mem::take(&mut host.tables.entered));
            self.send(number, out);
            self.see_answers(number);
            if let Err(refusal) = result {
                panic!("seed {}: {number} refuses: {refusal}", self.watch.seed);
            }
        }
    }

    pub(super) fn poll(&mut self, number: usize) {
        let room = if self.calm { 100 } else { self.random.pick(&[0, 1, 2, 8, 100]) };
        let host = &mut self.hosts[number];
        let Some(session) = &mut host.session else { return };
        let grace = host.tables.grace.clone();
        let mut out = Vec::new();
        let result = session.poll(&mut host.tables, room, self.now, &mut out);
        assert!(session.next_deadline() <= self.now + Duration::from_secs(1), "polls end");
        self.see_answers(number);
        for group in grace.difference(&self.hosts[number].tables.grace.clone()) {
            self.grace_ends(number, group);
        }
        if self.linked {
            self.send(number, out);
        }
        if let Err(error) = result {
            self.watch.tally.timeouts += 1;
            self.unlink(&error.to_string());
        }
    }

    /// Clients see the SYN-ACKs that were released, and take their connections for established: those that
    /// the peer is not known to have were counted.
    fn see_answers(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let released = std::mem::take(&mut host.tables.released);
        let view = host.session.as_ref().expect("it was asked").view(self.now);
        let before = std::mem::replace(&mut host.excused, view.totals.unacknowledged);
        let mut excused = view.totals.unacknowledged - before;
        self.watch.tally.unacknowledged += excused;
        excused += std::mem::take(&mut host.tables.unheld);
        for tuple in released {
            let group = group_of(tuple.bind);
            let [host, peer] = [&self.hosts[number], &self.hosts[1 - number]];
            let is_known = peer.known.contains(&tuple) || peer.tables.has(&tuple);
            if !is_known && self.watch.is_large {
                assert!(excused > 0, "{number}: a client is told of {tuple:?}, the peer is not");
                excused -= 1;
            }
            // A host without the group cannot send it on.
            if host.tables.is_half_open(&tuple) && host.tables.serving.contains(group) {
                self.watch.tally.answered += 1;
                let connection = *host.tables.get(key(&tuple)).expect("it is half open");
                self.hosts[number].known.insert(tuple);
                self.live.insert(key(&tuple), Live { connection, at: number, is_idle: false });
            }
        }
    }

    /// The ACKs of some clients arrive.
    fn acknowledge(&mut self) {
        for live in self.live.values_mut() {
            let Connection { tuple, state, timestamp } = live.connection;
            let tables = &mut self.hosts[live.at].tables;
            let is_heard = tables.serving.contains(group_of(tuple.bind));
            if is_heard && tables.is_half_open(&tuple) && (self.calm || self.random.chance(30)) {
                let state = state | SYN_ACK | ESTABLISHED;
                live.connection = Connection { tuple, state, timestamp };
                tables.happens(Change::Is(live.connection));
                tables.entered.clear();
            }
        }
    }

    /// From now on what is not in the tables is reset: nothing must come that the peer would have told.
    fn grace_ends(&mut self, number: usize, group: &str) {
        self.watch.tally.graces += 1;
        self.say(format_args!("{number}: grace of {group} ends"));
        if self.linked && self.split.is_none() {
            self.drop_unknown(number, group);
        }
    }

    pub(super) fn start(&mut self, number: usize) {
        let hello = super::hello(number);
        let mut session = Session::new(hello, settings(), self.now);
        session.limits = limits();
        self.hosts[number].session = Some(session);
        self.hosts[number].excused = 0;
        self.watch.starts(number, self.now);
        self.say(format_args!("{number} starts"));
    }

    pub(super) fn kill(&mut self, number: usize) {
        self.say(format_args!("{number} dies"));
        self.unlink("killed");
        // What only this daemon knew to be owed, after a split brain, nobody tells any more.
        for group in GROUPS {
            if self.hosts[1 - number].tables.serving.contains(group) {
                self.drop_unknown(1 - number, group);
            }
        }
        self.hosts[number].session = None;
        self.hosts[number].tables.restarted();
        self.hosts[number].stalled = None;
        self.watch.dies(number);
    }

    /// Mends everything and waits until nothing happens any more.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        if self.split.is_some() {
            self.heal();
        }
        self.cut = false;
        for number in [0, 1] {
            if self.hosts[number].session.is_none() {
                self.start(number);
            }
        }
        self.say(format_args!("calm"));
        self.elect(0);
        let known = self.known_to_either();
        let is_on_one = |tuple: &&Tuple| !self.hosts.iter().all(|host| host.tables.has(tuple));
        self.watch.tally.returned += known.iter().filter(is_on_one).count() as u64;
        // Time for several digests, and for repairs that have to wait.
        for _ in 0..200 {
            self.pass(milli(1000));
            while self.is_due() {
                self.pass(milli(1));
            }
            self.purge(0);
            self.purge(1);
            self.look();
        }
        for number in [0, 1] {
            self.purge(number);
            let session = self.hosts[number].session.as_ref().unwrap();
            let view = session.view(self.now);
            // What does not fit is asked for time and again.
            let is_in_sync = view.state == Stage::InSync;
            assert!(is_in_sync || !self.watch.is_large, "seed {}: {view:?}", self.watch.seed);
            assert!(view.ready);
            assert_eq!(view.queue.changes, 0);
        }
        let mut watch = std::mem::take(&mut self.watch);
        watch.compare(&self.hosts);
        watch.expect_on_both(&known, &self.hosts);
        self.watch = watch;
        for group in GROUPS {
            let server = self.hosts.iter().position(|host| host.tables.serving().contains(group));
            self.drop_unknown(server.expect("it was elected"), group);
        }
        self.calm = false;
    }

    /// What goes on and is known to at least one of the hosts.
    fn known_to_either(&self) -> Vec<Tuple> {
        let tuples = self.live.values().map(|live| live.connection.tuple);
        tuples.filter(|tuple| self.hosts.iter().any(|host| host.tables.has(tuple))).collect()
    }

    /// Whether a session has more to do at once.
    fn is_due(&self) -> bool {
        let mut sessions = self.hosts.iter().filter_map(|host| host.session.as_ref());
        sessions.any(|session| session.next_deadline() <= self.now)
    }

    pub(super) fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let at = self.now.duration_since(self.epoch);
        self.watch.say(format!("{at:?} {what}"));
    }
}
