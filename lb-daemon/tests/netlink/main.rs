//! The netlink adapter against the real kernel, in network namespaces that end with each test.
//! Needs root and iproute2.

mod lab;

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use lb_common::{
    addr::Mac,
    maps::{NextHop, Tags},
};
use lb_daemon::{
    core::Event,
    netlink::{Netlink, Ways},
};
use tokio::{
    sync::mpsc::unbounded_channel,
    time::{Instant, sleep, timeout, timeout_at},
};

use self::lab::{OURS, THEIRS, address, ip, ip_batch, lab, netlink_sockets, write};

/// An address that is on neither side.
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

#[test]
fn a_target_on_the_link_is_reached_directly() {
    lab(async |lab| {
        for (target, source) in [("10.1.0.2", "10.1.0.1"), ("fd01::2", "fd01::1")] {
            let expected = lab.route(target, source);
            assert_eq!(lab.resolve(target).await, Some(expected));
            assert_eq!(lab.neighbour(target).await, Some(THEIRS));
        }
    });
}

#[test]
fn a_target_behind_a_router_is_reached_through_it() {
    lab(async |lab| {
        ip("route add 10.9.0.0/16 via 10.1.0.2");
        ip("route add 10.8.0.0/16 via inet6 fd01::2 dev ours0");
        ip("route add default via fd01::2");
        for (target, via, source) in [
            ("10.9.0.1", "10.1.0.2", "10.1.0.1"),
            ("10.8.0.1", "fd01::2", "10.1.0.1"),
            ("2001:db8::1", "fd01::2", "fd01::1"),
        ] {
            let expected = lab.route(via, source);
            assert_eq!(lab.resolve(target).await, Some(expected), "{target}");
            assert_eq!(lab.neighbour(via).await, Some(THEIRS), "{target}");
        }
    });
}

#[test]
fn what_no_frame_can_reach_has_no_route() {
    lab(async |lab| {
        for (kind, prefix) in [
            ("blackhole", "10.50.0.0/24"),
            ("prohibit", "10.51.0.0/24"),
            ("unreachable", "10.52.0.0/24"),
            ("blackhole", "fd50::/64"),
            ("prohibit", "fd51::/64"),
            ("unreachable", "fd52::/64"),
        ] {
            ip(&format!("route add {kind} {prefix}"));
        }
        ip("route add 10.53.0.0/24 dev lo");
        let refused = "10.50.0.1 10.51.0.1 10.52.0.1 fd50::1 fd51::1 fd52::1";
        let no_ethernet = "10.53.0.1";
        let no_route = "192.0.2.1 2001:db8::1";
        let not_one_other_host = "10.1.0.1 fd01::1 127.0.0.1 ::1 10.1.255.255 ff02::1";
        for targets in [refused, no_ethernet, no_route, not_one_other_host] {
            for target in targets.split(' ') {
                assert_eq!(lab.resolve(target).await, None, "{target}");
            }
        }
    });
}

#[test]
fn a_neighbour_that_is_known_is_told_with_each_answer() {
    lab(async |lab| {
        for _ in 0..3 {
            lab.resolve("10.1.0.2").await;
            assert_eq!(lab.neighbour("10.1.0.2").await, Some(THEIRS));
        }
    });
}

#[test]
fn a_neighbour_that_announces_another_address_is_followed_within_a_second() {
    lab(async |lab| {
        for target in ["10.1.0.2", "fd01::2"] {
            lab.resolve(target).await;
            assert_eq!(lab.neighbour(target).await, Some(THEIRS));
        }
        lab.within_theirs(|| {
            // A gratuitous ARP and an unsolicited neighbour advertisement at each change.
            write("/proc/sys/net/ipv4/conf/theirs0/arp_notify", "1");
            write("/proc/sys/net/ipv6/conf/theirs0/ndisc_notify", "1");
            ip(&format!("link set theirs0 address {OTHER}"));
        });
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut missing = HashSet::from([address("10.1.0.2"), address("fd01::2")]);
        while !missing.is_empty() {
            let event = timeout_at(deadline, lab.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("not told within a second: {missing:?}"));
            if let Some(Event::Neighbour { address, mac, .. }) = event
                && missing.remove(&address)
            {
                assert_eq!(mac, Some(OTHER), "{address}");
            }
        }
    });
}

