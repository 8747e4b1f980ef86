//! How each backend is reached: the route, and the neighbour on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    /// Interfaces that the XDP program is on.
    interfaces: BTreeSet<String>,
    /// Every neighbour that the kernel told us of.
    neighbours: BTreeMap<(u32, IpAddr), Mac>,
    retry: Option<Instant>,
}

/// What is known of the way to an address.
#[derive(Clone, Debug)]
enum Way {
    /// The kernel was asked and has not answered yet.
    Asked,
    NoRoute,
    Routed {
        route: Route,
        /// The last link-layer address known. It is kept when the kernel loses it: the health
        /// checks decide whether a backend is alive, and its connections need somewhere to go
        /// meanwhile.
        mac: Option<Mac>,
    },
}

/// Why an address cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// The kernel has not answered yet, or the neighbour has not.
    Resolving,
    /// The kernel has no route.
    NoRoute,
    /// The route leads by an interface that the XDP program is not on, so answers would not come
    /// by it.
    NotAttached(String),
}

impl Hops {
    /// Follows exactly these addresses; returns those to ask the kernel about.
    pub(super) fn follow(&mut self, targets: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        let before = std::mem::take(&mut self.ways);
        for target in targets {
            self.ways.insert(target, before.get(&target).cloned().unwrap_or(Way::Asked));
        }
        self.ways.keys().filter(|target| !before.contains_key(target)).copied().collect()
    }

    /// The interfaces that the XDP program is on.
    pub(super) fn attach(&mut self, interfaces: BTreeSet<String>) {
        self.interfaces = interfaces;
    }

    /// Every address: routes may have changed.
    pub(super) fn all(&self) -> Vec<IpAddr> {
        self.ways.keys().copied().collect()
    }

    pub(super) fn routed(&mut self, target: IpAddr, route: Option<Route>) {
        let Some(way) = self.ways.get_mut(&target) else {
            return;
        };
        let Some(route) = route else {
            *way = Way::NoRoute;
            return;
        };
        let mac = match way {
            Way::Routed { route: old, mac }
                if (old.ifindex, old.via) == (route.ifindex, route.via) =>
            {
                *mac
            }
            _ => None,
        };
        *way = Way::Routed { route, mac };
    }

    /// Takes in what is known of a neighbour; returns its old and its new address if it moved.
    pub(super) fn neighbour(
        &mut self,
        ifindex: u32,
        address: IpAddr,
        mac: Option<Mac>,
    ) -> Option<(Mac, Mac)> {
        let new = mac?;
        let old = self.neighbours.insert((ifindex, address), new);
        for way in self.ways.values_mut() {
            if let Way::Routed { route, mac: known } = way
                && (route.ifindex, route.via) == (ifindex, address)
            {
                *known = mac;
            }
        }
        let old = old.filter(|old| *old != new)?;
        // A station with several addresses has not moved because one of them has.
        let is_left = |((link, _), mac): (&(u32, IpAddr), &Mac)| *link == ifindex && *mac == old;
        (!self.neighbours.iter().any(is_left)).then_some((old, new))
    }

    /// Where frames of an interface's neighbours come in, as far as is known: on the interface
    /// itself, and if it is a VLAN's, on the one below with the VLAN's tag.
    pub(super) fn links(&self, ifindex: u32) -> BTreeSet<(u32, Tags)> {
        let routes = self.ways.values().filter_map(|way| match way {
            Way::Routed { route, .. } if route.ifindex == ifindex => Some(route),
            _ => None,
        });
        let exits = routes.flat_map(|route| &route.exits).map(|exit| (exit.ifindex, exit.tags));
        exits.chain([(ifindex, Tags::default())]).collect()
    }

    /// The next hop towards `target`, and the source address the kernel would use.
    pub(super) fn hop(&self, target: IpAddr) -> Result<(NextHop, IpAddr), Unreachable> {
        match self.ways.get(&target) {
            Some(Way::Routed { route, mac: Some(mac) }) => {
                let exit = route.exits.iter().find(|exit| self.interfaces.contains(&exit.name));
                let Some(exit) = exit else {
                    let name = route.exits.first().map(|exit| exit.name.clone());
                    return Err(Unreachable::NotAttached(name.unwrap_or_default()));
                };
                let hop =
                    NextHop { ifindex: exit.ifindex, src: route.mac, dst: *mac, tags: exit.tags };
                Ok((hop, route.source))
            }
            Some(Way::NoRoute) => Err(Unreachable::NoRoute),
            Some(Way::Asked | Way::Routed { mac: None, .. }) | None => Err(Unreachable::Resolving),
        }
    }

