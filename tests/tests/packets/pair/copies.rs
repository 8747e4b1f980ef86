//! What one host reports, the other adopts.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use lb_common::verdict::Verdict::{self, ForwardClient, ForwardServer};
use lb_daemon::core::{
    Slots,
    sync::{Adopted, Change, Conflict, Connection, Digest, Scope, Tables as _, Tuple},
};
use tests::lab::Family;

use super::{GROUP, UPPER_PORT, all, nth, out, pair, tuple};
use crate::net::{FIRST_PORT, Net};

#[test]
fn a_connection_goes_on_by_the_other_host() -> Result<()> {
    pair(|one, two, n| {
        one.serve()?;
        one.tell(&n.established())?;
        let changes = one.changes()?;
        let connection = Connection { tuple: tuple(n), state: 0b11, timestamp: 0 };
        ensure!(changes == [Change::Is(connection)], "{changes:?}");
        ensure!(one.scan(&all()) == [connection]);
        ensure!(one.replica.digest(GROUP) != two.replica.digest(GROUP), "a digest of nothing");

        let done = two.adopt(&changes, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { new: 1, ..Adopted::default() }, "{done:?}");
        ensure!(two.scan(&all()) == [connection]);
        ensure!(one.replica.digest(GROUP) == two.replica.digest(GROUP), "unequal");
        let again = two.adopt(&changes, Conflict::TakeTheirs)?;
        ensure!(again == Adopted { known: 1, ..Adopted::default() }, "{again:?}");
        ensure!(two.world.table(n.family)?.connections == 1 && two.active()? == 1);

        one.world.lease(one.group, None)?;
        two.serve()?;
        let done = two.world.decide(n.client().plain().data(b"on and on"))?;
        out(&done, ForwardClient, n.to_backend().plain().data(b"on and on"))?;
        let done = two.world.decide(n.server().plain().data(b"so far"))?;
        out(&done, ForwardServer, n.to_client().plain().data(b"so far"))?;
        ensure!(two.changes()?.is_empty(), "told back what came from there");

        // And its end is told the other way.
        two.tell(&[n.client().fin().frame(), n.server().fin().frame()])?;
        let changes = two.changes()?;
        let [Change::Is(closed)] = changes[..] else { anyhow::bail!("{changes:?}") };
        ensure!(closed.tuple == connection.tuple && closed.state == 0b1111, "{closed:?}");
        let done = one.adopt(&changes, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { known: 1, ..Adopted::default() }, "{done:?}");
        for host in [one, two] {
            ensure!(host.active()? == 0, "an active connection");
            ensure!(host.replica.digest(GROUP) == Digest([0; 256]), "a digest of a closed one");
            ensure!(host.scan(&all()).is_empty());
        }
        Ok(())
    })
}

#[test]
fn what_is_half_closed_or_reset_is_told_as_far_as_it_is_true() -> Result<()> {
    pair(|one, two, n| {
        one.serve()?;
        one.tell(&n.established())?;
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        // Nobody believes the RST: it is as open as before, on both.
        one.tell(&[n.client().rst().frame(), n.server().plain().frame()])?;
        ensure!(one.changes()?.is_empty(), "told that it is over");
        ensure!(one.replica.digest(GROUP) == two.replica.digest(GROUP), "unequal");
        one.tell(&[n.client().fin().frame()])?;
        let changes = one.changes()?;
        let half_closed = Connection { tuple: tuple(n), state: 0b111, timestamp: 0 };
        ensure!(changes == [Change::Is(half_closed)], "{changes:?}");
        let done = two.adopt(&changes, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { known: 1, ..Adopted::default() }, "{done:?}");
        ensure!(one.scan(&all()) == [half_closed] && two.scan(&all()) == [half_closed]);
        // Both sides at once are one change.
        one.tell(&nth(n, 1).established())?;
        one.changes()?;
        one.tell(&[nth(n, 1).server().fin().frame(), nth(n, 1).client().fin().frame()])?;
        let changes = one.changes()?;
        ensure!(changes.len() == 1, "{changes:?}");
        Ok(())
    })
}

