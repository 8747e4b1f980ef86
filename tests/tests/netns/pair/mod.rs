//! Two hosts that share addresses: who holds them, and what the other one does meanwhile.

mod announcements;
mod busy;
mod clock;
mod dispute;
mod failover;
mod grace;
mod groups;
mod hooks;
mod interface;
mod interop;
mod operation;
mod partition;
mod preemption;
mod readiness;
mod renumbering;
mod replication;
mod restart;
mod stall;
mod strangers;
mod survival;
mod tracking;
mod unit;
mod unsent;
mod upgrade;
mod upkeep;
mod vmac;
mod window;

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Contest, Election, Family, Knocks, Settings, Tandem, fence,
    member::{PORT, System},
};

const MS: Duration = Duration::from_millis(1);
/// What may come on top of the time that the protocol gives a host to take over.
const SLACK: Duration = Duration::from_millis(250);
/// Priorities of the hosts.
const PRIORITIES: [u8; 2] = [101, 100];
/// Time between a client's connections.
const PERIOD: Duration = Duration::from_millis(5);

/// Version 3 with ten adverts a second, in which nobody preempts.
fn election() -> Election {
    Election::new(3, 100 * MS)
}

/// Two Tandems, the first of which is the master.
fn tandems(election: Election) -> Result<Contest> {
    let contest = Contest::between(System::Tandem, election, PRIORITIES)?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, false)?;
    Ok(contest)
}

/// Fails unless the client has answers again, and was without them since `start` for no longer than
/// this and what a busy machine adds.
fn goes_on(knocks: &Knocks, start: Instant, most: Duration) -> Result<()> {
    knocks.wait_for(20, 10_000 * MS).context("after the takeover")?;
    let gap = knocks.longest_gap(start)?;
    ensure!(gap <= most + SLACK, "the client saw nobody for {gap:?}");
    Ok(())
}

/// Fails if a host answers for the virtual addresses, by ARP, neighbour discovery or TCP, or
/// forwards anything for them, whichever of its MAC addresses it is asked at.
fn says_nothing(contest: &Contest, host: usize) -> Result<()> {
    let (pair, twin) = (contest.pair(), contest.twin(host));
    let virtual_mac = contest.election().vmac.then(|| contest.election().virtual_mac());
    for mac in [twin.mac()].into_iter().chain(virtual_mac) {
        let count = fence::answers_to(mac, pair, twin, PORT, 20)?;
        ensure!(count == 0, "{} answers {count} times at {mac:x?}", twin.name());
    }
    Ok(())
}

/// Fails if a host has forwarded a connection to a server after this time. Only what the client
/// asked for can show it.
fn forwards_nothing_after(contest: &Contest, host: usize, at: SystemTime) -> Result<()> {
    let port = contest.twin(host).back.port.name();
    let frames = contest.capture().frames();
    let late = frames.iter().filter(|frame| {
        let opens = frame.segment().is_some_and(|segment| segment.opens);
        &*frame.port == port && opens && frame.at > at
    });
    let late = late.count();
    ensure!(late == 0, "{late} connections were forwarded after the other had taken over");
    Ok(())
}

/// What another verb of a daemon's command says.
fn operate(tandem: &Tandem, verb: &[&str]) -> Result<String> {
    tandem.verb(verb).arg("--socket").arg(tandem.socket()).run()
}

/// A Tandem that shares the virtual IPv4 address by CARP.
fn carp_on(contest: &Contest, host: usize, advskew: u8) -> Result<Tandem> {
    carp_with(contest, host, advskew, "preempt = false\n")
}

/// The same with further lines of the group.
fn carp_with(contest: &Contest, host: usize, advskew: u8, lines: &str) -> Result<Tandem> {
    Tandem::start_on(contest.twin(host), &carp_settings(contest, advskew, lines))
}

/// What it is told.
fn carp_settings(contest: &Contest, advskew: u8, lines: &str) -> Settings {
    let vip = contest.pair().vip(Family::V4);
    let group = format!(
        "\
[[group]]
name = \"pair\"
interface = \"front\"
protocol = \"carp\"
vhid = 7
pass = \"secret\"
advbase = 1
advskew = {advskew}
virtual_ipaddress = [\"{vip}/32\"]
{lines}"
    );
    Settings::of_pair(&group)
}
