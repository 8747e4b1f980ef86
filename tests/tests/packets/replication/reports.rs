//! What the peer is told of our connections.

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    flow::{
        ADOPT_OVER, CHANGE_CLOSED, CHANGE_ESTABLISHED, CHANGE_GONE, CHANGE_HALF_CLOSED,
        ESTABLISHED, FORGET, RESET, SYN_ACK,
    },
    maps::REAP_ANYWAY,
};

use super::{THEIRS, batch, counts, shared, sweeps_away, tell};
use crate::{
    frame::Frame,
    net::{And as _, FIRST_PORT, Net},
    replica::{Order, unreported},
};

#[test]
fn a_connection_is_reported_when_it_is_established_and_when_it_is_closed() -> Result<()> {
    shared(|world, n, replica| {
        let closings: [fn(&Net) -> [Frame; 2]; 2] = [
            |n| [n.client().fin().frame(), n.server().fin().frame()],
            |n| [n.server().fin().frame(), n.client().fin().frame()],
        ];
        for (closing, i) in closings.into_iter().zip(0..) {
            let mut n = n.clone();
            n.client.set_port(40_000 + i);
            n.source.set_port(FIRST_PORT + i);
            tell(world, n.answered())?;
            ensure!(replica.told()?.is_empty(), "{i}: reported while half open");
            tell(world, vec![].and(n.client().plain()).and(n.client().plain()))?;
            let told = replica.told()?;
            ensure!(told.len() == 1, "{i}: {told:?}");
            ensure!(told[0].what == CHANGE_ESTABLISHED, "{i}: {told:?}");
            ensure!(told[0].state == SYN_ACK | ESTABLISHED, "{i}: {told:?}");
            ensure!(told[0].key == (n.client, n.vip), "{i}: {told:?}");
            ensure!(told[0].reverse == (n.backend, n.source), "{i}: {told:?}");
            let place = told[0].place;
            let entries = replica.entries(world)?;
            let entry = entries.iter().find(|it| it.0 == place).context("nothing is there")?;
            ensure!(entry.1.is_forward, "{i}: the place of the reverse entry");
            tell(world, vec![].and(n.server().data(&[1; 9])).and(n.client().data(&[1; 9])))?;
            ensure!(replica.told()?.is_empty(), "{i}: reported without a change");
            for (fin, what) in closing(&n).into_iter().zip([CHANGE_HALF_CLOSED, CHANGE_CLOSED]) {
                tell(world, vec![fin.clone(), fin])?;
                let told = replica.told()?;
                ensure!(told.len() == 1, "{i}: {told:?}");
                ensure!(told[0].what == what && told[0].place == place, "{i}: {told:?}");
                ensure!(told[0].key == (n.client, n.vip), "{i}: {told:?}");
            }
            // Whoever repeats himself does not change anything.
            tell(world, vec![].and(n.client().fin()).and(n.server().fin()).and(n.client().rst()))?;
            ensure!(replica.told()?.is_empty(), "{i}: reported twice");
        }
        // What is closed goes in silence.
        sweeps_away(world, 2)?;
        ensure!(replica.told()?.is_empty(), "the end of a closed one was reported");
        Ok(())
    })
}

#[test]
fn a_reset_is_reported_when_it_was_believed() -> Result<()> {
    shared(|world, n, replica| {
        let resets: [fn(&Net) -> Vec<Frame>; 2] =
            [|n| vec![n.client().rst().frame()], |n| vec![n.server().rst().frame()]];
        for (reset, i) in resets.into_iter().zip(0..) {
            let mut n = n.clone();
            n.source.set_port(FIRST_PORT + i);
            tell(world, n.established())?;
            let place = replica.told()?.first().context("no report")?.place;
            // Whoever sends on does not believe it.
            tell(world, reset(&n).and(n.server().plain()).and(n.client().plain()))?;
            ensure!(replica.told()?.is_empty(), "{i}: reported at once");
            sweeps_away(world, 1)?;
            let told = replica.told()?;
            ensure!(told.len() == 1 && told[0].what == CHANGE_GONE, "{i}: {told:?}");
            ensure!(told[0].key == (n.client, n.vip) && told[0].place == place, "{i}: {told:?}");
        }
        Ok(())
    })
}

#[test]
fn a_reset_connection_that_gives_way_is_reported_before_what_takes_its_place() -> Result<()> {
    shared(|world, n, replica| {
        tell(world, n.established().and(n.client().rst()))?;
        replica.told()?;
        let mut next = n.clone();
        next.source.set_port(FIRST_PORT + 1);
        tell(world, next.established())?;
        let told: Vec<_> = replica.told()?.into_iter().map(|it| (it.what, it.reverse)).collect();
        let expected =
            [(CHANGE_GONE, (n.backend, n.source)), (CHANGE_ESTABLISHED, (n.backend, next.source))];
        ensure!(told == expected, "{told:?}");
        Ok(())
    })
}

