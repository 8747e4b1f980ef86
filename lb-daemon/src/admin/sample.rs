//! States of a daemon to show in tests, and a directory to put sockets in.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use lb_common::verdict::Verdict;

use crate::{
    config::OnError,
    core::{
        AdvertCounts, AgentStatus, BackendStatus, CheckStatus, Condition, ConfigStatus, Connection,
        ConnectionState, GroupStatus, HostStatus, InterfaceStatus, Kind, ObserveStatus,
        OrphanStatus, OverrideStatus, Reason, ServiceStatus, State, Status, TableStatus,
        TrackedStatus, Traffic, TransitionStatus, group::Role,
    },
};

/// A directory of its own for one test, removed with it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("tandem-admin-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A connection of a client with this port.
pub(super) fn connection(port: u64) -> Connection {
    let port = u16::try_from(port).unwrap();
    Connection {
        client: ([10, 1, 0, 7], port).into(),
        bind: ([10, 2, 2, 4], 3306).into(),
        source: ([10, 3, 3, 241], 1024).into(),
        server: ([10, 4, 4, 2], 3306).into(),
        service: Some("mysql".into()),
        backend: Some("db1".into()),
        state: ConnectionState::Established,
        client_idle_ms: 0,
        server_idle_ms: 0,
        age_ms: 0,
        adopted: false,
    }
}

/// Two services, all well.
pub(super) fn healthy() -> Status {
    Status {
        node: "lb1".into(),
        version: "0.1.0".into(),
        uptime_seconds: 3 * 86400 + 4 * 3600,
        config: ConfigStatus {
            path: "/etc/tandem/tandem.toml".into(),
            generation: 3,
            age_seconds: 2 * 3600,
            last_error: None,
        },
        interfaces: vec![interface("eth0", "native"), interface("eth1", "generic")],
        tables: vec![
            TableStatus {
                family: "ipv4".into(),
                connections: 12_345,
                capacity: 1_000_000,
                half_open: 12,
                half_open_capacity: 65_536,
                evicted: 0,
            },
            TableStatus {
                family: "ipv6".into(),
                capacity: 1_000_000,
                half_open_capacity: 65_536,
                ..TableStatus::default()
            },
        ],
        sync: None,
        groups: vec![
            GroupStatus {
                role: Role::Master,
                why: "no advert within 3.6 s".into(),
                effective_priority: 110,
                lease_ms: Some(2_874),
                adverts: AdvertCounts { sent: 273_000, received: 4, ..adverts() },
                addresses: vec!["10.2.2.4/24".into(), "10.3.3.4/24 dev eth1".into()],
                tracked: vec![
                    tracked(Kind::Interface, "eth0", 0),
                    tracked(Kind::Interface, "eth1", 0),
                    tracked(Kind::Script, "chk_haproxy", 10),
                ],
                ..group("gw", "VRRPv2", 51)
            },
            GroupStatus {
                role: Role::Backup,
                why: "10.2.2.3 has the higher priority".into(),
                master: Some([10, 2, 2, 3].into()),
                addresses: vec!["fd00:2::4/64".into()],
                adverts: AdvertCounts { sent: 0, received: 273_000, ..adverts() },
                tracked: vec![tracked(Kind::Interface, "eth0", 0)],
                ..group("web", "CARP", 7)
            },
        ],
        services: vec![
            ServiceStatus {
                name: "mysql".into(),
                bind: vec!["10.2.2.4:3306".parse().unwrap()],
                balance: "leastconn".into(),
                state: State::Up,
                active: 819,
                limit: None,
                queue: None,
                backends: vec![
                    backend(1, "db1", "10.2.3.11:3306", Reason::L7Ok, "", 421),
                    backend(2, "db2", "10.2.3.12:3306", Reason::L7Ok, "", 398),
                    BackendStatus {
                        role: "backup".into(),
                        eligible: false,
                        why: Some("standby: active backends are up".into()),
                        ..backend(3, "db3", "10.2.3.13:3306", Reason::L7Ok, "", 0)
                    },
                ],
            },
            ServiceStatus {
                name: "web".into(),
                bind: vec!["[fd00:2::4]:80".parse().unwrap(), "[fd00:2::4]:443".parse().unwrap()],
                balance: "roundrobin".into(),
                state: State::Up,
                active: 15,
                limit: None,
                queue: None,
                backends: vec![
                    backend(4, "web1", "[fd00:3::11]:80", Reason::L7Ok, "200", 7),
                    BackendStatus {
                        state: State::Unchecked,
                        check: None,
                        ..backend(5, "web2", "[fd00:3::12]:80", Reason::L4Ok, "", 8)
                    },
                ],
            },
        ],
        verdicts: Verdict::ALL
            .iter()
            .map(|verdict| (verdict.label().to_owned(), 0))
            .chain([("forward_client".to_owned(), 81_234_567)])
            .collect(),
        ..Status::default()
    }
}

