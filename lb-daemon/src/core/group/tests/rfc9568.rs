//! What RFC 9568 (VRRP version 3) demands, section by section.

use std::net::Ipv6Addr;

use super::{bench::*, *};

const VERSION: VrrpVersion = VrrpVersion::V3;

/// An advert with an interval in centiseconds.
fn advert(priority: u8, interval: u16) -> Advert {
    Advert::Vrrp(VrrpAdvert {
        version: VERSION,
        virtual_router_id: 51,
        priority,
        interval,
        addresses: vec![host(100)],
    })
}

fn config(priority: u8) -> config::Group {
    group(vrrp(VERSION, priority, seconds(1)))
}

#[test]
fn section_5_2_4_no_weight_makes_a_priority_that_means_something_else() {
    for (priority, adjustment, expected) in [
        (100, -100, 1),
        (100, i32::MIN, 1),
        (100, 155, 254),
        (100, i32::MAX, 254),
        (255, -200, 255),
    ] {
        let mut bench = Bench::started(config(priority));
        bench.tell(Input::Standing(Standing { adjustment, ..well() }));
        assert_eq!(bench.group.priority(), expected, "{priority} and {adjustment}");
    }
}

#[test]
fn section_6_1_a_backup_waits_three_intervals_and_its_skew() {
    for (priority, interval, micros) in [
        (100_u8, millis(10), 36_093.75),
        (254, millis(10), 30_078.125),
        (1, millis(10), 39_960.937_5),
        (100, millis(100), 360_937.5),
        (103, seconds(1), 3_597_656.25),
        (100, millis(40_950), 147_803_906.25),
    ] {
        let bench = Bench::started(group(vrrp(VERSION, priority, interval)));
        let waits = bench.waits().as_secs_f64() * 1e6;
        assert!((waits - micros).abs() < 0.002, "{priority}, {interval:?}: {waits} us");
    }
}

#[test]
fn section_6_1_the_owner_preempts_whatever_preempt_mode_says() {
    let mut bench = Bench::new(config::Group { preempt: false, ..config(255) });
    bench.tell(Input::Standing(unready()));
    assert_eq!(bench.group.role(), Role::Backup, "its tables are not whole yet");
    bench.hear(20, advert(254, 100));
    assert_eq!(bench.group.role(), Role::Backup);
    let outputs = bench.tell(Input::Standing(well()));
    assert_eq!(line(&outputs), "send 255, lease, hold, announce, MASTER");
}

#[test]
fn section_6_4_1_the_owner_becomes_active_at_startup() {
    let mut bench = Bench::new(config(255));
    let outputs = bench.tell(Input::Standing(well()));
    assert_eq!(line(&outputs), "unlease, release, send 255, lease, hold, announce, MASTER");
    assert_eq!(bench.waits(), seconds(1), "Adver_Timer is Advertisement_Interval");
}

#[test]
fn section_6_4_1_all_others_become_backups_that_wait_by_their_own_interval() {
    let mut bench = Bench::new(group(vrrp(VERSION, 128, millis(200))));
    bench.tell(Input::Standing(well()));
    assert_eq!(bench.group.role(), Role::Backup);
    assert_eq!(bench.waits(), millis(700));
}

#[test]
fn section_6_4_2_a_shutdown_cancels_the_timer() {
    let mut bench = Bench::started(config(100));
    assert_eq!(line(&bench.tell(Input::Stop)), "INIT");
    assert_eq!(bench.group.next_deadline(), None);
}

#[test]
fn section_6_4_2_when_the_timer_fires_the_advert_comes_before_the_announcements() {
    let mut bench = Bench::started(config(100));
    assert_eq!(line(&bench.until_due()), "send 100, lease, hold, announce, MASTER");
    assert_eq!(bench.waits(), seconds(1), "Adver_Timer is Advertisement_Interval");
}

#[test]
fn section_6_4_2_priority_zero_sets_the_timer_to_the_skew_of_the_active_routers_interval() {
    let mut bench = Bench::started(group(vrrp(VERSION, 128, seconds(1))));
    bench.hear(20, advert(200, 10));
    bench.pass(millis(50));
    bench.hear(20, advert(0, 10));
    assert_eq!(bench.waits(), millis(50));
}

