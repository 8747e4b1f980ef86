//! SYN-ACKs that are held back until the other host knows of the connection.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    flow::SYN_ACK,
    verdict::Verdict::{self, DropHeld, ForwardClient, ForwardServer},
};
use lb_daemon::{
    core::sync::{Adopted, Change, Conflict, Connection, Digest, Tables as _},
    dataplane::{Injected, Injector, XdpAction},
};

use crate::{
    frame::Frame,
    net::{FIRST_PORT, Net},
    pair::{self, GROUP, Host, all, nth, out, tuple},
    wire::Wire,
};

/// What the program is told to hold, at the latest after so long no longer.
const IN_FORCE: Duration = Duration::from_secs(1);

/// Two hosts, the first of which serves and holds back.
fn holding(story: impl Fn(&mut Host, &mut Host, &Net) -> Result<()> + Send + Sync) -> Result<()> {
    pair::pair(|one, two, n| {
        for host in [&mut *one, &mut *two] {
            let service = host.desired.services.get_mut(&host.service).context("the service")?;
            service.synchronous = true;
            let desired = host.desired.clone();
            host.world.apply(&desired)?;
        }
        one.serve()?;
        one.replica.hold(true);
        story(one, two, n)
    })
}

/// What becomes of a SYN-ACK while it is said, once more, that they are to be held.
fn verdict(host: &mut Host, frame: impl Into<Frame>) -> Result<Verdict> {
    host.replica.hold(true);
    Ok(host.world.decide(frame)?.verdict)
}

/// The connection, as the peer is told of it while it is held.
fn answered(n: &Net) -> Change {
    Change::Answered(Connection { tuple: tuple(n), state: SYN_ACK, timestamp: 0 })
}

#[test]
fn a_syn_ack_waits_until_it_is_released_and_is_told_once() -> Result<()> {
    holding(|one, _, n| {
        one.tell(&n.opened())?;
        for _ in 0..3 {
            ensure!(verdict(one, n.server().syn_ack())? == DropHeld);
        }
        let changes = one.changes()?;
        ensure!(changes == [answered(n)], "{changes:?}");
        one.replica.release(1);
        let done = one.world.decide(n.server().syn_ack())?;
        out(&done, ForwardServer, n.to_client().syn_ack())?;
        // And then it is as any other.
        one.tell(&[n.client().plain().frame(), n.server().plain().frame()])?;
        let connection = Connection { tuple: tuple(n), state: 0b11, timestamp: 0 };
        let changes = one.changes()?;
        ensure!(changes == [Change::Is(connection)], "{changes:?}");
        Ok(())
    })
}

#[test]
fn what_is_released_is_sent_to_the_client_as_if_it_had_not_waited() -> Result<()> {
    holding(|one, _, n| {
        let wire = Wire::open()?;
        one.tell(&n.opened())?;
        let options = [2, 4, 5, 180, 1, 3, 3, 7];
        let answer = n.server().syn_ack().options(&options);
        ensure!(verdict(one, answer)? == DropHeld);
        one.changes()?;
        let forwarded = || anyhow::Ok(one.world.read([])?.verdicts["forward_server"]);
        let before = forwarded()?;
        one.replica.release(1);
        ensure!(forwarded()? == before + 1, "not counted as forwarded");
        let expected = n.to_client().syn_ack().options(&options).frame();
        wire.wait_for(&expected)
    })
}

#[test]
fn a_host_that_loses_its_lease_at_the_last_moment_sends_nothing() -> Result<()> {
    holding(|one, _, n| {
        let wire = Wire::open()?;
        one.tell(&n.opened())?;
        let answer = n.server().syn_ack().frame();
        ensure!(verdict(one, answer.clone())? == DropHeld);
        let mut injector = one.world.injector()?;
        injector.load(&Injector::ONE)?;
        let is_served = || one.replica.serving().contains(GROUP);
        // The program has let it through by then.
        let loses = || one.world.lease(one.group, None).is_ok() && is_served();
        let sent = injector.inject(&answer.bytes, answer.ifindex, loses)?;
        ensure!(sent == Injected::Dropped, "it was sent");
        one.serve()?;
        let sent = injector.inject(&answer.bytes, answer.ifindex, is_served)?;
        ensure!(sent == Injected::Sent, "it was not sent");
        wire.wait_for(&n.to_client().syn_ack().frame())
    })
}

