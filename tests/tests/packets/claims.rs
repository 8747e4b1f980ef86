//! Leases that pass from one process of a host to the next: here two handles on the same map.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_daemon::{
    core::group::{Leases as _, Lost},
    dataplane::Leases,
};

use crate::world::World;

const GROUP: u16 = 7;
const ELECTION: u64 = 0x0123_4567_89ab_cdef;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[test]
fn who_claims_a_lease_has_it_and_who_had_it_is_told() -> Result<()> {
    World::run(|world| {
        let (mut old, mut new) = (world.dataplane.leases()?, world.dataplane.leases()?);
        assert_eq!(new.claim(GROUP, ELECTION), None, "there was none");
        let until = soon();
        assert_eq!(old.renew(GROUP, ELECTION, until), Ok(()));
        assert!(!old.is_running(GROUP, ELECTION), "it is no other process's");
        assert_eq!(old.claim(GROUP, ELECTION), None);
        assert!(new.is_running(GROUP, ELECTION));
        assert!(!new.is_running(GROUP, ELECTION + 1) && !new.is_running(GROUP + 1, ELECTION));
        assert_eq!(new.claim(GROUP, ELECTION + 1), None);
        assert_eq!(old.check(GROUP), Ok(()));

        let claimed = new.claim(GROUP, ELECTION).expect("a lease");
        assert!(
            claimed <= until && until - claimed < Duration::from_secs(1),
            "{:?}",
            until - claimed
        );
        assert_eq!(old.check(GROUP), Err(Lost::Claimed));
        assert_eq!(old.renew(GROUP, ELECTION, soon()), Err(Lost::Claimed));
        assert_eq!(old.end(GROUP), Err(Lost::Claimed));
        assert_eq!(new.check(GROUP), Ok(()), "the old one has changed nothing");
        assert_eq!(new.renew(GROUP, ELECTION, soon()), Ok(()));
        Ok(())
    })
}

#[test]
fn a_lease_that_has_ended_cannot_be_claimed() -> Result<()> {
    World::run(|world| {
        let (mut old, mut new) = (world.dataplane.leases()?, world.dataplane.leases()?);
        assert_eq!(old.renew(GROUP, ELECTION, Instant::now()), Ok(()));
        assert!(!new.is_running(GROUP, ELECTION));
        assert_eq!(new.claim(GROUP, ELECTION), None);
        assert_eq!(old.renew(GROUP, ELECTION, soon()), Ok(()));
        assert_eq!(old.end(GROUP), Ok(()));
        assert_eq!(new.claim(GROUP, ELECTION), None);
        Ok(())
    })
}

#[test]
fn what_the_next_daemon_does_not_have_is_ended() -> Result<()> {
    World::run(|world| {
        let (mut old, mut new) = (world.dataplane.leases()?, world.dataplane.leases()?);
        for group in [GROUP, GROUP + 1] {
            assert_eq!(old.renew(group, ELECTION + u64::from(group), soon()), Ok(()));
        }
        new.end_others(&[(GROUP, ELECTION + u64::from(GROUP)), (GROUP + 1, ELECTION)]);
        assert_eq!(old.check(GROUP), Ok(()));
        assert_eq!(old.check(GROUP + 1), Err(Lost::Ended));
        assert_eq!(old.renew(GROUP + 1, ELECTION + u64::from(GROUP + 1), soon()), Err(Lost::Ended));
        Ok(())
    })
}

/// Each of many handles claims it from the one before, which renews it as fast as it can.
#[test]
fn a_lease_that_is_just_being_renewed_is_claimed_all_the_same() -> Result<()> {
    const HANDLES: usize = 200;
    World::run(|world| {
        let mut holder = world.dataplane.leases()?;
        assert_eq!(holder.renew(GROUP, ELECTION, soon()), Ok(()));
        for _ in 1..HANDLES {
            let mut next = world.dataplane.leases()?;
            let (claimed, lost) = thread::scope(|scope| {
                let renewing = scope.spawn(|| renew_until_lost(&mut holder));
                let claimed = next.claim(GROUP, ELECTION);
                (claimed, renewing.join().expect("no panic"))
            });
            ensure!(claimed.is_some(), "it was not to be had");
            ensure!(lost == Some(Lost::Claimed), "the one before says {lost:?}");
            holder = next;
        }
        assert_eq!(holder.check(GROUP), Ok(()));
        Ok(())
    })
}

/// For five seconds at most.
fn renew_until_lost(leases: &mut Leases) -> Option<Lost> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if let Err(lost) = leases.renew(GROUP, ELECTION, soon()) {
            return Some(lost);
        }
    }
    None
}