#[test]
fn section_6_4_2_a_backup_adopts_the_interval_of_whom_it_heeds() {
    let mut bench = Bench::started(group(vrrp(VERSION, 128, seconds(1))));
    for (interval, waits) in [(1, millis(35)), (4095, millis(143_325)), (100, millis(3500))] {
        bench.pass(millis(5));
        bench.hear(20, advert(128, interval));
        assert_eq!(bench.waits(), waits, "after an advert with {interval} centiseconds");
    }
}

#[test]
fn section_6_4_2_without_preempt_mode_a_lower_priority_is_heeded() {
    let config = config::Group { preempt: false, ..config(128) };
    let mut bench = Bench::started(config);
    for _ in 0..10 {
        bench.pass(seconds(1));
        assert_eq!(bench.hear(20, advert(1, 100)), []);
        assert_eq!(bench.waits(), millis(3500));
    }
}

#[test]
fn section_6_4_2_with_preempt_mode_a_lower_priority_is_discarded() {
    let mut bench = Bench::started(config(128));
    for second in 1..=3 {
        bench.pass(seconds(1));
        assert_eq!(bench.hear(20, advert(127, 100)), []);
        assert_eq!(bench.waits(), millis(3500 - 1000 * second));
    }
    assert_eq!(bench.group.counts().discarded[&Discard::Weaker], 3);
    bench.until_due();
    assert_eq!(bench.group.role(), Role::Master);
}

#[test]
fn section_6_4_3_a_shutdown_sends_priority_zero() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    assert_eq!(line(&bench.tell(Input::Stop)), "unlease, send 0, release, INIT");
    assert_eq!(bench.group.next_deadline(), None);
}

#[test]
fn section_6_4_3_the_advert_timer_goes_on_for_as_long_as_it_is_active() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    for _ in 0..10 {
        let before = bench.now;
        assert_eq!(line(&bench.until_due()), "send 100, lease");
        assert_eq!(bench.now - before, seconds(1));
    }
}

#[test]
fn section_6_4_3_priority_zero_is_answered_and_sets_the_advert_timer_anew() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    bench.pass(millis(700));
    assert_eq!(line(&bench.hear(20, advert(0, 100))), "send 100, lease");
    assert_eq!(bench.waits(), seconds(1));
}

#[test]
fn section_6_4_3_a_higher_priority_makes_an_active_router_a_backup_with_that_ones_interval() {
    let mut bench = Bench::in_role(Role::Master, config(128));
    bench.hear(9, advert(129, 200));
    assert_eq!(bench.group.role(), Role::Backup);
    assert_eq!(bench.waits(), seconds(7));
}

#[test]
fn section_6_4_3_at_the_same_priority_the_greater_address_wins_as_a_number() {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().expect("it is an address").into();
    let v6 = |text: &str| text.parse::<Ipv6Addr>().expect("it is an address").into();
    for (ours, theirs, then) in [
        (v4("10.0.0.9"), v4("10.0.0.10"), Role::Backup),
        (v4("10.0.0.10"), v4("10.0.0.9"), Role::Master),
        (v4("9.255.255.255"), v4("192.0.2.1"), Role::Backup),
        (v6("fe80::9"), v6("fe80::10"), Role::Backup),
        (v6("fe80::10"), v6("fe80::9"), Role::Master),
        (v6("fe80::ffff"), v6("fe80::1:0"), Role::Backup),
    ] {
        let mut bench = Bench::in_role(Role::Master, config(100));
        bench.group.set_source(ours);
        bench.tell(Input::Advert(Received { source: theirs, advert: advert(100, 100) }));
        assert_eq!(bench.group.role(), then, "{ours} against {theirs}");
    }
}

#[test]
fn section_6_4_3_a_lower_priority_is_discarded_and_answered_at_once() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    bench.pass(millis(700));
    assert_eq!(line(&bench.hear(20, advert(99, 100))), "send 100, lease");
    assert_eq!(bench.waits(), millis(300), "announcements are due then");
    assert_eq!(bench.group.role(), Role::Master);
}

#[test]
fn section_7_1_the_owner_discards_what_others_say_of_its_addresses() {
    let mut bench = Bench::in_role(Role::Master, config(255));
    bench.pass(millis(700));
    for priority in [0, 100, 254] {
        assert_eq!(bench.hear(20, advert(priority, 100)), [], "priority {priority}");
    }
    assert_eq!(bench.group.counts().discarded[&Discard::Owner], 3);
    assert_eq!(
        bench.group.problem(),
        Some("an advert of 10.0.0.20 claims addresses that this host owns (priority 255)"),
    );
}

