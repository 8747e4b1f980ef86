//! How long connections live: what a sweep ends, and what it leaves alone.
//!
//! Nothing here depends on the machine being quick. A connection that must live has an hour; one
//! that must go is swept until it is gone; and that it did not go too early is a lower bound.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_common::verdict::Action;
use lb_daemon::config::Timeouts;
use tests::lab::Family;

use crate::{
    frame::Frame,
    net::{And as _, FIRST_PORT, Net},
    world::World,
};

/// What has happened to a connection.
type Story = fn(&Net) -> Vec<Frame>;

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);
const UNLIMITED: Timeouts = Timeouts {
    connect: LONG,
    queue: LONG,
    client: LONG,
    server: LONG,
    client_fin: LONG,
    server_fin: LONG,
};

/// How much earlier than a timeout a connection may go: the program reads a clock that advances
/// with the timer tick, of 10 ms at most, and counts in units of 1 ms.
const TICK: Duration = Duration::from_millis(20);

/// How long a connection may take to go. It takes that long only if the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_half_open_connection_goes_after_the_connect_timeout() -> Result<()> {
    let timeouts = Timeouts { connect: SHORT, ..UNLIMITED };
    ends(timeouts, Net::opened, SHORT)?;
    ends(timeouts, Net::answered, SHORT)
}

#[test]
fn an_established_connection_goes_after_the_clients_silence() -> Result<()> {
    ends(Timeouts { client: SHORT, ..UNLIMITED }, Net::established, SHORT)
}

#[test]
fn an_established_connection_goes_after_the_backends_silence() -> Result<()> {
    ends(Timeouts { server: SHORT, ..UNLIMITED }, Net::established, SHORT)
}

#[test]
fn a_talking_backend_does_not_hide_the_clients_silence() -> Result<()> {
    let timeouts = Timeouts { client: SHORT, ..UNLIMITED };
    ends_although(timeouts, Net::established, SHORT, |n| Some(n.server().plain().frame()))
}

#[test]
fn a_talking_client_does_not_hide_the_backends_silence() -> Result<()> {
    let timeouts = Timeouts { server: SHORT, ..UNLIMITED };
    ends_although(timeouts, Net::established, SHORT, |n| Some(n.client().plain().frame()))
}

#[test]
fn retransmissions_do_not_keep_a_half_open_connection() -> Result<()> {
    let timeouts = Timeouts { connect: SHORT, ..UNLIMITED };
    ends_although(timeouts, Net::answered, SHORT, |n| Some(n.server().syn_ack().frame()))
}

const HALF_CLOSED: [Story; 2] =
    [|n| n.established().and(n.client().fin()), |n| n.established().and(n.server().fin())];

#[test]
fn a_half_closed_connection_goes_after_a_silence_of_its_own() -> Result<()> {
    for half_closed in HALF_CLOSED {
        ends(Timeouts { client_fin: SHORT, ..UNLIMITED }, half_closed, SHORT)?;
        ends(Timeouts { server_fin: SHORT, ..UNLIMITED }, half_closed, SHORT)?;
    }
    Ok(())
}

#[test]
fn who_still_sends_does_not_hide_the_silence_of_the_other_side_of_a_half_closed_connection()
-> Result<()> {
    let [client_closed, server_closed] = HALF_CLOSED;
    let timeouts = Timeouts { client_fin: SHORT, ..UNLIMITED };
    ends_although(timeouts, client_closed, SHORT, |n| Some(n.server().plain().frame()))?;
    let timeouts = Timeouts { server_fin: SHORT, ..UNLIMITED };
    ends_although(timeouts, server_closed, SHORT, |n| Some(n.client().plain().frame()))
}

#[test]
fn a_fin_that_is_repeated_does_not_hide_the_silence_of_the_other_side() -> Result<()> {
    let [client_closed, _] = HALF_CLOSED;
    let timeouts = Timeouts { server_fin: SHORT, ..UNLIMITED };
    ends_although(timeouts, client_closed, SHORT, |n| Some(n.client().fin().frame()))
}

#[test]
fn a_half_closed_connection_is_not_held_to_the_timeouts_of_an_open_one() -> Result<()> {
    in_both_families(|world, net| {
        set(world, net, Timeouts { client: SHORT, server: SHORT, ..UNLIMITED })?;
        let mut reaper = world.reaper()?;
        for (half_closed, i) in HALF_CLOSED.into_iter().zip(0..) {
            let mut n = net.clone();
            n.client.set_port(40_000 + i);
            n.source.set_port(FIRST_PORT + i);
            tell(world, half_closed(&n))?;
        }
        thread::sleep(SHORT + TICK * 2);
        ensure!(reaper.sweep()?.reaped == 0, "a connection was ended that had an hour");
        Ok(())
    })
}

#[test]
fn the_silence_after_a_fin_begins_with_it() -> Result<()> {
    const FIN_TIMEOUT: Duration = Duration::from_secs(5);
    in_both_families(|world, net| {
        let short = Timeouts { client_fin: FIN_TIMEOUT, server_fin: FIN_TIMEOUT, ..UNLIMITED };
        set(world, net, short)?;
        let mut reaper = world.reaper()?;
        tell(world, net.established())?;
        thread::sleep(FIN_TIMEOUT + TICK * 2);
        let closed = Instant::now();
        tell(world, vec![net.server().fin().frame()])?;
        let ended = reaper.sweep()?.reaped;
        ensure!(ended == 0 || closed.elapsed() + TICK > FIN_TIMEOUT, "ended with the FIN");
        Ok(())
    })
}

