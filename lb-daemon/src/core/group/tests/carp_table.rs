//! Every role of a CARP group, and everything that can happen to it: what follows.

use super::{bench::*, *};

const SKEW: u8 = 100;

fn advert(advbase: u8, advskew: u8) -> Advert {
    Advert::Carp(CarpAdvert { vhid: 1, advbase, advskew, demotion: 0, counter: 7 })
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Farewell,
    Slower,
    /// Slower than a backup waits.
    TooSlow,
    /// As fast, with a higher address.
    EqualAbove,
    /// As fast, with a lower address.
    EqualBelow,
    Faster,
    Replayed,
    Own,
    OtherHost,
    OtherProtocol,
    Well,
    Unready,
    Ill,
    Failover,
    Stop,
    Due,
    Early,
}
use Kind::*;

const KINDS: [Kind; 17] = [
    Farewell,
    Slower,
    TooSlow,
    EqualAbove,
    EqualBelow,
    Faster,
    Replayed,
    Own,
    OtherHost,
    OtherProtocol,
    Well,
    Unready,
    Ill,
    Failover,
    Stop,
    Due,
    Early,
];

fn happen(bench: &mut Bench, kind: Kind) -> String {
    bench.pass(millis(100));
    let outputs = match kind {
        Farewell => bench.hear(20, advert(255, 255)),
        Slower => bench.hear(9, advert(1, SKEW + 1)),
        TooSlow => bench.hear(8, advert(4, 0)),
        EqualAbove => bench.hear(11, advert(1, SKEW)),
        EqualBelow => bench.hear(9, advert(1, SKEW)),
        Faster => bench.hear(20, advert(1, SKEW - 1)),
        Replayed => {
            let mut earlier = Vec::new();
            // The counter has been seen, in an advert that changed nothing.
            if let Advert::Carp(first) = advert(1, SKEW) {
                earlier = bench.hear(11, Advert::Carp(CarpAdvert { counter: 8, ..first }));
            }
            earlier.extend(bench.hear(11, advert(1, SKEW - 1)));
            earlier.retain(|output| matches!(output, Output::Changed(_)));
            earlier
        }
        Own => bench.hear(10, advert(1, 0)),
        OtherHost => {
            let other = CarpAdvert { vhid: 2, advbase: 0, advskew: 0, demotion: 0, counter: 7 };
            bench.hear(20, Advert::Carp(other))
        }
        OtherProtocol => {
            let other = VrrpAdvert {
                version: VrrpVersion::V2,
                virtual_router_id: 1,
                priority: 255,
                interval: 100,
                addresses: vec![host(100)],
            };
            bench.hear(20, Advert::Vrrp(other))
        }
        Well => bench.tell(Input::Standing(well())),
        Unready => bench.tell(Input::Standing(unready())),
        Ill => bench.tell(Input::Standing(ill())),
        Failover => bench.tell(Input::Failover),
        Stop => bench.tell(Input::Stop),
        Due if bench.group.next_deadline().is_some() => bench.until_due(),
        Due | Early => bench.tell(Input::Tick),
    };
    line(&outputs)
}

