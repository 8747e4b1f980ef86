//! Two hosts whose tables differ, though each believes that they are equal.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_daemon::core::sync::{
    Change, Conflict, Connection, Hello, Message, Session, Settings, Stage, Tables as _, Tuple,
    VERSIONS, View,
};

use crate::pair::{GROUP, Host, all, nth, pair, tuple};

const MANY: u16 = 40;
/// Two digests, of which the second repairs what the first has shown, and the repair.
const REPAIR: Duration = Duration::from_secs(25);

#[test]
fn what_differs_is_found_by_digests_and_made_equal() -> Result<()> {
    pair(|one, two, n| {
        one.serve()?;
        for i in 0..MANY {
            one.tell(&nth(n, i).established())?;
        }
        let mut talk = Talk::begin();
        talk.pass([one, two], Duration::from_secs(2))?;
        ensure!(talk.are_in_sync(), "{:?}", talk.views());
        ensure!(two.scan(&all()).len() == usize::from(MANY), "they are not transferred");

        // As if it had been told otherwise: it lacks one, and has one that is no more.
        let [lacked, stale] = [tuple(&nth(n, 7)), tuple(&nth(n, MANY))];
        let is_stale = Change::Is(Connection { tuple: stale, state: 0b11, timestamp: 0 });
        let done = two.adopt(&[Change::Gone(lacked), is_stale], Conflict::TakeTheirs)?;
        ensure!((done.ended, done.new) == (1, 1), "{done:?}");
        ensure!(differ(one, two) == BTreeSet::from([lacked, stale]), "they do not differ");
        ensure!(talk.are_in_sync(), "somebody knows");

        talk.pass([one, two], REPAIR)?;
        let left = differ(one, two);
        ensure!(left.is_empty(), "{left:?} differ still");
        ensure!(one.replica.digest(GROUP) == two.replica.digest(GROUP), "unequal");
        let [_, View { totals, .. }] = talk.views();
        // The two may be in one bucket.
        ensure!((1..=2).contains(&totals.repaired), "{totals:?}");
        ensure!(totals.mismatches > totals.repaired, "{totals:?}");
        ensure!(two.active()? == u64::from(MANY), "{} are counted", two.active()?);
        Ok(())
    })
}

/// What only one of two hosts has.
fn differ(one: &mut Host, two: &mut Host) -> BTreeSet<Tuple> {
    let [ones, twos]: [BTreeSet<Tuple>; 2] =
        [one, two].map(|host| host.scan(&all()).iter().map(|found| found.tuple).collect());
    ones.symmetric_difference(&twos).copied().collect()
}

/// What two hosts say to each other, in a time of their own: it passes as fast as they can speak.
struct Talk {
    sessions: [Session; 2],
    /// What was said to each.
    lines: [Vec<Message>; 2],
    now: Instant,
}

impl Talk {
    fn begin() -> Self {
        let now = Instant::now();
        let sessions = [("one", 1024..=16_895), ("two", 16_896..=32_767)].map(|(node, ports)| {
            let hello = Hello {
                versions: VERSIONS,
                program: "0.1.0".to_owned(),
                node: node.to_owned(),
                source_ports: ports,
                groups: BTreeSet::from([GROUP.to_owned()]),
            };
            Session::new(hello, Settings { preempt_wait: Duration::from_secs(60) }, now)
        });
        let mut talk = Self { sessions, lines: [vec![], vec![]], now };
        let [first, second] = &mut talk.sessions;
        first.connected(now, &mut talk.lines[1]);
        second.connected(now, &mut talk.lines[0]);
        talk
    }

    /// Lets time go by in small steps.
    fn pass(&mut self, mut hosts: [&mut Host; 2], time: Duration) -> Result<()> {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(100);
            for (number, host) in hosts.iter_mut().enumerate() {
                self.speak(number, host)?;
            }
        }
        Ok(())
    }

    /// Has a host hear what was said to it, and say what is due.
    fn speak(&mut self, number: usize, host: &mut Host) -> Result<()> {
        let mut out = Vec::new();
        let session = &mut self.sessions[number];
        for message in std::mem::take(&mut self.lines[number]) {
            session.receive(message, &mut host.replica, self.now, &mut out)?;
        }
        session.poll(&mut host.replica, 100, self.now, &mut out)?;
        self.lines[1 - number].append(&mut out);
        Ok(())
    }

    fn views(&self) -> [View; 2] {
        [0, 1].map(|number| self.sessions[number].view(self.now))
    }

    fn are_in_sync(&self) -> bool {
        self.views().iter().all(|view| view.state == Stage::InSync)
    }
}
