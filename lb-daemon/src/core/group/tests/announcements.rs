//! When addresses are announced, and what follows a conflict.

use super::{bench::*, *};

const ANNOUNCE: Announce =
    Announce { repeat: 5, delay: seconds(5), refresh: seconds(60), refresh_repeat: 2 };

fn advert(priority: u8) -> Advert {
    Advert::Vrrp(VrrpAdvert {
        version: VrrpVersion::V3,
        virtual_router_id: 51,
        priority,
        interval: 100,
        addresses: vec![host(100)],
    })
}

fn master(announce: Announce) -> Bench {
    let config = config::Group { announce, ..group(vrrp(VrrpVersion::V3, 100, seconds(1))) };
    Bench::in_role(Role::Master, config)
}

/// What a master that is left alone for so many seconds announces: when, and how often.
fn announced(bench: &mut Bench, within: u64) -> Vec<(u64, u32)> {
    let start = bench.now;
    let mut announced = Vec::new();
    while bench.group.next_deadline().expect("a master has deadlines") <= start + seconds(within) {
        for output in bench.until_due() {
            if let Output::Announce { times } = output {
                announced.push(((bench.now - start).as_secs(), times));
            }
        }
    }
    announced
}

#[test]
fn they_are_repeated_after_the_delay_and_refreshed_from_then_on() {
    assert_eq!(announced(&mut master(ANNOUNCE), 200), [(5, 5), (65, 2), (125, 2), (185, 2)]);
}

#[test]
fn with_neither_delay_nor_refresh_taking_over_is_all() {
    let never = Announce { delay: Duration::ZERO, refresh: Duration::ZERO, ..ANNOUNCE };
    assert_eq!(announced(&mut master(never), 200), []);
}

#[test]
fn none_are_sent_if_none_are_wanted() {
    let none = Announce { repeat: 0, delay: Duration::ZERO, refresh: Duration::ZERO, ..ANNOUNCE };
    let config = config::Group { announce: none, ..group(vrrp(VrrpVersion::V3, 100, seconds(1))) };
    assert_eq!(line(&Bench::started(config).until_due()), "send 100, lease, hold, MASTER");
}

#[test]
fn a_reload_puts_another_refresh_in_force() {
    let mut bench = master(Announce { delay: Duration::ZERO, ..ANNOUNCE });
    let announce = Announce { refresh: seconds(10), delay: Duration::ZERO, ..ANNOUNCE };
    let config = config::Group { announce, ..(**bench.group.config()).clone() };
    assert_eq!(bench.reconfigure(Arc::new(config)), []);
    assert_eq!(announced(&mut bench, 20), [(10, 2), (20, 2)]);
}

#[test]
fn the_winner_of_a_conflict_announces_at_once_and_reports_when_it_is_over() {
    let mut bench = master(Announce { delay: Duration::ZERO, refresh: Duration::ZERO, ..ANNOUNCE });
    for _ in 0..3 {
        bench.until_due();
    }
    bench.pass(millis(500));
    assert!(!bench.group.is_disputed());
    assert_eq!(line(&bench.hear(20, advert(50))), "send 100, lease, announce");
    assert!(bench.group.is_disputed());
    bench.pass(millis(500));
    assert_eq!(line(&bench.hear(20, advert(50))), "send 100, lease", "announced just before");
    bench.pass(millis(500));
    assert_eq!(line(&bench.tell(Input::Tick)), "announce");
    bench.pass(millis(1500));
    assert_eq!(line(&bench.tell(Input::Tick)), "send 100, lease, announce, MASTER");
    assert!(!bench.group.is_disputed());
    let last = bench.group.transitions().last().expect("it was noted").transition.clone();
    assert_eq!((last.from, last.to), (Role::Master, Role::Master));
    assert_eq!(last.why, "10.0.0.20 took itself for the master, and no longer does");
}

#[test]
fn a_rivals_farewell_ends_a_conflict() {
    let mut bench = master(ANNOUNCE);
    bench.until_due();
    bench.pass(millis(500));
    bench.hear(20, advert(50));
    bench.pass(millis(100));
    assert_eq!(line(&bench.hear(20, advert(0))), "send 100, lease, announce, MASTER");
}

#[test]
fn what_a_preempted_master_says_last_is_no_conflict() {
    let mut bench = master(ANNOUNCE);
    bench.pass(millis(20));
    bench.hear(20, advert(50));
    for _ in 0..10 {
        let outputs = bench.until_due();
        assert!(!line(&outputs).contains("MASTER"), "{outputs:?}");
    }
}

#[test]
fn two_masters_that_each_take_the_other_for_weaker_do_not_flood_the_network() {
    let mut bench = master(ANNOUNCE);
    bench.pass(millis(500));
    let answers = (0..1000).filter(|_| {
        bench.pass(Duration::from_micros(100));
        line(&bench.hear(20, advert(50))).contains("send")
    });
    assert_eq!(answers.count(), 10);
}
