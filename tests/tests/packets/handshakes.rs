//! Handshakes that a backend refuses or does not answer: what is counted, and when too many of them in a
//! row are an alarm.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_daemon::{config::Global, core::Desired, dataplane::Alarms};
use tests::lab::{Family, wait::until};

use crate::{
    frame::{ACK, RST, Segment},
    net::{FIRST_PORT, Net},
    row::GROUP,
    world::World,
};

const LIMIT: u16 = 3;
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_refused_connection_is_counted_once() -> Result<()> {
    in_both_families(|world, n, _| {
        refuse(world, n, 0)?;
        ensure!(failed(world, n)? == 1);
        world.decide(refusal(n))?;
        ensure!(failed(world, n)? == 1, "a refusal that repeats itself is no other");
        Ok(())
    })
}

#[test]
fn connections_that_end_otherwise_are_not_counted() -> Result<()> {
    observed(|world, n, _| {
        let stories = [
            // The client gives up, before it was answered, and after.
            vec![n.client().syn(), n.client().rst()],
            vec![n.client().syn(), n.client().rst(), refusal(n)],
            vec![n.client().syn(), n.server().syn_ack(), n.client().rst()],
            // The backend ends what it has agreed to.
            vec![n.client().syn(), n.server().syn_ack(), refusal(n)],
            vec![n.client().syn(), n.server().syn_ack(), n.client().plain(), refusal(n)],
            // It has dropped a SYN with a wrong checksum, and answers what came after it.
            vec![n.client().syn(), n.client().plain(), n.server().rst().seq(0x1000_0001)],
        ];
        for (i, story) in (0..).zip(stories) {
            for segment in story {
                let is_client = segment.from == n.client;
                world.decide(if is_client {
                    segment.sport(40_000 + i)
                } else {
                    segment.dport(FIRST_PORT + i)
                })?;
            }
        }
        ensure!(failed(world, n)? == 0, "{} are counted", failed(world, n)?);
        expire(world, 6)?;
        ensure!(failed(world, n)? == 0, "{} are counted when they are removed", failed(world, n)?);
        Ok(())
    })
}

#[test]
fn a_connection_that_expires_is_counted_if_it_was_not_answered() -> Result<()> {
    in_both_families(|world, n, _| {
        world.apply(&expiring(n))?;
        ask(world, n, 0)?;
        answer(world, n, 1)?;
        expire(world, 2)?;
        ensure!(failed(world, n)? == 1, "{} are counted", failed(world, n)?);
        Ok(())
    })
}

#[test]
fn connections_that_expire_are_in_a_row_if_there_was_no_answer_since_they_were_opened() -> Result<()>
{
    observed(|world, n, alarms| {
        world.apply(&expiring(n))?;
        for i in 0..LIMIT {
            ask(world, n, i)?;
        }
        thread::sleep(SHORT);
        answer(world, n, LIMIT)?;
        expire(world, LIMIT + 1)?;
        ensure!(failed(world, n)? == u64::from(LIMIT));
        ensure!(alarms.look([n.number]).is_empty(), "an answer came after them");

        for i in 10..10 + LIMIT {
            ask(world, n, i)?;
        }
        expire(world, LIMIT)?;
        ensure!(alarms.look([n.number]) == [(n.number, 1)].into(), "none came after these");
        Ok(())
    })
}

#[test]
fn a_connection_that_makes_room_is_counted_if_it_was_not_answered() -> Result<()> {
    let settings = |global: &mut Global| (global.maxconn, global.max_half_open) = (64, 8);
    with(settings, Family::V4, |world, n, _| {
        answer(world, n, 0)?;
        for i in 1..9 {
            ask(world, n, i)?;
        }
        ensure!(world.table(n.family)?.evicted == 1);
        ensure!(failed(world, n)? == 0, "it was answered");
        ask(world, n, 9)?;
        ensure!(world.table(n.family)?.evicted == 2);
        ensure!(failed(world, n)? == 1, "it was not answered");
        Ok(())
    })
}

#[test]
fn what_the_other_host_may_have_heard_the_answer_to_is_not_counted() -> Result<()> {
    const LONG: Duration = Duration::from_secs(3600);
    in_both_families(|world, n, _| {
        let mut desired = expiring(n);
        desired.shared = [n.vip, n.source].map(|address| (address.ip(), GROUP)).into();
        for service in desired.services.values_mut() {
            service.group = GROUP;
        }
        world.apply(&desired)?;
        let serve = || world.lease(GROUP, Some(Instant::now() + LONG));

        serve()?;
        ask(world, n, 0)?;
        world.lease(GROUP, None)?;
        expire(world, 1)?;
        ensure!(failed(world, n)? == 0, "the other host serves");

        serve()?;
        ask(world, n, 1)?;
        world.lease(GROUP, None)?;
        serve()?;
        expire(world, 1)?;
        ensure!(failed(world, n)? == 0, "the other host has served meanwhile");

        ask(world, n, 2)?;
        expire(world, 1)?;
        ensure!(failed(world, n)? == 1, "only this host was asked");
        Ok(())
    })
}