/// The same two, and much of what can go wrong.
pub(super) fn troubled() -> Status {
    let mut status = healthy();
    status.config.last_error = Some(
        "/etc/tandem/tandem.toml:12:3: unknown key `wieght`\n  \
         hint: did you mean `weight`?"
            .into(),
    );
    status.tables[0].connections = 961_000;
    status.tables[0].evicted = 1_234;

    let [gw, web] = status.groups.as_mut_slice() else {
        unreachable!("there are two groups");
    };
    gw.role = Role::Backup;
    gw.why = "10.2.2.3 has the higher priority".into();
    gw.master = Some([10, 2, 2, 3].into());
    gw.lease_ms = None;
    gw.effective_priority = 100;
    gw.since_seconds = 17;
    gw.tracked[2].condition = Condition::Failed;
    gw.tracked[2].failure = Some("exit status 1: no pid file".into());
    gw.transitions.insert(
        0,
        TransitionStatus {
            from: Role::Master,
            to: Role::Backup,
            priority: 100,
            why: gw.why.clone(),
            age_seconds: 17,
        },
    );
    gw.taken.insert("BACKUP".into(), 2);
    web.role = Role::Fault;
    web.master = None;
    web.faults = vec!["interface eth0: down".into()];
    web.why = "interface eth0: down".into();
    web.tracked[0].condition = Condition::Failed;
    web.tracked[0].failure = Some("down".into());
    web.since_seconds = 65;

    let [db1, db2, db3] = status.services[0].backends.as_mut_slice() else {
        unreachable!("mysql has three backends");
    };
    fail(db1, Reason::L4Connection, "Connection refused (os error 111)");
    db1.since_seconds = 12 * 60 + 5;
    db2.state = State::Drain;
    db2.effective_weight = 50.0;
    db2.overrides = vec![said("drain", 300), said("weight 50%", 3 * 3600)];
    db2.eligible = false;
    db2.why = Some("drained".into());
    db1.traffic.connection_errors = 12;
    db1.observe = Some(ObserveStatus {
        error_limit: 10,
        on_error: OnError::FailCheck.name().into(),
        alarms: 1,
    });
    db3.eligible = false;
    db3.why = Some("no neighbour answers for 10.2.3.13 on eth1".into());
    status.services[0].state = State::Down;
    status.not_kept = Some("cannot write /var/lib/tandem/overrides.json: No space left".into());
    status.nobody_waits = Some("its thread has panicked, as the log tells".into());
    status.orphans = vec![OrphanStatus {
        service: "mysql".into(),
        backend: "db9".into(),
        overrides: vec![said("maint", 86400)],
    }];

    let [web1, web2] = status.services[1].backends.as_mut_slice() else {
        unreachable!("web has two backends");
    };
    let check = web1.check.as_mut().unwrap();
    check.reason = Reason::L7Response;
    check.failing = 1;
    check.detail = "expected \"pong\", got \u{1b}[2J\"HTTP/1.0 500 Internal Server Error: the \
                    database of the shop is not there, come back later\""
        .into();
    web1.agent = Some(AgentStatus {
        up: true,
        answer: Some("75% up".into()),
        problem: None,
        maxconn: None,
        age_ms: 700,
    });
    fail(web2, Reason::L7Timeout, "");
    web2.host = Some(HostStatus {
        name: "web2.example.org".into(),
        age_seconds: Some(95),
        problem: Some("Temporary failure in name resolution".into()),
    });
    web2.check.as_mut().unwrap().took_ms = 2_001;

    for (label, packets) in [
        ("reset_no_backend", 4_242),
        ("drop_table_full", 17),
        ("drop_internal", 1),
        ("pass_not_ip", 99),
    ] {
        status.verdicts.insert(label.into(), packets);
    }
    status
}

