//! How the daemon comes to know of changes.

use std::{
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_daemon::core::sync::Tables as _;
use nix::poll::{PollFd, PollFlags, poll};

use super::{UPPER_PORT, nth, pair};
use crate::net::{FIRST_PORT, Net};

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
