//! What is counted: connections, exactly, and who waits.

use std::{
    collections::BTreeMap,
    os::fd::AsFd as _,
    sync::{
        RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use lb_common::{
    addr::Address,
    flow::{DEAD, is_closed, state},
};
use lb_daemon::{core::admission::Gate as _, dataplane::FlowTable};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

/// How long anything may take here.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn who_ends_a_connection_wakes_the_daemon_if_somebody_waits() -> Result<()> {
    with(Balance::LeastConn, 1, three(), |place| {
        let records = |place: &mut Place<'_>| {
            let mut arrivals = Vec::new();
            let count = place.gate.arrivals(1000, &mut arrivals)?;
            anyhow::Ok((count, arrivals.len()))
        };
        place.come(0..3, ForwardNew)?;
        place.come([3], DropQueued)?;
        place.turn()?;
        let fd = place.gate.as_fd();
        let is_woken = thread::scope(|scope| {
            let sleeper = scope.spawn(move || {
                let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
                let began = Instant::now();
                poll(&mut fds, PollTimeout::try_from(DEADLINE).expect("a minute"))?;
                // What it finds when it has slept for all of that has not woken it.
                anyhow::Ok(began.elapsed() < DEADLINE)
            });
            // So that it sleeps by then; if it does not, nothing is missed.
            thread::sleep(Duration::from_millis(100));
            let ended = place.end(0);
            let is_woken = sleeper.join().expect("no panic")?;
            ended.map(|()| is_woken)
        })?;
        ensure!(is_woken, "the daemon sleeps on");
        ensure!(records(place)? == (1, 0), "it is told of something else");
        place.queues.call_all(&mut place.gate);
        place.served(&[1, 2, 3])?;
        // Where nobody waits, nobody is woken.
        place.end(1)?;
        ensure!(records(place)? == (0, 0), "it is woken for nothing");
        Ok(())
    })
}

#[test]
fn what_the_daemon_tries_in_vain_is_not_counted_as_held_once_more() -> Result<()> {
    with(Balance::RoundRobin, 1, three(), |place| {
        place.come(0..3, ForwardNew)?;
        place.come([3], DropQueued)?;
        place.turn()?;
        let before = place.world.read([])?.verdicts;
        // It tries whatever the counts say, as backends may be others by now.
        place.change(|_| {})?;
        ensure!(place.waiting() == 1 && place.world.read([])?.verdicts == before);
        Ok(())
    })
}

#[test]
fn fewer_than_nobody_never_wait() -> Result<()> {
    with(Balance::Source, 1, three(), |place| {
        // As of one that was handed over while another daemon let the counts begin anew.
        place.gate.left(SERVICE, Some(1));
        place.gate.moved(Some(1), None);
        place.come(0..3, ForwardNew)?;
        place.come([3], DropQueued)?;
        place.end(0)?;
        place.come([4], DropQueued)?;
        place.turn()?;
        place.served(&[1, 2, 3])
    })
}

/// Connections by backend that are not closed, as the tables have them.
fn open(world: &World) -> Result<BTreeMap<u16, u64>> {
    fn add<A: Address>(table: &FlowTable<A>, open: &mut BTreeMap<u16, u64>) {
        for (_, flow) in table.entries().filter(|(_, flow)| flow.is_forward()) {
            let state = state(flow.life);
            if state & DEAD == 0 && !is_closed(state) {
                *open.entry(flow.backend).or_default() += 1;
            }
        }
    }
    let mut open = BTreeMap::new();
    add(&world.dataplane.flows_v4()?, &mut open);
    add(&world.dataplane.flows_v6()?, &mut open);
    Ok(open)
}

/// Fails if there are more connections than there may be, or others than are counted. Nothing may happen
/// meanwhile. Returns how many there are.
fn check(world: &World, of_each: u64, of_all: u64) -> Result<u64> {
    let found = open(world)?;
    for number in [1, 2] {
        let (counted, open) = (world.active(number)?, found.get(&number).copied().unwrap_or(0));
        ensure!(open <= of_each, "{open} connections to backend {number}");
        ensure!(counted == open, "{counted} counted, and {open} there of backend {number}");
    }
    let all = found.values().sum();
    ensure!(all <= of_all, "{all} connections of the service");
    Ok(all)
}

#[test]
fn no_moment_has_more_connections_than_there_may_be() -> Result<()> {
    let queue_of_two = Limits { maxqueue: most(2), ..three() };
    for (balance, limits, of_all) in [
        (Balance::RoundRobin, three(), 6),
        (Balance::LeastConn, three(), 6),
        (Balance::Hash, queue_of_two, 5),
    ] {
        with(balance, 2, limits, |place| {
            place.change(|desired| {
                desired.services.get_mut(&SERVICE).expect("it is there").maxconn = most(of_all);
            })?;
            crowd(place, of_all.into())
        })
        .with_context(|| format!("{balance:?}"))?;
    }
    Ok(())
}

/// Has many clients come and go from two threads, looks in between, and fails if there are ever more than three
/// connections to a backend, or more than `of_all`.
fn crowd(place: &mut Place<'_>, of_all: u64) -> Result<()> {
    const CLIENTS: u16 = 40;
    /// Connections that each of the threads would have.
    const WANTED: u16 = 10;
    let (is_over, pause) = (AtomicBool::new(false), RwLock::new(()));
    let (world, n) = (&*place.world, place.n);
    let (gate, queues) = (&mut place.gate, &mut place.queues);
    let client = |half: u16| -> Result<()> {
        let mut round = CLIENTS;
        while !is_over.load(Ordering::SeqCst) {
            let _moving = pause.read().expect("no panic");
            world.send(&syn(n, round % CLIENTS * 2 + half).frame())?;
            let old = (round - WANTED) % CLIENTS * 2 + half;
            world.send(&n.client().sport(port(old)).rst().frame())?;
            round = round % CLIENTS + 1 + CLIENTS;
        }
        Ok(())
    };
    let mut watch = || {
        let deadline = Instant::now() + DEADLINE;
        let mut most_seen = 0;
        loop {
            gate.hold_open(&BTreeSet::from([SERVICE]));
            let mut arrivals = Vec::new();
            gate.arrivals(1000, &mut arrivals)?;
            for arrival in arrivals {
                queues.arrive(arrival, Instant::now(), gate);
            }
            queues.call_all(gate);
            let verdicts = {
                let _paused = pause.write().expect("no panic");
                most_seen = most_seen.max(check(world, 3, of_all)?);
                world.read([])?.verdicts
            };
            if [DropQueued, ForwardNew].iter().all(|verdict| verdicts[verdict.label()] > 500) {
                return Ok(most_seen);
            }
            ensure!(Instant::now() < deadline, "too slow to tell: {verdicts:?}");
        }
    };
    let most_seen = thread::scope(|scope| {
        let clients = [0, 1].map(|half| scope.spawn(move || client(half)));
        let seen = watch();
        is_over.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().expect("no panic")?;
        }
        seen
    })?;
    ensure!(most_seen == of_all, "the limit was never reached, but {most_seen}");
    Ok(())
}