/// A group that all is well with, whoever has it.
fn group(name: &str, protocol: &str, id: u8) -> GroupStatus {
    GroupStatus {
        name: name.into(),
        protocol: protocol.into(),
        id,
        interface: "eth0".into(),
        since_seconds: 3 * 86400 + 4 * 3600,
        priority: 100,
        effective_priority: 100,
        taken: [("BACKUP".into(), 1), ("MASTER".into(), 1)].into(),
        transitions: vec![TransitionStatus {
            from: Role::Backup,
            to: Role::Master,
            priority: 110,
            why: "no advert within 3.6 s".into(),
            age_seconds: 3 * 86400 + 4 * 3600,
        }],
        ..GroupStatus::default()
    }
}

/// Counts of adverts, but for the good ones.
fn adverts() -> AdvertCounts {
    let discarded = [("hop_limit".into(), 3), ("password".into(), 0)].into();
    AdvertCounts { discarded, ..AdvertCounts::default() }
}

/// Something tracked that is well.
fn tracked(kind: Kind, name: &str, weight: i16) -> TrackedStatus {
    TrackedStatus { kind, name: name.into(), weight, condition: Condition::Well, failure: None }
}

/// What an operator said.
fn said(what: &str, since_seconds: u64) -> OverrideStatus {
    OverrideStatus { what: what.into(), by: "operator".into(), since_seconds }
}

fn interface(name: &str, mode: &str) -> InterfaceStatus {
    InterfaceStatus { name: name.into(), mode: mode.into() }
}

fn backend(
    id: u16,
    name: &str,
    address: &str,
    reason: Reason,
    detail: &str,
    active: u64,
) -> BackendStatus {
    BackendStatus {
        id,
        name: name.into(),
        address: Some(address.parse().unwrap()),
        host: None,
        role: "active".into(),
        weight: 100,
        effective_weight: 100.0,
        configured_limit: None,
        limit: None,
        queue: 0,
        queue_most: 0,
        overrides: Vec::new(),
        slow_start: None,
        state: State::Up,
        since_seconds: 3 * 86400 + 4 * 3600,
        eligible: true,
        why: None,
        check: Some(CheckStatus {
            reason,
            detail: detail.into(),
            took_ms: 2,
            age_ms: 1_250,
            passed: 137_000,
            failed: 1,
            failing: u64::from(!reason.passed()),
            downs: 0,
        }),
        observe: None,
        agent: None,
        traffic: Traffic {
            active,
            connections: active * 1_071,
            connection_errors: 0,
            packets_in: active * 91_000,
            bytes_in: active * 9_100_000,
            packets_out: active * 107_000,
            bytes_out: active * 123_000_000,
        },
    }
}

fn fail(backend: &mut BackendStatus, reason: Reason, detail: &str) {
    backend.state = State::Down;
    backend.eligible = false;
    backend.check = Some(CheckStatus {
        reason,
        detail: detail.into(),
        took_ms: 0,
        age_ms: 800,
        passed: 137_000,
        failed: 363,
        failing: 362,
        downs: 1,
    });
}
