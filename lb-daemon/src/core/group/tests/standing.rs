//! What the host's standing, the operator and a reload do to an election.

use super::{bench::*, *};

fn advert(priority: u8) -> Advert {
    Advert::Vrrp(VrrpAdvert {
        version: VrrpVersion::V3,
        virtual_router_id: 51,
        priority,
        interval: 100,
        addresses: vec![host(100)],
    })
}

fn config(priority: u8) -> config::Group {
    group(vrrp(VrrpVersion::V3, priority, seconds(1)))
}

/// Lets a master with this priority advertise every second, for so many.
fn listen(bench: &mut Bench, priority: u8, for_seconds: u32) {
    for _ in 0..for_seconds {
        bench.pass(seconds(1));
        bench.tell(Input::Tick);
        bench.hear(20, advert(priority));
    }
}

#[test]
fn a_fault_is_told_with_its_reasons() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    let faults = vec!["eth1 is down".to_owned(), "check_it fails".to_owned()];
    bench.tell(Input::Standing(Standing { faults, ..well() }));
    assert_eq!(bench.group.why(), "eth1 is down; check_it fails");
    bench.tell(Input::Standing(ill()));
    assert_eq!(bench.group.why(), "eth1 is down");
}

#[test]
fn a_master_whose_weight_changes_tells_the_others_at_once() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    let light = Standing { adjustment: -60, ..well() };
    assert_eq!(line(&bench.tell(Input::Standing(light.clone()))), "send 40, lease");
    assert_eq!(bench.tell(Input::Standing(light)), []);
}

#[test]
fn a_host_that_is_not_ready_leaves_a_weaker_master_alone_but_succeeds_a_dead_one() {
    let mut bench = Bench::new(config(128));
    bench.tell(Input::Standing(unready()));
    listen(&mut bench, 50, 10);
    assert_eq!(bench.group.role(), Role::Backup);
    assert_eq!(bench.waits(), millis(3500));
    bench.until_due();
    assert_eq!(bench.group.role(), Role::Master);
}

#[test]
fn a_host_takes_over_from_a_weaker_master_once_it_is_ready() {
    let mut bench = Bench::new(config(128));
    bench.tell(Input::Standing(unready()));
    listen(&mut bench, 50, 10);
    bench.tell(Input::Standing(well()));
    listen(&mut bench, 50, 4);
    assert_eq!(bench.group.role(), Role::Master);
    assert_eq!(bench.group.why(), "10.0.0.20 is weaker");
}

#[test]
fn a_host_waits_preempt_delay_before_it_ignores_a_weaker_master() {
    let config = config::Group { preempt_delay: seconds(60), ..config(128) };
    let mut bench = Bench::started(config);
    listen(&mut bench, 50, 60);
    assert_eq!(bench.group.role(), Role::Backup);
    assert_eq!(bench.group.counts().discarded.get(&Discard::Weaker), None);
    listen(&mut bench, 50, 4);
    assert_eq!(bench.group.role(), Role::Master);
}

#[test]
fn preempt_delay_begins_anew_when_a_better_master_was_heard() {
    let config = config::Group { preempt_delay: seconds(60), ..config(128) };
    let mut bench = Bench::started(config);
    listen(&mut bench, 50, 59);
    listen(&mut bench, 200, 1);
    listen(&mut bench, 50, 60);
    assert_eq!(bench.group.counts().discarded.get(&Discard::Weaker), None);
}

#[test]
fn preempt_delay_goes_on_while_a_host_is_not_ready_for_a_moment() {
    let config = config::Group { preempt_delay: seconds(60), ..config(128) };
    let mut bench = Bench::started(config);
    listen(&mut bench, 50, 30);
    bench.tell(Input::Standing(unready()));
    listen(&mut bench, 50, 40);
    assert_eq!(bench.group.counts().discarded.get(&Discard::Weaker), None, "it is not ready");
    bench.tell(Input::Standing(well()));
    listen(&mut bench, 50, 4);
    assert_eq!(bench.group.role(), Role::Master);
}

#[test]
fn preempt_delay_begins_when_a_host_is_ready_for_the_first_time() {
    let mut bench = Bench::new(config::Group { preempt_delay: seconds(60), ..config(128) });
    bench.tell(Input::Standing(unready()));
    listen(&mut bench, 50, 100);
    bench.tell(Input::Standing(well()));
    listen(&mut bench, 50, 60);
    assert_eq!(bench.group.counts().discarded.get(&Discard::Weaker), None);
    listen(&mut bench, 50, 4);
    assert_eq!(bench.group.role(), Role::Master);
}

#[test]
fn carp_waits_preempt_delay_too() {
    let slow = |counter| {
        Advert::Carp(CarpAdvert { vhid: 1, advbase: 1, advskew: 200, demotion: 0, counter })
    };
    let mut bench =
        Bench::started(config::Group { preempt_delay: seconds(60), ..group(carp(1, 100)) });
    for counter in 1..=60 {
        bench.pass(seconds(1));
        assert_eq!(bench.hear(20, slow(counter)), [], "after {counter} s");
    }
    bench.pass(seconds(1));
    bench.hear(20, slow(61));
    assert_eq!(bench.group.role(), Role::Master);
}