#[test]
fn a_neighbour_that_is_removed_or_silent_is_lost() {
    lab(async |lab| {
        for target in ["10.1.0.2", "fd01::2"] {
            lab.resolve(target).await;
            assert_eq!(lab.neighbour(target).await, Some(THEIRS));
            ip(&format!("neigh del {target} dev ours0"));
            assert_eq!(lab.neighbour(target).await, None);
        }
        for (silent, family) in [("10.1.0.77", "ipv4"), ("fd01::77", "ipv6")] {
            hasten_probes(family);
            assert!(lab.resolve(silent).await.is_some());
            assert_eq!(lab.neighbour(silent).await, None);
        }
    });
}

#[test]
fn resolving_again_makes_the_kernel_ask_again() {
    lab(async |lab| {
        hasten_probes("ipv4");
        lab.resolve("10.1.0.77").await;
        assert_eq!(lab.neighbour("10.1.0.77").await, None);
        lab.within_theirs(|| ip("address add 10.1.0.77/16 dev theirs0"));
        lab.resolve("10.1.0.77").await;
        assert_eq!(lab.neighbour("10.1.0.77").await, Some(THEIRS));
    });
}

#[test]
fn entries_that_others_set_are_told_and_left_alone() {
    lab(async |lab| {
        for (target, kind) in [
            ("10.1.0.3", "nud permanent"),
            ("10.1.0.4", "nud reachable extern_learn"),
            ("fd01::3", "nud permanent"),
        ] {
            ip(&format!("neigh replace {target} lladdr {OTHER} dev ours0 {kind}"));
            assert_eq!(lab.neighbour(target).await, Some(OTHER));
            let before = ip(&format!("neigh show {target}"));

            lab.resolve(target).await;
            assert_eq!(lab.neighbour(target).await, Some(OTHER));
            sleep(Duration::from_millis(100)).await;
            assert_eq!(ip(&format!("neigh show {target}")), before);
        }
    });
}

#[test]
fn links_addresses_routes_and_rules_change_the_routes() {
    lab(async |lab| {
        for change in [
            "route add 10.9.0.0/16 via 10.1.0.2",
            "route add fd09::/64 via fd01::2",
            "address add 10.3.0.1/24 dev ours0",
            "address add fd03::1/64 dev ours0",
            "rule add from 10.3.0.1 table 100",
            "-6 rule add from fd03::1 table 100",
            "link set ours0 mtu 1400",
            "link set ours0 down",
        ] {
            lab.quiet().await;
            ip(change);
            lab.wait(change, |event| matches!(event, Event::RoutesChanged).then_some(())).await;
        }
    });
}

/// What is told next of the interface `name`: its number and whether it is up; nothing if there is
/// none.
async fn next_link(lab: &mut lab::Lab, name: &str) -> Option<(u32, bool)> {
    lab.wait(name, |event| match event {
        Event::Links(links) => Some(links.get(name).map(|link| (link.ifindex, link.up))),
        _ => None,
    })
    .await
}

#[test]
fn links_are_told_of_at_first_and_as_they_go_down_away_and_come_back() {
    lab(async |lab| {
        let ours = lab.ifindex;
        let mut last = next_link(lab, "ours0").await;
        while last != Some((ours, true)) {
            last = next_link(lab, "ours0").await;
        }
        ip("link set ours0 down");
        assert_eq!(next_link(lab, "ours0").await, Some((ours, false)));
        ip("link set ours0 up");
        assert_eq!(next_link(lab, "ours0").await, Some((ours, true)));
        lab.within_theirs(|| ip("link set theirs0 down"));
        assert_eq!(next_link(lab, "ours0").await, Some((ours, false)), "no carrier");
        lab.within_theirs(|| ip("link set theirs0 up"));
        assert_eq!(next_link(lab, "ours0").await, Some((ours, true)));

        // What is no news of any link is not told as such.
        lab.quiet().await;
        ip("link set ours0 mtu 1400");
        ip("link set ours0 alias other");
        ip("address add 10.7.0.1/24 dev ours0");
        lab.wait("other news", |event| match event {
            Event::Links(links) => panic!("{links:?}"),
            Event::RoutesChanged => Some(()),
            _ => None,
        })
        .await;

        lab.quiet().await;
        ip("link delete ours0");
        // Taken down first, maybe in a message of its own.
        while next_link(lab, "ours0").await.is_some() {}
        ip("link add ours0 type veth peer name other0");
        ip("link set other0 up");
        ip("link set ours0 up");
        let again = loop {
            match next_link(lab, "ours0").await {
                Some((ifindex, true)) => break ifindex,
                Some((_, false)) => {}
                None => panic!("it is there"),
            }
        };
        assert_ne!(again, ours, "another interface of the same name");
    });
}

