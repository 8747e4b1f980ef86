//! Playing the peer: what becomes of its connections here, and what it is told of ours.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    flow::{
        ADOPT, ADOPT_ABSENT, ADOPT_CONFLICT, ADOPT_ENDED, ADOPT_FAILED, ADOPT_FULL, ADOPT_KNOWN,
        ADOPT_NEW, ADOPT_OVER, ADOPTED, CHANGE_CLOSED, CHANGE_ESTABLISHED, CHANGE_GONE,
        CHANGE_HALF_CLOSED, CHANGE_SILENT, CLIENT_FIN, ESTABLISHED, FORGET, LEAD_BACK, NO_HOP,
        NO_PAIR, RESET, SERVER_FIN, SYN_ACK,
    },
    maps::{ADOPT_BATCH, REAP_ANYWAY},
    verdict::{Action, Verdict},
};
use lb_daemon::config::{Global, Timeouts};
use tests::lab::Family;

use crate::{
    frame::{Frame, Mac},
    net::{And as _, FIRST_PORT, Net},
    replica::{Order, Replica, lease_times, unreported},
    row::{self, GROUP, Lease},
    verify,
    world::World,
};

/// A translation port that this host does not come to.
const THEIRS: u16 = 20_000;
const OTHER_ROUTER: Mac = [2, 0, 0, 0, 0, 0x02];
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(3600);
/// How long a connection may take to go. It takes that long only if the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_connection_is_adopted_once_and_forgotten_once() -> Result<()> {
    shared(|world, n, replica| {
        let order = n.adoption(THEIRS);
        let (outcome, place) = replica.adopt_one(order)?;
        ensure!(outcome == ADOPT_NEW, "{outcome}");
        counts(world, n, (1, 0, 1))?;
        let entries = replica.entries(world)?;
        ensure!(entries.len() == 2, "{entries:?}");
        for (at, entry) in entries {
            if entry.is_forward {
                ensure!(at == place, "the outcome names another place");
                ensure!(entry.flags & ADOPTED != 0 && entry.hop == n.number, "{entry:?}");
                ensure!(entry.state == SYN_ACK | ESTABLISHED, "{entry:?}");
            } else {
                ensure!(entry.flags & ADOPTED == 0 && entry.hop == NO_HOP, "{entry:?}");
            }
        }
        let again = replica.adopt_one(order)?;
        ensure!(again == (ADOPT_KNOWN, place), "{again:?}");
        let other = replica.adopt_one(Order { what: FORGET, ..n.adoption(THEIRS + 1) })?;
        ensure!(other == (ADOPT_ABSENT, NO_PAIR), "another translation was forgotten: {other:?}");
        counts(world, n, (1, 0, 1))?;
        let forgotten = replica.adopt_one(Order { what: FORGET, ..order })?.0;
        ensure!(forgotten == ADOPT_ENDED, "{forgotten}");
        let again = replica.adopt_one(Order { what: FORGET, ..order })?.0;
        ensure!(again == ADOPT_ABSENT, "{again}");
        counts(world, n, (0, 0, 0))?;
        ensure!(replica.entries(world)?.is_empty(), "an entry is left");
        Ok(())
    })
}

#[test]
fn a_batch_is_adopted_as_a_whole() -> Result<()> {
    shared(|world, n, replica| {
        let orders = batch(n);
        let outcomes = replica.adopt(&orders)?;
        ensure!(outcomes.iter().all(|(outcome, _)| *outcome == ADOPT_NEW), "{outcomes:?}");
        counts(world, n, (ADOPT_BATCH as u64, 0, ADOPT_BATCH as u64))?;
        // Each record gets its own answer.
        let mixed = [
            orders[3],
            Order { what: FORGET, ..orders[4] },
            Order { what: FORGET, reverse: orders[6].reverse, ..orders[5] },
            Order { reverse: orders[8].reverse, ..orders[7] },
        ];
        let outcomes: Vec<u8> = replica.adopt(&mixed)?.into_iter().map(|it| it.0).collect();
        let expected = [ADOPT_KNOWN, ADOPT_ENDED, ADOPT_ABSENT, ADOPT_CONFLICT];
        ensure!(outcomes == expected, "{outcomes:?}");
        ensure!(replica.adopt(&[])?.is_empty());
        Ok(())
    })
}

