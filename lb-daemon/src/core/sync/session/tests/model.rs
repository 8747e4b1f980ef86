//! A host's tables, as simple as they can be and still have the rules of the real ones.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;
use lb_common::flow::{ESTABLISHED, RESET, is_closed, is_shared};

use super::super::super::{
    Adopted, Change, Conflict, Connection, Cursor, Digest, Reported, Scope, Tables, Tuple,
};

/// Key of a connection: client and virtual address.
pub(super) type Key = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
pub(super) struct Model {
    /// Connections by their places: closed ones linger until they are purged.
    pub(super) places: Vec<Option<Connection>>,
    pub(super) index: BTreeMap<Key, usize>,
    /// By backend and source.
    reverse: BTreeMap<(SocketAddr, SocketAddr), Key>,
    ring: VecDeque<Reported>,
    ring_size: usize,
    /// How long ago all that is in the ring was reported.
    pub(super) age: Duration,
    has_lost: bool,
    /// What was there when the mark was set, and has not been adopted since.
    unmarked: BTreeSet<Tuple>,
    pub(super) serving: BTreeSet<String>,
    /// Groups whose grace has not ended.
    pub(super) grace: BTreeSet<String>,
    /// Groups that the peer has.
    pub(super) peers: BTreeSet<String>,
    /// Whether SYN-ACKs are held, as the session says.
    pub(super) is_holding: bool,
    /// SYN-ACKs that there was no room for since this was last looked at.
    pub(super) unheld: u64,
    /// SYN-ACKs that were taken with the changes and not released, ...
    frames: VecDeque<Tuple>,
    /// ... and those that were released since this was last looked at.
    pub(super) released: Vec<Tuple>,
    /// What was entered since this was last looked at.
    pub(super) entered: Vec<Tuple>,
    /// Whether what is adopted in a conflict is told apart. A broken one shows that the tests see it.
    pub(super) conflicts: u64,
}

impl Model {
    pub(super) fn new(places: usize, ring_size: usize) -> Self {
        Self { places: vec![None; places], ring_size, ..Self::default() }
    }

