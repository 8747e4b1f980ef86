//! Limits of connections: nobody gets past them, and who comes too late waits for a place, in order.

mod counts;
mod redispatch;

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::verdict::Verdict::{
    self, DropNoPlace, DropQueued, ForwardClient, ForwardNew, ResetNoPlace,
};
use lb_daemon::{
    config::{Balance, Limits},
    core::{
        Desired, Slots,
        admission::{Door as _, Queues, rules},
        sync::Conflict,
    },
    dataplane::{Drift, Gate},
};
use tests::lab::Family;

use crate::{
    frame::{ACK, Frame, RST, Segment},
    net::Net,
    pair::{self, Host, nth},
    wire::Wire,
    world::World,
};

/// Number of the service.
const SERVICE: u16 = 0;
/// For how long a client waits in these tests.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A data plane whose clients wait, and who has them wait: without the daemon's thread, so that each step
/// is one of the test.
struct Place<'a> {
    world: &'a mut World,
    n: &'a Net,
    desired: Desired,
    gate: Gate,
    queues: Queues,
}

impl Place<'_> {
    /// Puts this into the data plane and into the queues.
    fn change(&mut self, change: impl FnOnce(&mut Desired)) -> Result<()> {
        change(&mut self.desired);
        let Desired { services, backends, .. } = &self.desired;
        let is_limited = services.values().any(|service| service.maxconn.is_some())
            || backends.values().any(|backend| backend.limits.maxconn.is_some());
        self.desired.limited = is_limited.then_some(SERVICE).into_iter().collect();
        self.world.apply(&self.desired)?;
        self.queues.configure(rules(&self.desired), &mut self.gate);
        self.gate.hold_open(&BTreeSet::from([SERVICE]));
        Ok(())
    }

    /// The verdict on a SYN of this client's, while it is said once more that they may wait.
    fn syn(&mut self, client: u16) -> Result<Verdict> {
        self.gate.hold_open(&BTreeSet::from([SERVICE]));
        Ok(self.world.decide(syn(self.n, client))?.verdict)
    }

    /// Has these clients come, in this order, and each of them come to this.
    fn come(&mut self, clients: impl IntoIterator<Item = u16>, verdict: Verdict) -> Result<()> {
        for client in clients {
            let found = self.syn(client)?;
            ensure!(found == verdict, "client {client}: {found:?} and not {verdict:?}");
        }
        Ok(())
    }

    /// Does what the daemon does when the program wakes it.
    fn turn(&mut self) -> Result<()> {
        self.turn_at(Instant::now())
    }

    fn turn_at(&mut self, now: Instant) -> Result<()> {
        let mut arrivals = Vec::new();
        self.gate.arrivals(1000, &mut arrivals)?;
        for arrival in arrivals {
            self.queues.arrive(arrival, now, &mut self.gate);
        }
        self.queues.call_all(&mut self.gate);
        self.queues.expire(now, &mut self.gate);
        Ok(())
    }

    /// Has a client end its connection.
    fn end(&self, client: u16) -> Result<()> {
        let verdict = self.world.decide(self.n.client().sport(port(client)).rst())?.verdict;
        ensure!(verdict == ForwardClient, "client {client} has no connection to end: {verdict:?}");
        Ok(())
    }

    /// Fails unless these clients have connections, and no others of the first hundred do.
    fn served(&self, clients: &[u16]) -> Result<()> {
        let flows = self.world.dataplane.flows_v4()?;
        let ports = flows.entries().filter(|(_, flow)| flow.is_forward()).map(|(_, flow)| flow);
        let open = |life| lb_common::flow::state(life) & lb_common::flow::RESET == 0;
        let v4 = ports.filter(|flow| open(flow.life)).map(|flow| flow.key.sport.get());
        let flows = self.world.dataplane.flows_v6()?;
        let ports = flows.entries().filter(|(_, flow)| flow.is_forward()).map(|(_, flow)| flow);
        let v6 = ports.filter(|flow| open(flow.life)).map(|flow| flow.key.sport.get());
        let found: BTreeSet<u16> = v4.chain(v6).map(|port| port - port_of_first()).collect();
        ensure!(found.iter().eq(clients), "{found:?} have connections, and not {clients:?}");
        Ok(())
    }

    fn waiting(&self) -> u64 {
        self.queues.view(Instant::now())[&SERVICE].waiting
    }

    fn active(&self, number: u16) -> Result<u64> {
        self.world.active(number)
    }
}

