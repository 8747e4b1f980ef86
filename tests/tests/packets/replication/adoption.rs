//! What becomes of the peer's connections here.

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    flow::{
        ADOPT, ADOPT_ABSENT, ADOPT_CONFLICT, ADOPT_ENDED, ADOPT_FAILED, ADOPT_FULL, ADOPT_KNOWN,
        ADOPT_NEW, ADOPT_OVER, ADOPTED, CLIENT_FIN, ESTABLISHED, FORGET, LEAD_BACK, NO_HOP,
        NO_PAIR, RESET, SERVER_FIN, SYN_ACK,
    },
    maps::ADOPT_BATCH,
    verdict::Verdict,
};
use lb_daemon::config::Global;

use super::{THEIRS, batch, counts, shared, shared_with, sweeps_away, tell};
use crate::{frame::Mac, net::FIRST_PORT, replica::Order, verify};

const OTHER_ROUTER: Mac = [2, 0, 0, 0, 0, 0x02];

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
