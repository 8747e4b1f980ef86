//! The queues of all services.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Admission, Arrival, Caller, Gate, QueueView, Rules,
    line::{Line, Waiting},
};

/// Most SYNs that wait in all: some thirty megabytes. Who comes after that is answered as by a full queue.
const MOST: usize = 65_536;

/// Everybody who waits.
#[derive(Debug, Default)]
pub struct Queues {
    services: BTreeMap<u16, Queue>,
    callers: HashSet<Caller>,
    /// The next ticket.
    next: u64,
}

/// Who waits for one service.
#[derive(Debug)]
struct Queue {
    rules: Rules,
    /// By the only backend that its SYNs may go to; none if that may be any.
    lines: BTreeMap<Option<u16>, Line>,
    most: usize,
    queued: u64,
    timed_out: u64,
    refused: u64,
}

impl Queues {
    /// Puts these rules in force, and no others: who waits where nobody has to any more, or for a service
    /// that is gone, has its turn, whatever comes of it. The others may find a place now.
    pub fn configure(&mut self, rules: BTreeMap<u16, Rules>, gate: &mut impl Gate) {
        for number in self.services.keys().copied().collect::<Vec<_>>() {
            if !rules.contains_key(&number) {
                self.call(number, gate, |_, _| true);
                self.dismiss(number, gate);
                self.services.remove(&number);
            }
        }
        for (number, rules) in rules {
            self.services
                .entry(number)
                .and_modify(|queue| queue.rules = rules.clone())
                .or_insert_with(|| Queue::new(rules));
            // Whom a backend is for may be another one by now: nothing but trying tells.
            self.call(number, gate, |_, _| true);
        }
    }

    /// Takes in one that found no place. It may have its turn at once.
    pub fn arrive(&mut self, arrival: Arrival, now: Instant, gate: &mut impl Gate) {
        let Arrival { caller, service, bound, frame } = arrival;
        if !self.services.contains_key(&service) || self.callers.contains(&caller) {
            // The client was impatient, or nobody has to wait any more, and it will find out.
            gate.left(service, bound);
            return;
        }
        if !self.has_room(service, bound) {
            // Others may have a place by now.
            self.try_all(service, gate);
        }
        let has_room = self.has_room(service, bound);
        let Some(queue) = self.services.get_mut(&service) else { return };
        if !has_room {
            queue.refused += 1;
            gate.refuse(&frame, queue.rules.group);
            gate.left(service, bound);
            return;
        }
        let ticket = self.next;
        self.next += 1;
        self.callers.insert(caller);
        queue.enter(bound, Waiting { ticket, caller, frame, since: now });
        queue.queued += 1;
        self.try_all(service, gate);
    }

    /// Has all have their turn for whom there is a place.
    pub fn call_all(&mut self, gate: &mut impl Gate) {
        for number in self.services.keys().copied().collect::<Vec<_>>() {
            self.try_all(number, gate);
        }
    }

    /// Answers those that have waited for too long.
    pub fn expire(&mut self, now: Instant, gate: &mut impl Gate) {
        for (number, queue) in &mut self.services {
            for (bound, line) in &mut queue.lines {
                while let Some(late) = line.take_late(queue.rules.timeout, now) {
                    queue.timed_out += 1;
                    self.callers.remove(&late.caller);
                    gate.refuse(&late.frame, queue.rules.group);
                    gate.left(*number, *bound);
                }
            }
        }
    }