    /// Whether every way is either known or known not to be there.
    pub(super) fn are_settled(&self) -> bool {
        self.ways.keys().all(|target| self.hop(*target) != Err(Unreachable::Resolving))
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
    use lb_common::maps::Tag;

    use super::*;
    use crate::core::event::Exit;

    const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 4, 4, 10));
    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 3, 3, 254));
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 3, 3, 241));
    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn route() -> Route {
        let exits = vec![exit("eth1", 7, 0)];
        Route { ifindex: 7, mac: OURS, via: ROUTER, source: SOURCE, exits }
    }

    fn exit(name: &str, ifindex: u32, vlan: u16) -> Exit {
        let protocol = if vlan == 0 { 0 } else { 0x8100_u16.to_be() };
        let tag = Tag { protocol, vlan: vlan.to_be() };
        Exit { name: name.to_owned(), ifindex, tags: Tags([tag, Tag::default()]) }
    }

    /// With the program on `eth1`.
    fn hops() -> Hops {
        let mut hops = Hops::default();
        hops.attach(["eth1".to_owned()].into());
        hops
    }

    #[test]
    fn an_address_is_reachable_once_route_and_neighbour_are_known() {
        let mut hops = hops();
        assert_eq!(hops.follow([TARGET]), [TARGET]);
        assert!(hops.follow([TARGET]).is_empty());
        assert_eq!(hops.hop(TARGET), Err(Unreachable::Resolving), "not answered yet");
        hops.routed(TARGET, None);
        assert_eq!(hops.hop(TARGET), Err(Unreachable::NoRoute));
        hops.routed(TARGET, Some(route()));
        assert_eq!(hops.hop(TARGET), Err(Unreachable::Resolving));
        hops.neighbour(7, TARGET, Some(THEIRS));
        assert_eq!(hops.hop(TARGET), Err(Unreachable::Resolving), "not the way there");
        hops.neighbour(7, ROUTER, Some(THEIRS));
        let hop = NextHop { ifindex: 7, src: OURS, dst: THEIRS, ..NextHop::default() };
        assert_eq!(hops.hop(TARGET), Ok((hop, SOURCE)));
    }

    #[test]
    fn a_lost_neighbour_keeps_its_last_address_and_a_moved_one_is_followed() {
        let mut hops = hops();
        hops.follow([TARGET]);
        hops.routed(TARGET, Some(route()));
        hops.neighbour(7, ROUTER, Some(THEIRS));
        hops.neighbour(7, ROUTER, None);
        assert_eq!(hops.hop(TARGET).unwrap().0.dst, THEIRS);
        hops.neighbour(7, ROUTER, Some(OURS));
        assert_eq!(hops.hop(TARGET).unwrap().0.dst, OURS);
    }

    #[test]
    fn a_vlan_is_left_by_the_interface_that_has_the_program() {
        let mut hops = hops();
        hops.follow([TARGET]);
        let exits = vec![exit("eth1.20", 9, 0), exit("eth1", 7, 20)];
        hops.routed(TARGET, Some(Route { ifindex: 9, exits, ..route() }));
        hops.neighbour(9, ROUTER, Some(THEIRS));
        let (hop, _) = hops.hop(TARGET).unwrap();
        assert_eq!((hop.ifindex, hop.tags), (7, exit("eth1", 7, 20).tags));

        hops.attach(["eth1.20".to_owned()].into());
        let (hop, _) = hops.hop(TARGET).unwrap();
        assert_eq!((hop.ifindex, hop.tags), (9, Tags::default()));

        hops.attach(["eth2".to_owned()].into());
        assert_eq!(hops.hop(TARGET), Err(Unreachable::NotAttached("eth1.20".to_owned())));
    }

    #[test]
    fn a_station_moves_when_the_last_of_its_addresses_does() {
        let mut hops = hops();
        assert_eq!(hops.neighbour(7, ROUTER, Some(OURS)), None);
        assert_eq!(hops.neighbour(7, TARGET, Some(OURS)), None);
        assert_eq!(hops.neighbour(7, TARGET, Some(THEIRS)), None, "one address of two");
        assert_eq!(hops.neighbour(7, ROUTER, Some(THEIRS)), Some((OURS, THEIRS)));
    }

    #[test]
    fn another_router_is_another_neighbour() {
        let mut hops = hops();
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
        let mut hops = hops();
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
