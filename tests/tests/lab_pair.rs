//! The lab of a pair, with keepalived and ucarp on its hosts instead of the product.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow, bail, ensure};
use lb_daemon::config::{self, Carp};
use tests::lab::{
    Contest, Election, Family, Pair, fence,
    member::{PORT, System, UcarpMember},
};

const MS: Duration = Duration::from_millis(1);
/// What a busy machine adds to a time.
const SLACK: Duration = Duration::from_millis(250);
const PRIORITIES: [u8; 2] = [101, 100];

fn election() -> Election {
    Election::new(3, 100 * MS)
}

fn keepalived() -> Result<Contest> {
    Contest::between(System::Keepalived, election(), PRIORITIES)
}

#[test]
fn a_killed_keepalived_is_succeeded_in_the_time_of_the_protocol() -> Result<()> {
    let mut contest = keepalived()?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, false)?;
    assert_eq!(contest.master()?, 0);
    let at = SystemTime::now();
    contest.member(0).elector().kill();
    let after = contest.advert_since(at, 1)?;
    let (least, most) = (2 * election().advert_int, election().down_after(100) + SLACK);
    ensure!((least..most).contains(&after), "the first advert came after {after:?}");
    contest.has_addresses(1, true)?;
    contest.only_master(1)?;

    // It knows nothing of its death, and the kernel below it answers everything.
    let answers = fence::answers_of(contest.pair(), contest.twin(0), PORT, 20)?;
    assert!(answers >= 4 * 20, "only {answers} answers");
    contest.start_again(0)?;
    contest.only_master(1)
}

#[test]
fn a_client_sees_a_gap_of_the_time_of_the_protocol_when_a_cable_is_pulled() -> Result<()> {
    let contest = keepalived()?;
    let knocks = contest.knocks(5 * MS)?;
    contest.master()?;
    let started = Instant::now();
    contest.twin(0).front.pull()?;
    contest.advert_since(SystemTime::now(), 1)?;
    contest.forwarding_since(SystemTime::now(), 1)?;
    knocks.wait_for(20, 5_000 * MS)?;
    let gap = knocks.longest_gap(started)?;
    let (least, most) = (2 * election().advert_int, election().down_after(100) + SLACK);
    ensure!((least..most).contains(&gap), "the client saw nobody for {gap:?}");
    contest.twin(0).front.plug()?;
    contest.settle();
    contest.only_master(1)
}

#[test]
fn a_host_without_power_is_succeeded() -> Result<()> {
    let contest = keepalived()?;
    let at = SystemTime::now();
    contest.twin(0).power_off()?;
    contest.advert_since(at, 1)?;
    contest.only_master(1)
}

#[test]
fn hosts_that_are_kept_apart_are_both_master_until_they_hear_each_other() -> Result<()> {
    let contest = keepalived()?;
    let divided = SystemTime::now();
    contest.pair().divide()?;
    contest.advert_since(divided, 1)?;
    contest.has_addresses(0, true)?;
    contest.has_addresses(1, true)?;
    contest.pair().unite()?;
    contest.settle();
    contest.only_master(0)?;

    // It goes on as a master whom nobody hears.
    let cut_off = SystemTime::now();
    contest.twin(0).cut_off()?;
    contest.advert_since(cut_off, 1)?;
    contest.twin(0).reconnect()?;
    contest.settle();
    contest.only_master(0)
}

#[test]
fn the_product_is_told_every_way_of_electing_in_words_it_knows() -> Result<()> {
    let pair = Pair::new(0)?;
    let global = "global = { node = \"lab\", interfaces = [\"front\", \"back\"] }\n";
    for election in elections() {
        let text = [global, &election.for_tandem(&pair, 0, 100)].concat();
        let parsed = config::parse(&text, "tandem.toml").map_err(|all| anyhow!("{all}"))?;
        let [group] = &parsed.config.groups[..] else { bail!("there is one group") };
        assert_eq!(group.preempt, election.preempt);
        assert_eq!(group.addresses.iter().filter(|one| one.interface == "back").count(), 2);
    }
    Ok(())
}

/// One of each kind.
fn elections() -> [Election; 3] {
    let v2 = Election::new(2, 1_000 * MS);
    [
        Election { auth_pass: Some("secret"), ..v2.clone() },
        Election { unicast: true, ..v2 },
        Election { family: Family::V6, preempt: true, ..election() },
    ]
}

#[test]
fn keepalived_is_told_every_way_of_electing_right() -> Result<()> {
    for election in elections() {
        let mut contest = Contest::between(System::Keepalived, election.clone(), PRIORITIES)?;
        contest.only_master(0)?;
        let at = SystemTime::now();
        contest.member(0).elector().kill();
        let after = contest.advert_since(at, 1)?;
        ensure!(after < election.down_after(100) + SLACK, "{election:?}: after {after:?}");
        contest.has_addresses(1, true)?;
        contest.start_again(0)?;
        if election.preempt {
            contest.advert_since(SystemTime::now(), 0)?;
            contest.settle();
        }
        contest.only_master(usize::from(!election.preempt))?;
    }
    Ok(())
}

#[test]
fn an_ucarp_is_succeeded_by_the_other() -> Result<()> {
    let mut contest = Contest::new(Election::new(2, 1_000 * MS), 0)?;
    for (host, advskew) in [(0, 1), (1, 100)] {
        let carp =
            Carp { vhid: 7, pass: "secret".to_owned(), pass_file: None, advbase: 1, advskew };
        let ucarp = UcarpMember::start(contest.pair(), host, carp, false)?;
        contest.enter_as(host, Box::new(ucarp))?;
    }
    contest.only_master(0)?;
    let at = SystemTime::now();
    contest.member(0).elector().kill();
    contest.advert_since(at, 1)?;
    contest.start_again(0)?;
    contest.only_master(1)
}
