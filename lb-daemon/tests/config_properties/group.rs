//! Arbitrary groups, scripts and processes.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use lb_daemon::config::{
    Announce, Carp, Config, Family, Group, GroupAddress, Hooks, Process, Protocol, Script, Track,
    Tracked, Vrrp, VrrpVersion,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::address;

/// A group that knows nothing of the rest of the file; see [`connect`].
pub(super) fn group() -> impl Strategy<Value = Group> {
    let protocol = prop_oneof![vrrp().prop_map(Protocol::Vrrp), carp().prop_map(Protocol::Carp)];
    let weights = vec(-253..=253_i16, 4);
    let delay = prop_oneof![Just(0), 1_000..=1_000_000_000_u64].prop_map(Duration::from_micros);
    let addresses = vec((1..=32_u8, any::<bool>(), interface()), 0..5);
    let all =
        (protocol, addresses, any::<bool>(), delay, weights, interface(), hooks(), announce());
    all.prop_map(
        |(protocol, addresses, preempt, preempt_delay, weights, interface, hooks, announce)| {
            let v6 = matches!(&protocol, Protocol::Vrrp(vrrp) if vrrp.family == Family::V6);
            let entry = |weight| vec![Tracked { name: String::new(), weight }];
            let addresses = addresses.into_iter().map(|(prefix, advertised, interface)| {
                GroupAddress { ip: address(v6, 0, 0), prefix, interface, advertised }
            });
            Group {
                name: String::new(),
                interface,
                protocol,
                addresses: addresses.collect(),
                preempt,
                preempt_delay,
                track: Track {
                    interfaces: entry(weights[0]),
                    scripts: entry(weights[1]),
                    processes: entry(weights[2]),
                    services: entry(weights[3]),
                },
                hooks,
                announce,
            }
        },
    )
}

/// Gives names, identifiers and addresses that are unique, and references that lead somewhere.
pub(super) fn connect(config: &mut Config) {
    let name = |what: &str, index: usize| format!("{what}{index}");
    for (index, script) in config.scripts.iter_mut().enumerate() {
        Arc::make_mut(script).name = name("script", index);
    }
    for (index, process) in config.processes.iter_mut().enumerate() {
        Arc::make_mut(process).name = name("process", index);
    }
    let scripts: Vec<_> = config.scripts.iter().map(|each| each.name.clone()).collect();
    let processes: Vec<_> = config.processes.iter().map(|each| each.name.clone()).collect();
    let services: Vec<_> = config.services.iter().map(|each| each.name.clone()).collect();

    for (index, group) in config.groups.iter_mut().enumerate() {
        let group = Arc::make_mut(group);
        group.name = name("group", index);
        let id = u8::try_from(index + 1).expect("a few");
        let v6 = match &mut group.protocol {
            Protocol::Vrrp(vrrp) => {
                vrrp.virtual_router_id = id;
                vrrp.family == Family::V6
            }
            Protocol::Carp(carp) => {
                carp.vhid = id;
                index % 2 == 0
            }
        };
        // As in the file: those that are advertised come first.
        group.addresses.sort_by_key(|address| !address.advertised);
        for (number, at) in group.addresses.iter_mut().enumerate() {
            at.ip = address(v6, 100 + id, number);
        }
        let entries = &mut group.track.interfaces;
        let first = group.addresses.first().map_or("lo", |address| &address.interface);
        first.clone_into(&mut entries[0].name);
        if first == group.interface {
            entries[0].weight = 0;
        }
        let mut there = HashSet::from([first.to_owned()]);
        let own = [&group.interface].into_iter();
        for implied in own.chain(group.addresses.iter().map(|address| &address.interface)) {
            if there.insert(implied.clone()) {
                entries.push(Tracked { name: implied.clone(), weight: 0 });
            }
        }
        for (entries, names) in [
            (&mut group.track.scripts, &scripts),
            (&mut group.track.processes, &processes),
            (&mut group.track.services, &services),
        ] {
            match names.get(index) {
                Some(name) => name.clone_into(&mut entries[0].name),
                None => entries.clear(),
            }
        }
    }
    serve_from_the_first_group(config);
}