#[test]
fn a_connection_of_ours_with_another_translation_stays_unless_the_peer_knows_better() -> Result<()>
{
    shared(|world, n, replica| {
        tell(world, n.established())?;
        let order = n.adoption(THEIRS);
        let refused = replica.adopt_one(order)?;
        ensure!(refused == (ADOPT_CONFLICT, NO_PAIR), "{refused:?}");
        tell(world, vec![n.server().plain().frame()])?;
        counts(world, n, (1, 0, 1))?;
        let taken = replica.adopt_one(Order { what: ADOPT_OVER, ..order })?.0;
        ensure!(taken == ADOPT_NEW, "{taken}");
        counts(world, n, (1, 0, 1))?;
        let out = world.decide(n.client().plain())?.frame;
        verify::check(&out)?;
        ensure!(out == n.to_backend().sport(THEIRS).plain().frame().bytes, "another translation");
        Ok(())
    })
}

#[test]
fn a_translation_of_ours_stays_with_its_client_unless_the_peer_knows_better() -> Result<()> {
    shared(|world, n, replica| {
        tell(world, n.established())?;
        let mut other = n.clone();
        other.client.set_port(40_001);
        let order = other.adoption(FIRST_PORT);
        let refused = replica.adopt_one(order)?;
        ensure!(refused == (ADOPT_CONFLICT, NO_PAIR), "{refused:?}");
        counts(world, n, (1, 0, 1))?;
        let taken = replica.adopt_one(Order { what: ADOPT_OVER, ..order })?.0;
        ensure!(taken == ADOPT_NEW, "{taken}");
        counts(world, n, (1, 0, 1))?;
        let ours = world.decide(n.client().plain())?.verdict;
        ensure!(ours == Verdict::ResetNoFlow, "{ours:?}");
        let out = world.decide(other.client().plain())?.frame;
        verify::check(&out)?;
        ensure!(out == n.to_backend().plain().frame().bytes, "another translation");
        Ok(())
    })
}

#[test]
fn what_is_closed_here_gives_way() -> Result<()> {
    shared(|world, n, replica| {
        tell(world, n.closed())?;
        let adopted = replica.adopt_one(n.adoption(THEIRS))?.0;
        ensure!(adopted == ADOPT_NEW, "the client's closed connection: {adopted}");
        counts(world, n, (1, 0, 1))?;
        tell(world, n.closed_by(THEIRS))?;
        counts(world, n, (1, 0, 0))?;
        let mut other = n.clone();
        other.client.set_port(40_001);
        let adopted = replica.adopt_one(other.adoption(THEIRS))?.0;
        ensure!(adopted == ADOPT_NEW, "the translation's closed connection: {adopted}");
        counts(world, n, (1, 0, 1))
    })
}

#[test]
fn a_closed_connection_is_opened_again_only_by_who_knows_better() -> Result<()> {
    shared(|world, n, replica| {
        tell(world, n.closed())?;
        let order = n.adoption(FIRST_PORT);
        let known = replica.adopt_one(order)?.0;
        ensure!(known == ADOPT_KNOWN, "{known}");
        counts(world, n, (1, 0, 0))?;
        let new = replica.adopt_one(Order { what: ADOPT_OVER, ..order })?.0;
        ensure!(new == ADOPT_NEW, "{new}");
        counts(world, n, (1, 0, 1))
    })
}