#[test]
fn a_transfer_makes_the_other_table_equal_and_forgets_what_is_no_more() -> Result<()> {
    const MANY: u16 = 200;
    pair(|one, two, n| {
        one.serve()?;
        for i in 0..MANY {
            one.tell(&nth(n, i).established())?;
        }
        // The first half of them are known, the rest is news; two of three are no more.
        let changes = one.changes()?;
        ensure!(changes.len() == usize::from(MANY));
        let done = two.adopt(&changes[..100], Conflict::TakeTheirs)?;
        ensure!(done.new == 100, "{done:?}");
        for i in (0..MANY).filter(|i| i % 3 != 0) {
            one.tell(&[nth(n, i).client().fin().frame(), nth(n, i).server().fin().frame()])?;
        }
        let left = one.scan(&all());
        ensure!(left.len() == 67, "{}", left.len());

        two.replica.mark();
        let transfer: Vec<Change> = left.iter().copied().map(Change::Is).collect();
        let done = two.adopt(&transfer, Conflict::TakeTheirs)?;
        ensure!(done.new + done.known == 67 && done.known == 34, "{done:?}");
        let ended: BTreeSet<Tuple> = two
            .scan(&all())
            .iter()
            .map(|connection| connection.tuple)
            .filter(|tuple| !left.iter().any(|connection| connection.tuple == *tuple))
            .collect();
        ensure!(ended.len() == 66, "{}", ended.len());
        let forgotten = two.replica.forget_unmarked(&all())?;
        ensure!(forgotten == 66, "{forgotten} were forgotten");
        ensure!(one.replica.digest(GROUP) == two.replica.digest(GROUP), "unequal");
        ensure!(two.world.table(n.family)?.connections == 67 && two.active()? == 67);
        ensure!(two.replica.forget_unmarked(&all())? == 0, "forgotten without a mark");
        ensure!(two.changes()?.is_empty(), "told what was forgotten");
        Ok(())
    })
}

#[test]
fn what_is_opened_or_out_of_scope_is_not_forgotten() -> Result<()> {
    pair(|one, two, n| {
        one.serve()?;
        for i in 0..20 {
            one.tell(&nth(n, i).established())?;
        }
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        two.replica.mark();
        two.serve()?;
        let new = Net { source: (n.source.ip(), UPPER_PORT).into(), ..nth(n, 20) };
        two.tell(&new.established())?;
        let there = two.scan(&all());
        ensure!(there.len() == 21, "{}", there.len());
        // Those of one bucket.
        let buckets = (0..=255).find(|bucket| {
            let scope = Scope { buckets: BTreeSet::from([*bucket]), ..all() };
            !one.scan(&scope).is_empty()
        });
        let scope = Scope { buckets: buckets.into_iter().collect(), ..all() };
        let meant = one.scan(&scope);
        let forgotten = two.replica.forget_unmarked(&scope)?;
        ensure!(forgotten == meant.len() as u64 && forgotten > 0, "{forgotten} were forgotten");
        let expected: BTreeSet<Connection> =
            there.iter().filter(|connection| !meant.contains(connection)).copied().collect();
        ensure!(expected.into_iter().eq(sorted(two.scan(&all()))), "others were forgotten");
        two.replica.mark();
        let other = Scope { groups: BTreeSet::from(["other".to_owned()]), ..all() };
        ensure!(two.replica.forget_unmarked(&other)? == 0, "another group's");
        Ok(())
    })
}

#[test]
fn new_connections_of_two_hosts_have_different_translations() -> Result<()> {
    pair(|one, two, n| {
        for (host, port) in [(one, FIRST_PORT), (two, UPPER_PORT)] {
            host.serve()?;
            let done = host.world.decide(n.client().syn())?;
            out(&done, Verdict::ForwardNew, n.to_backend().syn().sport(port))?;
        }
        Ok(())
    })
}

