//! How each backend is reached: the route, and the neighbour on the way.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_common::{
    addr::Mac,
    maps::{NextHop, Tags},
};

use super::event::Route;

/// How long to wait before the kernel is asked again about an address that is not reachable yet.
const RETRY: Duration = Duration::from_secs(1);

/// The ways to a set of addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    ways: BTreeMap<IpAddr, Way>,
    retry: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    asked: bool,
    route: Option<Route>,
    /// The last link-layer address known. It is kept when the kernel loses it: the health checks
    /// decide whether a backend is alive, and its connections need somewhere to go meanwhile.
    mac: Option<Mac>,
}

/// Why an address cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// The kernel has not answered yet, or the neighbour has not.
    Resolving,
    /// The kernel has no route.
    NoRoute,
}

impl Hops {
    /// Follows exactly these addresses; returns those to ask the kernel about.
    pub(super) fn follow(&mut self, targets: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        let before = std::mem::take(&mut self.ways);
        for target in targets {
            self.ways.insert(target, before.get(&target).copied().unwrap_or_default());
        }
        let mut ask = Vec::new();
        for (target, way) in &mut self.ways {
            if !std::mem::replace(&mut way.asked, true) {
                ask.push(*target);
            }
        }
        ask
    }

    /// Every address: routes may have changed.
    pub(super) fn all(&self) -> Vec<IpAddr> {
        self.ways.keys().copied().collect()
    }

    pub(super) fn routed(&mut self, target: IpAddr, route: Option<Route>) {
        let Some(way) = self.ways.get_mut(&target) else {
            return;
        };
        let same_neighbour = matches!((way.route, route), (Some(old), Some(new))
            if (old.ifindex, old.via) == (new.ifindex, new.via));
        if !same_neighbour {
            way.mac = None;
        }
        way.route = route;
    }

    pub(super) fn neighbour(&mut self, ifindex: u32, address: IpAddr, mac: Option<Mac>) {
        let Some(mac) = mac else { return };
        for way in self.ways.values_mut() {
            if way.route.is_some_and(|r| (r.ifindex, r.via) == (ifindex, address)) {
                way.mac = Some(mac);
            }
        }
    }

    /// The next hop towards `target`, and the source address the kernel would use.
    pub(super) fn hop(&self, target: IpAddr) -> Result<(NextHop, IpAddr), Unreachable> {
        let way = self.ways.get(&target).ok_or(Unreachable::Resolving)?;
        let route = way.route.ok_or(Unreachable::NoRoute)?;
        let mac = way.mac.ok_or(Unreachable::Resolving)?;
        Ok((
            NextHop { ifindex: route.ifindex, src: route.mac, dst: mac, tags: Tags::default() },
            route.source,
        ))
    }

    /// When to ask again about addresses that are not reachable.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retry
    }

    /// The unreachable addresses, if it is time to ask about them again.
    pub(super) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let unreachable: Vec<IpAddr> =
            self.ways.keys().copied().filter(|target| self.hop(*target).is_err()).collect();
        if unreachable.is_empty() {
            self.retry = None;
            return unreachable;
        }
        match self.retry {
            Some(at) if at > now => Vec::new(),
            Some(_) => {
                self.retry = Some(now + RETRY);
                unreachable
            }
            None => {
                // They have just been asked about.
                self.retry = Some(now + RETRY);
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 4, 4, 10));
    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 3, 3, 254));
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 3, 3, 241));
    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn route() -> Route {
        Route { ifindex: 7, mac: OURS, via: ROUTER, source: SOURCE }
    }

    #[test]
    fn an_address_is_reachable_once_route_and_neighbour_are_known() {
        let mut hops = Hops::default();
        assert_eq!(hops.follow([TARGET]), [TARGET]);
        assert!(hops.follow([TARGET]).is_empty());
        assert_eq!(hops.hop(TARGET), Err(Unreachable::NoRoute));
        hops.routed(TARGET, Some(route()));
        assert_eq!(hops.hop(TARGET), Err(Unreachable::Resolving));
        hops.neighbour(7, TARGET, Some(THEIRS));
        assert_eq!(hops.hop(TARGET), Err(Unreachable::Resolving), "not the way there");
        hops.neighbour(7, ROUTER, Some(THEIRS));
        let hop = NextHop { ifindex: 7, src: OURS, dst: THEIRS, tags: Tags::default() };
        assert_eq!(hops.hop(TARGET), Ok((hop, SOURCE)));
    }

    #[test]
    fn a_lost_neighbour_keeps_its_last_address_and_a_moved_one_is_followed() {
        let mut hops = Hops::default();
        hops.follow([TARGET]);
        hops.routed(TARGET, Some(route()));
        hops.neighbour(7, ROUTER, Some(THEIRS));
        hops.neighbour(7, ROUTER, None);
        assert_eq!(hops.hop(TARGET).unwrap().0.dst, THEIRS);
        hops.neighbour(7, ROUTER, Some(OURS));
        assert_eq!(hops.hop(TARGET).unwrap().0.dst, OURS);
    }

    #[test]
    fn another_router_is_another_neighbour() {
        let mut hops = Hops::default();
        hops.follow([TARGET]);
        hops.routed(TARGET, Some(route()));
        hops.neighbour(7, ROUTER, Some(THEIRS));
        hops.routed(TARGET, Some(Route { via: TARGET, ..route() }));
        assert_eq!(hops.hop(TARGET), Err(Unreachable::Resolving));
        hops.routed(TARGET, None);
        assert_eq!(hops.hop(TARGET), Err(Unreachable::NoRoute));
    }

    #[test]
    fn unreachable_addresses_are_asked_about_once_a_second() {
        let mut hops = Hops::default();
        let now = Instant::now();
        hops.follow([TARGET]);
        assert!(hops.due(now).is_empty());
        assert_eq!(hops.next_deadline(), Some(now + RETRY));
        assert_eq!(hops.due(now + RETRY), [TARGET]);
        hops.routed(TARGET, Some(route()));
        hops.neighbour(7, ROUTER, Some(THEIRS));
        assert!(hops.due(now + RETRY * 2).is_empty());
        assert_eq!(hops.next_deadline(), None);
    }
}
