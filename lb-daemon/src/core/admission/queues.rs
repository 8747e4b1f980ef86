//! The queues of all services.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use super::{
    Admission, Arrival, Caller, Frame, Gate, QueueView, Rules, line::Waiting, queue::Queue,
    turns::Turns,
};

/// Most SYNs that wait in all: some thirty megabytes. Who comes after that is answered as by a full queue.
const MOST: usize = 65_536;
/// Most that wait for one service, so that a flood to it leaves room to the others.
pub(super) const MOST_OF_SERVICE: usize = MOST / 4;

/// Everybody who waits.
#[derive(Debug, Default)]
pub struct Queues {
    services: BTreeMap<u16, Queue>,
    callers: HashMap<Caller, Spot>,
    /// The next ticket.
    next: u64,
}

/// Where somebody waits.
#[derive(Clone, Copy, Debug)]
struct Spot {
    service: u16,
    bound: Option<u16>,
    ticket: u64,
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
            if let Some(queue) = self.services.get_mut(&number) {
                queue.tidy();
            }
        }
    }

    /// Takes in one that found no place, and has its turn when all [are called](Self::call_all). If its line is
    /// full, it may go to another backend at once.
    pub fn arrive(&mut self, arrival: Arrival, now: Instant, gate: &mut impl Gate) {
        let Arrival { caller, service, bound, frame } = arrival;
        if !self.services.contains_key(&service) {
            // Nobody has to wait any more, and it will find out.
            gate.left(service, bound);
            return;
        }
        if let Some(spot) = self.callers.get(&caller) {
            // The client was impatient, or has given up and begun anew: what it sent last is what counts.
            if let Some(queue) = self.services.get_mut(&spot.service) {
                queue.replace(spot.bound, spot.ticket, frame);
            }
            gate.left(service, bound);
            return;
        }
        if !self.has_room(service, bound) && self.has_place(service, gate) {
            // Others may have a place by now.
            self.try_all(service, gate);
        }
        let ticket = self.next;
        self.next += 1;
        if self.has_room(service, bound) {
            let Some(queue) = self.services.get_mut(&service) else { return };
            self.callers.insert(caller, Spot { service, bound, ticket });
            queue.join(bound, Waiting { ticket, caller, frame, since: now });
            return;
        }
        if !self.redispatch(service, ticket, &frame, gate)
            && let Some(queue) = self.services.get_mut(&service)
        {
            queue.refused += u64::from(gate.refuse(&frame, queue.rules.group));
        }
        gate.left(service, bound);
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
            let group = queue.rules.group;
            queue.take_late(now, |bound, late| {
                self.callers.remove(&late.caller);
                gate.left(*number, bound);
                gate.refuse(&late.frame, group)
            });
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

    /// Whether one more may wait in this line.
    fn has_room(&self, service: u16, bound: Option<u16>) -> bool {
        let Some(queue) = self.services.get(&service) else { return false };
        self.callers.len() < MOST && queue.len() < MOST_OF_SERVICE && !queue.is_full(bound)
    }

    /// Whether there seems to be a place at whichever backend.
    fn has_place(&self, service: u16, gate: &impl Gate) -> bool {
        let Some(queue) = self.services.get(&service) else { return false };
        queue.rules.backends.iter().any(|number| gate.has_place(service, Some(*number)))
    }

    /// Has one whose own line is full go on at another backend, if one has a place for which nobody waits.
    /// Backends are taken in turn, by the ticket. False if there is none.
    fn redispatch(&self, service: u16, ticket: u64, frame: &Frame, gate: &mut impl Gate) -> bool {
        let Some(queue) = self.services.get(&service) else { return false };
        // They would go to it as well.
        if queue.len_of(None) != 0 {
            return false;
        }
        let (backends, group) = (&queue.rules.backends, queue.rules.group);
        let turn = usize::try_from(ticket).unwrap_or(0).checked_rem(backends.len()).unwrap_or(0);
        let mut from_there = backends[turn..].iter().chain(&backends[..turn]);
        from_there.any(|number| {
            let is_free =
                queue.len_of(Some(*number)) == 0 && gate.has_place(service, Some(*number));
            is_free && !matches!(gate.redispatch(frame, group, *number), Admission::NoPlace(_))
        })
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
        let mut turns = Turns::of(queue);
        while let Some(bound) = turns.next() {
            let admission = match queue.first(bound) {
                Some(first) if is_worth(gate, bound) => gate.admit(&first.frame, queue.rules.group),
                _ => continue,
            };
            if admission == Admission::NoPlace(bound) {
                continue;
            }
            let Some(first) = queue.take_first(bound) else { continue };
            if let Admission::NoPlace(other) = admission {
                if let Some(spot) = self.callers.get_mut(&first.caller) {
                    spot.bound = other;
                }
                queue.enter(other, first);
                gate.moved(bound, other);
                turns.end(other);
            } else {
                self.callers.remove(&first.caller);
                gate.left(service, bound);
            }
            // What had one lost, as a full table does, would have those behind it lost as well.
            if admission == Admission::Lost {
                turns.end(bound);
            } else {
                turns.keep(bound, queue);
            }
        }
    }

    /// Forgets who waits for a service. Their clients send their SYNs again.
    fn dismiss(&mut self, service: u16, gate: &mut impl Gate) {
        let Some(queue) = self.services.get_mut(&service) else { return };
        queue.take_all(|bound, one| {
            self.callers.remove(&one.caller);
            gate.left(service, bound);
        });
    }
}