#[test]
fn who_has_handed_over_does_not_preempt_its_successor_but_succeeds_it_when_dead() {
    let mut bench = Bench::in_role(Role::Master, config(200));
    bench.tell(Input::Failover);
    listen(&mut bench, 50, 20);
    assert_eq!(bench.group.role(), Role::Backup);
    bench.until_due();
    assert_eq!(bench.group.role(), Role::Master, "the successor is gone");

    bench.hear(30, advert(201));
    listen(&mut bench, 50, 4);
    assert_eq!(bench.group.role(), Role::Master, "it preempts as before");
}

#[test]
fn who_has_handed_over_lets_a_peer_that_missed_it_come_first() {
    let mut bench = Bench::in_role(Role::Master, config(254));
    bench.tell(Input::Failover);
    let peer = Bench::started(config(1));
    assert!(bench.waits() > peer.waits(), "{:?}, {:?}", bench.waits(), peer.waits());
}

#[test]
fn a_stop_is_for_good() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    bench.tell(Input::Stop);
    for input in [Input::Standing(well()), Input::Failover, Input::Stop, Input::Tick] {
        assert_eq!(bench.tell(input.clone()), [], "{input:?}");
    }
    assert_eq!(bench.hear(20, advert(1)), []);
    assert_eq!(bench.group.role(), Role::Init);
}

#[test]
fn a_reload_keeps_a_master_and_tells_the_others_at_once() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    let since = bench.group.since();
    bench.pass(millis(300));
    let outputs = bench.reconfigure(Arc::new(config(90)));
    assert_eq!(line(&outputs), "send 90, lease");
    let faster = group(vrrp(VrrpVersion::V3, 90, millis(100)));
    let outputs = bench.reconfigure(Arc::new(faster));
    assert_eq!(line(&outputs), "send 90, lease");
    assert_eq!(bench.waits(), millis(100));
    assert_eq!(
        bench.group.lease().expect("it is master") - bench.now,
        Duration::from_micros(293_750)
    );
    assert_eq!((bench.group.role(), bench.group.since()), (Role::Master, since));
}

#[test]
fn a_reload_with_other_addresses_holds_and_announces_them() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    let mut other = config(100);
    other.addresses[0].ip = host(101);
    let outputs = bench.reconfigure(Arc::new(other));
    assert_eq!(line(&outputs), "send 100, lease, hold, announce");
}

#[test]
fn a_reload_that_changes_nothing_does_nothing() {
    for role in [Role::Init, Role::Backup, Role::Master, Role::Fault] {
        let mut bench = Bench::in_role(role, config(100));
        let due = bench.group.next_deadline();
        assert_eq!(bench.reconfigure(Arc::new(config(100))), []);
        assert_eq!(bench.group.next_deadline(), due);
    }
}

#[test]
fn a_reload_gives_a_backup_its_new_skew() {
    let mut bench = Bench::started(config(100));
    bench.pass(seconds(1));
    bench.reconfigure(Arc::new(config(128)));
    assert_eq!(bench.waits(), millis(2500));
}

#[test]
fn another_protocol_version_identifier_or_interface_is_another_election() {
    let bench = Bench::started(config(100));
    let mut there = config(100);
    there.interface = "eth1".to_owned();
    let mut other = config(100);
    if let Protocol::Vrrp(vrrp) = &mut other.protocol {
        vrrp.virtual_router_id = 52;
    }
    let older = group(vrrp(VrrpVersion::V2, 100, seconds(1)));
    for (config, same) in [
        (config(1), true),
        (there, false),
        (other, false),
        (older, false),
        (group(carp(1, 0)), false),
    ] {
        assert_eq!(bench.group.is_same_election(&config), same, "{config:?}");
    }
}

#[test]
fn the_last_eight_changes_are_remembered() {
    let mut bench = Bench::in_role(Role::Fault, config(100));
    for _ in 0..5 {
        bench.tell(Input::Standing(well()));
        bench.tell(Input::Standing(ill()));
    }
    let roles: Vec<_> = bench.group.transitions().map(|past| past.transition.to).collect();
    assert_eq!(roles, [Role::Backup, Role::Fault].repeat(4));
}

#[test]
fn everybody_knows_who_is_master() {
    let mut bench = Bench::started(config(100));
    assert_eq!(bench.group.master(), None);
    bench.hear(20, advert(200));
    assert_eq!(bench.group.master(), Some(host(20)));
    bench.until_due();
    assert_eq!(bench.group.master(), Some(host(10)));
    assert_eq!(bench.group.counts().sent, 1);
    assert_eq!(bench.group.counts().received, 1);
    assert_eq!(bench.group.counts().became_master, 1);
}
