//! What an operator sees of groups.

use super::*;

#[test]
fn the_status_joins_what_is_tracked_with_what_the_election_says() {
    let mut gw = tracking(&[(Kind::Script, "chk", 10)]);
    gw.addresses.push(address("10.3.3.4", "eth1"));
    let web = Group { name: "web".to_owned(), protocol: carp(), ..group("gw") };
    let mut bench = Bench::start(&with(&[gw, web], &[script("chk", 1, 1)], &[]));
    bench.links(&[("eth0", true), ("eth1", false)]);
    bench.ran(true);
    bench.role("gw", Role::Init, Role::Backup);
    bench.wait(Duration::from_secs(5));
    bench.role("gw", Role::Backup, Role::Fault);
    bench.wait(Duration::from_secs(7));

    let [gw, web] = bench.status().groups.try_into().unwrap();
    assert_eq!(gw.addresses, ["10.2.2.4/24", "10.3.3.4/24 dev eth1"]);
    assert_eq!((gw.protocol.as_str(), gw.id, gw.priority), ("VRRPv2", 51, 100));
    assert_eq!((gw.role, gw.since_seconds, gw.why.as_str()), (Role::Fault, 7, "because"));
    assert_eq!(gw.faults, ["interface eth1: down"]);
    assert_eq!(gw.taken, [("BACKUP".to_owned(), 1), ("FAULT".to_owned(), 1)].into());
    let ages: Vec<_> = gw.transitions.iter().map(|t| (t.to, t.age_seconds)).collect();
    assert_eq!(ages, [(Role::Fault, 7), (Role::Backup, 12)]);
    let tracked: Vec<_> =
        gw.tracked.iter().map(|t| (t.name.as_str(), t.weight, t.condition)).collect();
    assert_eq!(
        tracked,
        [
            ("eth0", 0, Condition::Well),
            ("eth1", 0, Condition::Failed),
            ("chk", 10, Condition::Well)
        ]
    );
    assert_eq!((web.protocol.as_str(), web.id, web.priority), ("CARP", 7, 155));
    assert_eq!((web.role, web.lease_ms, web.master), (Role::Init, None, None));

    let then = bench.now;
    bench.wait(Duration::from_secs(2));
    let election = Election {
        role: Role::Master,
        since: then,
        priority: 110,
        master: None,
        lease: Some(bench.now + Duration::from_millis(2_500)),
        why: String::new(),
        problem: Some("an advert of 10.2.2.3 is odd".to_owned()),
        adverts: AdvertCounts { sent: 3, received: 4, discarded: [("ttl".to_owned(), 5)].into() },
    };
    let mut elections = Elections { groups: [("gw".to_owned(), election.clone())].into() };
    let status = |bench: &Bench, elections: &Elections| {
        bench.core.status(&Counters::default(), elections, bench.now).groups.remove(0)
    };
    let gw = status(&bench, &elections);
    assert_eq!((gw.role, gw.since_seconds, gw.effective_priority), (Role::Master, 2, 110));
    assert_eq!((gw.lease_ms, &gw.adverts), (Some(2_500), &election.adverts));
    assert_eq!(gw.problem, election.problem);
    // A lease that has run out is none.
    elections.groups.get_mut("gw").unwrap().lease = Some(then);
    assert_eq!(status(&bench, &elections).lease_ms, None);
}

#[test]
fn a_claim_to_an_address_is_told_counted_and_shown_for_a_while() {
    let mut bench = Bench::start(&with(&[group("gw")], &[], &[]));
    let claimed = Claimed {
        address: ip("10.2.2.4"),
        mac: Mac([2, 0, 0, 0, 0, 0x99]),
        interface: "eth0".to_owned(),
    };
    let claim = |name: &str| Event::Claimed { name: name.to_owned(), claimed: claimed.clone() };
    let effects = bench.core.handle(claim("gw"), bench.now);
    let [Effect::Notify(notice)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(
        notice.to_string(),
        "address 10.2.2.4 of group gw is on another host too: 02:00:00:00:00:99 on eth0 claims it"
    );
    assert_eq!(notice.level(), Level::Warn);
    assert_eq!(bench.core.handle(claim("gone"), bench.now).len(), 0);

    bench.wait(Duration::from_secs(59));
    let gw = bench.group();
    let shown = gw.claim.expect("it is not long ago");
    assert_eq!((shown.mac.as_str(), shown.age_seconds, gw.claims), ("02:00:00:00:00:99", 59, 1));
    bench.wait(Duration::from_secs(1));
    assert_eq!((bench.group().claim, bench.group().claims), (None, 1));
}

#[test]
fn only_the_last_changes_are_remembered() {
    let mut bench = Bench::start(&with(&[group("gw")], &[], &[]));
    for _ in 0..20 {
        bench.role("gw", Role::Backup, Role::Master);
        bench.role("gw", Role::Master, Role::Backup);
    }
    let group = bench.group();
    assert_eq!(group.transitions.len(), 10);
    assert_eq!((group.transitions[0].to, group.taken["MASTER"]), (Role::Backup, 20));
}
