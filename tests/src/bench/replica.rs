//! What it costs to keep a million connections of the peer's.
//!
//! | row | what |
//! |---|---|
//! | `replica/adopt` | how long it takes to enter a connection that is new |
//! | `replica/known` | the same for one that is there already |
//! | `replica/scan` | how long it takes to list them all |
//! | `replica/digest` | how long it takes to add them up |
//! | `replica/forget` | how long it takes to end them all |
//!
//! The clients are a thousand, all behind one router.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_common::{addr::Mac, flow::ESTABLISHED, maps::NextHop};
use lb_daemon::{
    config::{Balance, Limits, Timeouts},
    core::{
        Desired, DesiredBackend, DesiredService, Slots,
        sync::{Adopted, Change, Conflict, Connection, Cursor, Scope, Tables as _, Tuple},
    },
    dataplane::{self, Dataplane, Replica},
};

use super::{
    balancer::{CAPACITY, global},
    report::Row,
};

const GROUP: &str = "replica";
const CONNECTIONS: u32 = 1_000_000;
const CLIENTS: u32 = 1_000;
const BACKENDS: u16 = 32;
/// Connections told at a time.
const AT_ONCE: usize = 512;
/// Places looked at in one step of a scan.
const PLACES: usize = 1 << 16;
const LONG: Duration = Duration::from_secs(3600);
const HOP: NextHop = NextHop {
    ifindex: 1,
    src: Mac([2, 0, 0, 0, 0, 1]),
    dst: Mac([2, 0, 0, 0, 0, 2]),
    tags: lb_common::maps::Tags([lb_common::maps::Tag { protocol: 0, vlan: 0 }; 2]),
};

/// Measures the group in the namespace that the calling thread is in.
pub(super) fn measure() -> Result<Vec<Row>> {
    let global = global(CAPACITY, "lo");
    let (mut dataplane, _) = Dataplane::open(&global, None)?;
    dataplane.apply(&desired())?;
    let mut replica = dataplane.replica(&global, Box::new(|_| Some(HOP)))?;

    eprintln!("{GROUP}: entering {CONNECTIONS} connections");
    let (took, done) = adopt(&mut replica)?;
    ensure!(done.new == u64::from(CONNECTIONS), "{done:?}");
    let new = took.as_nanos() as f64 / f64::from(CONNECTIONS);
    let (took, done) = adopt(&mut replica)?;
    ensure!(done.known == u64::from(CONNECTIONS), "{done:?}");
    let known = took.as_nanos() as f64 / f64::from(CONNECTIONS);

    let scope = Scope { groups: BTreeSet::from([GROUP.to_owned()]), buckets: BTreeSet::new() };
    let start = Instant::now();
    let (mut cursor, mut found, mut listed) = (Some(Cursor::default()), Vec::new(), 0);
    while let Some(at) = cursor {
        cursor = replica.scan(&scope, at, PLACES, &mut found);
        listed += found.len();
        found.clear();
    }
    let scan = start.elapsed();
    ensure!(listed == CONNECTIONS as usize, "{listed} were listed");

    let start = Instant::now();
    let digest = replica.digest(GROUP);
    let sum = start.elapsed();
    ensure!(digest.0.iter().all(|bucket| *bucket != 0), "an empty bucket");

    replica.mark();
    let start = Instant::now();
    let forgotten = replica.forget_unmarked(&scope)?;
    let forget = start.elapsed();
    ensure!(forgotten == u64::from(CONNECTIONS), "{forgotten} were forgotten");

    drop((replica, dataplane));
    dataplane::detach(&global.bpffs)?;
    Ok(vec![
        Row::alone(GROUP, "adopt", "ns", &[new]),
        Row::alone(GROUP, "known", "ns", &[known]),
        Row::alone(GROUP, "scan", "s", &[scan.as_secs_f64()]),
        Row::alone(GROUP, "digest", "s", &[sum.as_secs_f64()]),
        Row::alone(GROUP, "forget", "s", &[forget.as_secs_f64()]),
    ])
}

/// Tells of all connections; returns how long that took, and what came of it.
fn adopt(replica: &mut Replica) -> Result<(Duration, Adopted)> {
    let (mut took, mut all) = (Duration::ZERO, Adopted::default());
    let numbers: Vec<u32> = (0..CONNECTIONS).collect();
    for numbers in numbers.chunks(AT_ONCE) {
        let changes: Vec<Change> = numbers.iter().map(|number| change(*number)).collect();
        let start = Instant::now();
        let done = replica.adopt(&changes, Conflict::TakeTheirs)?;
        took += start.elapsed();
        all.new += done.new;
        all.known += done.known;
    }
    Ok((took, all))
}

/// The connection with this number: each client has a thousand, each backend its share.
fn change(number: u32) -> Change {
    let ip =
        |[a, b]: [u8; 2], number: u32| Ipv4Addr::from(u32::from_be_bytes([a, b, 0, 0]) + number);
    let port = |number: u32| u16::try_from(1024 + number).unwrap_or(u16::MAX);
    let backends = u32::from(BACKENDS);
    let tuple = Tuple {
        client: (ip([10, 8], number % CLIENTS), port(number / CLIENTS)).into(),
        bind: (ip([10, 1], 100), 80).into(),
        source: (ip([10, 1], 1), port(number / backends)).into(),
        backend: (ip([10, 2], 1 + number % backends), 80).into(),
    };
    Change::Is(Connection { tuple, state: ESTABLISHED, timestamp: 0 })
}

fn desired() -> Desired {
    let Change::Is(any) = change(0) else { return Desired::default() };
    let service = DesiredService {
        bind: vec![any.tuple.bind],
        balance: Balance::RoundRobin,
        slots: Slots((0..BACKENDS).collect()),
        maxconn: None,
        group: 1,
        synchronous: false,
        timeout: Timeouts {
            connect: LONG,
            queue: LONG,
            client: LONG,
            server: LONG,
            client_fin: LONG,
            server_fin: LONG,
        },
    };
    let backend = |number: u16| {
        let address = change(number.into()).tuple().backend;
        let sources = vec![any.tuple.source.ip()];
        let limits = Limits::default();
        let backend = DesiredBackend {
            service: 0,
            address,
            weight: 1,
            limits,
            sources,
            error_limit: None,
            hop: HOP,
        };
        (number, backend)
    };
    Desired {
        services: BTreeMap::from([(0, service)]),
        backends: (0..BACKENDS).map(backend).collect(),
        shared: BTreeMap::from([(any.tuple.bind.ip(), 1)]),
        groups: BTreeMap::from([(GROUP.to_owned(), 1)]),
        limited: BTreeSet::new(),
    }
}
