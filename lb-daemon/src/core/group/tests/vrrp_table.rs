//! Every role of a VRRP group, and everything that can happen to it: what follows.
//!
//! The rows are the state machines of RFC 3768 and of RFC 9568, whose sections have the same numbers:
//! 6.4.1 is of [`Role::Init`], 6.4.2 of [`Role::Backup`], 6.4.3 of [`Role::Master`]. Neither has a
//! fault.

use super::{bench::*, *};

const OURS: u8 = 100;

fn advert(version: VrrpVersion, priority: u8) -> Advert {
    Advert::Vrrp(VrrpAdvert {
        version,
        virtual_router_id: 51,
        priority,
        interval: 100,
        addresses: vec![host(100)],
    })
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Farewell,
    Weaker,
    /// The same priority, a lower address.
    EqualBelow,
    /// The same priority, a higher address.
    EqualAbove,
    Stronger,
    Own,
    OtherRouter,
    OtherProtocol,
    Well,
    Unready,
    Ill,
    Failover,
    Stop,
    /// The next deadline, or none.
    Due,
    /// A look before anything is due.
    Early,
}
use Kind::*;

const KINDS: [Kind; 15] = [
    Farewell,
    Weaker,
    EqualBelow,
    EqualAbove,
    Stronger,
    Own,
    OtherRouter,
    OtherProtocol,
    Well,
    Unready,
    Ill,
    Failover,
    Stop,
    Due,
    Early,
];

