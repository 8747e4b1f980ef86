//! What real TCP gains or loses by the balancer on its way.
//!
//! | row | what |
//! |---|---|
//! | `path/short/...` | what the balancer adds to a connection of one byte each way, over a cable straight to the server |
//! | `path/bulk/...` | how much a single connection carries, as megabytes per second |
//! | `path/latency/p50/...`, `p99/...` | the round trip of 64 bytes on an open connection |
//!
//! The peers are a router, nftables (DNAT and masquerade), and HAProxy (mode tcp, one thread), each
//! in the balancer's place in its turn. Every host is on the same processor, which is never idle,
//! so that a connection costs the inverse of the rate, whoever does the work. The rows with `cpu`
//! count the time of the processor instead, of the client, the server, HAProxy and the kernel's
//! thread for packets: it stands still while others use the processor, but lacks what interrupts
//! take on kernels that account for them apart. A veth copies each
//! frame that comes from a socket before XDP sees it: sockets beside it are the product's worst
//! case.

mod carrier;
mod hosts;
mod traffic;

use anyhow::{Context as _, Result};

use self::{
    carrier::Carrier,
    hosts::Hosts,
    traffic::{Sample, Server},
};
use super::{machine::packet_thread, report::Row};

const GROUP: &str = "path";
const ROUNDS: usize = 7;

/// Measures the group; makes its own namespaces.
pub(super) fn measure() -> Result<Vec<Row>> {
    let hosts = Hosts::new()?;
    let _server = Server::start(&hosts.server)?;
    let mut rounds = Vec::new();
    // The first round only warms up.
    for round in 0..=ROUNDS {
        eprintln!("path: round {round} of {ROUNDS}");
        let sample = |carrier| take(&hosts, carrier);
        rounds.push(Round {
            direct: sample(Carrier::Cable)?,
            tandem: sample(Carrier::Tandem)?,
            peers: [
                sample(Carrier::Router)?,
                sample(Carrier::Nftables)?,
                sample(Carrier::Haproxy)?,
            ],
        });
    }
    rounds.remove(0);
    Ok(rows(&rounds))
}

/// Puts a carrier in the balancer's place and measures what it carries.
fn take(hosts: &Hosts, carrier: Carrier) -> Result<Sample> {
    let in_place = carrier.install(hosts)?;
    let others: Vec<_> = in_place.process().into_iter().chain(packet_thread()).collect();
    Sample::take(&hosts.client, carrier.way(), &others).with_context(|| format!("by {carrier:?}"))
}

struct Round {
    direct: Sample,
    tandem: Sample,
    peers: [Sample; 3],
}

fn rows(rounds: &[Round]) -> Vec<Row> {
    const PEERS: [&str; 3] = ["routing", "nftables", "haproxy"];

    let mut rows = Vec::new();
    for (n, peer) in PEERS.into_iter().enumerate() {
        let mut row = |name: &str, unit, figure: &dyn Fn(&Sample, &Round) -> f64| {
            let pairs = rounds.iter().map(|r| (figure(&r.tandem, r), figure(&r.peers[n], r)));
            let pairs: Vec<_> = pairs.collect();
            rows.push(Row::against(GROUP, &format!("{name}/vs-{peer}"), unit, peer, &pairs));
        };
        row("short", "µs", &|s, r| s.short.clock - r.direct.short.clock);
        row("short/cpu", "µs", &|s, r| s.short.processor - r.direct.short.processor);
        row("bulk", "MB/s", &|s, _| 1e6 / s.bulk.clock);
        row("bulk/cpu", "MB/s", &|s, _| 1e6 / s.bulk.processor);
        row("latency/p50", "µs", &|s, _| s.p50);
        row("latency/p99", "µs", &|s, _| s.p99);
    }
    rows
}
