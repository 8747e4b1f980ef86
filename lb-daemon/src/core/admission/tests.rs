//! Whose turn it is.

mod bounds;
mod redispatch;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Admission, Arrival, Caller, Frame, Gate, QueueView, Queues, Rules};

const SERVICE: u16 = 3;
const TIMEOUT: Duration = Duration::from_secs(5);

/// A data plane with so many places at each backend; a client is bound to that of its port's remainder, if it
/// is bound.
#[derive(Default)]
struct Places {
    free: BTreeMap<u16, usize>,
    is_bound: bool,
    /// Clients that were served and refused, by their ports.
    served: Vec<u16>,
    refused: Vec<u16>,
    /// Clients for which the program had a place right away when they sent their SYN again.
    placed: BTreeSet<u16>,
    /// Whether the table is full, so that whoever is sent on is lost.
    is_full: bool,
    /// Those of them that were sent to another backend than their own, and to which.
    redispatched: Vec<(u16, u16)>,
    /// The frame that was sent last.
    last: Option<Frame>,
    /// Who waits by the program's count, in all and by backend.
    waiting: i64,
    bound: BTreeMap<u16, i64>,
    fenced: BTreeSet<u16>,
    attempts: usize,
    /// How often it was asked whether there is a place.
    asked: Cell<usize>,
}

impl Places {
    fn of(frame: &Frame) -> u16 {
        u16::from_ne_bytes([frame.bytes[0], frame.bytes[1]])
    }

    fn backend(&self, port: u16) -> Option<u16> {
        let place = usize::from(port) % self.free.len();
        self.is_bound.then(|| *self.free.keys().nth(place).expect("less than there are"))
    }

    /// A client's SYN as the program hands it over.
    fn arrival(&mut self, port: u16) -> Arrival {
        let bound = self.backend(port);
        self.waiting += 1;
        if let Some(backend) = bound {
            *self.bound.entry(backend).or_default() += 1;
        }
        Arrival {
            caller: Caller {
                client: SocketAddr::from(([192, 0, 2, 1], port)),
                bind: SocketAddr::from(([192, 0, 2, 2], 80)),
            },
            service: SERVICE,
            bound,
            frame: Frame { bytes: port.to_ne_bytes().into(), ifindex: 1 },
        }
    }

    fn take(&mut self, backend: u16, frame: &Frame) -> bool {
        let Some(count) = self.free.get_mut(&backend).filter(|count| **count > 0) else {
            return false;
        };
        *count -= 1;
        self.served.push(Self::of(frame));
        self.last = Some(frame.clone());
        true
    }

    fn free(&mut self, backend: u16, count: usize) {
        *self.free.get_mut(&backend).expect("it is there") += count;
    }
}

impl Gate for Places {
    fn has_place(&self, _: u16, bound: Option<u16>) -> bool {
        self.asked.set(self.asked.get() + 1);
        bound.is_none_or(|backend| self.free.get(&backend).is_none_or(|count| *count > 0))
    }

    fn admit(&mut self, frame: &Frame, _: u16) -> Admission {
        self.attempts += 1;
        if self.is_full {
            return Admission::Lost;
        }
        let bound = self.backend(Self::of(frame));
        let mut numbers = self.free.keys().copied().collect::<Vec<_>>();
        numbers.retain(|number| bound.is_none_or(|bound| bound == *number));
        if numbers.into_iter().any(|number| self.take(number, frame)) {
            Admission::Sent
        } else {
            Admission::NoPlace(bound)
        }
    }

    fn redispatch(&mut self, frame: &Frame, _: u16, backend: u16) -> Admission {
        self.attempts += 1;
        if !self.take(backend, frame) {
            return Admission::NoPlace(Some(backend));
        }
        self.redispatched.push((Self::of(frame), backend));
        Admission::Sent
    }

    fn refuse(&mut self, frame: &Frame, _: u16) -> bool {
        let port = Self::of(frame);
        let has_place = self.placed.contains(&port);
        self.refused.extend((!has_place).then_some(port));
        !has_place
    }

    fn left(&mut self, _: u16, bound: Option<u16>) {
        self.waiting -= 1;
        if let Some(backend) = bound {
            *self.bound.entry(backend).or_default() -= 1;
        }
    }

    fn moved(&mut self, from: Option<u16>, to: Option<u16>) {
        for (number, by) in [(from, -1), (to, 1)] {
            if let Some(number) = number {
                *self.bound.entry(number).or_default() += by;
            }
        }
    }

    fn serves(&self, group: u16) -> bool {
        !self.fenced.contains(&group)
    }
}

/// Queues by these rules, in front of two backends without a place.
fn queues(rules: Rules, is_bound: bool) -> (Queues, Places, Instant) {
    let mut queues = Queues::default();
    let free = BTreeMap::from([(10, 0), (11, 0)]);
    let mut places = Places { free, is_bound, ..Places::default() };
    queues.configure(BTreeMap::from([(SERVICE, rules)]), &mut places);
    (queues, places, Instant::now())
}

