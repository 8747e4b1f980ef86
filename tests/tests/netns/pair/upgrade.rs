//! The daemons of a pair are replaced by others: by such whose maps are laid out another way, and by such
//! that go on with the same maps.

use anyhow::{Result, ensure};
use tests::lab::{
    Contest, SessionServer, Sessions,
    member::{self, SYNC_KEY},
    survival::{PATIENCE, SESSIONS},
};

use super::{
    election,
    restart::{ENOUGH, carried_on, enter, spoke_on},
    survival::LOAD,
};

/// Two hosts that tell each other of connections and that somebody may stand in for, and sessions.
fn talking() -> Result<(Contest, SessionServer, Sessions)> {
    let mut contest = Contest::for_sessions(election(), 1, SESSIONS)?;
    let server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for host in 0..2 {
        let sync = member::sync(contest.pair(), host, SYNC_KEY);
        enter(&mut contest, host, ENOUGH, &sync)?;
    }
    contest.wait_until_in_sync()?;
    let to = (contest.vip().ip(), SESSIONS).into();
    let sessions = Sessions::open(contest.pair().client(), to, &LOAD)?;
    contest.capture().forget();
    Ok((contest, server, sessions))
}

#[test]
fn upgrades_to_other_maps_cost_no_session_and_the_peer_does_not_notice() -> Result<()> {
    let (mut contest, _server, sessions) = talking()?;

    // There, the standby, and back.
    for host in [0, 1, 0] {
        contest.tandem(host).change_layout()?;
        contest.tandem(host).restart()?;
        if host == 0 {
            carried_on(&mut contest)?;
        }
        contest.wait_until_in_sync()?;
        sessions.verify(PATIENCE)?.none_lost()?;
    }
    spoke_on(&contest)?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, false)?;

    // The standby has all of them, of the other layout as it is.
    contest.tandem(0).stop()?;
    contest.only_master(1)?;
    sessions.verify(PATIENCE)?.none_lost()
}

#[test]
fn upgrades_that_leave_the_maps_as_they_are_go_on_with_them() -> Result<()> {
    let (mut contest, _server, sessions) = talking()?;
    let layouts = contest.tandem(0).layouts()?;

    // The second one of the master's takes the place of a program that runs.
    for host in [0, 1, 0] {
        contest.tandem(host).build_anew()?;
        contest.tandem(host).restart()?;
        if host == 0 {
            carried_on(&mut contest)?;
        }
        contest.wait_until_in_sync()?;
        sessions.verify(PATIENCE)?.none_lost()?;
        let now = contest.tandem(host).layouts()?;
        ensure!(now == layouts, "{layouts:?}, then {now:?}");
    }
    spoke_on(&contest)?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, false)?;

    contest.tandem(0).stop()?;
    contest.only_master(1)?;
    sessions.verify(PATIENCE)?.none_lost()
}
