//! When a connection that both hosts have ends by silence: where it was heard.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::flow::{ADOPT_KNOWN, CHANGE_SILENT, SERVER_FIN};
use lb_daemon::config::Timeouts;

use super::{LONG, THEIRS, counts, serve, shared, sweeps_away, tell, unlimited};
use crate::{
    net::{And as _, Net},
    replica::{Order, lease_times},
    row::GROUP,
    world::World,
};

const SHORT: Duration = Duration::from_millis(50);

#[test]
fn what_the_peer_tells_to_be_half_closed_expires_as_such() -> Result<()> {
    shared(|world, n, replica| {
        serve(world, n, Timeouts { client_fin: SHORT, ..unlimited() })?;
        let order = n.adoption(THEIRS);
        replica.adopt_one(order)?;
        let half_closed = Order { state: order.state | SERVER_FIN, ..order };
        let known = replica.adopt_one(half_closed)?.0;
        ensure!(known == ADOPT_KNOWN, "{known}");
        // What was sent before that says nothing to the contrary.
        replica.adopt_one(order)?;
        sweeps_away(world, 1)?;
        counts(world, n, (0, 0, 0))
    })
}

#[test]
fn nothing_expires_by_a_silence_that_was_not_heard() -> Result<()> {
    for timeouts in
        [Timeouts { client: SHORT, ..unlimited() }, Timeouts { server: SHORT, ..unlimited() }]
    {
        shared(|world, n, replica| {
            serve(world, n, timeouts)?;
            tell(world, n.established())?;
            let place = replica.told()?.first().context("no report")?.place;
            // The other host has it from here on.
            world.lease(GROUP, None)?;
            stays(world, n)?;
            ensure!(replica.reap(&[place])? == 0, "the program has a rule of its own");
            // And this one again: its silence begins now.
            world.lease(GROUP, Some(Instant::now() + LONG))?;
            lease_times(GROUP, 3600, 0)?;
            stays(world, n)?;
            ensure!(replica.reap(&[place])? == 0, "the program has a rule of its own");
            lease_times(GROUP, -1, 0)?;
            sweeps_away(world, 1)?;
            let told = replica.told()?;
            ensure!(told.len() == 1 && told[0].what == CHANGE_SILENT, "{told:?}");
            counts(world, n, (0, 0, 0))
        })?;
    }
    Ok(())
}

#[test]
fn what_is_silent_expires_without_a_lease_if_no_peer_goes_on_with_it() -> Result<()> {
    shared(|world, n, replica| {
        serve(world, n, Timeouts { client: SHORT, ..unlimited() })?;
        tell(world, n.established())?;
        replica.report(false)?;
        world.lease(GROUP, None)?;
        sweeps_away(world, 1)?;
        counts(world, n, (0, 0, 0))
    })
}

#[test]
fn what_is_half_open_or_closed_goes_without_a_lease_too() -> Result<()> {
    shared(|world, n, replica| {
        serve(world, n, Timeouts { connect: SHORT, ..unlimited() })?;
        tell(world, n.established().and(n.client().rst()))?;
        let mut other = n.clone();
        other.client.set_port(40_001);
        tell(world, other.opened())?;
        world.lease(GROUP, None)?;
        sweeps_away(world, 2)?;
        counts(world, n, (0, 0, 0))?;
        let reset = replica.told()?.len();
        ensure!(reset == 2, "{reset} reports of one that was established and reset");
        Ok(())
    })
}

#[test]
fn an_adopted_connection_expires_when_this_host_serves_it() -> Result<()> {
    shared(|world, n, replica| {
        serve(world, n, Timeouts { client: SHORT, ..unlimited() })?;
        world.lease(GROUP, None)?;
        replica.adopt_one(n.adoption(THEIRS))?;
        stays(world, n)?;
        world.lease(GROUP, Some(Instant::now() + LONG))?;
        lease_times(GROUP, -1, 0)?;
        sweeps_away(world, 1)?;
        let told = replica.told()?;
        ensure!(told.len() == 1 && told[0].what == CHANGE_SILENT, "{told:?}");
        counts(world, n, (0, 0, 0))
    })
}

/// For longer than the short timeout, nothing is swept away.
fn stays(world: &World, n: &Net) -> Result<()> {
    let mut reaper = world.reaper()?;
    let end = Instant::now() + SHORT * 4;
    while Instant::now() < end {
        ensure!(reaper.sweep()?.reaped == 0, "a connection was ended");
        thread::sleep(SHORT / 5);
    }
    counts(world, n, (1, 0, 1))
}
