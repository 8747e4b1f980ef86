//! Which host is preferred, as the protocols say.

use super::super::*;

/// How much a host is preferred, the most preferred being the greatest; written down here once
/// more so that the machine is not measured by itself.
pub(super) type Rank = (i32, i32, i32, i64);

/// Whether its sender gives the group up.
pub(super) fn is_farewell(advert: &Advert) -> bool {
    match advert {
        Advert::Vrrp(advert) => advert.priority == 0,
        Advert::Carp(advert) => advert.advskew == 255,
    }
}

/// Whether its sender takes the addresses for its own.
pub(super) const fn is_owners(advert: &Advert) -> bool {
    matches!(advert, Advert::Vrrp(VrrpAdvert { priority: 255, .. }))
}

pub(super) fn rank(advert: &Advert, source: IpAddr) -> Rank {
    let IpAddr::V4(address) = source else { unreachable!("the hosts have IPv4 addresses") };
    let address = i64::from(u32::from(address));
    match advert {
        Advert::Vrrp(advert) => (advert.priority.into(), 0, 0, address),
        Advert::Carp(advert) => {
            let [base, skew, demotion] = [advert.advbase, advert.advskew, advert.demotion];
            (-i32::from(base), -i32::from(skew), -i32::from(demotion), -address)
        }
    }
}

/// A rank without the address, which only masters compare.
pub(super) fn preference((first, second, third, _): Rank) -> (i32, i32, i32) {
    (first, second, third)
}

/// What a daemon would say of itself.
pub(super) fn own_rank(daemon: &Group) -> Rank {
    let mut twin = rules::of(daemon.config(), 0);
    twin.adjust(daemon.standing.adjustment);
    rank(&twin.advert(), daemon.source())
}