#[test]
fn as_many_failures_in_a_row_as_the_limit_are_an_alarm_and_begin_anew() -> Result<()> {
    observed(|world, n, alarms| {
        for i in 0..8 {
            refuse(world, n, i)?;
            let expected = u64::from(i % 3 == 2);
            let seen = alarms.look([n.number]).get(&n.number).copied().unwrap_or(0);
            ensure!(seen == expected, "{seen} alarms after the refusal {i}");
        }
        ensure!(failed(world, n)? == 8);
        Ok(())
    })
}

#[test]
fn alarms_between_two_looks_are_all_seen() -> Result<()> {
    observed(|world, n, alarms| {
        for i in 0..7 {
            refuse(world, n, i)?;
        }
        answer(world, n, 7)?;
        ensure!(alarms.look([n.number]) == [(n.number, 2)].into());
        ensure!(alarms.look([n.number]).is_empty());
        Ok(())
    })
}

#[test]
fn an_answer_forgives_the_failures_before_it() -> Result<()> {
    observed(|world, n, alarms| {
        for i in [0, 3, 6] {
            refuse(world, n, i)?;
            refuse(world, n, i + 1)?;
            answer(world, n, i + 2)?;
        }
        ensure!(alarms.look([n.number]).is_empty());
        ensure!(failed(world, n)? == 6);
        Ok(())
    })
}

#[test]
fn without_a_limit_there_is_no_alarm() -> Result<()> {
    observed(|world, n, alarms| {
        world.apply(&n.desired())?;
        for i in 0..8 {
            refuse(world, n, i)?;
        }
        ensure!(failed(world, n)? == 8);
        ensure!(alarms.look([n.number]).is_empty());
        Ok(())
    })
}

#[test]
fn another_backend_of_the_same_number_begins_anew() -> Result<()> {
    observed(|world, n, alarms| {
        refuse(world, n, 0)?;
        refuse(world, n, 1)?;
        let mut other = n.clone();
        other.backend.set_port(8081);
        world.apply(&desired(&other))?;
        ensure!(failed(world, n)? == 0);
        refuse(world, &other, 2)?;
        ensure!(failed(world, n)? == 1);
        ensure!(alarms.look([n.number]).is_empty(), "two of the three were the other's");
        Ok(())
    })
}

type Story = fn(&mut World, &Net, &mut Alarms) -> Result<()>;

fn in_both_families(story: Story) -> Result<()> {
    with(|_| {}, Family::V4, story)?;
    with(|_| {}, Family::V6, story)
}

/// Runs a story with one service and one backend that is observed. What is counted of it has no family.
fn observed(story: Story) -> Result<()> {
    with(|_| {}, Family::V4, story)
}

fn with(settings: fn(&mut Global), family: Family, story: Story) -> Result<()> {
    World::run_with(settings, |world| {
        let net = Net::new(family, 1, world.arms);
        world.apply(&desired(&net))?;
        let mut alarms = world.dataplane.alarms()?;
        ensure!(alarms.look([net.number]).is_empty());
        story(world, &net, &mut alarms)
    })
}

fn desired(n: &Net) -> Desired {
    let mut desired = n.desired();
    for backend in desired.backends.values_mut() {
        backend.error_limit = Some(LIMIT.into());
    }
    desired
}

/// The same with a service whose clients must be answered soon.
fn expiring(n: &Net) -> Desired {
    let mut desired = desired(n);
    for service in desired.services.values_mut() {
        service.timeout.connect = SHORT;
    }
    desired
}

/// So many connections expire.
fn expire(world: &World, count: u16) -> Result<()> {
    let (mut reaper, count) = (world.reaper()?, u64::from(count));
    thread::sleep(SHORT * 3);
    let mut gone = 0;
    until("they are removed", Duration::from_secs(60), || {
        gone += reaper.sweep()?.reaped;
        ensure!(gone == count, "{gone} of {count} are");
        Ok(())
    })
}

/// The connection that is the `i`th to be opened.
fn ask(world: &World, n: &Net, i: u16) -> Result<()> {
    world.decide(n.client().sport(40_000 + i).syn())?;
    Ok(())
}

/// The backend refuses it.
fn refuse(world: &World, n: &Net, i: u16) -> Result<()> {
    ask(world, n, i)?;
    world.decide(refusal(n).dport(FIRST_PORT + i))?;
    Ok(())
}

fn refusal(n: &Net) -> Segment {
    n.server().flags(RST | ACK).seq(0).ack(0x1000_0001)
}

/// It agrees to it.
fn answer(world: &World, n: &Net, i: u16) -> Result<()> {
    ask(world, n, i)?;
    world.decide(n.server().dport(FIRST_PORT + i).syn_ack())?;
    Ok(())
}

/// Failed handshakes, as they are counted.
fn failed(world: &World, n: &Net) -> Result<u64> {
    Ok(world.read([n.number])?.backends[&n.number].connection_errors)
}