/// Puts the first service into the first group, if they are of one family.
fn serve_from_the_first_group(config: &mut Config) {
    let (Some(group), Some(service)) = (config.groups.first(), config.services.first_mut()) else {
        return;
    };
    let Some(at) = group.addresses.first() else { return };
    let service = Arc::make_mut(service);
    if service.bind.iter().all(|bind| bind.is_ipv4() == at.ip.is_ipv4()) {
        service.bind.iter_mut().for_each(|bind| bind.set_ip(at.ip));
        service.group = Some(0);
    }
}

fn vrrp() -> impl Strategy<Value = Vrrp> {
    let v2 = (1..=255_u64).prop_map(|s| (VrrpVersion::V2, Family::V4, Duration::from_secs(s)));
    let v3 = (any::<bool>(), 1..=4095_u64).prop_map(|(v6, centiseconds)| {
        let family = if v6 { Family::V6 } else { Family::V4 };
        (VrrpVersion::V3, family, Duration::from_millis(centiseconds * 10))
    });
    let password = option::of("[ -~]{1,8}");
    (prop_oneof![v2, v3], 1..=255_u8, any::<bool>(), 0..3_usize, password, any::<bool>()).prop_map(
        |((version, family, advert_int), priority, source, peers, auth_pass, header)| {
            let v6 = family == Family::V6;
            let link_local = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
            let own = if v6 { link_local } else { address(v6, 7, 1) };
            Vrrp {
                version,
                virtual_router_id: 1,
                priority,
                advert_int,
                family,
                source: source.then_some(own),
                unicast_peers: (0..peers).map(|n| address(v6, 8, n)).collect(),
                auth_pass: auth_pass.filter(|_| version == VrrpVersion::V2),
                auth_pass_file: None,
                pseudo_header: header,
                vmac: None,
            }
        },
    )
}

fn carp() -> impl Strategy<Value = Carp> {
    ("[ -~]{0,20}", 1..=255_u8, 0..=254_u8).prop_map(|(pass, advbase, advskew)| Carp {
        vhid: 1,
        pass,
        pass_file: None,
        advbase,
        advskew,
    })
}

pub(super) fn script() -> impl Strategy<Value = Script> {
    (command(), times(), times(), 1..=255_u32, 1..=255_u32, user()).prop_map(
        |(command, interval, timeout, rise, fall, user)| Script {
            name: String::new(),
            command,
            interval,
            timeout,
            rise,
            fall,
            user,
        },
    )
}

pub(super) fn process() -> impl Strategy<Value = Process> {
    let delay = prop_oneof![Just(Duration::ZERO), times()];
    ("[ -.0-~]{1,255}", 1..=65_535_u32, delay).prop_map(|(process, quorum, delay)| Process {
        name: String::new(),
        process,
        quorum,
        delay,
    })
}

fn hooks() -> impl Strategy<Value = Hooks> {
    let commands = [(); 5].map(|()| option::of(command()));
    (commands, user(), within(100_000..3_600_000_000)).prop_map(|(commands, user, timeout)| {
        let [notify_master, notify_backup, notify_fault, notify_stop, notify] = commands;
        Hooks { notify_master, notify_backup, notify_fault, notify_stop, notify, user, timeout }
    })
}

fn announce() -> impl Strategy<Value = Announce> {
    let delay = prop_oneof![Just(Duration::ZERO), within(1_000..1_000_000_000)];
    let refresh = prop_oneof![Just(Duration::ZERO), within(100_000..86_400_000_000)];
    (1..=100_u32, delay, refresh, 1..=100_u32).prop_map(
        |(repeat, delay, refresh, refresh_repeat)| Announce {
            repeat,
            delay,
            refresh,
            refresh_repeat,
        },
    )
}

fn command() -> impl Strategy<Value = Vec<String>> {
    let program = prop_oneof!["/[^\0]{0,20}", "[^\0/]{1,20}"];
    (program, vec("[^\0]{0,20}", 0..4)).prop_map(|(program, mut words)| {
        words.insert(0, program);
        words
    })
}

/// A few, so that groups share them.
fn interface() -> impl Strategy<Value = String> {
    select(vec!["eth1", "eth2", "eth2.20", "bond0"]).prop_map(str::to_owned)
}

fn user() -> impl Strategy<Value = String> {
    "[A-Za-z_][A-Za-z0-9_.-]{0,31}"
}

/// What the times of scripts and processes may be.
fn times() -> impl Strategy<Value = Duration> {
    within(10_000..86_400_000_000)
}

fn within(microseconds: Range<u64>) -> impl Strategy<Value = Duration> {
    microseconds.prop_map(Duration::from_micros)
}
