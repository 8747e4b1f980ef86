//! A host with more to do than it has time for.

use std::{env, thread, time::Duration};

use anyhow::{Result, ensure};
use tests::lab::{Ask, Process};

use super::{PRIORITIES, election, tandems};

/// `TANDEM_BUSY_SECONDS` in the environment says for how long, 20 if it is not there.
#[test]
fn a_busy_host_stays_the_master() -> Result<()> {
    let seconds = env::var("TANDEM_BUSY_SECONDS").map_or(Ok(20), |text| text.parse())?;
    let mut contest = tandems(election())?;
    let cpus = thread::available_parallelism()?.get();
    let spin = |_| contest.twin(0).command("sh").args(["-c", "while :; do :; done"]).spawn();
    let spinning: Vec<Process> = (0..cpus).map(spin).collect::<Result<_>>()?;
    contest.capture().forget();
    thread::sleep(Duration::from_secs(seconds));
    let mut adverts = contest.capture().frames();
    adverts.retain(|frame| frame.advert().is_some());
    let port = contest.twin(0).front.port.name();
    let others = adverts.iter().filter(|frame| &*frame.port != port).count();
    ensure!(others == 0, "{others} adverts of the backup");
    let between = adverts.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at));
    let most = between.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(Duration::MAX);
    println!(
        "{} adverts in {seconds} s with {cpus} spinning processes, {most:?} apart at most",
        adverts.len()
    );
    ensure!(most < election().down_after(PRIORITIES[1]), "{most:?} between two adverts");
    drop(spinning);
    for host in 0..2 {
        let group = &contest.tandem(host).status()?.groups[0];
        // Backup at first, and master the one of them.
        assert_eq!(group.transitions.len(), 2 - host, "{group:?}");
    }
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
}
