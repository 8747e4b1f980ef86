//! A cut that lasts, in one direction: this host hears its peer, and the peer hears nobody.

use super::{bench::*, *};

/// How long it lasts.
const SECONDS: u64 = 60;

/// The peer's advert of a second.
type Peer = fn(u64) -> Advert;

/// Both protocols, with adverts of a peer that is preferred, and of one that is not.
fn protocols() -> [(Protocol, Peer, Peer); 2] {
    fn by_vrrp(priority: u8) -> Advert {
        Advert::Vrrp(VrrpAdvert {
            version: VrrpVersion::V3,
            virtual_router_id: 51,
            priority,
            interval: 100,
            addresses: vec![host(100)],
        })
    }
    fn by_carp(advskew: u8, counter: u64) -> Advert {
        Advert::Carp(CarpAdvert { vhid: 1, advbase: 1, advskew, demotion: 0, counter })
    }
    [
        (vrrp(VrrpVersion::V3, 100, seconds(1)), |_| by_vrrp(101), |_| by_vrrp(99)),
        (carp(1, 100), |second| by_carp(99, second), |second| by_carp(101, second)),
    ]
}

#[test]
fn a_host_never_serves_beside_a_preferred_one_that_does_not_hear_it() {
    for (protocol, preferred, _) in protocols() {
        let mut bench = Bench::in_role(Role::Master, group(protocol));
        for second in 1..=SECONDS {
            bench.hear(20, preferred(second));
            assert_eq!(bench.group.lease(), None, "after {second} s");
            bench.pass(seconds(1));
        }
        assert_eq!(bench.group.counts().became_master, 1);
    }
}

/// Both serve: neither protocol has a remedy. The preferred one knows, and says so.
#[test]
fn a_host_that_a_weaker_one_does_not_hear_serves_on_and_knows_of_it() {
    for (protocol, _, weaker) in protocols() {
        let mut bench = Bench::in_role(Role::Master, group(protocol));
        for second in 1..=SECONDS {
            for _ in 0..2 {
                bench.pass(millis(500));
                bench.tell(Input::Tick);
            }
            bench.hear(20, weaker(second));
            assert_eq!(bench.group.role(), Role::Master, "after {second} s");
            assert!(second < 3 || bench.group.is_disputed(), "after {second} s");
        }
        let healed = |bench: &Bench| {
            bench.group.transitions().filter(|past| past.transition.from == Role::Master).count()
        };
        assert_eq!(healed(&bench), 0, "it lasts");
        for _ in 0..6 {
            bench.pass(millis(500));
            bench.tell(Input::Tick);
        }
        assert!(!bench.group.is_disputed());
        assert_eq!(healed(&bench), 1, "it is over");
    }
}
