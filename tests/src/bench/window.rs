//! What becomes of the youngest connections when the master of a pair is killed, and what it costs to
//! have their clients wait for the other host.
//!
//! | row | what |
//! |---|---|
//! | `window/survivors` | of the connections that were opened in the last 50 ms before a kill, one every millisecond, the share that survives with `synchronous = true`, in per cent, beside the same without |
//! | `window/connect/p50`, `window/connect/p99` | how long a client's `connect` takes, one after the other, with `synchronous = true`, in microseconds, beside the same without |
//! | `window/derivable/N` | of N connections to one backend, the share that another host could derive from a packet of the client's alone, in per cent |
//!
//! The last is what could be done instead: a connection whose backend and translation port follow from
//! a hash of its tuple needs no telling. It fails where the port that the hash says is taken. (Here that
//! is counted: each has a port by the flow table's own hash in the half of `source_ports` that a host
//! has, on as many source addresses as so many connections need.) It fails as well for all of
//! `roundrobin` and `leastconn`, and for the difference of TCP timestamps, which is none of the packet's.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use lb_common::{
    addr::{Port, V4},
    flow::FlowKey,
    hash::{self, Seed},
};

use super::{pair::V3_100MS, report::Row};
use crate::lab::{
    Contest, Openings, SessionServer,
    member::System,
    socket::close_by_reset,
    survival::{PATIENCE, SESSIONS},
};

const GROUP: &str = "window";
const ROUNDS: usize = 5;
/// Connects of a round.
const CONNECTS: usize = 1000;
/// How young a connection is, and how often one is opened.
const WINDOW: Duration = Duration::from_millis(50);
const PERIOD: Duration = Duration::from_millis(1);
/// Ports that a host has of the default `source_ports`: a half of 1024 to 32767.
const PORTS: u32 = 15_872;

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut survivors = Vec::new();
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for nth in 1..=ROUNDS {
        let ours = round(System::Synchronous)?;
        let theirs = round(System::Replicating)?;
        eprintln!("{GROUP}: {nth} of {ROUNDS}: {ours:.0?} with, {theirs:.0?} without");
        survivors.push((ours.survivors, theirs.survivors));
        p50.push((ours.p50, theirs.p50));
        p99.push((ours.p99, theirs.p99));
    }
    let against =
        |name, unit, rounds: &[_]| Row::against(GROUP, name, unit, "asynchronous", rounds);
    let mut rows = vec![
        against("survivors", "%", &survivors),
        against("connect/p50", "us", &p50),
        against("connect/p99", "us", &p99),
    ];
    for connections in [1_000, 10_000, 20_000] {
        let share = derivable(connections) * 100.0;
        rows.push(Row::alone(GROUP, &format!("derivable/{connections}"), "%", &[share]));
    }
    Ok(rows)
}

/// What a round has shown.
#[derive(Debug)]
struct Round {
    survivors: f64,
    p50: f64,
    p99: f64,
}

/// A pair of its own, connects one after the other, and then a kill.
fn round(system: System) -> Result<Round> {
    let mut contest = Contest::for_sessions(V3_100MS.election(), 1, SESSIONS)?;
    let _server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for host in 0..2 {
        contest.enter(host, system, 100)?;
    }
    contest.wait_until_in_sync()?;
    let to = (contest.vip().ip(), SESSIONS).into();
    let mut times = contest.pair().client().enter(|| connects(to))?;
    times.sort_by(f64::total_cmp);

    let openings = Openings::start(contest.pair().client(), to, PERIOD)?;
    thread::sleep(Duration::from_secs(1));
    let master = contest.master()?;
    let at = SystemTime::now();
    let crash = Instant::now();
    contest.member(master).crash();
    contest.advert_since(at, 1 - master)?;
    let (count, survived) = openings.survivors(crash, Duration::ZERO..WINDOW, PATIENCE)?;
    Ok(Round {
        survivors: survived as f64 * 100.0 / count as f64,
        p50: times[CONNECTS / 2],
        p99: times[CONNECTS * 99 / 100],
    })
}

/// Times of connects, in microseconds.
fn connects(to: SocketAddr) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..CONNECTS {
        let begin = Instant::now();
        let stream = TcpStream::connect(to)?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
        close_by_reset(&stream)?;
    }
    Ok(times)
}

/// Opens so many connections to a backend, each at the port that its hash says or, if that is taken, at
/// any other; returns the share of those at their own.
fn derivable(connections: u32) -> f64 {
    let seed = Seed { start: 0x0123_4567_89ab_cdef, by: 0xd1b5_4a32_d192_ed03 };
    let ports = PORTS * connections.div_ceil(PORTS);
    let mut taken = vec![false; ports as usize];
    let (mut derived, mut free) = (0, 0);
    for number in 0..connections {
        // Clients of a /16, each with a few ephemeral ports.
        let client = hash::finish(number) & 0xffff;
        let key = FlowKey {
            src: V4((0x0a08_0000 | client).to_be()),
            dst: V4(0x0a02_0204_u32.to_be()),
            sport: Port::new(32_768 + (number % 28_000) as u16),
            dport: Port::new(3306),
        };
        let own = hash::group(hash::flow(&seed, &key), ports) as usize;
        if !taken[own] {
            taken[own] = true;
            derived += 1;
            continue;
        }
        while taken[free] {
            free += 1;
        }
        taken[free] = true;
    }
    f64::from(derived) / f64::from(connections)
}
