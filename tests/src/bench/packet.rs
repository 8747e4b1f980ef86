//! What a packet costs in the XDP program.
//!
//! | row | what |
//! |---|---|
//! | `packet/forward/N`, `packet/reverse/N` | from a client, from a backend, on N established connections in turn, in an order that has nothing to do with where they lie in memory |
//! | `packet/lookup/N` | no figure of the product's: what finding one of N connections in a table of the kernel's costs, with one entry for each |
//! | `packet/floor/N` | no figure of the product's: what a program costs that swaps the addresses and changes one line of memory for each of N connections, in a table as large as the product's, without looking for it |
//! | `packet/new-flow` | a SYN that opens a connection: both directions are inserted |
//! | `packet/growth` | a client's packet on 1M connections beside one on 10k |
//! | `packet/growth/vs-floor` | how many times as much that is, beside the same of `packet/floor` |
//! | `packet/net/...` | the same, without the cost of measuring |
//!
//! The time is the kernel's own, of a run of the program, and so is that of the peer, a program
//! that swaps the Ethernet addresses and sends the frame back. Nearly all of the peer's time is
//! spent on reading the clock, which is part of each figure. The rows under `net` are less a
//! program that does nothing; the peer has nothing left then that a ratio could be made of.
//!
//! The tables have room for 2^20 connections throughout.

use anyhow::Result;
use aya::sys::{Stats, enable_stats};

use super::{
    balancer::Balancer,
    gauge::{Gauge, Runs},
    range::{Flags, Lane, Range, SERVER_SIDE},
    report::Row,
};
use crate::lab::Namespace;

const GROUP: &str = "packet";
const SWAP: &str = "swap";
/// Connections, and their name in the rows.
const SIZES: [(u32, &str); 4] = [(1, "1"), (10_000, "10k"), (100_000, "100k"), (1_000_000, "1M")];
/// Rounds for each number of connections.
const ROUNDS: usize = 11;
/// Frames of a measurement, at least; each connection has at least one.
const FRAMES: u32 = 500_000;
/// Measurements of new connections with less than that many are left out.
const OPENED: u32 = 30_000;

/// Measures the group in the namespace that the calling thread is in.
pub(super) fn measure(namespace: &Namespace, object: &[u8]) -> Result<Vec<Row>> {
    // Dropping it sets the sysctl's state free again, whatever that is.
    let _stats = enable_stats(Stats::RunTime)?;
    let mut range = Range::new(object)?;
    let lane = range.lane(namespace)?;
    let mut balancer = Balancer::new(&lane)?;
    let peers = Peers::new(&mut range, namespace)?;

    let mut rows = Rows::default();
    let mut opened = Vec::new();
    let mut forward = Vec::new();
    for (size, name) in SIZES {
        eprintln!("packet: opening connections, up to {name}");
        balancer.grow(&mut range, size, |range, runs, count| {
            if count == OPENED {
                opened.push(peers.round(range, (0, count), count, [runs])?);
            }
            Ok(())
        })?;
        balancer.shuffle(&mut range, size)?;
        eprintln!("packet: {ROUNDS} rounds over {name} connections");
        let rounds = established(&mut range, &balancer, &peers, size)?;
        rows.add(&format!("forward/{name}"), rounds.iter().map(|r| r.with([r.runs[0]])));
        rows.add(&format!("reverse/{name}"), rounds.iter().map(|r| r.with([r.runs[1]])));
        rows.add(&format!("lookup/{name}"), rounds.iter().map(|r| r.with([r.runs[2]])));
        rows.add(&format!("floor/{name}"), rounds.iter().map(|r| r.with([r.runs[3]])));
        forward.push(rounds);
    }
    rows.add("new-flow", opened.into_iter());
    let [_, few, _, many] = &forward[..] else { unreachable!("there are four sizes") };
    let pairs = many.iter().zip(few);
    let growth: Vec<_> =
        pairs.map(|(many, few)| (many.runs[0].cost(), few.runs[0].cost())).collect();
    rows.gross.push(Row::against(GROUP, "growth", "ns", "10k", &growth));
    let pairs = many.iter().zip(few);
    let growths: Vec<_> =
        pairs.map(|(many, few)| (growth_of(many, few, 0), growth_of(many, few, 3))).collect();
    rows.gross.push(Row::against(GROUP, "growth/vs-floor", "times", "floor", &growths));
    rows.gross.append(&mut rows.net);
    Ok(rows.gross)
}