fn unlimited() -> Rules {
    Rules {
        timeout: TIMEOUT,
        backends: [10, 11].into(),
        members: [10, 11].into(),
        room: None,
        rooms: BTreeMap::new(),
        group: 0,
    }
}

fn arrive(queues: &mut Queues, places: &mut Places, port: u16, now: Instant) {
    let arrival = places.arrival(port);
    queues.arrive(arrival, now, places);
}

fn view(queues: &Queues, now: Instant) -> QueueView {
    queues.view(now)[&SERVICE].clone()
}

/// That the program's counts are those of the queues.
fn agrees(queues: &Queues, places: &Places, now: Instant) {
    let view = view(queues, now);
    assert_eq!(i64::try_from(view.waiting), Ok(places.waiting));
    for (number, waiting) in &places.bound {
        let (found, _) = view.bound.get(number).copied().unwrap_or_default();
        assert_eq!(i64::try_from(found), Ok(*waiting), "backend {number}");
    }
}

#[test]
fn they_are_served_in_the_order_in_which_they_came() {
    for is_bound in [false, true] {
        let (mut queues, mut places, now) = queues(unlimited(), is_bound);
        for port in [5, 2, 9, 4] {
            arrive(&mut queues, &mut places, port, now);
        }
        assert_eq!((places.served.len(), view(&queues, now).waiting), (0, 4));
        // One at a time of any; or those of each backend in their order.
        places.free(10, 2);
        places.free(11, 2);
        queues.call_all(&mut places);
        assert_eq!(places.served, [5, 2, 9, 4]);
        assert_eq!((view(&queues, now).most, view(&queues, now).queued), (4, 4));
        agrees(&queues, &places, now);
    }
}

#[test]
fn who_waits_for_a_full_backend_is_no_hindrance_to_those_that_wait_for_another() {
    let (mut queues, mut places, now) = queues(unlimited(), true);
    for port in [2, 4, 5, 6, 7] {
        arrive(&mut queues, &mut places, port, now);
    }
    places.free(11, 1);
    queues.call_all(&mut places);
    assert_eq!(places.served, [5]);
    places.free(10, 2);
    queues.call_all(&mut places);
    assert_eq!(places.served, [5, 2, 4]);
    agrees(&queues, &places, now);
    assert_eq!(places.attempts, 3, "it was tried where nothing was to be had");
}

#[test]
fn a_syn_that_is_sent_again_keeps_its_place() {
    let (mut queues, mut places, now) = queues(unlimited(), false);
    for port in [1, 2, 1, 1] {
        arrive(&mut queues, &mut places, port, now);
    }
    assert_eq!((view(&queues, now).waiting, view(&queues, now).queued), (2, 2));
    agrees(&queues, &places, now);
    places.free(10, 1);
    queues.call_all(&mut places);
    // And after it was served, it may come again.
    arrive(&mut queues, &mut places, 1, now);
    assert_eq!((places.served.as_slice(), view(&queues, now).waiting), (&[1][..], 2));
}

#[test]
fn who_begins_anew_while_waiting_keeps_the_place_and_is_served_by_the_new_syn() {
    let (mut queues, mut places, now) = queues(unlimited(), true);
    for port in [1, 3, 5] {
        arrive(&mut queues, &mut places, port, now);
    }
    let mut anew = places.arrival(3);
    anew.frame.bytes = [3_u16.to_ne_bytes(), [7, 7]].concat().into();
    let frame = anew.frame.clone();
    queues.arrive(anew, now + TIMEOUT / 2, &mut places);
    agrees(&queues, &places, now);
    places.free(11, 2);
    queues.call_all(&mut places);
    assert_eq!((places.served.as_slice(), &places.last), (&[1, 3][..], &Some(frame)));
    // Whose backend is another one by now is found there.
    places.free = BTreeMap::from([(12, 0)]);
    queues.configure(BTreeMap::from([(SERVICE, unlimited())]), &mut places);
    let mut anew = places.arrival(5);
    anew.frame.bytes = [5_u16.to_ne_bytes(), [7, 7]].concat().into();
    let frame = anew.frame.clone();
    queues.arrive(anew, now, &mut places);
    agrees(&queues, &places, now);
    places.free(12, 1);
    queues.call_all(&mut places);
    assert_eq!((places.waiting, &places.last), (0, &Some(frame)));
}

#[test]
fn who_waits_for_too_long_is_refused() {
    let (mut queues, mut places, now) = queues(unlimited(), false);
    arrive(&mut queues, &mut places, 1, now);
    arrive(&mut queues, &mut places, 2, now + TIMEOUT / 2);
    assert_eq!(queues.next_deadline(), Some(now + TIMEOUT));
    queues.expire(now + TIMEOUT * 9 / 10, &mut places);
    assert!(places.refused.is_empty());
    queues.expire(now + TIMEOUT, &mut places);
    assert_eq!((places.refused.as_slice(), view(&queues, now).timed_out), (&[1][..], 1));
    assert_eq!(queues.next_deadline(), Some(now + TIMEOUT / 2 + TIMEOUT));
    agrees(&queues, &places, now);
}

