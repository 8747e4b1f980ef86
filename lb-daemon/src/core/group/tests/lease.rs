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
    assert_eq!(line(&bench.tell(Input::Tick)), "send 100, lease");
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
    assert_eq!(line(&bench.until_due()), "send 100, lease, hold, announce, MASTER");
}

#[test]
fn a_reload_counts_as_no_sign_of_life_of_a_master_that_was_held_up() {
    let mut bench = Bench::in_role(Role::Master, config(seconds(1)));
    bench.pass(seconds(3));
    let mut other = config(seconds(1));
    other.addresses.clear();
    let outputs = bench.reconfigure(Arc::new(other));
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
    assert_eq!(line(&bench.tell(Input::Tick)), "send 100, lease, hold, announce, MASTER");
}

/// What the kernel says when a firewall drops an advert.
fn refused() -> Result<(), String> {
    Err("Operation not permitted".to_owned())
}

#[test]
fn an_advert_that_was_not_sent_renews_no_lease() {
    let mut bench = Bench::in_role(Role::Master, config(seconds(1)));
    let lease = bench.group.lease().expect("a master has a lease");
    bench.sends = refused();
    for _ in 0..2 {
        assert_eq!(line(&bench.until_due()), "send 100");
        assert_eq!(bench.group.lease(), Some(lease));
        assert_eq!(bench.group.unsent(), Some("Operation not permitted"));
    }
    assert_eq!(line(&bench.until_due()), "unlease, release, BACKUP");
    assert_eq!(bench.now, lease);
    assert_eq!(
        bench.group.why(),
        "cannot advertise, so another may serve: Operation not permitted"
    );
}

#[test]
fn a_master_whose_adverts_are_sent_again_in_time_goes_on() {
    let mut bench = Bench::in_role(Role::Master, config(seconds(1)));
    bench.sends = refused();
    bench.until_due();
    bench.until_due();
    bench.sends = Ok(());
    // Something else has it advertise: before the lease is over, but not before it is due.
    bench.pass(millis(900));
    assert_eq!(
        line(&bench.tell(Input::Standing(Standing { adjustment: -1, ..well() }))),
        "send 99, lease"
    );
    assert_eq!(bench.group.unsent(), None);
    assert_eq!(
        bench.group.lease().expect("a master has a lease") - bench.now,
        millis(2937) + Duration::from_micros(500)
    );
}

#[test]
fn a_backup_that_cannot_advertise_takes_nothing_over_and_tries_again() {
    let mut bench = Bench::started(config(seconds(1)));
    bench.sends = refused();
    for _ in 0..3 {
        assert_eq!(line(&bench.until_due()), "send 100");
        assert_eq!((bench.group.role(), bench.group.lease()), (Role::Backup, None));
        assert_eq!(bench.group.why(), "cannot advertise: Operation not permitted");
        assert_eq!(bench.waits().as_micros(), 3_609_375, "it lets another take over meanwhile");
    }
    assert_eq!(bench.group.counts().became_master, 0);
    bench.sends = Ok(());
    assert_eq!(line(&bench.until_due()), "send 100, lease, hold, announce, MASTER");
    assert_eq!(bench.group.why(), "no master was heard");
}

#[test]
fn an_owner_that_cannot_advertise_begins_as_a_backup() {
    let mut bench = Bench::new(group(vrrp(VrrpVersion::V3, 255, seconds(1))));
    bench.sends = refused();
    let outputs = bench.tell(Input::Standing(well()));
    assert_eq!(line(&outputs), "unlease, release, send 255, BACKUP");
    bench.sends = Ok(());
    assert_eq!(
        line(&bench.tell(Input::Standing(well()))),
        "send 255, lease, hold, announce, MASTER"
    );
}

#[test]
fn a_farewell_that_was_not_sent_is_no_reason_to_stay() {
    for (input, expected) in [
        (Input::Failover, "unlease, send 0, release, BACKUP"),
        (Input::Standing(ill()), "unlease, send 0, release, FAULT"),
        (Input::Stop, "unlease, send 0, release, INIT"),
    ] {
        let mut bench = Bench::in_role(Role::Master, config(seconds(1)));
        bench.sends = refused();
        assert_eq!(line(&bench.tell(input)), expected);
    }
}

#[test]
fn a_reload_that_cannot_be_told_keeps_the_lease_and_holds_the_new_addresses() {
    let mut bench = Bench::in_role(Role::Master, config(seconds(1)));
    let lease = bench.group.lease();
    bench.sends = refused();
    let mut other = config(seconds(1));
    other.addresses[0].ip = host(101);
    assert_eq!(line(&bench.reconfigure(Arc::new(other))), "send 100, hold, announce");
    assert_eq!(bench.group.lease(), lease);
}
