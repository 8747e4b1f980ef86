//! A pair of which one host runs keepalived or ucarp.

use std::{
    panic, thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use lb_daemon::config::Carp;
use nix::sys::signal::Signal;
use tests::lab::{
    Contest, Election, Family, Frame, Settings, Tandem,
    member::{KeepalivedMember, System, UcarpMember},
};

use super::{MS, PRIORITIES, SLACK, carp_with, election};

#[test]
fn keepalived_and_tandem_agree_in_version_2_with_a_password() -> Result<()> {
    with_keepalived(&Election { auth_pass: Some("secret"), ..Election::new(2, 1_000 * MS) })
}

#[test]
fn keepalived_and_tandem_agree_in_version_2_by_unicast() -> Result<()> {
    with_keepalived(&Election { unicast: true, ..Election::new(2, 1_000 * MS) })
}

#[test]
fn keepalived_and_tandem_agree_in_version_3() -> Result<()> {
    with_keepalived(&election())
}

#[test]
fn keepalived_and_tandem_agree_in_version_3_over_ipv6() -> Result<()> {
    with_keepalived(&Election { family: Family::V6, ..election() })
}

#[test]
fn keepalived_and_tandem_agree_in_version_3_by_unicast() -> Result<()> {
    let of = |family| with_keepalived(&Election { unicast: true, family, ..election() });
    at_once(|| of(Family::V4), || of(Family::V6))
}

#[test]
fn tandem_understands_both_checksums_of_version_3() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    // Each host sends the other form than its peer.
    for (host, as_v2) in [(0, true), (1, false)] {
        let group = election().for_tandem(contest.pair(), host, PRIORITIES[host]);
        let group = format!("{group}v3_checksum_as_v2 = {as_v2}\n");
        let tandem = Tandem::start_on(contest.twin(host), &Settings::of_pair(&group))?;
        contest.enter_as(host, Box::new(tandem))?;
    }
    has_plain_checksums(&contest, 0, true)?;
    one_then_the_other(&mut contest, &Limits::of(&election()))?;
    has_plain_checksums(&contest, 1, false)
}

/// Fails unless all adverts of a host so far have this form of the checksum, and there are some.
fn has_plain_checksums(contest: &Contest, host: usize, plain: bool) -> Result<()> {
    let port = contest.twin(host).front.port.name();
    let frames = contest.capture().frames();
    let ours = frames.iter().filter(|frame| &*frame.port == port);
    let forms: Vec<_> = ours.filter_map(Frame::has_plain_checksum).collect();
    ensure!(!forms.is_empty() && forms.iter().all(|one| *one == plain), "{forms:?}");
    Ok(())
}

#[test]
fn ucarp_and_tandem_agree() -> Result<()> {
    let story = |ucarp: usize| -> Result<()> {
        let mut contest = beside_ucarp(ucarp, false)?;
        let mut limits = Limits::of(contest.election());
        // It takes longer than CARP's arithmetic says, and goes without a word.
        limits.silence[ucarp] = 6_000 * MS;
        limits.farewell = if ucarp == 0 { limits.silence[1] } else { 1_000 * MS };
        one_then_the_other(&mut contest, &limits).with_context(|| format!("ucarp on host {ucarp}"))
    };
    at_once(|| story(0), || story(1))
}

/// Has each of the two be the master while the other is the backup, in two places at a time.
fn with_keepalived(election: &Election) -> Result<()> {
    let story = |first: System| -> Result<()> {
        let mut contest = beside_keepalived(election, first)?;
        let limits = Limits::of(election);
        one_then_the_other(&mut contest, &limits).with_context(|| format!("{first:?} first"))
    };
    at_once(|| story(System::Tandem), || story(System::Keepalived))
}

/// A Tandem and a keepalived, of which `first` is on the first host.
pub(super) fn beside_keepalived(election: &Election, first: System) -> Result<Contest> {
    let mut contest = Contest::new(election.clone(), 1)?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        if (first == System::Keepalived) == (host == 0) {
            let member = KeepalivedMember::start(contest.pair(), host, election, priority)?;
            contest.enter_as(host, Box::new(member))?;
        } else {
            contest.enter(host, System::Tandem, priority)?;
        }
    }
    Ok(contest)
}