#[test]
fn a_known_connection_is_brought_up_to_date() -> Result<()> {
    shared(|world, n, replica| {
        tell(world, n.opened())?;
        counts(world, n, (1, 1, 1))?;
        let order = n.adoption(FIRST_PORT);
        let known = replica.adopt_one(order)?.0;
        ensure!(known == ADOPT_KNOWN, "{known}");
        counts(world, n, (1, 0, 1))?;
        let state = order.state | CLIENT_FIN | SERVER_FIN;
        let known = replica.adopt_one(Order { state, ..order })?.0;
        ensure!(known == ADOPT_KNOWN, "{known}");
        counts(world, n, (1, 0, 0))?;
        let known = replica.adopt_one(Order { state, ..order })?.0;
        ensure!(known == ADOPT_KNOWN, "{known}");
        counts(world, n, (1, 0, 0))?;
        // It goes by itself.
        sweeps_away(world, 1)?;
        counts(world, n, (0, 0, 0))
    })
}

#[test]
fn a_connection_that_the_peer_has_closed_is_adopted_as_such() -> Result<()> {
    shared(|world, n, replica| {
        let state = SYN_ACK | ESTABLISHED | RESET;
        let adopted = replica.adopt_one(Order { state, ..n.adoption(THEIRS) })?.0;
        ensure!(adopted == ADOPT_NEW, "{adopted}");
        counts(world, n, (1, 0, 0))?;
        sweeps_away(world, 1)?;
        counts(world, n, (0, 0, 0))
    })
}

#[test]
fn nothing_of_the_peers_is_ever_half_open_or_half_removed() -> Result<()> {
    shared(|world, n, replica| {
        for state in [0, 0xff] {
            let order = Order { state, ..n.adoption(THEIRS) };
            let adopted = replica.adopt_one(order)?.0;
            ensure!(adopted == ADOPT_NEW, "{state:x}: {adopted}");
            counts(world, n, (1, 0, u64::from(state == 0)))?;
            let ended = replica.adopt_one(Order { what: FORGET, ..order })?.0;
            ensure!(ended == ADOPT_ENDED, "{state:x}: {ended}");
            counts(world, n, (0, 0, 0))?;
        }
        Ok(())
    })
}

#[test]
fn a_table_that_the_peers_connections_fill_takes_no_more_of_anybody() -> Result<()> {
    let full = |global: &mut Global| global.maxconn = 2;
    shared_with(full, |world, n, replica| {
        tell(world, n.established())?;
        let orders: Vec<Order> = [40_001, 40_002]
            .map(|port| {
                let mut n = n.clone();
                n.client.set_port(port);
                n.adoption(THEIRS + port - 40_000)
            })
            .into();
        let outcomes = replica.adopt(&orders)?;
        ensure!(outcomes[0].0 == ADOPT_NEW, "{outcomes:?}");
        ensure!(outcomes[1] == (ADOPT_FULL, NO_PAIR), "{outcomes:?}");
        counts(world, n, (2, 0, 2))?;
        ensure!(replica.entries(world)?.len() == 4, "entries are left");
        // Nor one of its own clients.
        let mut third = n.clone();
        third.client.set_port(40_003);
        let refused = world.decide(third.client().syn())?.verdict;
        ensure!(refused == Verdict::DropTableFull, "{refused:?}");
        counts(world, n, (2, 0, 2))?;
        // One of the peer's that is over gives room to it.
        let ended = replica.adopt_one(Order { what: FORGET, ..orders[0] })?.0;
        ensure!(ended == ADOPT_ENDED, "{ended}");
        let adopted = replica.adopt_one(orders[1])?.0;
        ensure!(adopted == ADOPT_NEW, "{adopted}");
        Ok(())
    })
}

#[test]
fn numbers_that_nothing_has_are_refused() -> Result<()> {
    shared(|world, n, replica| {
        for order in [
            Order { backend: 5000, ..n.adoption(THEIRS) },
            Order { service: 300, ..n.adoption(THEIRS) },
        ] {
            let failed = replica.adopt_one(order)?;
            ensure!(failed == (ADOPT_FAILED, NO_PAIR), "{failed:?}");
        }
        counts(world, n, (0, 0, 0))
    })
}