#[test]
fn a_connection_goes_on_by_the_host_that_was_told_before_its_client_was() -> Result<()> {
    holding(|one, two, n| {
        one.tell(&n.opened())?;
        ensure!(verdict(one, n.server().syn_ack())? == DropHeld);
        let done = two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { new: 1, ..Adopted::default() }, "{done:?}");
        let table = two.world.table(n.family)?;
        ensure!((table.connections, table.half_open, two.active()?) == (1, 1, 1), "{table:?}");
        let (ours, theirs) = (one.replica.digest(GROUP), two.replica.digest(GROUP));
        ensure!(ours == theirs && ours != Digest([0; 256]), "it is not in the digest");
        let told = Connection { tuple: tuple(n), state: SYN_ACK, timestamp: 0 };
        ensure!(one.scan(&all()) == [told] && two.scan(&all()) == [told], "it is not transferred");

        // The client has seen the SYN-ACK, and the first host is gone.
        one.world.lease(one.group, None)?;
        two.serve()?;
        let done = two.world.decide(n.client().plain().data(b"hello"))?;
        out(&done, ForwardClient, n.to_backend().plain().data(b"hello"))?;
        let done = two.world.decide(n.server().plain())?;
        out(&done, ForwardServer, n.to_client().plain())?;
        let table = two.world.table(n.family)?;
        ensure!((table.connections, table.half_open) == (1, 0), "{table:?}");
        ensure!(two.scan(&all()).len() == 1, "it is not established");
        Ok(())
    })
}

#[test]
fn the_host_that_was_told_is_told_that_it_is_established_and_has_one_connection() -> Result<()> {
    holding(|one, two, n| {
        one.tell(&n.opened())?;
        ensure!(verdict(one, n.server().syn_ack())? == DropHeld);
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        one.replica.release(1);
        one.tell(&[n.client().plain().frame()])?;
        let done = two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { known: 1, ..Adopted::default() }, "{done:?}");
        let table = two.world.table(n.family)?;
        ensure!((table.connections, table.half_open, two.active()?) == (1, 0, 1), "{table:?}");
        ensure!(one.replica.digest(GROUP) == two.replica.digest(GROUP), "unequal");
        ensure!(one.scan(&all()) == two.scan(&all()), "unequal");
        Ok(())
    })
}

#[test]
fn the_other_host_is_told_of_the_end_of_what_came_to_nothing() -> Result<()> {
    holding(|one, two, n| {
        let endings: [fn(&Host, &Net) -> Result<()>; 3] = [
            |one, n| one.tell(&[n.client().rst().frame()]),
            |one, n| one.tell(&[n.server().rst().frame()]),
            |one, _| {
                // Those that are closed as well.
                ensure!(one.world.ender()?.end_backend(one.backend)? == 3);
                Ok(())
            },
        ];
        for (ending, i) in endings.into_iter().zip(0..) {
            let n = nth(n, i);
            one.tell(&n.opened())?;
            ensure!(verdict(one, n.server().syn_ack())? == DropHeld);
            two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
            ensure!(two.active()? == 1, "{i}");
            ending(one, &n)?;
            two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
            ensure!(two.active()? == 0, "{i}: it is still there");
            // What was held of it goes nowhere.
            one.replica.release(1);
        }
        Ok(())
    })
}

#[test]
fn a_flood_of_answered_syns_leaves_no_more_with_the_other_host_than_are_half_open() -> Result<()> {
    /// More than may be half open.
    const MANY: u16 = 1500;
    holding(|one, two, n| {
        for i in 0..MANY {
            let n = nth(n, i);
            one.tell(&n.opened())?;
            ensure!(verdict(one, n.server().syn_ack())? == DropHeld, "{i}");
            if i % 100 == 99 {
                two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
            }
        }
        let (ours, theirs) = (one.world.table(n.family)?, two.world.table(n.family)?);
        ensure!(ours.half_open == 1024 && ours.evicted > 0, "{ours:?}");
        ensure!(theirs.half_open == ours.half_open, "{theirs:?}");
        ensure!(theirs.connections == ours.connections, "{theirs:?}");
        Ok(())
    })
}