#[test]
fn a_connection_that_is_ended_is_told_and_ended_unless_the_other_host_serves_it() -> Result<()> {
    pair(|one, two, n| {
        one.serve()?;
        one.tell(&n.established())?;
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        ensure!(one.world.ender()?.end_backend(one.backend + 1)? == 0, "another backend's");
        ensure!(one.world.ender()?.end_backend(one.backend)? == 1);
        ensure!(one.world.table(n.family)?.connections == 0 && one.active()? == 0);
        let changes = one.changes()?;
        ensure!(changes == [Change::Gone(tuple(n))], "{changes:?}");
        let done = two.adopt(&changes, Conflict::KeepOurs)?;
        ensure!(done == Adopted::default(), "{done:?}");
        ensure!(two.active()? == 1, "it was not kept");
        let done = two.adopt(&changes, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { ended: 1, ..Adopted::default() }, "{done:?}");
        ensure!(two.world.table(n.family)?.connections == 0 && two.active()? == 0);
        let done = two.adopt(&changes, Conflict::TakeTheirs)?;
        ensure!(done == Adopted::default(), "{done:?}");
        Ok(())
    })
}

#[test]
fn who_is_right_in_a_conflict_has_his_way() -> Result<()> {
    pair(|one, two, n| {
        for host in [&mut *one, &mut *two] {
            host.serve()?;
        }
        let theirs = Net { source: (n.source.ip(), UPPER_PORT).into(), ..n.clone() };
        one.tell(&n.established())?;
        two.tell(&theirs.established())?;
        let (ones, twos) = (one.changes()?, two.changes()?);
        let done = one.adopt(&twos, Conflict::KeepOurs)?;
        ensure!(done == Adopted { conflicts: 1, ..Adopted::default() }, "{done:?}");
        ensure!(one.scan(&all()).iter().map(|it| it.tuple).eq([tuple(n)]));
        let done = two.adopt(&ones, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { new: 1, ..Adopted::default() }, "{done:?}");
        ensure!(two.scan(&all()).iter().map(|it| it.tuple).eq([tuple(n)]));
        ensure!(two.world.table(n.family)?.connections == 1 && two.active()? == 1);
        ensure!(two.changes()?.is_empty(), "told what came from there");
        Ok(())
    })
}

#[test]
fn what_the_configuration_does_not_have_is_unknown_but_its_old_connections_are_kept() -> Result<()>
{
    pair(|one, two, n| {
        one.serve()?;
        one.tell(&n.established())?;
        two.adopt(&one.changes()?, Conflict::TakeTheirs)?;
        one.tell(&nth(n, 1).established())?;
        let changes = one.changes()?;
        let mut desired = two.desired.clone();
        desired.backends.clear();
        desired.services.get_mut(&two.service).context("the service")?.slots = Slots::default();
        two.world.apply(&desired)?;
        two.replica.mark();
        let done = two.adopt(&changes, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { unknown: 1, ..Adopted::default() }, "{done:?}");
        let known: Vec<Change> = one.scan(&all()).into_iter().map(Change::Is).collect();
        let done = two.adopt(&known, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { known: 1, unknown: 1, ..Adopted::default() }, "{done:?}");
        ensure!(two.replica.forget_unmarked(&all())? == 0, "what is known is kept");
        // Nobody's virtual address, and addresses of two families.
        let Change::Is(connection) = changes[0] else { anyhow::bail!("{changes:?}") };
        let elsewhere = Tuple { bind: (n.elsewhere(), 443).into(), ..connection.tuple };
        let other: IpAddr = if n.family == Family::V4 { [0; 16].into() } else { [0; 4].into() };
        let mixed = Tuple { backend: (other, 80).into(), ..connection.tuple };
        let odd = [elsewhere, mixed].map(|tuple| Change::Is(Connection { tuple, ..connection }));
        let done = two.adopt(&odd, Conflict::TakeTheirs)?;
        ensure!(done == Adopted { unknown: 2, ..Adopted::default() }, "{done:?}");
        Ok(())
    })
}

fn sorted(connections: Vec<Connection>) -> BTreeSet<Connection> {
    connections.into_iter().collect()
}