/// How many times as much a figure is on many connections.
fn growth_of(many: &Round<4>, few: &Round<4>, figure: usize) -> f64 {
    many.runs[figure].cost() / few.runs[figure].cost()
}

/// Client side and server side on `size` connections; the first round only warms up.
fn established(
    range: &mut Range,
    balancer: &Balancer,
    peers: &Peers,
    size: u32,
) -> Result<Vec<Round<4>>> {
    let frames = size.max(FRAMES);
    let mut rounds = Vec::new();
    for _ in 0..=ROUNDS {
        let client = balancer.measure(range, (0, size), frames, "forward_client")?;
        let server = balancer.measure(range, (SERVER_SIDE, size), frames, "forward_server")?;
        let lookup = Peers::measure(&peers.lookup, range, (0, size), frames)?;
        let floor = Peers::measure(&peers.floor, range, (0, size), frames)?;
        rounds.push(peers.round(range, (0, size), frames, [client, server, lookup, floor])?);
    }
    rounds.remove(0);
    Ok(rounds)
}

/// The programs to compare with.
struct Peers {
    swap: (Lane, Gauge),
    lookup: (Lane, Gauge),
    floor: (Lane, Gauge),
    empty: (Lane, Gauge),
}

impl Peers {
    fn new(range: &mut Range, namespace: &Namespace) -> Result<Self> {
        let mut put = |name| -> Result<_> {
            let lane = range.lane(namespace)?;
            let gauge = range.occupy(&lane, name)?;
            Ok((lane, gauge))
        };
        Ok(Self {
            swap: put("swap")?,
            lookup: put("lookup")?,
            floor: put("touch")?,
            empty: put("empty")?,
        })
    }

    /// Completes a round in which the product did `runs`.
    fn round<const N: usize>(
        &self,
        range: &mut Range,
        tuples: (u32, u32),
        frames: u32,
        runs: [Runs; N],
    ) -> Result<Round<N>> {
        let swap = Self::measure(&self.swap, range, tuples, frames)?;
        Ok(Round { runs, swap, empty: Self::measure(&self.empty, range, tuples, frames)? })
    }

    fn measure(
        (lane, gauge): &(Lane, Gauge),
        range: &mut Range,
        tuples: (u32, u32),
        frames: u32,
    ) -> Result<Runs> {
        range.measure(lane, *gauge, Flags::Ack, tuples, frames)
    }
}

/// What was measured in one round: N figures of the product, and the peers'.
#[derive(Clone, Copy)]
struct Round<const N: usize> {
    runs: [Runs; N],
    swap: Runs,
    empty: Runs,
}

impl<const N: usize> Round<N> {
    fn with(&self, runs: [Runs; 1]) -> Round<1> {
        Round { runs, swap: self.swap, empty: self.empty }
    }

    /// The cost of the first figure beyond that of measuring.
    fn net(&self) -> f64 {
        self.runs[0].cost() - self.empty.cost()
    }
}

#[derive(Default)]
struct Rows {
    net: Vec<Row>,
    gross: Vec<Row>,
}

impl Rows {
    fn add(&mut self, name: &str, rounds: impl Iterator<Item = Round<1>>) {
        let rounds: Vec<_> = rounds.collect();
        let gross: Vec<_> = rounds.iter().map(|r| (r.runs[0].cost(), r.swap.cost())).collect();
        let net: Vec<_> = rounds.iter().map(Round::net).collect();
        self.gross.push(Row::against(GROUP, name, "ns", SWAP, &gross));
        self.net.push(Row::alone(GROUP, &format!("net/{name}"), "ns", &net));
    }
}
