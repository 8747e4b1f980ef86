//! Interfaces that go and come while the daemon runs.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use lb_daemon::core::group::Role;
use tests::lab::{Ask, Attached, Contest, EveryFrame, Interface, veth};

use super::{election, tandems};

#[test]
fn an_interface_that_is_removed_and_added_again_is_used_again() -> Result<()> {
    for name in ["front", "back"] {
        let mut contest = tandems(election())?;
        let at = SystemTime::now();
        let twin = contest.twin(0);
        let leg = if name == "front" { &twin.front } else { &twin.back };
        leg.near.remove()?;
        contest.advert_since(at, 1)?;
        contest.has_addresses(1, true)?;
        let status = contest
            .tandem(0)
            .wait_until("a fault", PATIENCE, |status| status.groups[0].role == Role::Fault)?;
        let faults = status.groups[0].faults.join("; ");
        ensure!(faults.contains(&format!("interface {name}")), "{faults}");

        let _program = lay_again(&contest, name)?;
        contest.tandem(0).wait_until("a backup again", PATIENCE, |status| {
            let group = &status.groups[0];
            group.role == Role::Backup && group.adverts.received > 0
        })?;
        // Nobody preempts, and it serves again when it is asked to.
        contest.only_master(1)?;
        let heard = contest.tandem(0).status()?.groups[0].adverts.received;
        contest.tandem(0).wait_until("further adverts", PATIENCE, |status| {
            status.groups[0].adverts.received > heard
        })?;
        contest.member(1).elector().kill();
        contest
            .tandem(0)
            .wait_until("it is master", PATIENCE, |status| status.groups[0].role == Role::Master)?;
        contest.has_addresses(0, true)?;
        let program_is_back = |status: &lb_daemon::core::Status| status.interfaces.len() == 2;
        contest.tandem(0).wait_until("the program is back", PATIENCE, program_is_back)?;
        Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()?;
    }
    Ok(())
}

/// Lays a new cable from the first host in place of the one that was removed.
fn lay_again(contest: &Contest, name: &str) -> Result<Attached> {
    let (twin, switch) = (contest.twin(0), contest.pair().switch());
    let (near, port) = veth((&**twin, name), (switch, &format!("lb1-{name}")))?;
    port.plug_into(&Interface::new(switch, name))?;
    let net = if name == "front" { 1 } else { 2 };
    near.set_mac(&format!("02:00:00:00:0{net}:02"))?;
    near.address(&format!("10.{net}.0.2/24"))?;
    near.address(&format!("fd00:{net}::2/64"))?;
    Attached::new(&port, EveryFrame::Passes)
}

const PATIENCE: Duration = Duration::from_secs(10);