#[test]
fn a_connection_that_was_closed_lingers_for_five_seconds() -> Result<()> {
    ends(UNLIMITED, Net::closed, Duration::from_secs(5))
}

#[test]
fn a_connection_that_was_reset_lingers_for_a_second() -> Result<()> {
    let second = Duration::from_secs(1);
    ends(UNLIMITED, |n| n.established().and(n.client().rst()), second)?;
    ends(UNLIMITED, |n| n.established().and(n.server().rst()), second)?;
    ends(UNLIMITED, |n| n.opened().and(n.server().rst()), second)
}

#[test]
fn a_sweep_leaves_connections_alone_that_have_time() -> Result<()> {
    in_both_families(|world, net| {
        set(world, net, UNLIMITED)?;
        let stories: [Story; 5] = [
            Net::opened,
            Net::answered,
            Net::established,
            |n| n.established().and(n.client().fin()),
            |n| n.established().and(n.server().fin()),
        ];
        for (story, i) in stories.into_iter().zip(0..) {
            let mut n = net.clone();
            n.client.set_port(40_000 + i);
            n.source.set_port(FIRST_PORT + i);
            tell(world, story(&n))?;
        }
        let mut reaper = world.reaper()?;
        for _ in 0..3 {
            ensure!(reaper.sweep()?.reaped == 0, "a connection was ended that had an hour");
        }
        let table = world.table(net.family)?;
        ensure!(table.connections == 5 && table.half_open == 2, "{table:?}");
        ensure!(world.active(net.number)? == 5, "the backend's count is another");
        Ok(())
    })
}

#[test]
fn a_sweep_names_the_backends_and_services_that_connections_remain_for() -> Result<()> {
    in_both_families(|world, net| {
        set(world, net, UNLIMITED)?;
        let mut reaper = world.reaper()?;
        ensure!(reaper.sweep()?.backends.is_empty(), "a backend without connections is named");
        tell(world, net.opened())?;
        let sweep = reaper.sweep()?;
        ensure!(sweep.backends.iter().eq([&net.number]), "{:?}", sweep.backends);
        ensure!(sweep.services.iter().eq([&0]), "{:?}", sweep.services);
        Ok(())
    })
}

fn ends(timeouts: Timeouts, before: Story, after: Duration) -> Result<()> {
    ends_although(timeouts, before, after, |_| None)
}

/// A connection does not go earlier than so long `after` its first packet, but then it goes,
/// though someone sends `meanwhile`; its counts go with it, and the client can open another one.
fn ends_although(
    timeouts: Timeouts,
    before: Story,
    after: Duration,
    meanwhile: fn(&Net) -> Option<Frame>,
) -> Result<()> {
    in_both_families(|world, net| {
        set(world, net, timeouts)?;
        let mut reaper = world.reaper()?;
        let first = Instant::now();
        tell(world, before(net))?;
        ensure!(world.table(net.family)?.connections == 1, "no connection was opened");
        let deadline = first + PATIENCE;
        while reaper.sweep()?.reaped == 0 {
            ensure!(Instant::now() < deadline, "the connection is still there");
            if let Some(frame) = meanwhile(net) {
                world.send(&frame)?;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let lived = first.elapsed();
        ensure!(lived + TICK >= after, "gone after {lived:?}, which is before {after:?}");
        let table = world.table(net.family)?;
        ensure!(table.connections == 0 && table.half_open == 0, "{table:?}");
        ensure!(world.active(net.number)? == 0, "the backend's count leaks");
        let again = world.decide(net.client().syn())?.verdict.label();
        ensure!(again == "forward_new", "the next SYN: {again}");
        Ok(())
    })
}

/// Sends frames that are all forwarded.
fn tell(world: &World, frames: Vec<Frame>) -> Result<()> {
    for frame in frames {
        let verdict = world.decide(frame)?.verdict;
        ensure!(verdict.action() == Action::Transmit, "{verdict:?}");
    }
    Ok(())
}

fn set(world: &mut World, net: &Net, timeouts: Timeouts) -> Result<()> {
    let mut desired = net.desired();
    if let Some(service) = desired.services.get_mut(&0) {
        service.timeout = timeouts;
    }
    world.apply(&desired)
}

fn in_both_families(story: impl Fn(&mut World, &Net) -> Result<()> + Send + Sync) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        World::run(|world| {
            let net = Net::new(family, 1, world.arms);
            story(world, &net)
        })?;
    }
    Ok(())
}

#[test]
fn a_reset_that_nobody_believes_ends_nothing() -> Result<()> {
    in_both_families(|world, net| {
        set(world, net, UNLIMITED)?;
        let forgeries: [Story; 2] =
            [|n| vec![n.client().rst().frame()], |n| vec![n.server().rst().frame()]];
        for (forgery, i) in forgeries.into_iter().zip(0..) {
            let mut n = net.clone();
            n.client.set_port(40_000 + i);
            n.source.set_port(FIRST_PORT + i);
            tell(world, n.established())?;
            tell(world, forgery(&n))?;
            let mut reaper = world.reaper()?;
            // Longer than a connection lingers that was really reset.
            let end = Instant::now() + Duration::from_millis(2500);
            while Instant::now() < end {
                tell(world, vec![n.client().plain().frame(), n.server().plain().frame()])?;
                ensure!(reaper.sweep()?.reaped == 0, "a connection was ended that goes on");
                thread::sleep(Duration::from_millis(50));
            }
            // Silent at last, it goes.
            let patience = Instant::now() + PATIENCE;
            while reaper.sweep()?.reaped == 0 {
                ensure!(Instant::now() < patience, "a connection that was reset stays");
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    })
}
