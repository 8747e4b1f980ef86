//! A process that goes on as the master that another one was.

use super::{bench::*, *};

fn config() -> config::Group {
    let mut config = group(vrrp(VrrpVersion::V3, 100, seconds(1)));
    config.announce.delay = seconds(5);
    config.announce.refresh = seconds(60);
    config
}

/// A machine that has just been told nothing but this, with so much left of the lease.
fn resumed(config: config::Group, standing: Standing, left: Duration) -> (Bench, Vec<Output>) {
    let mut bench = Bench::new(config);
    let lease = bench.now + left;
    let outputs = bench.tell(Input::Resume { standing, lease });
    (bench, outputs)
}

#[test]
fn who_finds_a_lease_goes_on_as_master_without_touching_the_addresses() {
    let (mut bench, outputs) = resumed(config(), well(), millis(1));
    assert_eq!(line(&outputs), "send 100, lease, hold, MASTER");
    let Some(Output::Changed(change)) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!((change.from, change.to, change.priority), (Role::Init, Role::Master, 100));
    assert_eq!(change.why, "carries on from the daemon before");
    assert!(change.carries_on);
    assert_eq!(bench.group.why(), "carries on from the daemon before");
    assert_eq!(bench.group.lease(), Some(bench.now + millis(2937) + Duration::from_micros(500)));
    assert_eq!(bench.group.counts().became_master, 0);
    // From then on it is a master as any other.
    assert_eq!(bench.waits(), seconds(1));
    assert_eq!(line(&bench.until_due()), "send 100, lease");
    assert_eq!(line(&bench.tell(Input::Stop)), "unlease, send 0, release, INIT");
}

#[test]
fn a_lease_that_has_ended_is_not_gone_on_with() {
    let (mut bench, outputs) = resumed(config(), well(), Duration::ZERO);
    assert_eq!(line(&outputs), "unlease, release, BACKUP");
    assert!(outputs.iter().all(|one| !matches!(one, Output::Changed(c) if c.carries_on)));
    let outputs = bench.until_due();
    assert_eq!(line(&outputs), "send 100, lease, hold, announce, MASTER");
    assert!(outputs.iter().all(|one| !matches!(one, Output::Changed(c) if c.carries_on)));
}

#[test]
fn the_neighbours_are_told_again_when_a_refresh_is_due_and_not_before() {
    let (mut bench, _) = resumed(config(), well(), seconds(1));
    let start = bench.now;
    let first = loop {
        if words(&bench.until_due()).contains(&"announce".to_owned()) {
            break bench.now - start;
        }
    };
    assert!(first >= seconds(5), "{first:?}");
}

#[test]
fn weights_count_from_the_first_advert_on() {
    let light = Standing { adjustment: -30, ..well() };
    let (_, outputs) = resumed(config(), light, seconds(1));
    assert_eq!(line(&outputs), "send 70, lease, hold, MASTER");
    let Some(Output::Changed(change)) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!(change.priority, 70);
}

#[test]
fn a_host_that_is_not_ready_goes_on_too() {
    let (_, outputs) = resumed(config(), unready(), seconds(1));
    assert_eq!(line(&outputs), "send 100, lease, hold, MASTER");
}

#[test]
fn who_must_not_be_master_gives_the_group_up_in_the_name_of_the_one_before() {
    let (bench, outputs) = resumed(config(), ill(), seconds(1));
    assert_eq!(line(&outputs), "unlease, send 0, release, FAULT");
    assert_eq!(bench.group.lease(), None);
}

#[test]
fn a_better_master_is_obeyed() {
    let (mut bench, _) = resumed(config(), well(), seconds(1));
    let advert = Advert::Vrrp(VrrpAdvert {
        version: VrrpVersion::V3,
        virtual_router_id: 51,
        priority: 200,
        interval: 100,
        addresses: vec![host(100)],
    });
    assert_eq!(line(&bench.hear(20, advert)), "unlease, send 100, release, BACKUP");
}

#[test]
fn only_the_first_standing_can_be_gone_on_with() {
    for role in [Role::Backup, Role::Fault] {
        let mut bench = Bench::in_role(role, config());
        let lease = bench.now + seconds(1);
        bench.tell(Input::Resume { standing: well(), lease });
        assert_eq!(bench.group.role(), Role::Backup, "{role}");
    }
    let mut bench = Bench::in_role(Role::Backup, config());
    bench.tell(Input::Stop);
    let lease = bench.now + seconds(1);
    assert_eq!(bench.tell(Input::Resume { standing: well(), lease }), []);
}

#[test]
fn carps_counter_goes_on_from_where_it_is_told_to() {
    let (bench, outputs) = resumed(group(carp(1, 100)), well(), seconds(1));
    let Some(Output::Send(Advert::Carp(advert))) = outputs.first() else { panic!("{outputs:?}") };
    assert_eq!(advert.counter, 1001);
    assert_eq!(bench.group.counter(), 1001);
}

#[test]
fn elections_have_other_identities_if_they_differ_in_what_makes_them() {
    let one = config();
    let same = config::Group { preempt: false, addresses: Vec::new(), ..one.clone() };
    assert_eq!(identity(&one), identity(&same));
    let of = |protocol| config::Group { protocol, ..one.clone() };
    let mut other_id = vrrp(VrrpVersion::V3, 100, seconds(1));
    let mut other_family = other_id.clone();
    if let (Protocol::Vrrp(id), Protocol::Vrrp(family)) = (&mut other_id, &mut other_family) {
        id.virtual_router_id = 52;
        family.family = Family::V6;
    }
    let others = [
        config::Group { name: "back".to_owned(), ..one.clone() },
        config::Group { interface: "eth1".to_owned(), ..one.clone() },
        // What was at the end of one word is at the beginning of the next.
        config::Group { name: "fronte".to_owned(), interface: "th0".to_owned(), ..one.clone() },
        of(vrrp(VrrpVersion::V2, 100, seconds(1))),
        of(other_id),
        of(other_family),
        of(carp(1, 0)),
    ];
    let all: std::collections::BTreeSet<u64> = others.iter().chain([&one]).map(identity).collect();
    assert_eq!(all.len(), 8);
    let faster = of(vrrp(VrrpVersion::V3, 200, millis(100)));
    assert_eq!(identity(&one), identity(&faster), "settings are no other election");
}

#[test]
fn a_lease_that_was_found_is_not_prolonged_by_an_advert_that_is_not_sent() {
    let mut bench = Bench::new(config());
    bench.sends = Err("no route".to_owned());
    let lease = bench.now + millis(500);
    let outputs = bench.tell(Input::Resume { standing: well(), lease });
    assert_eq!(line(&outputs), "send 100, hold, MASTER");
    assert_eq!(bench.group.lease(), Some(lease));
    bench.pass(millis(500));
    assert_eq!(line(&bench.tell(Input::Tick)), "unlease, release, BACKUP");
}
