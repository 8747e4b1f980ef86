//! What may befall the simulated world.

use std::{net::SocketAddr, time::Duration};

use lb_common::flow::{CLIENT_FIN, ESTABLISHED, SERVER_FIN, SYN_ACK, is_closed};

use super::{
    super::super::{Change, Connection, Tuple},
    super::Stage,
    milli,
    model::{group_of, key},
    world::{GROUPS, Live, World},
};

const OPEN: u8 = SYN_ACK | ESTABLISHED;

impl World {
    /// Something befalls somebody.
    pub(super) fn befall(&mut self) {
        if self.split.is_some_and(|until| self.now >= until) {
            self.heal();
        }
        let number = usize::try_from(self.random.below(2)).unwrap();
        let what = self.random.below(1000);
        if (770..870).contains(&what) && self.random.chance(self.mercy) {
            return;
        }
        match what {
            0..500 => self.open(number),
            500..530 => self.half_close(number),
            530..700 => self.close(number),
            700..760 => self.purge(number),
            760..770 => self.expire(number),
            770..775 => {
                self.cut = !self.cut;
                self.unlink(if self.cut { "cut" } else { "mended" });
            }
            775..779 => self.unlink("reset"),
            779..783 => self.power_off(number),
            783..788 if self.hosts[number].session.is_some() => {
                self.kill(number);
                self.give_up(number);
            }
            // A restart during which the lease goes on.
            788..792 if self.hosts[number].session.is_some() => {
                self.kill(number);
                self.start(number);
            }
            792..812 if self.hosts[number].session.is_none() => self.start(number),
            812..818 => self.hand_over(number),
            818..821 => self.split(),
            821..860 => self.elect(number),
            860..864 => {
                let time = self.random.pick(&[10, 100, 1000, 7000, 40_000]);
                self.hosts[number].stalled = Some(self.now + milli(time));
            }
            864..872 => {
                for _ in 0..self.random.below(200) {
                    if self.random.chance(50) {
                        self.open(number);
                    } else {
                        self.close(number);
                    }
                }
            }
            _ => {}
        }
    }

    /// A client connects to a host that serves.
    fn open(&mut self, number: usize) {
        let client = super::address(1, u16::try_from(self.random.below(40)).unwrap());
        let bind = super::address(2, 1 + u16::try_from(self.random.below(2)).unwrap());
        // A backend of two groups could have a connection of either in the way of the other's, after a
        // split brain in which they fell to different hosts.
        let backend = u16::try_from(self.random.below(3)).unwrap();
        let backend = super::address(3, 10 * bind.port() + backend);
        let state = &mut self.hosts[number];
        if !state.tables.serving.contains(group_of(bind)) {
            return;
        }
        // A SYN for what is open goes the way of that. A client is one host's.
        let is_elsewhere = self.live.contains_key(&(client, bind)) && !self.random.chance(20);
        if state.tables.get((client, bind)).is_some_and(|found| state.tables.has(&found.tuple))
            || is_elsewhere
            || state.tables.index.len() + 2 >= state.tables.places.len()
        {
            return;
        }
        let source = loop {
            state.port = (state.port + 1) % 100;
            let port = 1000 * u16::try_from(number + 1).unwrap() + state.port;
            let source: SocketAddr = super::address(4, port);
            if !state.tables.is_taken(backend, source) {
                break source;
            }
        };
        let tuple = Tuple { client, bind, source, backend };
        self.give_way(number, &tuple);
        // All ports of a half have their turn before a client has the same one again: the other host knows
        // of its end by then. (Were it half closed there, nobody would ever say that it is not.)
        if self.hosts[1 - number].tables.has(&tuple) {
            return;
        }
        let state = &mut self.hosts[number];
        if state.tables.is_holding && self.random.chance(30) {
            let connection = Connection { tuple, state: SYN_ACK, timestamp: 7 };
            state.tables.happens(Change::Answered(connection));
            state.tables.entered.clear();
            self.hosts[1 - number].known.remove(&tuple);
            return;
        }
        let connection = Connection { tuple, state: OPEN, timestamp: 7 };
        state.tables.happens(Change::Is(connection));
        state.tables.entered.clear();
        state.known.insert(tuple);
        // A translation that is used again is another connection.
        self.hosts[1 - number].known.remove(&tuple);
        let live = Live { connection, at: number, is_idle: self.random.chance(30) };
        if self.live.insert((client, bind), live).is_some() {
            self.watch.tally.doubles += 1;
        }
        self.watch.tally.opened += 1;
    }