#[test]
fn nothing_is_held_of_other_services_or_of_what_is_established() -> Result<()> {
    holding(|one, _, n| {
        one.tell(&n.opened())?;
        ensure!(verdict(one, n.server().syn_ack())? == DropHeld);
        one.changes()?;
        one.replica.release(1);
        one.tell(&[n.client().plain().frame(), n.server().syn_ack().frame()])?;
        let service = one.desired.services.get_mut(&one.service).context("the service")?;
        service.synchronous = false;
        let desired = one.desired.clone();
        one.world.apply(&desired)?;
        one.tell(&nth(n, 1).answered())
    })
}

#[test]
fn nothing_is_held_when_it_was_not_said_lately_or_is_said_no_more() -> Result<()> {
    holding(|one, _, n| {
        one.replica.hold(false);
        one.tell(&n.answered())?;
        one.tell(&nth(n, 1).opened())?;
        // Of what was begun before, nothing is held.
        one.replica.hold(true);
        one.tell(&[nth(n, 1).server().syn_ack().frame()])?;
        one.tell(&nth(n, 2).opened())?;
        let two = nth(n, 2).server().syn_ack();
        ensure!(verdict(one, two.clone())? == DropHeld);
        thread::sleep(IN_FORCE);
        ensure!(one.world.decide(two)?.verdict == ForwardServer, "held, though nobody says so");
        Ok(())
    })
}

#[test]
fn what_there_is_no_room_for_is_sent_on_and_counted() -> Result<()> {
    /// Of more bytes together than there are for frames.
    const MANY: u16 = 8000;
    holding(|one, _, n| {
        let mut unheld = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        for i in 0..MANY {
            one.replica.hold(true);
            // A client that has been here before has closed what it had.
            let mut n = n.clone();
            n.client.set_port(40_000 + i % 1000);
            n.source.set_port(FIRST_PORT + i);
            // Without a look at the counters, which would take most of the time.
            let send = |frame: Frame| anyhow::Ok(one.world.send(&frame)?.action);
            send(n.client().syn().frame())?;
            let action = send(n.server().syn_ack().frame())?;
            unheld += u64::from(action != XdpAction::Drop);
            send(n.client().rst().frame())?;
            ensure!(Instant::now() < deadline, "too slow to tell");
        }
        ensure!(unheld > 0, "there was room for all");
        ensure!(one.world.read([])?.unheld == unheld, "{unheld} were not held");
        ensure!(!one.replica.has_lost_changes(), "changes had no room");
        Ok(())
    })
}

#[test]
fn what_is_too_long_for_a_syn_ack_is_sent_on() -> Result<()> {
    holding(|one, _, n| {
        one.tell(&n.opened())?;
        one.tell(&[n.server().syn_ack().data(&[7; 300]).frame()])?;
        ensure!(one.changes()?.is_empty(), "it was told");
        ensure!(one.world.read([])?.unheld == 1, "not counted");
        Ok(())
    })
}

#[test]
fn what_was_handed_over_is_not_for_ever() -> Result<()> {
    const CONNECT: Duration = Duration::from_millis(50);
    holding(|one, two, n| {
        let service = two.desired.services.get_mut(&two.service).context("the service")?;
        service.timeout.connect = CONNECT;
        let desired = two.desired.clone();
        two.world.apply(&desired)?;
        one.tell(&n.opened())?;
        ensure!(verdict(one, n.server().syn_ack())? == DropHeld);
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        thread::sleep(CONNECT * 3);
        let mut reaper = two.world.reaper()?;
        ensure!(reaper.sweep()?.reaped == 0, "ended on the host that does not serve it");
        two.serve()?;
        thread::sleep(CONNECT * 3);
        ensure!(reaper.sweep()?.reaped == 0, "ended, though both may take it for established");
        // Its backend waits for the client still.
        two.world.decide(n.server().syn_ack())?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while reaper.sweep()?.reaped == 0 {
            ensure!(Instant::now() < deadline, "it is still there");
            thread::sleep(Duration::from_millis(10));
        }
        ensure!(two.changes()? == [Change::Gone(tuple(n))], "its end is not told");
        Ok(())
    })
}