#[test]
fn who_has_a_place_without_having_been_called_is_neither_refused_nor_counted() {
    let (mut queues, mut places, now) = queues(Rules { room: Some(1), ..unlimited() }, false);
    places.placed = [1, 2].into();
    for port in [1, 2, 3] {
        arrive(&mut queues, &mut places, port, now);
    }
    assert_eq!((places.refused.as_slice(), view(&queues, now).refused), (&[3][..], 1));
    queues.expire(now + TIMEOUT, &mut places);
    assert_eq!((places.refused.as_slice(), view(&queues, now).timed_out), (&[3][..], 0));
    agrees(&queues, &places, now);
}

#[test]
fn a_table_without_room_does_not_have_all_of_a_line_lost() {
    let (mut queues, mut places, now) = queues(unlimited(), true);
    for port in [2, 4, 6, 5] {
        arrive(&mut queues, &mut places, port, now);
    }
    places.free(10, 3);
    places.is_full = true;
    queues.call_all(&mut places);
    assert_eq!((places.attempts, view(&queues, now).waiting), (1, 3));
    places.is_full = false;
    queues.call_all(&mut places);
    assert_eq!((places.served.as_slice(), view(&queues, now).waiting), (&[4, 6][..], 1));
    agrees(&queues, &places, now);
}

#[test]
fn who_finds_the_queue_full_is_refused_unless_there_is_a_place() {
    let (mut queues, mut places, now) = queues(Rules { room: Some(2), ..unlimited() }, false);
    for port in 1..=3 {
        arrive(&mut queues, &mut places, port, now);
    }
    assert_eq!((places.refused.as_slice(), view(&queues, now).refused), (&[3][..], 1));
    places.free(10, 1);
    arrive(&mut queues, &mut places, 4, now);
    assert_eq!((places.served.as_slice(), places.refused.len()), (&[1][..], 1));
    agrees(&queues, &places, now);
    assert_eq!(places.attempts, 1, "it was tried where nothing was to be had");

    let rooms = BTreeMap::from([(10, 1)]);
    let (mut queues, mut places, now) = self::queues(Rules { rooms, ..unlimited() }, true);
    for port in [2, 4, 5, 7] {
        arrive(&mut queues, &mut places, port, now);
    }
    assert_eq!(places.refused, [4], "only one may wait for that backend");
    agrees(&queues, &places, now);
}

#[test]
fn who_is_bound_to_another_backend_by_now_waits_for_that_in_order() {
    let (mut queues, mut places, now) = queues(unlimited(), true);
    for port in [2, 5, 4, 7] {
        arrive(&mut queues, &mut places, port, now);
    }
    places.free = BTreeMap::from([(12, 0)]);
    queues.configure(BTreeMap::from([(SERVICE, unlimited())]), &mut places);
    agrees(&queues, &places, now);
    places.free(12, 4);
    queues.call_all(&mut places);
    assert_eq!(places.served, [2, 5, 4, 7]);
    agrees(&queues, &places, now);
}

#[test]
fn who_was_bound_before_the_balance_was_changed_waits_for_any_backend_in_order() {
    let (mut queues, mut places, now) = queues(unlimited(), true);
    for port in [2, 5, 4, 7] {
        arrive(&mut queues, &mut places, port, now);
    }
    places.is_bound = false;
    queues.configure(BTreeMap::from([(SERVICE, unlimited())]), &mut places);
    agrees(&queues, &places, now);
    assert!(view(&queues, now).bound.values().all(|(waiting, _)| *waiting == 0), "nobody is bound");
    places.free(11, 3);
    queues.call_all(&mut places);
    assert_eq!(places.served, [2, 5, 4]);
    agrees(&queues, &places, now);
}

#[test]
fn where_nobody_has_to_wait_any_more_all_have_their_turn() {
    let (mut queues, mut places, now) = queues(unlimited(), false);
    for port in 1..=3 {
        arrive(&mut queues, &mut places, port, now);
    }
    places.free(10, 2);
    queues.configure(BTreeMap::new(), &mut places);
    assert_eq!((places.served.as_slice(), places.waiting), (&[1, 2][..], 0));
    assert!(queues.services().is_empty() && places.refused.is_empty());
    // Somebody was on the way.
    arrive(&mut queues, &mut places, 4, now);
    assert_eq!(places.waiting, 0);
}

#[test]
fn who_waits_for_a_group_of_another_hosts_is_forgotten() {
    let (mut queues, mut places, now) = queues(Rules { group: 2, ..unlimited() }, false);
    arrive(&mut queues, &mut places, 1, now);
    queues.leave_to_others(&mut places);
    assert_eq!(places.waiting, 1);
    places.fenced.insert(2);
    queues.leave_to_others(&mut places);
    assert_eq!((places.waiting, places.refused.len(), places.served.len()), (0, 0, 0));
    assert_eq!(queues.next_deadline(), None);
}