const fn port_of_first() -> u16 {
    40_000
}

const fn port(client: u16) -> u16 {
    port_of_first() + client
}

fn syn(n: &Net, client: u16) -> Segment {
    n.client().sport(port(client)).syn()
}

/// What answers a SYN of this client's that there is no place for.
fn refusal(n: &Net, client: u16) -> Frame {
    n.reset().dport(port(client)).flags(RST | ACK).ack(0x1000_0001).frame()
}

fn most(count: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(count)
}

/// Tells the story for both families, with so many backends of this limit each: their numbers are those of
/// the row and the following ones.
fn with(
    balance: Balance,
    backends: u16,
    limits: Limits,
    story: impl Fn(&mut Place<'_>) -> Result<()> + Send + Sync,
) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        World::run(|world| {
            let n = Net::new(family, 1, world.arms);
            let mut desired = n.desired();
            for number in 2..=backends {
                let other = Net::new(family, number, world.arms);
                desired.backends.extend(other.desired().backends);
            }
            for backend in desired.backends.values_mut() {
                backend.limits = limits;
            }
            let service = desired.services.get_mut(&SERVICE).context("no service")?;
            service.balance = balance;
            service.slots = Slots((1..=backends).collect());
            service.timeout.queue = PATIENCE;
            let gate = gate(world)?;
            let queues = Queues::default();
            let mut place = Place { world, n: &n, desired, gate, queues };
            place.change(|_| {})?;
            story(&mut place)?;
            let reaper = place.world.reaper()?;
            ensure!(reaper.recount() == Drift::default(), "counts are wrong");
            Ok(())
        })
        .with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

/// What has SYNs wait, ready for that.
fn gate(world: &World) -> Result<Gate> {
    let mut gate = world.gate()?;
    gate.prepare()?;
    Ok(gate)
}

fn three() -> Limits {
    Limits { maxconn: most(3), maxqueue: None }
}

#[test]
fn who_comes_to_a_full_backend_waits_and_is_served_in_order() -> Result<()> {
    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::Source] {
        with(balance, 1, three(), |place| {
            place.come(0..3, ForwardNew)?;
            place.come([4, 3, 5], DropQueued)?;
            place.turn()?;
            ensure!(place.waiting() == 3);
            place.served(&[0, 1, 2])?;
            place.end(1)?;
            place.turn()?;
            place.served(&[0, 2, 4])?;
            place.end(0)?;
            place.end(4)?;
            place.turn()?;
            place.served(&[2, 3, 5])?;
            ensure!(place.waiting() == 0 && place.active(1)? == 3);
            // Nobody waits any more, so that nobody has to.
            place.end(5)?;
            place.come([6], ForwardNew)
        })?;
    }
    Ok(())
}

#[test]
fn a_syn_that_waited_is_sent_to_the_backend_as_if_it_had_not() -> Result<()> {
    with(Balance::RoundRobin, 1, Limits { maxconn: most(1), maxqueue: None }, |place| {
        let wire = Wire::open()?;
        place.come([0], ForwardNew)?;
        let options = [2, 4, 5, 180, 1, 3, 3, 7];
        let late = place.n.client().sport(port(1)).syn().options(&options);
        place.gate.hold_open(&BTreeSet::from([SERVICE]));
        ensure!(place.world.decide(late)?.verdict == DropQueued);
        place.turn()?;
        place.end(0)?;
        let forwarded =
            |place: &Place<'_>| anyhow::Ok(place.world.read([])?.verdicts["forward_new"]);
        let before = forwarded(place)?;
        place.turn()?;
        ensure!(forwarded(place)? == before + 1, "not counted as forwarded");
        let second = place.n.source.port() + 1;
        let expected = place.n.to_backend().sport(second).syn().options(&options).frame();
        wire.wait_for(&expected)
    })
}