#[test]
fn the_way_back_is_the_daemons_until_the_client_shows_it() -> Result<()> {
    shared(|world, n, replica| {
        // The way by the router gets a number.
        tell(world, n.opened())?;
        let entries = replica.entries(world)?;
        let (_, reverse) = entries.iter().find(|it| !it.1.is_forward).context("no way")?;
        let hop = reverse.hop;
        let mut other = n.clone();
        other.client.set_port(40_001);
        let order = other.adoption(THEIRS);
        let to_client = other.to_client().plain();
        let from_server = other.server().dport(THEIRS).plain();
        let goes_by = |router: Option<Mac>| {
            let done = world.decide(from_server.clone())?;
            let Some(router) = router else {
                ensure!(done.verdict == Verdict::DropNoHop, "{:?}", done.verdict);
                return Ok(());
            };
            verify::check(&done.frame)?;
            let expected = to_client.clone().dst_mac(router).frame().bytes;
            ensure!(done.frame == expected, "{:?}: it goes another way", done.verdict);
            Ok(())
        };
        replica.adopt_one(order)?;
        goes_by(None)?;
        // The daemon has found it meanwhile.
        replica.adopt_one(Order { hop, ..order })?;
        goes_by(Some(crate::net::ROUTER))?;
        tell(world, vec![other.client().src_mac(OTHER_ROUTER).plain().frame()])?;
        goes_by(Some(OTHER_ROUTER))?;
        // What the client showed is not overruled.
        let known = replica.adopt_one(Order { hop, ..order })?.0;
        ensure!(known == ADOPT_KNOWN, "{known}");
        goes_by(Some(OTHER_ROUTER))?;
        let flags: Vec<u16> = replica.entries(world)?.iter().map(|it| it.1.flags).collect();
        ensure!(flags.iter().all(|flags| flags & ADOPTED == 0), "{flags:?}");
        Ok(())
    })
}