    /// Forgets who waits for services of groups that another host serves now: its clients ask that one.
    pub fn leave_to_others(&mut self, gate: &mut impl Gate) {
        let lost = |queue: &Queue| queue.len() != 0 && !gate.serves(queue.rules.group);
        let lost = self.services.iter().filter(|(_, queue)| lost(queue));
        for number in lost.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.dismiss(number, gate);
        }
    }

    /// When somebody will have waited for too long.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.services.values().filter_map(|queue| Some(queue.oldest()? + queue.rules.timeout)).min()
    }

    /// The services where somebody may have to wait, by number.
    #[must_use]
    pub fn services(&self) -> BTreeSet<u16> {
        self.services.keys().copied().collect()
    }

    /// What people see, by number of the service.
    #[must_use]
    pub fn view(&self, now: Instant) -> BTreeMap<u16, QueueView> {
        self.services.iter().map(|(number, queue)| (*number, queue.view(now))).collect()
    }

    fn has_room(&self, service: u16, bound: Option<u16>) -> bool {
        let Some(queue) = self.services.get(&service) else { return false };
        let room = match bound {
            Some(backend) => queue.rules.rooms.get(&backend).copied(),
            None => queue.rules.room,
        };
        let length = queue.lines.get(&bound).map_or(0, Line::len);
        self.callers.len() < MOST && room.is_none_or(|room| length < room)
    }

    fn try_all(&mut self, service: u16, gate: &mut impl Gate) {
        let Some(queue) = self.services.get(&service) else { return };
        let backends = Arc::clone(&queue.rules.backends);
        self.call(service, gate, |gate, bound| match bound {
            Some(_) => gate.has_place(service, bound),
            None => backends.iter().any(|number| gate.has_place(service, Some(*number))),
        });
    }

    /// Has those of a service have their turn, the one first that has waited for longest, until there is no
    /// place. `is_worth` says whether to try at all.
    fn call<G: Gate>(
        &mut self,
        service: u16,
        gate: &mut G,
        is_worth: impl Fn(&G, Option<u16>) -> bool,
    ) {
        let Some(queue) = self.services.get_mut(&service) else { return };
        let mut full = BTreeSet::new();
        while let Some((_, bound)) = queue.oldest_line(&full) {
            let Some(first) = queue.first(bound) else { break };
            let admission = if is_worth(gate, bound) {
                gate.admit(&first.frame, queue.rules.group)
            } else {
                Admission::NoPlace(bound)
            };
            match admission {
                Admission::NoPlace(other) if other == bound => {
                    full.insert(bound);
                }
                Admission::NoPlace(other) => {
                    if let Some(first) = queue.take_first(bound) {
                        queue.enter(other, first);
                        gate.moved(bound, other);
                        full.insert(other);
                    }
                }
                Admission::Sent | Admission::Lost => {
                    if let Some(first) = queue.take_first(bound) {
                        self.callers.remove(&first.caller);
                        gate.left(service, bound);
                    }
                }
            }
        }
    }

    /// Forgets who waits for a service. Their clients send their SYNs again.
    fn dismiss(&mut self, service: u16, gate: &mut impl Gate) {
        let Some(queue) = self.services.get_mut(&service) else { return };
        for (bound, line) in &mut queue.lines {
            while let Some(one) = line.take_first() {
                self.callers.remove(&one.caller);
                gate.left(service, *bound);
            }
        }
    }
}

impl Queue {
    const fn new(rules: Rules) -> Self {
        Self { rules, lines: BTreeMap::new(), most: 0, queued: 0, timed_out: 0, refused: 0 }
    }

    fn enter(&mut self, bound: Option<u16>, one: Waiting) {
        self.lines.entry(bound).or_default().enter(one);
        self.most = self.most.max(self.len());
    }

    fn first(&self, bound: Option<u16>) -> Option<&Waiting> {
        self.lines.get(&bound)?.first()
    }

    fn take_first(&mut self, bound: Option<u16>) -> Option<Waiting> {
        self.lines.get_mut(&bound)?.take_first()
    }

    /// The line, of those that are not `full`, whose first has waited for longest, behind the ticket of that.
    fn oldest_line(&self, full: &BTreeSet<Option<u16>>) -> Option<(u64, Option<u16>)> {
        let lines = self.lines.iter().filter(|(bound, _)| !full.contains(bound));
        lines.filter_map(|(bound, line)| Some((line.first()?.ticket, *bound))).min()
    }

    fn oldest(&self) -> Option<Instant> {
        self.lines.values().filter_map(|line| Some(line.first()?.since)).min()
    }

    fn len(&self) -> usize {
        self.lines.values().map(Line::len).sum()
    }

    fn view(&self, now: Instant) -> QueueView {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let bound = self
            .lines
            .iter()
            .filter_map(|(bound, line)| Some(((*bound)?, (count(line.len()), count(line.most())))));
        let oldest = self.oldest().map(|since| now.saturating_duration_since(since));
        QueueView {
            waiting: count(self.len()),
            most: count(self.most),
            bound: bound.collect(),
            queued: self.queued,
            timed_out: self.timed_out,
            refused: self.refused,
            oldest: oldest.unwrap_or(Duration::ZERO),
        }
    }
}