    /// What goes on by this host without being known there, as it was silent there while both served it, is
    /// lost when the way back of it is taken.
    fn give_way(&mut self, number: usize, new: &Tuple) {
        let is_lost = |live: &Live| {
            let tuple = &live.connection.tuple;
            let has_its_way = (tuple.backend, tuple.source) == (new.backend, new.source);
            live.at == number && has_its_way && !self.hosts[number].tables.has(tuple)
        };
        let lost: Vec<_> = self.live.values().filter(|live| is_lost(live)).copied().collect();
        for live in lost {
            self.live.remove(&key(&live.connection.tuple));
            self.watch.loses(number, &live, &self.hosts);
        }
    }

    fn pick_live(&mut self, number: usize) -> Option<Connection> {
        let mine: Vec<_> = self.live.values().filter(|live| live.at == number).collect();
        let index = self.random.below(mine.len().max(1) as u64);
        let live = mine.get(usize::try_from(index).unwrap())?;
        let host = &self.hosts[number].tables;
        let tuple = live.connection.tuple;
        let can = host.serving.contains(group_of(tuple.bind)) && host.has(&tuple);
        can.then_some(live.connection)
    }

    fn close(&mut self, number: usize) {
        if let Some(mut connection) = self.pick_live(number) {
            let tables = &mut self.hosts[number].tables;
            if self.random.chance(50) {
                tables.reset(&connection.tuple);
            } else {
                connection.state |= CLIENT_FIN | SERVER_FIN;
                tables.happens(Change::Is(connection));
            }
            self.live.remove(&key(&connection.tuple));
        }
    }

    /// One side closes its half, and the other goes on.
    fn half_close(&mut self, number: usize) {
        if let Some(mut connection) = self.pick_live(number) {
            connection.state |= self.random.pick(&[CLIENT_FIN, SERVER_FIN]);
            self.hosts[number].tables.happens(Change::Is(connection));
            if is_closed(connection.state) {
                self.live.remove(&key(&connection.tuple));
            } else {
                let live = self.live.get_mut(&key(&connection.tuple)).expect("it was picked");
                live.connection = connection;
                self.watch.tally.half_closed += 1;
            }
        }
    }

    /// An idle connection ends; or one that nobody has any more.
    fn expire(&mut self, number: usize) {
        if self.random.chance(20) {
            if let Some(connection) = self.pick_live(number) {
                self.hosts[number].tables.expire(&connection.tuple);
                self.live.remove(&key(&connection.tuple));
            }
        } else if self.split.is_some() {
            self.miss(number);
        } else {
            let is_dead = |tuple: &Tuple| {
                let live = self.live.get(&key(tuple));
                live.is_none_or(|live| live.connection.tuple != *tuple)
            };
            let tables = &self.hosts[number].tables;
            let is_ours = |tuple: &Tuple| tables.serving.contains(group_of(tuple.bind));
            let dead = tables.open().into_iter().find(|tuple| is_dead(tuple) && is_ours(tuple));
            if let Some(tuple) = dead {
                self.watch.tally.zombies += 1;
                self.hosts[number].tables.expire(&tuple);
            }
        }
    }

    /// What goes on by the other host is silent at this one for too long, while both serve it.
    fn miss(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let is_missed = |live: &&Live| {
            let tuple = &live.connection.tuple;
            let is_here = host.tables.has(tuple) && !host.tables.is_half_open(tuple);
            live.at != number && is_here && host.tables.serving.contains(group_of(tuple.bind))
        };
        let missed: Vec<_> =
            self.live.values().filter(is_missed).map(|it| it.connection.tuple).collect();
        let index = self.random.below(missed.len().max(1) as u64);
        if let Some(tuple) = missed.get(usize::try_from(index).unwrap()) {
            host.tables.expire(tuple);
            host.known.remove(tuple);
            self.watch.tally.missed += 1;
            self.poll(number);
        }
    }

    /// Half-open connections come to nothing: those that were made here, and those that this host has taken
    /// over. They have longer than their client waits for a SYN-ACK that the other host holds back.
    fn expire_half_open(&mut self, number: usize) {
        for tuple in self.hosts[number].tables.half_open() {
            let live = self.live.get(&key(&tuple));
            let is_live = live.is_some_and(|live| live.connection.tuple == tuple);
            if is_live || self.hosts[1 - number].tables.waits(&tuple) {
                continue;
            }
            let is_ours = usize::from(tuple.source.port() / 1000) == number + 1;
            let tables = &mut self.hosts[number].tables;
            if is_ours || tables.serving.contains(group_of(tuple.bind)) {
                tables.expire(&tuple);
            }
        }
    }

    /// Closed connections have lingered for long enough.
    pub(super) fn purge(&mut self, number: usize) {
        self.expire_half_open(number);
        self.hosts[number].tables.purge();
    }

    fn power_off(&mut self, number: usize) {
        self.give_up(number);
        self.kill(number);
        let host = &mut self.hosts[number];
        let old = &host.tables;
        host.tables = old.wiped();
        host.known.clear();
    }