fn happen(bench: &mut Bench, version: VrrpVersion, kind: Kind) -> String {
    bench.pass(millis(100));
    let outputs = match kind {
        Farewell => bench.hear(20, advert(version, 0)),
        Weaker => bench.hear(20, advert(version, OURS - 1)),
        EqualBelow => bench.hear(9, advert(version, OURS)),
        EqualAbove => bench.hear(11, advert(version, OURS)),
        Stronger => bench.hear(9, advert(version, OURS + 1)),
        Own => bench.hear(10, advert(version, OURS + 1)),
        OtherRouter => {
            let Advert::Vrrp(advert) = advert(version, 255) else { unreachable!("it is VRRP") };
            bench.hear(20, Advert::Vrrp(VrrpAdvert { virtual_router_id: 52, ..advert }))
        }
        OtherProtocol => {
            let fast = CarpAdvert { vhid: 51, advbase: 0, advskew: 0, demotion: 0, counter: 1 };
            bench.hear(20, Advert::Carp(fast))
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

const TABLE: [Row; 60] = [
    // 6.4.1, Initialize.
    (Role::Init, Farewell, Role::Init, ""),
    (Role::Init, Weaker, Role::Init, ""),
    (Role::Init, EqualBelow, Role::Init, ""),
    (Role::Init, EqualAbove, Role::Init, ""),
    (Role::Init, Stronger, Role::Init, ""),
    (Role::Init, Own, Role::Init, ""),
    (Role::Init, OtherRouter, Role::Init, ""),
    (Role::Init, OtherProtocol, Role::Init, ""),
    (Role::Init, Well, Role::Backup, "unlease, release, BACKUP"),
    (Role::Init, Unready, Role::Backup, "unlease, release, BACKUP"),
    (Role::Init, Ill, Role::Fault, "unlease, release, FAULT"),
    (Role::Init, Failover, Role::Init, ""),
    (Role::Init, Stop, Role::Init, ""),
    (Role::Init, Due, Role::Init, ""),
    (Role::Init, Early, Role::Init, ""),
    // 6.4.2, Backup.
    (Role::Backup, Farewell, Role::Backup, ""),
    (Role::Backup, Weaker, Role::Backup, ""),
    (Role::Backup, EqualBelow, Role::Backup, ""),
    (Role::Backup, EqualAbove, Role::Backup, ""),
    (Role::Backup, Stronger, Role::Backup, ""),
    (Role::Backup, Own, Role::Backup, ""),
    (Role::Backup, OtherRouter, Role::Backup, ""),
    (Role::Backup, OtherProtocol, Role::Backup, ""),
    (Role::Backup, Well, Role::Backup, ""),
    (Role::Backup, Unready, Role::Backup, ""),
    (Role::Backup, Ill, Role::Fault, "FAULT"),
    (Role::Backup, Failover, Role::Backup, ""),
    (Role::Backup, Stop, Role::Init, "INIT"),
    (Role::Backup, Due, Role::Master, "send 100, lease, hold, announce, MASTER"),
    (Role::Backup, Early, Role::Backup, ""),
    // 6.4.3, Master (RFC 9568: Active).
    (Role::Master, Farewell, Role::Master, "send 100, lease"),
    (Role::Master, Weaker, Role::Master, "send 100, lease"),
    (Role::Master, EqualBelow, Role::Master, "send 100, lease"),
    (Role::Master, EqualAbove, Role::Backup, "unlease, send 100, release, BACKUP"),
    (Role::Master, Stronger, Role::Backup, "unlease, send 100, release, BACKUP"),
    (Role::Master, Own, Role::Master, ""),
    (Role::Master, OtherRouter, Role::Master, ""),
    (Role::Master, OtherProtocol, Role::Master, ""),
    (Role::Master, Well, Role::Master, ""),
    (Role::Master, Unready, Role::Master, ""),
    (Role::Master, Ill, Role::Fault, "unlease, send 0, release, FAULT"),
    (Role::Master, Failover, Role::Backup, "unlease, send 0, release, BACKUP"),
    (Role::Master, Stop, Role::Init, "unlease, send 0, release, INIT"),
    (Role::Master, Due, Role::Master, "send 100, lease"),
    (Role::Master, Early, Role::Master, ""),
    // Tandem's own, as keepalived's.
    (Role::Fault, Farewell, Role::Fault, ""),
    (Role::Fault, Weaker, Role::Fault, ""),
    (Role::Fault, EqualBelow, Role::Fault, ""),
    (Role::Fault, EqualAbove, Role::Fault, ""),
    (Role::Fault, Stronger, Role::Fault, ""),
    (Role::Fault, Own, Role::Fault, ""),
    (Role::Fault, OtherRouter, Role::Fault, ""),
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
fn every_role_does_as_the_table_says_in_both_versions() {
    for version in [VrrpVersion::V2, VrrpVersion::V3] {
        for (role, kind, then, done) in TABLE {
            let mut bench = Bench::in_role(role, group(vrrp(version, OURS, seconds(1))));
            let what = happen(&mut bench, version, kind);
            let row = format!("{version:?}: {role} when {kind:?}");
            assert_eq!((bench.group.role(), what.as_str()), (then, done), "{row}");
            assert_eq!(bench.group.lease().is_some(), then == Role::Master, "{row}");
        }
    }
}

#[test]
fn the_table_has_every_role_and_everything_that_happens() {
    let roles = [Role::Init, Role::Backup, Role::Master, Role::Fault];
    let rows = roles.iter().flat_map(|role| KINDS.iter().map(move |kind| (*role, *kind)));
    let table = TABLE.iter().map(|(role, kind, ..)| (*role, *kind));
    assert!(rows.eq(table));
}

/// A departure from RFC 3768 and RFC 9568, 6.4.2, which set the timer to the skew whatever is left.
#[test]
fn a_farewell_prolongs_no_wait() {
    for version in [VrrpVersion::V2, VrrpVersion::V3] {
        let mut bench = Bench::started(group(vrrp(version, OURS, seconds(1))));
        bench.pass(millis(3_400));
        assert_eq!(bench.hear(20, advert(version, OURS - 1)), []);
        let left = bench.waits();
        assert!(left < seconds(1) * 156 / 256, "{version:?}: less than the skew, but {left:?}");
        assert_eq!(bench.hear(20, advert(version, 0)), []);
        assert_eq!(bench.waits(), left, "{version:?}");
        assert_eq!(line(&bench.until_due()), "send 100, lease, hold, announce, MASTER");
        assert_eq!(bench.group.why(), "10.0.0.20 is weaker");
    }
}

/// What an advert does to a backup's wait: in seconds from when it came in.
#[test]
fn a_backup_waits_as_each_advert_says() {
    let down = 3.0 + 156.0 / 256.0;
    let skew = 156.0 / 256.0;
    // Discarded or unknown, it leaves what is left of the wait.
    let left = down - 0.1;
    let rows = [
        (Farewell, true, skew),
        (Weaker, true, left),
        (Weaker, false, down),
        (EqualBelow, true, down),
        (EqualAbove, true, down),
        (Stronger, true, down),
        (Own, true, left),
        (OtherRouter, true, left),
        (OtherProtocol, true, left),
    ];
    for version in [VrrpVersion::V2, VrrpVersion::V3] {
        for (kind, preempt, expected) in rows {
            let config = config::Group { preempt, ..group(vrrp(version, OURS, seconds(1))) };
            let mut bench = Bench::started(config);
            happen(&mut bench, version, kind);
            let waits = bench.waits().as_secs_f64();
            let row = format!("{version:?}: {kind:?}, preempt: {preempt}");
            assert!((waits - expected).abs() < 1e-6, "{row}: {waits} s, not {expected}");
        }
    }
}