    /// The tables after the power was off.
    pub(super) fn wiped(&self) -> Self {
        Self::new(self.places.len(), self.ring_size)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Connection> {
        self.index.get(&key).and_then(|&place| self.places[place].as_ref())
    }

    /// Whether exactly this connection is here and open.
    pub(super) fn has(&self, tuple: &Tuple) -> bool {
        self.get(key(tuple)).is_some_and(|found| found.tuple == *tuple && is_open(found))
    }

    /// Whether the way back from a backend to a source is taken by an open connection.
    pub(super) fn is_taken(&self, backend: SocketAddr, source: SocketAddr) -> bool {
        let key = self.reverse.get(&(backend, source));
        key.is_some_and(|&key| self.get(key).is_some_and(is_open))
    }

    /// Whether another open connection has the client's addresses or the way back of this one.
    pub(super) fn is_in_the_way_of(&self, tuple: &Tuple) -> bool {
        let is_other = |found: &Connection| found.tuple != *tuple && is_open(found);
        self.get(key(tuple)).is_some_and(is_other)
            || (self.is_taken(tuple.backend, tuple.source) && !self.has(tuple))
    }

    /// All connections that are open.
    pub(super) fn connections(&self) -> BTreeSet<Connection> {
        self.places.iter().flatten().filter(|found| is_open(found)).copied().collect()
    }

    /// The same without their states.
    pub(super) fn open(&self) -> BTreeSet<Tuple> {
        self.connections().into_iter().map(|found| found.tuple).collect()
    }

    /// What the program does with a packet: a connection is established or closed, and reported.
    pub(super) fn happens(&mut self, change: Change) {
        let was_answered = self.is_half_open(change.tuple());
        match change {
            Change::Is(connection) | Change::Answered(connection) => {
                self.report_what_gives_way_to(&connection.tuple);
                self.enter(connection, Conflict::TakeTheirs, false);
            }
            Change::Gone(tuple) => drop(self.remove(key(&tuple))),
        }
        self.put(Reported { was_answered, ..reported(change) });
    }

    /// What the program does with a RST: that may be forged, and the peer is not told. Of one that was
    /// refused before it was established it is told that it is over.
    pub(super) fn reset(&mut self, tuple: &Tuple) {
        let Some(&place) = self.index.get(&key(tuple)) else { return };
        let Some(found) = &mut self.places[place] else { return };
        let was_half_open = found.state & ESTABLISHED == 0 && is_open(found);
        found.state |= RESET;
        if was_half_open {
            self.report(Change::Gone(*tuple));
        }
    }

    /// Closed connections have been silent for long enough. Of one that was only reset the peer is told
    /// then.
    pub(super) fn purge(&mut self) {
        let closed = self.places.iter().flatten().filter(|found| !is_open(found));
        for found in closed.copied().collect::<Vec<_>>() {
            self.remove(key(&found.tuple));
            if is_shared(found.state) {
                self.report(Change::Gone(found.tuple));
            }
        }
    }

    /// What was only reset is over when another connection takes its place.
    fn report_what_gives_way_to(&mut self, tuple: &Tuple) {
        for key in [Some(key(tuple)), self.reverse.get(&(tuple.backend, tuple.source)).copied()] {
            let found = key.and_then(|key| self.get(key)).copied();
            if let Some(found) = found.filter(|found| !is_open(found) && is_shared(found.state)) {
                self.happens(Change::Gone(found.tuple));
            }
        }
    }

    /// A connection is silent for too long.
    pub(super) fn expire(&mut self, tuple: &Tuple) {
        self.remove(key(tuple));
        self.put(Reported { is_silence: true, ..reported(Change::Gone(*tuple)) });
    }

    fn report(&mut self, change: Change) {
        self.put(reported(change));
    }

    fn put(&mut self, report: Reported) {
        if self.ring.len() < self.ring_size {
            self.ring.push_back(report);
        } else if let Change::Answered(connection) = report.change {
            // It is sent on instead, and counted.
            self.unheld += 1;
            self.released.push(connection.tuple);
        } else {
            self.has_lost = true;
        }
    }

    /// A connection whose SYN-ACK is held, or was until now.
    pub(super) fn is_half_open(&self, tuple: &Tuple) -> bool {
        let found = self.get(key(tuple)).filter(|found| found.tuple == *tuple);
        found.is_some_and(|found| is_open(found) && !is_established(found))
    }

    /// Connections whose SYN-ACK is not held, or not any longer, and that are half open nevertheless.
    pub(super) fn half_open(&self) -> Vec<Tuple> {
        let all = self.places.iter().flatten().map(|found| found.tuple);
        all.filter(|tuple| self.is_half_open(tuple) && !self.waits(tuple)).collect()
    }

    /// Whether the SYN-ACK of a connection is held.
    pub(super) fn waits(&self, tuple: &Tuple) -> bool {
        let mut answered = self
            .ring
            .iter()
            .map(|report| report.change)
            .filter(|it| matches!(it, Change::Answered(_)));
        self.frames.contains(tuple) || answered.any(|change| change.tuple() == tuple)
    }

    /// What a daemon had in its memory is gone with it.
    pub(super) fn restarted(&mut self) {
        self.is_holding = false;
        self.frames.clear();
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Connection> {
        let place = self.index.remove(&key)?;
        let found = self.places[place].take()?;
        self.reverse.remove(&(found.tuple.backend, found.tuple.source));
        Some(found)
    }

    /// Enters a connection, and says what became of that.
    fn enter(&mut self, new: Connection, conflict: Conflict, marks: bool) -> Adopted {
        let mut adopted = Adopted::default();
        let tuple = new.tuple;
        if marks {
            self.unmarked.remove(&tuple);
        }
        if let Some(&place) = self.index.get(&key(&tuple))
            && let Some(found) = &mut self.places[place]
            && found.tuple == tuple
            && (is_open(found) || is_closed(new.state) || conflict == Conflict::KeepOurs)
        {
            found.state |= new.state;
            adopted.known = 1;
            return adopted;
        }
        if marks
            && is_closed(new.state)
            && self.get(key(&tuple)).is_none_or(|old| old.tuple != tuple)
        {
            adopted.known = 1;
            return adopted;
        }
        let other = self.reverse.get(&(tuple.backend, tuple.source)).copied();
        let others = [Some(key(&tuple)), other];
        for other in others.into_iter().flatten() {
            let Some(found) = self.get(other) else { continue };
            if is_open(found) && conflict == Conflict::KeepOurs {
                adopted.conflicts = 1;
                return adopted;
            }
        }
        for other in others.into_iter().flatten() {
            self.remove(other);
        }
        let Some(place) = self.places.iter().position(Option::is_none) else {
            adopted.full = 1;
            return adopted;
        };
        self.places[place] = Some(new);
        self.index.insert(key(&tuple), place);
        self.reverse.insert((tuple.backend, tuple.source), key(&tuple));
        self.entered.push(tuple);
        adopted.new = 1;
        adopted
    }
}

impl Tables for Model {
    fn changes(&mut self, limit: usize, into: &mut Vec<Reported>) -> Result<()> {
        let count = limit.min(self.ring.len());
        for report in self.ring.drain(..count) {
            if let Change::Answered(connection) = report.change {
                self.frames.push_back(connection.tuple);
            }
            into.push(Reported { age: self.age, ..report });
        }
        Ok(())
    }

    fn hold(&mut self, is_on: bool) {
        self.is_holding = is_on;
    }

    fn release(&mut self, count: usize) {
        assert!(count <= self.frames.len(), "what was never held is released");
        let frames: Vec<Tuple> = self.frames.drain(..count).collect();
        // Of one that is over nobody hears.
        let there: Vec<Tuple> = frames.into_iter().filter(|it| self.is_half_open(it)).collect();
        self.released.extend(there);
    }

    fn has_lost_changes(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    fn scan(
        &mut self,
        scope: &Scope,
        cursor: Cursor,
        places: usize,
        into: &mut Vec<Connection>,
    ) -> Option<Cursor> {
        let from = usize::try_from(cursor.position).unwrap();
        let end = (from + places).min(self.places.len());
        let found = self.places[from..end].iter().flatten();
        let meant = found.filter(|found| is_kept(found) && is_in(&found.tuple, scope));
        into.extend(meant.map(|found| Connection { state: found.state & !RESET, ..*found }));
        (end < self.places.len()).then_some(Cursor { position: end as u64 })
    }

    fn digest(&mut self, group: &str) -> Digest {
        let mut digest = Digest([0; 256]);
        for found in self.places.iter().flatten() {
            if is_kept(found) && group_of(found.tuple.bind) == group {
                let hash = hash(&found.tuple);
                let bucket = &mut digest.0[usize::from(bucket(&found.tuple))];
                *bucket = bucket.wrapping_add(hash);
            }
        }
        digest
    }

    fn adopt(&mut self, changes: &[Change], conflict: Conflict) -> Result<Adopted> {
        let mut all = Adopted::default();
        for change in changes {
            match change {
                Change::Is(connection) | Change::Answered(connection) => {
                    let one = self.enter(*connection, conflict, true);
                    all.new += one.new;
                    all.known += one.known;
                    all.conflicts += one.conflicts;
                    all.full += one.full;
                    let is_refused = matches!(change, Change::Answered(it) if !self.has(&it.tuple));
                    all.refused += u64::from(is_refused);
                }
                Change::Gone(tuple) => {
                    if self.get(key(tuple)).is_some_and(|found| found.tuple == *tuple) {
                        self.remove(key(tuple));
                        all.ended += 1;
                    }
                }
            }
        }
        self.conflicts += all.conflicts;
        Ok(all)
    }

    fn mark(&mut self) {
        self.unmarked = self.places.iter().flatten().map(|found| found.tuple).collect();
    }

    fn forget_unmarked(&mut self, scope: &Scope) -> Result<u64> {
        let mut count = 0;
        for tuple in std::mem::take(&mut self.unmarked) {
            let found = self.get(key(&tuple)).filter(|found| found.tuple == tuple);
            if is_in(&tuple, scope) && found.is_some_and(is_kept) {
                self.remove(key(&tuple));
                count += 1;
            }
        }
        Ok(count)
    }

    fn serving(&self) -> BTreeSet<String> {
        self.serving.clone()
    }

    fn group(&self, bind: SocketAddr) -> Option<String> {
        Some(group_of(bind).to_owned())
    }

    fn peer_has(&mut self, groups: &BTreeSet<String>) {
        self.peers.clone_from(groups);
    }

    fn end_grace(&mut self, group: &str) {
        self.grace.remove(group);
    }
}

/// A report of a change just now, which is the first of its connection.
const fn reported(change: Change) -> Reported {
    Reported { change, age: Duration::ZERO, is_silence: false, was_answered: false }
}

pub(super) const fn key(tuple: &Tuple) -> Key {
    (tuple.client, tuple.bind)
}

pub(super) fn group_of(bind: SocketAddr) -> &'static str {
    if bind.port() == 1 { "a" } else { "b" }
}

const fn is_open(connection: &Connection) -> bool {
    !is_closed(connection.state)
}

/// Whether both hosts are to have it: one whose SYN-ACK was held back, too.
const fn is_kept(connection: &Connection) -> bool {
    is_shared(connection.state) || is_open(connection)
}

const fn is_established(connection: &Connection) -> bool {
    is_open(connection) && connection.state & ESTABLISHED != 0
}

fn hash(tuple: &Tuple) -> u64 {
    let mut hasher = DefaultHasher::new();
    tuple.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn bucket(tuple: &Tuple) -> u8 {
    hash(tuple).to_le_bytes()[0]
}

fn is_in(tuple: &Tuple, scope: &Scope) -> bool {
    scope.groups.contains(group_of(tuple.bind))
        && (scope.buckets.is_empty() || scope.buckets.contains(&bucket(tuple)))
}