#[test]
fn who_has_a_place_by_now_is_not_refused_for_a_syn_that_was_read_late() -> Result<()> {
    let one = Limits { maxconn: most(1), maxqueue: most(1) };
    with(Balance::RoundRobin, 1, one, |place| {
        place.come([0], ForwardNew)?;
        place.come([1], DropQueued)?;
        place.turn()?;
        // The daemon has the client served before it reads that this one was impatient, and behind another one.
        place.come([2, 1], DropQueued)?;
        place.end(0)?;
        place.change(|_| {})?;
        place.served(&[1])?;
        let refused = |place: &Place<'_>| -> Result<_> {
            let counted = place.world.read([])?.verdicts["reset_no_place"];
            Ok((counted, place.queues.view(Instant::now())[&SERVICE].refused))
        };
        place.turn()?;
        ensure!(refused(place)? == (0, 0), "a client that has a place was answered by a RST");
        place.come([3], DropQueued)?;
        place.turn()?;
        ensure!(refused(place)? == (1, 1), "one that has none was not");
        place.served(&[1])
    })
}

#[test]
fn nobody_gets_ahead_of_those_that_wait() -> Result<()> {
    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::Hash] {
        with(balance, 1, three(), |place| {
            place.come(0..3, ForwardNew)?;
            place.come([3], DropQueued)?;
            // A place is free, and the daemon has not taken note of anything yet.
            place.end(0)?;
            place.come([4], DropQueued)?;
            place.turn()?;
            place.served(&[1, 2, 3])?;
            place.end(1)?;
            place.turn()?;
            place.served(&[2, 3, 4])
        })?;
    }
    Ok(())
}

#[test]
fn a_syn_that_is_sent_again_waits_once() -> Result<()> {
    with(Balance::LeastConn, 1, three(), |place| {
        place.come(0..3, ForwardNew)?;
        place.come([3, 4, 3, 3, 4], DropQueued)?;
        place.turn()?;
        place.come([3, 4], DropQueued)?;
        place.turn()?;
        ensure!(place.waiting() == 2);
        for client in 0..3 {
            place.end(client)?;
        }
        place.turn()?;
        place.served(&[3, 4])?;
        place.come([3], ForwardClient)?;
        place.come([5], ForwardNew)
    })
}