#[test]
fn an_interface_has_the_name_it_was_given_last() {
    lab(async |lab| {
        lab.quiet().await;
        ip("link set ours0 down");
        ip("link set ours0 name renamed0");
        ip("link set renamed0 up");
        let ours = lab.ifindex;
        let links = lab.wait("the new name", |event| match event {
            Event::Links(links) if links.get("renamed0").is_some_and(|l| l.up) => {
                Some(links.clone())
            }
            _ => None,
        });
        let links = links.await;
        assert_eq!(links["renamed0"].ifindex, ours);
        assert!(!links.contains_key("ours0"));
    });
}

#[test]
fn a_link_that_changed_during_an_overrun_is_told_of() {
    lab(async |lab| {
        lab.quiet().await;
        // As in the test of overruns: nobody reads meanwhile, so the change at the end is lost.
        let fill = (0..4000).map(|n| format!("neigh add {} lladdr {OTHER} dev ours0", host(n)));
        let mut batch: Vec<String> = fill.map(|add| add + " nud permanent").collect();
        batch.push("link set lo down".to_owned());
        ip_batch(&batch.join("\n"));
        assert_eq!(next_link(lab, "lo").await.map(|(_, up)| up), Some(false));
    });
}

#[test]
fn five_hundred_targets_at_once_are_all_answered() {
    lab(async |lab| {
        let mut missing: HashSet<IpAddr> = (0..500).map(host).collect();
        for target in &missing {
            lab.netlink().resolve(*target);
        }
        while !missing.is_empty() {
            let target = lab.wait("500 answers", |event| match event {
                Event::Routed { target, route } => route.is_some().then_some(*target),
                _ => None,
            });
            let target = target.await;
            assert!(missing.remove(&target), "{target} is answered twice");
        }
        lab.resolve("10.1.0.2").await;
        assert_eq!(lab.neighbour("10.1.0.2").await, Some(THEIRS));
    });
}

#[test]
fn an_overrun_is_made_good() {
    lab(async |lab| {
        lab.resolve("10.1.0.2").await;
        assert_eq!(lab.neighbour("10.1.0.2").await, Some(THEIRS));
        lab.quiet().await;

        // The runtime has this thread only, so nobody reads while `ip` fills the socket's buffer.
        let mut missing: HashSet<IpAddr> = (0..4000).map(host).collect();
        let mut batch: Vec<String> = missing
            .iter()
            .map(|ip| format!("neigh add {ip} lladdr {OTHER} dev ours0 nud permanent"))
            .collect();
        // Lost as well: the buffer is long full by then.
        batch.push("neigh del 10.1.0.2 dev ours0".to_owned());
        ip_batch(&batch.join("\n"));

        let (mut lost, mut routes) = (false, false);
        while !missing.is_empty() || !lost || !routes {
            let event = timeout(Duration::from_secs(5), lab.events.recv()).await;
            let event = event.unwrap_or_else(|_| {
                let missing = missing.len();
                panic!("{missing} of 4000 not told; loss told: {lost}; routes told: {routes}")
            });
            match event.expect("the adapter lives") {
                Event::Neighbour { address, mac: None, .. } => {
                    lost |= address == IpAddr::from([10, 1, 0, 2]);
                }
                Event::Neighbour { address, .. } => {
                    missing.remove(&address);
                }
                // No route changed: only the resynchronisation says this.
                Event::RoutesChanged => routes = true,
                _ => {}
            }
        }
    });
}

#[test]
fn a_socket_that_dies_is_an_error() {
    lab(async |lab| {
        lab.close().await;
        let (events, mut told) = unbounded_channel();
        let netlink = Netlink::open(events).unwrap();
        let alive = timeout(Duration::from_millis(100), netlink.failed()).await;
        assert!(alive.is_err(), "{alive:?}");

        let null = File::open("/dev/null").unwrap();
        for fd in netlink_sockets() {
            // SAFETY: the descriptor stays open and its owner's; only what it means changes.
            let done = unsafe { libc::dup2(null.as_raw_fd(), fd) };
            assert_eq!(done, fd);
        }
        netlink.resolve(address("10.1.0.2"));
        let error = timeout(Duration::from_secs(1), netlink.failed()).await;
        assert_eq!(
            error.expect("told within a second").to_string(),
            "lost touch with the kernel's routes and neighbours: \
             the kernel closed the netlink request socket"
        );
        assert!(netlink.interface("ours0").await.is_err());
        // The last sender is gone: nothing of the adapter is left running.
        while told.recv().await.is_some() {}
    });
}

