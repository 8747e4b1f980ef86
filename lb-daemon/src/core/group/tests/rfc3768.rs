//! What RFC 3768 (VRRP version 2) demands otherwise than RFC 9568, or in sections of its own. Its
//! states (6.4) are in `vrrp_table`.

use super::{bench::*, *};

/// An advert with an interval in seconds.
fn advert(priority: u8, interval: u16) -> Advert {
    Advert::Vrrp(VrrpAdvert {
        version: VrrpVersion::V2,
        virtual_router_id: 51,
        priority,
        interval: interval * 100,
        addresses: vec![host(100)],
    })
}

fn config(priority: u8, interval: u64) -> config::Group {
    group(vrrp(VrrpVersion::V2, priority, seconds(interval)))
}

#[test]
fn section_5_3_4_no_weight_makes_a_priority_that_means_something_else() {
    for (priority, adjustment, expected) in
        [(100, -100, 1), (100, 155, 254), (1, i32::MIN, 1), (254, i32::MAX, 254), (255, -200, 255)]
    {
        let mut bench = Bench::started(config(priority, 1));
        bench.tell(Input::Standing(Standing { adjustment, ..well() }));
        assert_eq!(bench.group.priority(), expected, "{priority} and {adjustment}");
    }
}

#[test]
fn section_5_3_4_a_master_that_stops_sends_priority_zero() {
    let mut bench = Bench::in_role(Role::Master, config(100, 1));
    assert_eq!(line(&bench.tell(Input::Stop)), "unlease, send 0, release, INIT");
}

#[test]
fn section_6_1_the_skew_is_in_256ths_of_a_second_whatever_the_interval() {
    for (priority, interval, expected) in
        [(100, 1, 3_609_375), (103, 2, 6_597_656), (1, 1, 3_996_093), (254, 255, 765_007_812)]
    {
        let bench = Bench::started(config(priority, interval));
        assert_eq!(bench.waits().as_micros(), expected, "{priority}, {interval} s");
    }
}

#[test]
fn section_6_4_1_the_owner_is_master_from_the_start_and_others_are_backups() {
    let outputs = Bench::new(config(255, 1)).tell(Input::Standing(well()));
    assert_eq!(line(&outputs), "unlease, release, send 255, lease, hold, announce, MASTER");
    let outputs = Bench::new(config(254, 1)).tell(Input::Standing(well()));
    assert_eq!(line(&outputs), "unlease, release, BACKUP");
}

#[test]
fn section_6_4_2_priority_zero_sets_the_timer_to_the_skew() {
    let mut bench = Bench::started(config(100, 4));
    bench.hear(20, advert(0, 4));
    assert_eq!(bench.waits().as_micros(), 609_375);
}

#[test]
fn section_6_4_2_the_timer_is_the_same_after_every_advert_that_is_heeded() {
    let mut bench = Bench::started(config(100, 1));
    for _ in 0..5 {
        bench.pass(seconds(1));
        bench.hear(20, advert(101, 1));
        assert_eq!(bench.waits().as_micros(), 3_609_375);
    }
}

#[test]
fn section_7_1_another_interval_is_discarded() {
    for role in [Role::Backup, Role::Master] {
        let mut bench = Bench::in_role(role, config(100, 1));
        let due = bench.group.next_deadline();
        for priority in [0, 99, 255] {
            assert_eq!(bench.hear(20, advert(priority, 2)), [], "{role}, priority {priority}");
        }
        assert_eq!(bench.group.next_deadline(), due);
        assert_eq!(bench.group.counts().discarded[&Discard::Interval], 3);
        assert_eq!(
            bench.group.problem(),
            Some("an advert of 10.0.0.20 has an interval of 2 s rather than 1 s"),
        );
    }
}

#[test]
fn section_7_1_the_owner_discards_what_others_say_of_its_addresses() {
    let mut bench = Bench::in_role(Role::Master, config(255, 1));
    for priority in [0, 100, 254] {
        assert_eq!(bench.hear(20, advert(priority, 1)), [], "priority {priority}");
    }
    assert_eq!(bench.group.counts().discarded[&Discard::Owner], 3);
}

/// The RFC has an owner discard that, too: two of them would be masters for good.
#[test]
fn section_7_1_of_two_owners_the_greater_address_wins_as_in_version_3() {
    for (rival, then) in [(9, Role::Master), (11, Role::Backup)] {
        let mut bench = Bench::in_role(Role::Master, config(255, 1));
        bench.hear(rival, advert(255, 1));
        assert_eq!(bench.group.role(), then, "against {rival}");
    }
}

/// An advert that lists these addresses.
fn listing(addresses: &[IpAddr], priority: u8) -> Advert {
    let Advert::Vrrp(usual) = advert(priority, 1) else { unreachable!("it is VRRP") };
    Advert::Vrrp(VrrpAdvert { addresses: addresses.to_vec(), ..usual })
}

/// The RFC has it heeded if its sender owns the addresses; but those are not ours.
#[test]
fn section_7_1_a_list_without_our_addresses_is_discarded_even_the_owners() {
    for role in [Role::Backup, Role::Master] {
        let mut bench = Bench::in_role(role, config(100, 1));
        let due = bench.group.next_deadline();
        for priority in [0, 99, 200, 255] {
            let other = listing(&[host(101)], priority);
            assert_eq!(bench.hear(20, other), [], "{role}, priority {priority}");
        }
        assert_eq!(bench.group.next_deadline(), due);
        assert_eq!(bench.group.counts().discarded[&Discard::Addresses], 4);
        assert_eq!(
            bench.group.problem(),
            Some("an advert of 10.0.0.20 lists 10.0.0.101 rather than 10.0.0.100"),
        );
    }
}

/// The RFC has it dropped. It is how a reload of the two hosts looks, one after the other.
#[test]
fn section_7_1_a_list_with_some_of_our_addresses_is_told_and_heeded() {
    let mut bench = Bench::in_role(Role::Master, config(100, 1));
    bench.hear(20, listing(&[host(100), host(101)], 200));
    assert_eq!(bench.group.role(), Role::Backup);
    assert_eq!(bench.group.counts().discarded[&Discard::Addresses], 1);
}

#[test]
fn section_7_1_without_addresses_of_our_own_all_lists_are_heeded() {
    let mut bench =
        Bench::in_role(Role::Master, config::Group { addresses: Vec::new(), ..config(100, 1) });
    bench.hear(20, advert(200, 1));
    assert_eq!(bench.group.role(), Role::Backup);
}

#[test]
fn section_7_1_another_version_is_discarded() {
    let mut bench = Bench::in_role(Role::Master, config(100, 1));
    let Advert::Vrrp(usual) = advert(200, 1) else { unreachable!("it is VRRP") };
    bench.hear(20, Advert::Vrrp(VrrpAdvert { version: VrrpVersion::V3, ..usual }));
    assert_eq!(bench.group.role(), Role::Master);
    assert_eq!(bench.group.counts().discarded[&Discard::Protocol], 1);
}