#[test]
fn full_backends_are_passed_over() -> Result<()> {
    for balance in [Balance::RoundRobin, Balance::LeastConn] {
        with(balance, 3, three(), |place| {
            place.change(|desired| {
                desired.backends.get_mut(&2).expect("it is there").limits.maxconn = most(1);
            })?;
            place.come(0..7, ForwardNew)?;
            place.come([7], DropQueued)?;
            ensure!((place.active(1)?, place.active(2)?, place.active(3)?) == (3, 1, 3));
            // More places for one of them.
            place.turn()?;
            place.change(|desired| {
                desired.backends.get_mut(&2).expect("it is there").limits.maxconn = most(2);
            })?;
            ensure!(place.waiting() == 0 && place.active(2)? == 2, "nobody took the place");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn those_that_wait_for_a_backend_that_goes_down_move_to_another() -> Result<()> {
    with(Balance::Source, 2, three(), |place| {
        place.come(0..3, ForwardNew)?;
        place.come(3..5, DropQueued)?;
        place.turn()?;
        let own = if place.active(1)? == 3 { 1 } else { 2 };
        place.change(|desired| {
            let service = desired.services.get_mut(&SERVICE).expect("it is there");
            service.slots = Slots([3 - own].into());
        })?;
        ensure!(place.active(3 - own)? == 2 && place.waiting() == 0);
        Ok(())
    })
}

#[test]
fn a_service_has_a_limit_of_its_own() -> Result<()> {
    let limits = Limits { maxconn: most(2), maxqueue: None };
    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::Hash] {
        with(balance, 2, limits, |place| {
            let service = |desired: &mut Desired, count| {
                desired.services.get_mut(&SERVICE).expect("it is there").maxconn = most(count);
            };
            place.change(|desired| {
                for backend in desired.backends.values_mut() {
                    backend.limits.maxconn = None;
                }
                service(desired, 3);
            })?;
            place.come(0..3, ForwardNew)?;
            place.come(3..5, DropQueued)?;
            place.turn()?;
            place.end(2)?;
            place.turn()?;
            place.served(&[0, 1, 3])?;
            place.change(|desired| service(desired, 4))?;
            place.served(&[0, 1, 3, 4])
        })?;
    }
    Ok(())
}

#[test]
fn who_has_waited_for_too_long_is_answered_by_a_rst() -> Result<()> {
    with(Balance::RoundRobin, 1, three(), |place| {
        let wire = Wire::open()?;
        place.come(0..3, ForwardNew)?;
        place.come([3], DropQueued)?;
        let began = Instant::now();
        place.turn_at(began)?;
        place.turn_at(began + PATIENCE / 2)?;
        ensure!(place.waiting() == 1, "answered too early");
        place.turn_at(began + PATIENCE)?;
        ensure!(place.waiting() == 0 && place.world.read([])?.verdicts[ResetNoPlace.label()] == 1);
        wire.wait_for(&refusal(place.n, 3))?;
        // And then it is nobody's turn.
        place.end(0)?;
        place.come([4], ForwardNew)
    })
}

#[test]
fn without_the_daemon_nobody_waits_and_the_limit_holds() -> Result<()> {
    with(Balance::LeastConn, 1, three(), |place| {
        place.come(0..3, ForwardNew)?;
        place.come([3], DropQueued)?;
        place.gate.hold_open(&BTreeSet::new());
        let decide = |place: &Place<'_>, client| {
            anyhow::Ok(place.world.decide(syn(place.n, client))?.verdict)
        };
        ensure!(decide(place, 4)? == DropNoPlace);
        place.end(0)?;
        ensure!(decide(place, 4)? == ForwardNew, "who waits for nobody is in the way");
        ensure!(decide(place, 5)? == DropNoPlace);
        ensure!(place.active(1)? == 3);
        // A daemon that has died says nothing any more.
        place.gate.hold_open(&BTreeSet::from([SERVICE]));
        let deadline = Instant::now() + Duration::from_secs(30);
        while decide(place, 6)? != DropNoPlace {
            ensure!(Instant::now() < deadline, "SYNs are still held");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })
}

#[test]
fn who_waited_for_an_earlier_daemon_is_forgotten_by_the_next() -> Result<()> {
    with(Balance::LeastConn, 1, three(), |place| {
        place.come(0..3, ForwardNew)?;
        place.come([3], DropQueued)?;
        place.turn()?;
        place.come([4], DropQueued)?;
        place.gate = gate(place.world)?;
        place.queues = Queues::default();
        place.change(|_| {})?;
        place.end(0)?;
        place.come([5], ForwardNew)?;
        place.turn()?;
        place.served(&[1, 2, 5])
    })
}

#[test]
fn what_is_too_long_to_be_held_is_dropped() -> Result<()> {
    with(Balance::LeastConn, 1, three(), |place| {
        place.come(0..3, ForwardNew)?;
        let long = place.n.client().sport(port(3)).syn().data(&[7; 300]);
        place.gate.hold_open(&BTreeSet::from([SERVICE]));
        ensure!(place.world.decide(long)?.verdict == DropNoPlace);
        place.end(0)?;
        place.come([4], ForwardNew)
    })
}

#[test]
fn what_the_other_host_has_is_taken_over_whatever_the_limit_and_counts() -> Result<()> {
    pair::pair(|one, two, n| {
        for backend in two.desired.backends.values_mut() {
            backend.limits = Limits { maxconn: most(2), maxqueue: None };
        }
        let desired = two.desired.clone();
        two.world.apply(&desired)?;
        one.serve()?;
        for i in 0..3 {
            one.tell(&nth(n, i).established())?;
        }
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        ensure!(two.active()? == 3, "{} were taken over", two.active()?);
        one.world.lease(one.group, None)?;
        two.serve()?;
        let new = |two: &Host| anyhow::Ok(two.world.decide(nth(n, 9).client().syn())?.verdict);
        for i in 0..2 {
            ensure!(new(two)? == DropNoPlace, "{i} have ended");
            let n = nth(n, i);
            two.tell(&[n.client().fin().frame(), n.server().fin().frame()])?;
        }
        ensure!(new(two)? == ForwardNew, "there is a place");
        Ok(())
    })
}