#[test]
fn nothing_is_left_behind() {
    lab(async |lab| {
        lab.close().await;
        assert!(netlink_sockets().is_empty());

        let (events, mut told) = unbounded_channel();
        let netlink = Netlink::open(events).unwrap();
        netlink.resolve(address("10.1.0.2"));
        assert!(told.recv().await.is_some());
        assert_eq!(netlink_sockets().len(), 2);

        drop(netlink);
        while told.recv().await.is_some() {}
        assert!(netlink_sockets().is_empty());
    });
}

#[test]
fn interfaces_are_found_by_name() {
    lab(async |lab| {
        let up = lab.netlink().interface("ours0").await.unwrap();
        assert_eq!((up.name.as_str(), up.ifindex), ("ours0", lab.ifindex));
        assert_eq!((up.mac, up.up, up.mtu), (Some(OURS), true, 1500));

        ip("link set ours0 down mtu 1400");
        let down = lab.netlink().interface("ours0").await.unwrap();
        assert_eq!((down.up, down.mtu), (false, 1400));

        assert_eq!(lab.netlink().interface("lo").await.unwrap().mac, None);
        let error = lab.netlink().interface("eth9").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "interface eth9 does not exist; this host has: ours0 (set [global] interfaces)"
        );
    });
}

#[test]
fn only_addresses_on_an_interface_are_held() {
    lab(async |lab| {
        ip("address add 10.4.0.1 peer 10.4.0.2 dev ours0");
        let held = ["10.1.0.1", "fd01::1", "127.0.0.1", "10.4.0.1"].map(address);
        let others = ["10.1.0.2", "fd01::2", "10.1.0.0", "127.0.0.2", "10.4.0.2"].map(address);
        let absent = lab.netlink().absent([&held[..], &others].concat()).await.unwrap();
        assert_eq!(absent, others);
    });
}

/// Address on the link, which nobody has.
fn host(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::from([10, 1, 100 + high, low])
}

/// Three questions a second apart would make a long test.
fn hasten_probes(family: &str) {
    let path = format!("/proc/sys/net/{family}/neigh/ours0/retrans_time_ms");
    write(&path, "50");
}

#[test]
fn who_waits_is_told_the_way_as_soon_as_the_neighbour_has_answered() {
    lab(async |lab| {
        ip("route add 10.9.0.0/16 via 10.1.0.2");
        ip("route add 10.8.0.0/16 via inet6 fd01::2 dev ours0");
        let ways = ways(&["ours0"]);
        let hop = NextHop { ifindex: lab.ifindex, src: OURS, dst: THEIRS, tags: Tags::default() };
        for target in ["10.9.0.1", "10.1.0.2", "10.8.0.1", "fd01::2"] {
            assert_eq!(soon(&ways, target).await, hop, "{target}");
        }
        lab.within_theirs(|| ip(&format!("link set theirs0 address {OTHER}")));
        ip(&format!("neigh replace 10.1.0.2 lladdr {OTHER} dev ours0"));
        let moved = NextHop { dst: OTHER, ..hop };
        let deadline = Instant::now() + Duration::from_secs(5);
        while ways.find(address("10.9.0.1")) != Some(moved) {
            assert!(Instant::now() < deadline, "still the old address");
            sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn who_waits_is_told_no_way_where_none_leads_by_the_program() {
    lab(async |_| {
        ip("route add blackhole 10.50.0.0/24");
        let ways = ways(&["ours0"]);
        soon(&ways, "10.1.0.2").await;
        for target in ["10.50.0.1", "192.0.2.1", "10.1.0.1", "127.0.0.1", "2001:db8::1"] {
            assert_eq!(ways.find(address(target)), None, "{target}");
        }
        *ways.attached().lock().unwrap() = BTreeSet::from(["other0".to_owned()]);
        assert_eq!(ways.find(address("10.1.0.2")), None);
    });
}

fn ways(attached: &[&str]) -> Ways {
    let names = attached.iter().map(|name| (*name).to_owned()).collect();
    Ways::start(Arc::new(Mutex::new(names))).unwrap()
}

/// The way to a target, when it is known.
async fn soon(ways: &Ways, target: &str) -> NextHop {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(hop) = ways.find(address(target)) {
            return hop;
        }
        assert!(Instant::now() < deadline, "no way to {target} is found");
        sleep(Duration::from_millis(20)).await;
    }
}
