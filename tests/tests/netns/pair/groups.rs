//! Several groups on the same two hosts, and what becomes of them when the configuration changes.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_daemon::core::{GroupStatus, Status, group::Role};
use tests::lab::{Ask, Contest, Family, Service, member::PORT, wait::until};

use super::{MS, PRIORITIES, election, operate};

/// An address of the second group.
const OTHER: &str = "10.1.0.101";

#[test]
fn each_host_is_the_master_of_one_group() -> Result<()> {
    let contest = &mut active_active()?;
    for host in 0..2 {
        let addresses = contest.twin(host).ip("-4 address show dev front")?;
        assert_eq!(addresses.contains(OTHER), host == 1, "{addresses}");
        contest.has_addresses(host, host == 0)?;
    }
    for ip in [contest.pair().vip(Family::V4), OTHER.parse()?] {
        let ask = Ask::at((ip, PORT).into()).times(20);
        ask.from(contest.pair().client()).all_answered()?;
    }
    // Both of them forwarded.
    for host in 0..2 {
        let port = contest.twin(host).back.port.name();
        let opens = |frame: &tests::lab::Frame| {
            (&*frame.port == port && frame.segment()?.opens).then_some(())
        };
        contest.capture().wait_for("a forwarded SYN", PATIENCE, opens)?;
    }

    contest.member(1).elector().kill();
    has_roles(contest, 0, &[("pair", Role::Master), ("other", Role::Master)])?;
    let ask = Ask::at((OTHER.parse::<IpAddr>()?, PORT).into()).times(20);
    ask.from(contest.pair().client()).all_answered()
}

