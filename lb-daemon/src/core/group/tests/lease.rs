//! Who may serve, and until when.

use super::{bench::*, *};

fn config(interval: Duration) -> config::Group {
    group(vrrp(VrrpVersion::V3, 100, interval))
}

#[test]
fn a_lease_ends_before_any_peer_takes_over_though_their_clocks_differ() {
    // The peer's clock is fast by 500 ppm, ours slow by as much.
    let slow = |span: Duration| span.as_secs_f64() * 1.000_5;
    let fast = |span: Duration| span.as_secs_f64() * 0.999_5;
    let v3 = [1, 2, 10, 100, 333, 4095].map(|interval| (VrrpVersion::V3, millis(interval * 10)));
    let v2 = [1, 2, 60, 255].map(|interval| (VrrpVersion::V2, seconds(interval)));
    for (version, interval) in v3.into_iter().chain(v2) {
        let master = Bench::in_role(Role::Master, group(vrrp(version, 100, interval)));
        let lease = master.group.lease().expect("a master has a lease") - master.now;
        for priority in 1..=254 {
            let peer = Bench::started(group(vrrp(version, priority, interval)));
            assert!(slow(lease) < fast(peer.waits()), "{version:?}, {interval:?}, {priority}");
        }
    }
    for (advbase, advskew) in [(1, 0), (1, 254), (3, 100), (255, 0)] {
        let master = Bench::in_role(Role::Master, group(carp(advbase, advskew)));
        let lease = master.group.lease().expect("a master has a lease") - master.now;
        let peer = Bench::started(group(carp(advbase, 0)));
        assert!(slow(lease) < fast(peer.waits()), "CARP, {advbase}, {advskew}");
    }
}

#[test]
fn a_lease_of_10_ms_lives_through_a_missing_advert() {
    let mut bench = Bench::in_role(Role::Master, config(millis(10)));
    let lease = bench.group.lease().expect("a master has a lease");
    assert_eq!(lease - bench.now, Duration::from_micros(29_375));
    bench.pass(millis(29));
    assert_eq!(line(&bench.tell(Input::Tick)), "lease, send 100");
}

#[test]
fn a_master_that_was_held_up_beyond_its_lease_has_lost() {
    let inputs: [(Input, &str); 4] = [
        (Input::Tick, "unlease, release, BACKUP"),
        (Input::Standing(well()), "unlease, release, BACKUP"),
        (Input::Failover, "unlease, release, BACKUP"),
        (Input::Stop, "unlease, release, BACKUP, INIT"),
    ];
    for (input, expected) in inputs {
        let mut bench = Bench::in_role(Role::Master, config(seconds(1)));
        bench.pass(seconds(3));
        assert_eq!(line(&bench.tell(input.clone())), expected, "{input:?}");
    }
}

#[test]
fn a_master_that_was_held_up_says_nothing_until_nobody_was_heard_for_the_whole_time() {
    let mut bench = Bench::in_role(Role::Master, config(seconds(1)));
    bench.pass(seconds(60));
    bench.tell(Input::Tick);
    assert_eq!(bench.group.why(), "was held up for 60000 ms: another may serve");
    assert_eq!(bench.waits().as_micros(), 3_609_375);
    assert_eq!(line(&bench.until_due()), "lease, send 100, hold, announce, MASTER");
}

#[test]
fn a_reload_counts_as_no_sign_of_life_of_a_master_that_was_held_up() {
    let mut bench = Bench::in_role(Role::Master, config(seconds(1)));
    bench.pass(seconds(3));
    let mut other = config(seconds(1));
    other.addresses.clear();
    let outputs = bench.group.reconfigure(Arc::new(other), bench.now);
    assert_eq!(line(&outputs), "unlease, release, BACKUP");
}

#[test]
fn a_backup_that_was_held_up_listens_for_another_interval() {
    let mut bench = Bench::started(config(seconds(1)));
    bench.pass(seconds(60));
    assert_eq!(bench.tell(Input::Tick), []);
    assert_eq!(bench.waits().as_micros(), 1_609_375);
    bench.until_due();
    assert_eq!(bench.group.role(), Role::Master);
}

#[test]
fn a_backup_that_is_hardly_late_takes_over() {
    let mut bench = Bench::started(config(seconds(1)));
    bench.pass(millis(4600));
    assert_eq!(line(&bench.tell(Input::Tick)), "lease, send 100, hold, announce, MASTER");
}