/// Role before, what happens, role after, what is done.
type Row = (Role, Kind, Role, &'static str);

const TAKES_OVER: &str = "send 1/100, lease, hold, announce, MASTER";
const YIELDS: &str = "unlease, send 1/100, release, BACKUP";

const TABLE: [Row; 68] = [
    (Role::Init, Farewell, Role::Init, ""),
    (Role::Init, Slower, Role::Init, ""),
    (Role::Init, TooSlow, Role::Init, ""),
    (Role::Init, EqualAbove, Role::Init, ""),
    (Role::Init, EqualBelow, Role::Init, ""),
    (Role::Init, Faster, Role::Init, ""),
    (Role::Init, Replayed, Role::Init, ""),
    (Role::Init, Own, Role::Init, ""),
    (Role::Init, OtherHost, Role::Init, ""),
    (Role::Init, OtherProtocol, Role::Init, ""),
    (Role::Init, Well, Role::Backup, "unlease, release, BACKUP"),
    (Role::Init, Unready, Role::Backup, "unlease, release, BACKUP"),
    (Role::Init, Ill, Role::Fault, "unlease, release, FAULT"),
    (Role::Init, Failover, Role::Init, ""),
    (Role::Init, Stop, Role::Init, ""),
    (Role::Init, Due, Role::Init, ""),
    (Role::Init, Early, Role::Init, ""),
    (Role::Backup, Farewell, Role::Master, TAKES_OVER),
    (Role::Backup, Slower, Role::Master, TAKES_OVER),
    (Role::Backup, TooSlow, Role::Master, TAKES_OVER),
    (Role::Backup, EqualAbove, Role::Backup, ""),
    (Role::Backup, EqualBelow, Role::Backup, ""),
    (Role::Backup, Faster, Role::Backup, ""),
    (Role::Backup, Replayed, Role::Backup, ""),
    (Role::Backup, Own, Role::Backup, ""),
    (Role::Backup, OtherHost, Role::Backup, ""),
    (Role::Backup, OtherProtocol, Role::Backup, ""),
    (Role::Backup, Well, Role::Backup, ""),
    (Role::Backup, Unready, Role::Backup, ""),
    (Role::Backup, Ill, Role::Fault, "FAULT"),
    (Role::Backup, Failover, Role::Backup, ""),
    (Role::Backup, Stop, Role::Init, "INIT"),
    (Role::Backup, Due, Role::Master, TAKES_OVER),
    (Role::Backup, Early, Role::Backup, ""),
    (Role::Master, Farewell, Role::Master, "send 1/100, lease"),
    (Role::Master, Slower, Role::Master, "send 1/100, lease"),
    (Role::Master, TooSlow, Role::Master, "send 1/100, lease"),
    (Role::Master, EqualAbove, Role::Master, "send 1/100, lease"),
    (Role::Master, EqualBelow, Role::Backup, YIELDS),
    (Role::Master, Faster, Role::Backup, YIELDS),
    (Role::Master, Replayed, Role::Master, ""),
    (Role::Master, Own, Role::Master, ""),
    (Role::Master, OtherHost, Role::Master, ""),
    (Role::Master, OtherProtocol, Role::Master, ""),
    (Role::Master, Well, Role::Master, ""),
    (Role::Master, Unready, Role::Master, ""),
    (Role::Master, Ill, Role::Fault, "unlease, send 255/255, release, FAULT"),
    (Role::Master, Failover, Role::Backup, "unlease, send 255/255, release, BACKUP"),
    (Role::Master, Stop, Role::Init, "unlease, send 255/255, release, INIT"),
    (Role::Master, Due, Role::Master, "send 1/100, lease"),
    (Role::Master, Early, Role::Master, ""),
    (Role::Fault, Farewell, Role::Fault, ""),
    (Role::Fault, Slower, Role::Fault, ""),
    (Role::Fault, TooSlow, Role::Fault, ""),
    (Role::Fault, EqualAbove, Role::Fault, ""),
    (Role::Fault, EqualBelow, Role::Fault, ""),
    (Role::Fault, Faster, Role::Fault, ""),
    (Role::Fault, Replayed, Role::Fault, ""),
    (Role::Fault, Own, Role::Fault, ""),
    (Role::Fault, OtherHost, Role::Fault, ""),
    (Role::Fault, OtherProtocol, Role::Fault, ""),
    (Role::Fault, Well, Role::Backup, "BACKUP"),
    (Role::Fault, Unready, Role::Backup, "BACKUP"),
    (Role::Fault, Ill, Role::Fault, ""),
    (Role::Fault, Failover, Role::Fault, ""),
    (Role::Fault, Stop, Role::Init, "INIT"),
    (Role::Fault, Due, Role::Fault, ""),
    (Role::Fault, Early, Role::Fault, ""),
];

#[test]
fn every_role_does_as_the_table_says() {
    for (role, kind, then, done) in TABLE {
        let mut bench = Bench::in_role(role, group(carp(1, SKEW)));
        let what = happen(&mut bench, kind);
        let row = format!("{role} when {kind:?}");
        assert_eq!((bench.group.role(), what.as_str()), (then, done), "{row}");
        assert_eq!(bench.group.lease().is_some(), then == Role::Master, "{row}");
    }
}

#[test]
fn the_table_has_every_role_and_everything_that_happens() {
    let roles = [Role::Init, Role::Backup, Role::Master, Role::Fault];
    let rows = roles.iter().flat_map(|role| KINDS.iter().map(move |kind| (*role, *kind)));
    let table = TABLE.iter().map(|(role, kind, ..)| (*role, *kind));
    assert!(rows.eq(table));
}

#[test]
fn a_backup_that_does_not_preempt_leaves_a_slower_master_alone() {
    let config = config::Group { preempt: false, ..group(carp(1, SKEW)) };
    let mut bench = Bench::started(config);
    assert_eq!(happen(&mut bench, Slower), "");
    assert_eq!(bench.waits(), seconds(3) + seconds(1) * SKEW.into() / 256);
    assert_eq!(happen(&mut bench, TooSlow), TAKES_OVER, "it would time out anyway");
}

#[test]
fn a_backup_waits_for_three_times_advbase_and_its_advskew() {
    let mut bench = Bench::started(group(carp(2, 128)));
    assert_eq!(bench.waits(), millis(6500));
    bench.pass(seconds(1));
    bench.hear(20, advert(2, 0));
    assert_eq!(bench.waits(), millis(6500));
    bench.until_due();
    assert_eq!(bench.group.role(), Role::Master);
    assert_eq!(bench.waits(), millis(2500), "advbase + advskew / 256");
}

#[test]
fn a_demotion_slows_adverts_down_to_advskew_240_and_counts_the_rest() {
    let demoted = |by: i32| {
        let mut bench = Bench::in_role(Role::Master, group(carp(1, SKEW)));
        let outputs = bench.tell(Input::Standing(Standing { adjustment: -by, ..well() }));
        match outputs.as_slice() {
            [Output::Send(Advert::Carp(advert)), Output::Lease(Some(_))] => {
                (advert.advskew, advert.demotion)
            }
            other => panic!("a demoted master tells the others at once: {other:?}"),
        }
    };
    assert_eq!(demoted(1), (101, 0));
    assert_eq!(demoted(140), (240, 0));
    assert_eq!(demoted(150), (240, 10));
    assert_eq!(demoted(10_000), (240, 255));
}

#[test]
fn of_two_hosts_at_the_end_of_the_scale_the_more_demoted_gives_way() {
    let rival = |demotion| {
        Advert::Carp(CarpAdvert { vhid: 1, advbase: 1, advskew: 240, demotion, counter: 7 })
    };
    for (demotion, then) in [(9, Role::Backup), (11, Role::Master)] {
        let mut bench = Bench::in_role(Role::Master, group(carp(1, SKEW)));
        bench.tell(Input::Standing(Standing { adjustment: -150, ..well() }));
        bench.hear(20, rival(demotion));
        assert_eq!(bench.group.role(), then, "against a demotion of {demotion}");
    }
}

#[test]
fn a_weight_never_makes_a_host_faster_than_configured() {
    let mut bench = Bench::in_role(Role::Master, group(carp(1, SKEW)));
    assert_eq!(bench.tell(Input::Standing(Standing { adjustment: 50, ..well() })), []);
    assert_eq!(bench.group.priority(), 255 - SKEW);
}

#[test]
fn every_advert_has_a_counter_of_its_own() {
    let mut bench = Bench::in_role(Role::Master, group(carp(1, 0)));
    let mut counters = Vec::new();
    for _ in 0..3 {
        for output in bench.until_due() {
            if let Output::Send(Advert::Carp(advert)) = output {
                counters.push(advert.counter);
            }
        }
    }
    assert_eq!(counters, [1002, 1003, 1004]);
}

/// Hosts of FreeBSD and ucarp count on from whatever they hear.
#[test]
fn a_peer_that_adopts_our_counter_is_heeded_after_a_partition() {
    let mut bench = Bench::in_role(Role::Master, group(carp(1, SKEW)));
    let faster = |counter| {
        Advert::Carp(CarpAdvert { vhid: 1, advbase: 1, advskew: 0, demotion: 0, counter })
    };
    // It has heard our first advert.
    for counter in 1002..=1050 {
        bench.hear(20, faster(counter));
        bench.pass(seconds(1));
    }
    assert_eq!(bench.group.role(), Role::Backup);

    let ours = bench.until_due().into_iter().find_map(|output| match output {
        Output::Send(Advert::Carp(advert)) => Some(advert.counter),
        _ => None,
    });
    assert_eq!(ours, Some(1051), "it goes on above what it has heeded");
    bench.hear(20, faster(1052));
    assert_eq!(bench.group.role(), Role::Backup);
    assert_eq!(bench.group.counts().discarded.get(&Discard::Replay), None);
}

#[test]
fn a_counter_that_is_far_from_ours_is_left_to_its_sender() {
    for far in [1, 1000, 1001 + (1 << 20), u64::MAX] {
        let mut bench = Bench::in_role(Role::Master, group(carp(1, SKEW)));
        bench.pass(millis(100));
        let slow = CarpAdvert { vhid: 1, advbase: 1, advskew: 200, demotion: 0, counter: far };
        bench.hear(20, Advert::Carp(slow));
        assert_eq!(bench.group.counter(), 1002, "having answered one with {far}");
    }
}

#[test]
fn what_was_sent_before_is_not_heeded_again_not_even_after_its_sender_began_anew() {
    let mut bench = Bench::in_role(Role::Backup, group(carp(1, SKEW)));
    let mut heeds = |from, counter| {
        let advert = CarpAdvert { vhid: 1, advbase: 1, advskew: 0, demotion: 0, counter };
        let before = bench.group.counts().discarded.get(&Discard::Replay).copied();
        bench.hear(from, Advert::Carp(advert));
        before == bench.group.counts().discarded.get(&Discard::Replay).copied()
    };
    assert!(heeds(20, 5_000_000));
    assert!(!heeds(20, 5_000_000), "the same");
    assert!(!heeds(20, 4_999_999), "an older one");
    assert!(heeds(21, 4_999_999), "another sender");
    assert!(heeds(20, 5_000_002), "one was lost");
    assert!(heeds(20, 9), "the sender began anew");
    assert!(heeds(20, 10));
    assert!(!heeds(20, 5_000_001), "from before that");
    assert!(!heeds(20, 8));
}