#[test]
fn a_reload_changes_a_group_and_leaves_the_others_alone() -> Result<()> {
    let contest = &mut active_active()?;
    let before = histories(contest)?;

    // Another priority, another address: no change of role, for nobody preempts.
    let changed = other(contest, 120, "10.1.0.102");
    reload(contest, 1, &changed)?;
    has_address(contest, 1, "10.1.0.102", true)?;
    has_address(contest, 1, OTHER, false)?;
    assert_eq!(named(&contest.tandem(1).status()?, "other").priority, 120);
    reload(contest, 0, &other(contest, 90, "10.1.0.102"))?;
    assert_eq!(histories(contest)?, before);

    // A third one.
    let more = "\
[[group]]
name = \"more\"
interface = \"front\"
virtual_router_id = 53
advert_int = \"100ms\"
virtual_ipaddress = [\"10.1.0.103/32\"]
";
    reload(contest, 1, &format!("{changed}{more}"))?;
    let roles = [("pair", Role::Backup), ("other", Role::Master), ("more", Role::Master)];
    has_roles(contest, 1, &roles)?;
    has_address(contest, 1, "10.1.0.103", true)?;

    // Both of its own are gone: the first host takes over the one that it still has.
    reload(contest, 1, "")?;
    has_roles(contest, 1, &[("pair", Role::Backup)])?;
    has_roles(contest, 0, &[("pair", Role::Master), ("other", Role::Master)])?;
    for gone in ["10.1.0.102", "10.1.0.103"] {
        has_address(contest, 1, gone, false)?;
    }
    has_address(contest, 0, "10.1.0.102", true)?;
    contest.has_addresses(0, true)?;
    let of_pair = |status: &Status| roles_of(named(status, "pair"));
    assert_eq!(of_pair(&contest.tandem(0).status()?), [Role::Master, Role::Backup]);
    assert_eq!(of_pair(&contest.tandem(1).status()?), [Role::Backup]);
    Ok(())
}

#[test]
fn vrrp_and_carp_with_one_number_on_one_segment_do_not_disturb_each_other() -> Result<()> {
    let mut contest = Contest::new(election(), 1)?;
    for (host, advskew) in [(0, 100), (1, 1)] {
        let lines = format!(
            "\
[[group]]
name = \"carp\"
interface = \"front\"
protocol = \"carp\"
vhid = 51
pass = \"secret\"
advskew = {advskew}
virtual_ipaddress = [\"{OTHER}/32\"]
"
        );
        contest.enter_with(host, PRIORITIES[host], &lines)?;
    }
    has_roles(&mut contest, 0, &[("pair", Role::Master), ("carp", Role::Backup)])?;
    has_roles(&mut contest, 1, &[("pair", Role::Backup), ("carp", Role::Master)])?;
    let before = histories(&mut contest)?;
    // Longer than either of them waits.
    std::thread::sleep(4_500 * MS);
    assert_eq!(histories(&mut contest)?, before);
    Ok(())
}

/// The first host is the master of the group `pair`, the second one of `other`, each of which has
/// a service.
fn active_active() -> Result<Contest> {
    let mut contest = Contest::new(election(), 1)?;
    for (host, priority) in [(0, 50), (1, 150)] {
        let lines = other(&contest, priority, OTHER);
        contest.enter_with(host, PRIORITIES[host], &lines)?;
    }
    // The first one was there before the second, and nobody preempts.
    operate(contest.tandem(0), &["failover", "other"])?;
    has_roles(&mut contest, 0, &[("pair", Role::Master), ("other", Role::Backup)])?;
    has_roles(&mut contest, 1, &[("pair", Role::Backup), ("other", Role::Master)])?;
    Ok(contest)
}

/// The group `other` of this priority, with this address and others on the servers' side for
/// the service on [`OTHER`].
fn other(contest: &Contest, priority: u8, address: &str) -> String {
    let service = Service::new("more", (address.parse::<IpAddr>().expect("an address"), PORT))
        .set("source = [\"10.2.0.101\"]")
        .backends(contest.pair().servers(), Family::V4, PORT);
    format!(
        "\
[[group]]
name = \"other\"
interface = \"front\"
virtual_router_id = 52
priority = {priority}
advert_int = \"100ms\"
preempt = false
virtual_ipaddress = [\"{address}/32\", {{ address = \"10.2.0.101/32\", interface = \"back\" }}]
{service}"
    )
}

fn reload(contest: &mut Contest, host: usize, lines: &str) -> Result<()> {
    let settings = contest.settings(host, PRIORITIES[host], lines);
    contest.tandem(host).configure(&settings)?;
    contest.tandem(host).reload().map(drop)
}

/// Waits until these are a host's groups, with these roles.
fn has_roles(contest: &mut Contest, host: usize, roles: &[(&str, Role)]) -> Result<()> {
    let what = format!("{roles:?} on host {host}");
    let right = |status: &Status| {
        let groups = status.groups.iter().map(|group| (group.name.as_str(), group.role));
        groups.eq(roles.iter().copied())
    };
    contest.tandem(host).wait_until(&what, PATIENCE, right).map(drop)
}

/// Waits until a host has an address on the clients' side, or not.
fn has_address(contest: &Contest, host: usize, address: &str, there: bool) -> Result<()> {
    until(&format!("{address} there: {there}"), PATIENCE, || {
        let shown = contest.twin(host).ip("-4 address show dev front")?;
        ensure!(shown.contains(address) == there, "{shown}");
        Ok(())
    })
}

/// The roles that both hosts have had for all groups.
fn histories(contest: &mut Contest) -> Result<Vec<Vec<Role>>> {
    let mut histories = Vec::new();
    for host in 0..2 {
        histories.extend(contest.tandem(host).status()?.groups.iter().map(roles_of));
    }
    Ok(histories)
}

/// The newest first.
fn roles_of(group: &GroupStatus) -> Vec<Role> {
    group.transitions.iter().map(|one| one.to).collect()
}

fn named<'a>(status: &'a Status, name: &str) -> &'a GroupStatus {
    status.groups.iter().find(|group| group.name == name).expect("the group is there")
}

const PATIENCE: Duration = Duration::from_secs(10);