/// Else two of them would be masters for good.
#[test]
fn section_7_1_erratum_8298_of_two_owners_the_greater_address_wins() {
    for (rival, then, done) in [
        (9, Role::Master, "send 255, lease"),
        (11, Role::Backup, "unlease, send 255, release, BACKUP"),
    ] {
        let mut bench = Bench::in_role(Role::Master, config(255));
        bench.pass(millis(700));
        assert_eq!(line(&bench.hear(rival, advert(255, 100))), done);
        assert_eq!(bench.group.role(), then, "against {rival}");
        assert_eq!(bench.group.counts().discarded[&Discard::Owner], 1, "it is told all the same");
        let what = "claims addresses that this host owns (priority 255)";
        let problem = format!("an advert of {} {what}", host(rival));
        assert_eq!(bench.group.problem(), Some(problem.as_str()));
    }
}

#[test]
fn section_7_1_erratum_8298_who_gave_way_to_another_owner_takes_over_when_that_is_gone() {
    let mut bench = Bench::in_role(Role::Master, config(255));
    bench.hear(11, advert(255, 100));
    for adjustment in [-10, 0] {
        assert_eq!(bench.tell(Input::Standing(Standing { adjustment, ..well() })), []);
    }
    assert_eq!(bench.waits().as_micros(), 3_003_906, "three intervals and its skew");
    assert_eq!(line(&bench.until_due()), "send 255, lease, hold, announce, MASTER");
}

#[test]
fn section_7_1_erratum_8301_an_interval_of_zero_is_discarded() {
    let mut bench = Bench::started(config(100));
    let waits = bench.waits();
    bench.hear(20, advert(200, 0));
    assert_eq!(bench.waits(), waits);
    assert_eq!(bench.group.counts().discarded[&Discard::Interval], 1);
}

/// It is one of a pair with our number and other addresses, which we would leave to nobody.
#[test]
fn section_7_1_a_list_without_our_addresses_is_told_and_discarded() {
    for role in [Role::Backup, Role::Master] {
        let mut bench = Bench::in_role(role, config(100));
        let due = bench.group.next_deadline();
        for priority in [0, 99, 200, 255] {
            let Advert::Vrrp(usual) = advert(priority, 100) else { unreachable!("it is VRRP") };
            let other = VrrpAdvert { addresses: vec![host(101), host(102)], ..usual };
            assert_eq!(bench.hear(20, Advert::Vrrp(other)), [], "{role}, priority {priority}");
        }
        assert_eq!(bench.group.next_deadline(), due);
        assert_eq!(bench.group.counts().discarded[&Discard::Addresses], 4);
        assert_eq!(
            bench.group.problem(),
            Some("an advert of 10.0.0.20 lists 10.0.0.101, 10.0.0.102 rather than 10.0.0.100"),
        );
    }
}

/// As while the two hosts are reloaded, one after the other.
#[test]
fn section_7_1_a_list_with_some_of_our_addresses_is_told_and_heeded() {
    let mut bench = Bench::in_role(Role::Master, config(100));
    let Advert::Vrrp(usual) = advert(200, 100) else { unreachable!("it is VRRP") };
    let other = VrrpAdvert { addresses: vec![host(101), host(100)], ..usual };
    bench.hear(20, Advert::Vrrp(other));
    assert_eq!(bench.group.role(), Role::Backup);
    assert_eq!(bench.group.counts().discarded[&Discard::Addresses], 1);
    assert_eq!(
        bench.group.problem(),
        Some("an advert of 10.0.0.20 lists 10.0.0.101, 10.0.0.100 rather than 10.0.0.100"),
    );
    bench.hear(20, advert(200, 100));
    assert_eq!(bench.group.problem(), None);
}

#[test]
fn section_7_2_an_advert_says_what_is_configured() {
    let mut bench = Bench::started(config(100));
    let sent = bench.until_due().into_iter().find_map(|output| match output {
        Output::Send(advert) => Some(advert),
        _ => None,
    });
    assert_eq!(sent, Some(advert(100, 100)));
}
