//! Another host has one of the addresses, too.

use std::{fs, net::UdpSocket, thread};

use anyhow::{Context as _, Result, ensure};
use lb_common::addr::Mac;
use lb_daemon::vrrp_io::Announcer;
use nix::net::if_::if_nametoindex;
use tests::lab::{Contest, Family, wait::until};

use super::{MS, election, tandems};

const ALIEN: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

#[test]
fn an_address_that_another_host_has_too_is_told_once() -> Result<()> {
    let mut contest = tandems(election())?;
    // The kernel of a host that has the address looks for a neighbour, and says by that who it is.
    let vip = contest.pair().vip(Family::V4);
    let client = contest.pair().client();
    let links: serde_json::Value = serde_json::from_str(&client.ip("-json link show eth0")?)?;
    let mac = links[0]["address"].as_str().context("eth0 has no MAC")?.to_owned();
    client.ip(&format!("address add {vip}/32 dev eth0"))?;
    let nobody = contest.pair().client().address(Family::V4).to_string();
    let nobody = nobody.rsplit_once('.').map(|(net, _)| format!("{net}.250:9")).unwrap_or_default();
    for _ in 0..3 {
        client.ip("neighbour flush dev eth0")?;
        client.enter(|| UdpSocket::bind((vip, 0))?.send_to(b"who?", nobody.as_str()))?;
        thread::sleep(100 * MS);
    }
    told_once(&mut contest, &format!("{vip} of group pair"), &format!("{mac} on front"))?;

    // On the servers' side, and of IPv6.
    let source = contest.pair().source(Family::V6);
    contest.pair().servers()[0].enter(|| {
        let (ifindex, announcer) = (if_nametoindex("eth0")?, Announcer::open()?);
        (0..3).try_for_each(|_| announcer.announce(ifindex, ALIEN, source))?;
        anyhow::Ok(())
    })?;
    told_once(&mut contest, &format!("{source} of group pair"), &format!("{ALIEN} on back"))?;
    // Who is to have the addresses is not decided by this.
    contest.only_master(0)
}

/// Fails unless the master, and not the other one, has one line in its log with these words, or has
/// it within a second.
fn told_once(contest: &mut Contest, what: &str, whose: &str) -> Result<()> {
    let logs = [0, 1].map(|host| contest.member(host).elector().log().to_owned());
    let lines = |host: usize| -> Result<usize> {
        let log = fs::read_to_string(&logs[host])?;
        let is_told = |line: &&str| {
            line.contains("on another host too") && line.contains(what) && line.contains(whose)
        };
        Ok(log.lines().filter(is_told).count())
    };
    until("a line in the log", 1000 * MS, || {
        ensure!(lines(0)? > 0, "none names {what} and {whose}");
        Ok(())
    })?;
    // Time for more, if there were any.
    thread::sleep(300 * MS);
    let counts = [lines(0)?, lines(1)?];
    ensure!(counts == [1, 0], "{counts:?} lines name {what} and {whose}");
    Ok(())
}