#[test]
fn to_lead_back_to_a_client_enters_nothing_and_changes_nothing_else() -> Result<()> {
    shared(|world, n, replica| {
        // The way by the router gets a number.
        let mut other = n.clone();
        other.client.set_port(40_001);
        tell(world, other.opened())?;
        let entries = replica.entries(world)?;
        let hop = entries.iter().find(|it| !it.1.is_forward).context("no way")?.1.hop;
        let order = Order { hop, what: LEAD_BACK, ..n.adoption(THEIRS) };
        let absent = replica.adopt_one(order)?;
        ensure!(absent == (ADOPT_ABSENT, NO_PAIR), "{absent:?}");
        let fin = Order { what: ADOPT, hop: NO_HOP, state: order.state | CLIENT_FIN, ..order };
        let (_, place) = replica.adopt_one(fin)?;
        let other_way = Order { reverse: n.adoption(THEIRS + 1).reverse, ..order };
        let absent = replica.adopt_one(other_way)?;
        ensure!(absent == (ADOPT_ABSENT, NO_PAIR), "of another translation: {absent:?}");
        let known = replica.adopt_one(order)?;
        ensure!(known == (ADOPT_KNOWN, place), "{known:?}");
        let entries = replica.entries(world)?;
        let of_it = entries.iter().filter(|it| it.0 == place || it.1.hop == hop);
        ensure!(of_it.count() == 3, "it goes another way: {entries:?}");
        let entry = entries.iter().find(|it| it.0 == place).context("it is not there")?.1;
        ensure!(entry.state == SYN_ACK | ESTABLISHED | CLIENT_FIN, "{entry:?}");
        ensure!(replica.told()?.is_empty(), "it was reported");
        Ok(())
    })
}

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
fn timestamps_of_an_adopted_connection_are_moved_by_the_peers_difference() -> Result<()> {
    shared(|world, n, replica| {
        let options = |value: u32, echo: u32| {
            [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
        };
        let by = 1_000_000;
        replica.adopt_one(Order { timestamp: by, ..n.adoption(FIRST_PORT) })?;
        let out = world.decide(n.client().options(&options(5, 7)).plain())?.frame;
        verify::check(&out)?;
        let expected = n.to_backend().options(&options(5 + by, 7)).plain().frame().bytes;
        ensure!(out == expected, "the client's timestamp is another");
        let out = world.decide(n.server().options(&options(7, 5 + by)).plain())?.frame;
        verify::check(&out)?;
        let expected = n.to_client().options(&options(7, 5)).plain().frame().bytes;
        ensure!(out == expected, "the backend's echo is another");
        Ok(())
    })
}

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

impl Net {
    /// Both sides close a connection with this translation port.
    fn closed_by(&self, port: u16) -> Vec<Frame> {
        vec![].and(self.client().fin()).and(self.server().dport(port).fin())
    }
}

/// In both families: a service of a group that this host has a lease on, with reports.
fn shared(
    story: impl Fn(&mut World, &Net, &mut Replica) -> Result<()> + Send + Sync,
) -> Result<()> {
    shared_with(|_| {}, story)
}

/// The same with other settings.
fn shared_with(
    settings: impl Fn(&mut Global),
    story: impl Fn(&mut World, &Net, &mut Replica) -> Result<()> + Send + Sync,
) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let story = &story;
        World::run_with(&settings, |world| {
            let net = Net::new(family, 1, world.arms);
            serve(world, &net, unlimited())?;
            let mut replica = Replica::open(world, family)?;
            replica.report(true)?;
            story(world, &net, &mut replica)
        })
        .with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

/// Has the service be one of the group, which is served and has been for long.
fn serve(world: &mut World, n: &Net, timeouts: Timeouts) -> Result<()> {
    let row = n.when(n.client().syn()).shared(Lease::Held);
    row.with(|service, _| service.timeout = timeouts).apply(world)?;
    lease_times(GROUP, -1000, 0)
}

fn unlimited() -> Timeouts {
    Timeouts {
        connect: LONG,
        queue: LONG,
        client: LONG,
        server: LONG,
        client_fin: LONG,
        server_fin: LONG,
    }
}

/// As many connections of the client's as a batch has room for.
fn batch(n: &Net) -> Vec<Order> {
    let connection = |i| {
        let mut n = n.clone();
        n.client.set_port(30_000 + i);
        n.adoption(THEIRS + i)
    };
    (0..).map(connection).take(ADOPT_BATCH).collect()
}

/// Sends frames that are all forwarded.
fn tell(world: &World, frames: Vec<Frame>) -> Result<()> {
    for frame in frames {
        let done = world.decide(frame.clone())?;
        ensure!(done.verdict.action() == Action::Transmit, "{:?}", done.verdict);
        row::keeps_sums(&frame.bytes, &done.frame)?;
        verify::check(&done.frame)?;
    }
    Ok(())
}

/// Connections in the table, those that are half open, and those of the backend that are not closed.
fn counts(world: &World, n: &Net, expected: (u64, u64, u64)) -> Result<()> {
    let table = world.table(n.family)?;
    let counts = (table.connections, table.half_open, world.active(n.number)?);
    ensure!(counts == expected, "counts of {counts:?}, not {expected:?}");
    Ok(())
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

/// So many connections go, and no more than they are.
fn sweeps_away(world: &World, connections: u64) -> Result<()> {
    let mut sweeper = world.reaper()?;
    let (deadline, mut reaped) = (Instant::now() + PATIENCE, 0);
    while reaped < connections {
        ensure!(Instant::now() < deadline, "{reaped} of {connections} are gone");
        reaped += sweeper.sweep()?.reaped;
        thread::sleep(Duration::from_millis(10));
    }
    ensure!(reaped == connections, "{reaped} of {connections} are gone");
    Ok(())
}
