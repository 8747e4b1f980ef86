//! Two hosts' tables kept equal: what one reports the other adopts, and forwards as if it had opened it.
//!
//! The two are data planes with the same interfaces, each the other's peer. They number everything
//! differently, as two hosts do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsFd as _,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    addr::Mac,
    maps::NextHop,
    verdict::Verdict::{self, DropNoFlow, DropNoHop, ForwardClient, ForwardServer, ResetNoFlow},
};
use lb_daemon::{
    config::Peer,
    core::{
        Desired, Slots,
        sync::{
            Adopted, Change, Conflict, Connection, Cursor, Digest, Reported, Scope, Tables as _,
            Tuple,
        },
    },
    dataplane::{FindWay, Replica},
};
use nix::poll::{PollFd, PollFlags, poll};
use tests::lab::Family;

use crate::{
    frame::Frame,
    net::{FIRST_PORT, FRONT, Net, ROUTER},
    verify,
    world::{Done, World},
};

pub(crate) const GROUP: &str = "web";
const LONG: Duration = Duration::from_secs(3600);
/// The first port of the upper half of 1024 to 32767.
const UPPER_PORT: u16 = 16_896;

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
fn who_waits_for_changes_is_woken_and_only_then() -> Result<()> {
    pair(|one, _, n| {
        one.serve()?;
        let wake = one.replica.wake()?;
        let is_woken = |within: u16| {
            let mut polled = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, within).map(|ready| ready == 1)
        };
        for i in 0..3 {
            ensure!(!is_woken(50)?, "woken for nothing");
            one.tell(&nth(n, i).established())?;
            ensure!(is_woken(10_000)?, "not woken");
            // By another thread than the one that opened it.
            let changes = thread::scope(|scope| scope.spawn(|| one.changes()).join());
            ensure!(changes.expect("no panic")?.len() == 1);
        }
        Ok(())
    })
}

