//! What the host that takes over makes of the connections that it was told of.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::verdict::Verdict::{DropNoFlow, DropNoHop, ForwardServer, ResetNoFlow};
use lb_daemon::core::sync::{Change, Conflict, Tables as _};

use super::{GROUP, nth, out, pair, tuple};

#[test]
fn who_has_sent_nothing_yet_is_reached_by_the_way_that_the_kernel_knows() -> Result<()> {
    pair(|one, two, n| {
        one.serve()?;
        one.tell(&n.established())?;
        two.knows(Some(n));
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        two.serve()?;
        let done = two.world.decide(n.server().plain())?;
        out(&done, ForwardServer, n.to_client().plain())?;
        // The same way is entered once, and is the one that frames come by.
        let second = nth(n, 1);
        one.tell(&second.established())?;
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        let done = two.world.decide(second.server().plain())?;
        out(&done, ForwardServer, second.to_client().plain())
    })
}

#[test]
fn a_way_that_is_not_known_is_looked_for_again() -> Result<()> {
    pair(|one, two, n| {
        one.serve()?;
        one.tell(&n.established())?;
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        two.serve()?;
        two.replica.repair()?;
        let done = two.world.decide(n.server().plain())?;
        ensure!(done.verdict == DropNoHop, "{:?}", done.verdict);
        two.knows(Some(n));
        two.wait_for_repair(n)?;

        // One that an earlier daemon has left is found too.
        let second = nth(n, 1);
        one.tell(&second.established())?;
        two.knows(None);
        two.replica = two.world.replica(two.find())?;
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        two.replica = two.world.replica(two.find())?;
        let done = two.world.decide(second.server().plain())?;
        ensure!(done.verdict == DropNoHop, "{:?}", done.verdict);
        two.knows(Some(n));
        two.wait_for_repair(&second)
    })
}

#[test]
fn nobody_is_taken_for_silent_before_the_takeover() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(2);
    pair(|one, two, n| {
        one.serve()?;
        one.tell(&n.established())?;
        let mut desired = two.desired.clone();
        let service = desired.services.get_mut(&two.service).context("the service")?;
        (service.timeout.client, service.timeout.server) = (TIMEOUT, TIMEOUT);
        two.world.apply(&desired)?;
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        thread::sleep(TIMEOUT + TIMEOUT / 2);
        let mut reaper = two.world.reaper()?;
        ensure!(reaper.sweep()?.reaped == 0, "ended on the host that does not serve it");
        let takeover = Instant::now();
        two.serve()?;
        let deadline = takeover + TIMEOUT * 30;
        while reaper.sweep()?.reaped == 0 {
            ensure!(Instant::now() < deadline, "it is still there");
            thread::sleep(Duration::from_millis(10));
            // The lease goes on, and what was heard since it began counts.
            two.serve()?;
        }
        ensure!(takeover.elapsed() > TIMEOUT, "ended {:?} after", takeover.elapsed());
        ensure!(two.changes()? == [Change::Gone(tuple(n))], "its end is not told");
        Ok(())
    })
}

#[test]
fn what_is_silent_is_over_where_nobody_serves_it_if_the_peer_does_not_have_the_group() -> Result<()>
{
    const TIMEOUT: Duration = Duration::from_millis(100);
    pair(|one, two, n| {
        one.serve()?;
        one.tell(&n.established())?;
        let mut desired = two.desired.clone();
        let service = desired.services.get_mut(&two.service).context("the service")?;
        (service.timeout.client, service.timeout.server) = (TIMEOUT, TIMEOUT);
        two.world.apply(&desired)?;
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        two.replica.peer_has(&BTreeSet::from([GROUP.to_owned()]));
        thread::sleep(TIMEOUT * 3);
        let mut reaper = two.world.reaper()?;
        ensure!(reaper.sweep()?.reaped == 0, "ended, though the other host may serve it");
        two.replica.peer_has(&BTreeSet::from(["other".to_owned()]));
        ensure!(reaper.sweep()?.reaped == 1, "nobody ever ends it");
        Ok(())
    })
}

#[test]
fn a_group_is_served_while_its_lease_runs_and_grace_ends_once() -> Result<()> {
    pair(|_, two, n| {
        ensure!(two.replica.serving().is_empty());
        two.serve()?;
        ensure!(two.replica.serving().into_iter().eq([GROUP.to_owned()]));
        let stray = || two.world.decide(n.client().plain()).map(|done| done.verdict);
        let before = stray()?;
        ensure!(before == DropNoFlow, "{before:?}");
        two.replica.end_grace("other");
        let other = two.world.decide(n.client().plain())?.verdict;
        ensure!(other == DropNoFlow, "{other:?}");
        two.replica.end_grace(GROUP);
        // A lease that goes on begins no other grace; one that begins anew does.
        two.serve()?;
        let after = two.world.decide(n.client().plain())?.verdict;
        ensure!(after == ResetNoFlow, "{after:?}");
        two.world.doubt(two.group);
        let doubted = two.world.decide(n.client().plain())?.verdict;
        ensure!(doubted == DropNoFlow, "{doubted:?}");
        two.replica.end_grace(GROUP);
        two.world.lease(two.group, None)?;
        ensure!(two.replica.serving().is_empty());
        two.serve()?;
        let again = two.world.decide(n.client().plain())?.verdict;
        ensure!(again == DropNoFlow, "{again:?}");
        Ok(())
    })
}