    fn give_up(&mut self, number: usize) {
        self.hosts[number].tables.serving.clear();
        self.hosts[number].tables.grace.clear();
        let other = 1 - number;
        for group in GROUPS {
            if self.hosts[other].tables.serving.contains(group) {
                self.move_to(other, group);
                self.drop_unknown(other, group);
            }
        }
    }

    /// A group's clients come to this host now.
    fn move_to(&mut self, number: usize, group: &str) {
        for live in self.live.values_mut() {
            if group_of(live.connection.tuple.bind) == group {
                live.at = number;
            }
        }
    }

    /// A group without a master gets one.
    pub(super) fn elect(&mut self, number: usize) {
        if self.hosts[number].session.is_none() {
            return;
        }
        for group in GROUPS {
            if self.hosts.iter().all(|host| !host.tables.serving.contains(group)) {
                self.take_over(number, group);
            }
        }
    }

    /// The master of a group gives it up for a peer that may have it.
    fn hand_over(&mut self, number: usize) {
        let group = self.random.pick(&GROUPS);
        let other = &self.hosts[1 - number];
        let is_ready = other.session.as_ref().is_some_and(|session| session.is_ready(self.now));
        if is_ready && self.split.is_none() {
            self.say(format_args!("{number} hands {group} over"));
            self.wake(number);
            self.hosts[number].tables.serving.remove(group);
            self.elect(1 - number);
        }
    }

    /// A host that gives a group up has seen that it had it.
    fn wake(&mut self, number: usize) {
        self.hosts[number].stalled = None;
        self.poll(number);
    }

    fn take_over(&mut self, number: usize, group: &str) {
        self.say(format_args!("{number} takes {group} over"));
        self.watch.tally.takeovers += 1;
        self.hosts[number].tables.serving.insert(group.to_owned());
        self.hosts[number].tables.grace.insert(group.to_owned());
        self.move_to(number, group);
        let session = self.hosts[number].session.as_ref().unwrap();
        if session.view(self.now).state != Stage::InSync {
            self.drop_unknown(number, group);
        }
        let tables = &self.hosts[number].tables;
        let live = self.live.values().map(|live| &live.connection.tuple);
        let survivors = live.filter(|live| group_of(live.bind) == group && tables.has(live));
        self.watch.tally.survivors += survivors.count() as u64;
    }

    /// Nobody tells this host in time of what it does not have: those connections that send something are
    /// lost. None must be that it has had.
    pub(super) fn drop_unknown(&mut self, number: usize, group: &str) {
        let host = &self.hosts[number];
        let mut lost = Vec::new();
        for (&key, live) in &self.live {
            let tuple = &live.connection.tuple;
            let is_missed = group_of(tuple.bind) == group && !host.tables.has(tuple);
            if live.at == number && is_missed && !live.is_idle {
                lost.push(key);
            }
        }
        for key in lost {
            let live = self.live.remove(&key).unwrap();
            self.watch.loses(number, &live, &self.hosts);
        }
    }

    /// Neither hears the other's adverts; the link of the sessions is cut, or not.
    fn split(&mut self) {
        if self.split.is_some() || self.hosts.iter().any(|host| host.session.is_none()) {
            return;
        }
        self.say(format_args!("split"));
        self.watch.tally.splits += 1;
        if self.random.chance(60) {
            self.cut = true;
            self.unlink("split");
        }
        for number in [0, 1] {
            for group in GROUPS {
                if !self.hosts[number].tables.serving.contains(group) {
                    self.hosts[number].tables.serving.insert(group.to_owned());
                    self.hosts[number].tables.grace.insert(group.to_owned());
                }
            }
        }
        self.split = Some(self.now + Duration::from_secs(10));
    }

    pub(super) fn heal(&mut self) {
        self.say(format_args!("healed"));
        self.split = None;
        self.cut = false;
        for group in GROUPS {
            let loser = usize::try_from(self.random.below(2)).unwrap();
            let winner = 1 - loser;
            if !self.hosts[winner].tables.serving.contains(group) {
                continue;
            }
            self.wake(loser);
            self.hosts[loser].tables.serving.remove(group);
            // What the winner still has to say of a client that has come to both may take away what
            // the loser made for it, until the next repair.
            let made = |tuple: &Tuple| usize::from(tuple.source.port() / 1000) == loser + 1;
            self.hosts[loser].known.retain(|tuple| group_of(tuple.bind) != group || !made(tuple));
            let tables = &self.hosts[winner].tables;
            self.live.retain(|&key, live| {
                if group_of(key.1) != group || live.at == winner {
                    return true;
                }
                live.at = winner;
                // The winner's stay: also one that the loser knows to be over, having used its port again.
                let tuple = &live.connection.tuple;
                tables.has(tuple)
                    || !tables.is_taken(tuple.backend, tuple.source)
                        && tables.get(key).is_none_or(|found| !tables.has(&found.tuple))
            });
        }
    }
}