/// A ucarp on this host and a Tandem on the other. The first host is the preferred one.
pub(super) fn beside_ucarp(ucarp: usize, preempt: bool) -> Result<Contest> {
    // The times of CARP with these settings are those of VRRP's second version, and less.
    let mut contest = Contest::new(Election { preempt, ..Election::new(2, 1_000 * MS) }, 0)?;
    for (host, advskew) in [(0, 1), (1, 100)] {
        if host == ucarp {
            let pass = "secret".to_owned();
            let carp = Carp { vhid: 7, pass, pass_file: None, advbase: 1, advskew };
            let member = UcarpMember::start(contest.pair(), host, carp, preempt)?;
            contest.enter_as(host, Box::new(member))?;
        } else {
            let member = carp_with(&contest, host, advskew, &format!("preempt = {preempt}\n"))?;
            contest.enter_as(host, Box::new(member))?;
        }
    }
    Ok(contest)
}

/// Two stories in places of their own, to spare time.
pub(super) fn at_once(
    one: impl FnOnce() -> Result<()>,
    other: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        one.and(other.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

/// How long the two take at most.
struct Limits {
    /// A host, to take over from one that was killed.
    silence: [Duration; 2],
    /// The second host, to take over from the first, which stops and says so.
    farewell: Duration,
}

impl Limits {
    /// Those of the protocol.
    fn of(election: &Election) -> Self {
        let silence = PRIORITIES.map(|_| election.down_after(PRIORITIES[1]));
        Self { silence, farewell: election.skew(PRIORITIES[1]) }
    }
}

/// The first host is the only master until it is killed, then the second is, and stays it when the
/// first is back; and the same the other way round. At last the first host stops.
fn one_then_the_other(contest: &mut Contest, limits: &Limits) -> Result<()> {
    for host in 0..2 {
        contest.only_master(host)?;
        let at = SystemTime::now();
        contest.member(host).elector().kill();
        let after = contest.advert_since(at, 1 - host)?;
        let most = limits.silence[1 - host] + SLACK;
        ensure!(after <= most, "the other took over after {after:?}");
        contest.start_again(host)?;
    }
    contest.only_master(0)?;
    let at = SystemTime::now();
    contest.member(0).elector().signal(Signal::SIGINT)?;
    let after = contest.advert_since(at, 1)?;
    ensure!(
        after <= limits.farewell + SLACK,
        "the other took over from a host that stopped after {after:?}"
    );
    contest.member(0).elector().wait(10_000 * MS)?;
    contest.only_master(1)
}

#[test]
fn tcpdump_shows_the_line_that_the_how_to_shows() -> Result<()> {
    let contest = Contest::new(Election::new(2, 2_000 * MS), 0)?;
    for (twin, own) in contest.pair().twins().iter().zip(["192.168.1.13/24", "192.168.1.14/24"]) {
        twin.front.near.address(own)?;
    }
    let group = "\
[[group]]
name = \"VI_1\"
interface = \"front\"
version = 2
virtual_router_id = 51
priority = 103
advert_int = \"2s\"
auth_type = \"PASS\"
auth_pass = \"1234\"
unicast_src_ip = \"192.168.1.13\"
unicast_peer = [\"192.168.1.14\"]
virtual_ipaddress = [\"192.168.1.100/24\"]
";
    let _tandem = Tandem::start_on(contest.twin(0), &Settings::of_pair(group))?;
    let dump = contest.twin(1).command("tcpdump").args(["-c", "2", "-ni", "front", "vrrp"]);
    let said = dump.run()?;
    let line = "IP 192.168.1.13 > 192.168.1.14: VRRPv2, Advertisement, vrid 51, prio 103, \
                authtype simple, intvl 2s, length 20";
    ensure!(said.lines().filter(|one| one.ends_with(line)).count() == 2, "{said}");
    Ok(())
}