#[test]
fn what_never_was_established_is_not_reported() -> Result<()> {
    shared(|world, n, replica| {
        tell(world, n.answered().and(n.server().rst()))?;
        // Which the client opens again, and resets itself.
        tell(world, n.opened().and(n.client().rst()))?;
        ensure!(replica.told()?.is_empty(), "one that came to nothing was reported");
        Ok(())
    })
}

#[test]
fn a_connection_that_is_ended_before_its_time_is_reported_as_gone() -> Result<()> {
    shared(|world, n, replica| {
        tell(world, n.established())?;
        let place = replica.told()?.first().context("no report")?.place;
        ensure!(replica.reap(&[place])? == 0, "ended, though it had an hour");
        ensure!(replica.told()?.is_empty(), "reported, though it goes on");
        ensure!(replica.reap(&[place | REAP_ANYWAY])? == 1, "not ended");
        let told = replica.told()?;
        ensure!(told.len() == 1 && told[0].what == CHANGE_GONE, "{told:?}");
        ensure!(told[0].key == (n.client, n.vip), "{told:?}");
        ensure!(told[0].reverse == (n.backend, n.source), "{told:?}");
        ensure!(told[0].place == place, "{told:?}");
        ensure!(replica.reap(&[place | REAP_ANYWAY])? == 0, "ended twice");
        counts(world, n, (0, 0, 0))?;
        // Half open, or closed: the peer does not know it, or knows.
        for (story, i) in [Net::opened, Net::closed].into_iter().zip(1..) {
            let mut n = n.clone();
            n.source.set_port(FIRST_PORT + i);
            tell(world, story(&n))?;
            replica.told()?;
            let entries = replica.entries(world)?;
            let (place, _) = *entries.iter().find(|it| it.1.is_forward).context("no entry")?;
            ensure!(replica.reap(&[place | REAP_ANYWAY])? == 1, "not ended");
            ensure!(replica.told()?.is_empty(), "reported");
            counts(world, &n, (0, 0, 0))?;
        }
        Ok(())
    })
}

#[test]
fn nothing_is_reported_of_a_service_without_a_group_or_without_a_peer() -> Result<()> {
    shared(|world, n, replica| {
        replica.report(false)?;
        tell(world, n.closed())?;
        replica.report(true)?;
        world.apply(&n.desired())?;
        let mut alone = n.clone();
        alone.client.set_port(40_001);
        alone.source.set_port(FIRST_PORT + 1);
        tell(world, alone.closed())?;
        ensure!(replica.told()?.is_empty(), "it was reported");
        Ok(())
    })
}

#[test]
fn what_the_peer_tells_is_not_reported_back() -> Result<()> {
    shared(|world, n, replica| {
        tell(world, n.established())?;
        replica.told()?;
        let order = n.adoption(THEIRS);
        replica.adopt_one(Order { what: ADOPT_OVER, ..order })?;
        replica.adopt_one(order)?;
        let closed = Order { state: order.state | RESET, ..order };
        replica.adopt_one(closed)?;
        replica.adopt_one(Order { what: ADOPT_OVER, ..order })?;
        tell(world, vec![n.client().plain().frame()])?;
        replica.adopt_one(Order { what: FORGET, ..order })?;
        ensure!(replica.told()?.is_empty(), "it was reported");
        counts(world, n, (0, 0, 0))?;
        // What its packets change here is news.
        replica.adopt_one(order)?;
        tell(world, n.closed_by(THEIRS))?;
        let told: Vec<u32> = replica.told()?.iter().map(|told| told.what).collect();
        ensure!(told == [CHANGE_HALF_CLOSED, CHANGE_CLOSED], "{told:?}");
        Ok(())
    })
}

#[test]
fn reports_that_there_is_no_room_for_are_counted() -> Result<()> {
    // There is room for less than ninety thousand of the smaller kind.
    const REPORTS: u64 = 90_000;
    shared(|world, n, replica| {
        let orders = batch(n);
        let mut ended = 0;
        while ended < REPORTS {
            let outcomes = replica.adopt(&orders)?;
            let places: Vec<u32> = outcomes.iter().map(|it| it.1 | REAP_ANYWAY).collect();
            ended += u64::from(replica.reap(&places)?);
        }
        let lost = unreported(n.family)?;
        let told = replica.told()?.len() as u64;
        ensure!(lost > 0, "there was room for all of {told}");
        ensure!(told + lost == ended, "{told} were told and {lost} lost");
        // There is room again.
        tell(world, n.established().and(n.client().fin()))?;
        let told = replica.told()?;
        ensure!(told.len() == 2 && unreported(n.family)? == lost, "{told:?}");
        Ok(())
    })
}