#[test]
fn the_age_of_a_change_is_that_of_its_report() -> Result<()> {
    const UNREAD: Duration = Duration::from_millis(50);
    pair(|one, _, n| {
        one.serve()?;
        let before = Instant::now();
        one.tell(&n.established())?;
        let told = Instant::now();
        thread::sleep(UNREAD);
        let least = told.elapsed();
        let reported = one.reported()?;
        let most = before.elapsed();
        ensure!(reported.len() == 1, "{reported:?}");
        let age = reported[0].age;
        ensure!((least..=most).contains(&age), "{age:?}, not {least:?} to {most:?}");
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

#[test]
fn reports_that_there_is_no_room_for_are_missed_once() -> Result<()> {
    /// Two reports each, of more bytes than there are together.
    const ROUNDS: u16 = 45_000;
    const PORTS: u16 = UPPER_PORT - FIRST_PORT;
    pair(|one, _, n| {
        one.serve()?;
        ensure!(!one.replica.has_lost_changes());
        for round in 0..ROUNDS {
            let source = (n.source.ip(), FIRST_PORT + round % PORTS).into();
            let n = Net { source, ..n.clone() };
            for frame in n.established() {
                one.world.send(&frame)?;
            }
            one.world.send(&n.client().rst().frame())?;
        }
        ensure!(one.replica.has_lost_changes(), "nothing was lost");
        ensure!(!one.replica.has_lost_changes(), "lost twice");
        let changes = one.changes()?;
        ensure!(changes.len() > 20_000, "{} are there", changes.len());
        one.tell(&nth(n, 7).opened())?;
        ensure!(!one.replica.has_lost_changes());
        Ok(())
    })
}

/// One of the two.
pub(crate) struct Host {
    pub(crate) world: World,
    pub(crate) replica: Replica,
    pub(crate) desired: Desired,
    pub(crate) group: u16,
    pub(crate) service: u16,
    pub(crate) backend: u16,
    /// The way that the kernel knows to whatever client.
    way: Arc<Mutex<Option<NextHop>>>,
}

impl Host {
    fn new(
        mut world: World,
        n: &Net,
        [group, service, backend]: [u16; 3],
        names: &[(&str, u16)],
    ) -> Result<Self> {
        let net = n.desired();
        let (first, only) = (net.services[&0].clone(), net.backends[&n.number].clone());
        let mut desired = Desired {
            shared: BTreeMap::from([(n.vip.ip(), group), (n.source.ip(), group)]),
            groups: names.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
            ..Desired::default()
        };
        let mut first = first;
        (first.group, first.slots) = (group, Slots(vec![backend].into()));
        desired.services.insert(service, first);
        let mut only = only;
        only.service = service;
        desired.backends.insert(backend, only);
        world.apply(&desired)?;
        let way = Arc::new(Mutex::new(None));
        let replica = world.replica(find(&way))?;
        Ok(Self { world, replica, desired, group, service, backend, way })
    }

    fn find(&self) -> FindWay {
        find(&self.way)
    }

    /// The kernel knows the way to the clients of this net, or none.
    pub(crate) fn knows(&self, net: Option<&Net>) {
        *self.way.lock().expect("no panic") = net.map(|n| NextHop {
            ifindex: n.front,
            src: Mac(FRONT),
            dst: Mac(ROUTER),
            ..NextHop::default()
        });
    }

    pub(crate) fn serve(&self) -> Result<()> {
        self.world.lease(self.group, Some(Instant::now() + LONG))
    }

    /// Sends frames that are all forwarded.
    pub(crate) fn tell(&self, frames: &[Frame]) -> Result<()> {
        for frame in frames {
            let verdict = self.world.decide(frame.clone())?.verdict;
            ensure!(verdict.label().starts_with("forward"), "{verdict:?}");
        }
        Ok(())
    }

    pub(crate) fn changes(&mut self) -> Result<Vec<Change>> {
        Ok(self.reported()?.into_iter().map(|reported| reported.change).collect())
    }

    fn reported(&mut self) -> Result<Vec<Reported>> {
        let mut reported = Vec::new();
        self.replica.changes(usize::MAX, &mut reported)?;
        Ok(reported)
    }

    pub(crate) fn adopt(&mut self, changes: &[Change], conflict: Conflict) -> Result<Adopted> {
        self.replica.adopt(changes, conflict)
    }

    pub(crate) fn active(&self) -> Result<u64> {
        self.world.active(self.backend)
    }

    /// What a scan finds that goes in steps of odd sizes.
    pub(crate) fn scan(&mut self, scope: &Scope) -> Vec<Connection> {
        let mut found = Vec::new();
        let mut cursor = Some(Cursor::default());
        for places in [1, 777, 100_000, 5].into_iter().cycle() {
            let Some(at) = cursor else { break };
            cursor = self.replica.scan(scope, at, places, &mut found);
        }
        found
    }

    fn wait_for_repair(&mut self, n: &Net) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            self.replica.repair()?;
            let done = self.world.decide(n.server().plain())?;
            if done.verdict != DropNoHop {
                return out(&done, ForwardServer, n.to_client().plain());
            }
            ensure!(Instant::now() < deadline, "no way is found");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn find(way: &Arc<Mutex<Option<NextHop>>>) -> FindWay {
    let way = Arc::clone(way);
    Box::new(move |_| *way.lock().expect("no panic"))
}

/// Runs a story for each family.
pub(crate) fn pair(
    story: impl Fn(&mut Host, &mut Host, &Net) -> Result<()> + Send + Sync,
) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let peers = [("10.9.0.1:7000", "10.9.0.2:7000"), ("10.9.0.2:7000", "10.9.0.1:7000")];
        let peers = peers.map(|(listen, peer)| Peer {
            listen: listen.parse().expect("an address"),
            peer: peer.parse().expect("an address"),
            key: String::new(),
            key_file: None,
            preempt_wait: LONG,
            grace: LONG,
        });
        World::run_pair(&peers, |one, two| {
            let n = Net::new(family, 1, one.arms);
            let mut one = Host::new(one, &n, [1, 0, 1], &[(GROUP, 1), ("other", 2)])?;
            let mut two = Host::new(two, &n, [9, 4, 77], &[("other", 1), (GROUP, 9)])?;
            story(&mut one, &mut two, &n).with_context(|| format!("{family:?}"))
        })?;
    }
    Ok(())
}

/// Another client's connection: the `i`th after the first.
pub(crate) fn nth(n: &Net, i: u16) -> Net {
    let mut n = n.clone();
    n.client.set_port(40_000 + i);
    n.source.set_port(FIRST_PORT + i);
    n
}

pub(crate) fn tuple(n: &Net) -> Tuple {
    Tuple { client: n.client, bind: n.vip, source: n.source, backend: n.backend }
}

pub(crate) fn all() -> Scope {
    Scope { groups: BTreeSet::from([GROUP.to_owned()]), buckets: BTreeSet::new() }
}

fn sorted(connections: Vec<Connection>) -> BTreeSet<Connection> {
    connections.into_iter().collect()
}

/// Fails unless this came out, valid in every sum.
pub(crate) fn out(done: &Done, verdict: Verdict, expected: impl Into<Frame>) -> Result<()> {
    ensure!(done.verdict == verdict, "{:?}, not {verdict:?}", done.verdict);
    verify::check(&done.frame)?;
    ensure!(done.frame == expected.into().bytes, "another packet came out");
    Ok(())
}
