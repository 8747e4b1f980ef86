//! How often a master announces its addresses, as the wire tells, beside keepalived with the same
//! settings.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Contest, Family, Keepalived, wait::until};

use super::{PRIORITIES, election, interop::at_once};

/// So many on taking over, as many again after the delay, and then so many at each refresh.
const BURSTS: [usize; 3] = [3, 3, 2];
/// Shorter than any time between two bursts, longer than any within one.
const PAUSE: Duration = Duration::from_millis(500);

#[test]
fn addresses_are_announced_as_often_as_keepalived_announces_them() -> Result<()> {
    at_once(
        || by_tandem().context("by Tandem"),
        || by_keepalived().context("by keepalived, with the same settings"),
    )
}

fn by_tandem() -> Result<()> {
    let mut contest = Contest::new(election(), 0)?;
    let lines = "\
garp_master_repeat = 3
garp_master_delay = \"1s\"
garp_master_refresh = \"3s\"
garp_master_refresh_repeat = 2
";
    contest.enter_with(0, PRIORITIES[0], lines)?;
    announces(&contest)
}

fn by_keepalived() -> Result<()> {
    let contest = Contest::new(election(), 0)?;
    let configuration = election().for_keepalived(contest.pair(), 0, PRIORITIES[0]);
    let configuration = configuration.trim_end().strip_suffix('}').context("no instance")?;
    let lines = "  \
  garp_master_repeat 3
  garp_master_delay 1
  garp_master_refresh 3
  garp_master_refresh_repeat 2
}
";
    let _keepalived = Keepalived::start(contest.twin(0), &format!("{configuration}{lines}"))?;
    announces(&contest)
}

/// Fails unless the first host announces each address in these bursts, where the address is.
fn announces(contest: &Contest) -> Result<()> {
    let sides = |of| [(contest.pair().vip(of), 0), (contest.pair().source(of), 1)];
    for (address, side) in Family::BOTH.into_iter().flat_map(sides) {
        let port = contest.twin(0).legs()[side].port.name();
        let begun = || {
            let count = bursts(contest, address, port)?.len();
            ensure!(count >= BURSTS.len(), "{count} bursts");
            Ok(())
        };
        until(&format!("announcements of {address}"), Duration::from_secs(20), begun)?;
        thread::sleep(PAUSE);
        let seen = bursts(contest, address, port)?;
        ensure!(seen.starts_with(&BURSTS), "{address} was announced in bursts of {seen:?}");
    }
    Ok(())
}

/// The sizes of all bursts of announcements of an address so far; fails if there was one elsewhere
/// than at this port of the switch.
fn bursts(contest: &Contest, address: IpAddr, port: &str) -> Result<Vec<usize>> {
    let mut sizes = Vec::new();
    let mut last = SystemTime::UNIX_EPOCH;
    for frame in contest.capture().frames() {
        if frame.claims() != Some(address) {
            continue;
        }
        ensure!(&*frame.port == port, "{address} was announced at {}", frame.port);
        match sizes.last_mut() {
            Some(size) if frame.at < last + PAUSE => *size += 1,
            _ => sizes.push(1),
        }
        last = frame.at;
    }
    Ok(sizes)
}
