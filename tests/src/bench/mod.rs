//! The benchmarks behind `cargo xtask bench`.
//!
//! A machine's speed drifts by a tenth within an hour, and no two machines are alike. So a figure
//! here is a ratio wherever it can be one: what is measured and its peer take turns, A B A B, and
//! a row holds the medians over those rounds. What the rows mean is told where they are made:
//! `packet`, `memory`, `reap`, `replica`, `path`, `takeover`, `blackout`, `fence`, `survival`,
//! `window`, `sync`, `checks`, `leastconn`, `death`, `admission`.
#![allow(
    clippy::cast_precision_loss,
    reason = "nothing measured here is exact to the sixteenth digit"
)]

mod admission;
mod balancer;
mod blackout;
mod checks;
mod death;
mod fence;
mod gauge;
mod haproxy;
mod leastconn;
mod machine;
mod memory;
mod packet;
mod pair;
mod path;
mod range;
mod reap;
mod replica;
mod report;
mod survival;
mod sync;
mod takeover;
mod window;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Uid;

pub use self::{
    machine::Machine,
    report::{Report, Row},
};
use crate::lab::{Dir, Namespace};

/// A group of figures. None takes more than ten minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// What a packet costs in the XDP program.
    Packet,
    /// What a connection costs in kernel memory.
    Memory,
    /// What it costs to find expired connections.
    Reap,
    /// What it costs to keep the peer's connections.
    Replica,
    /// What the balancer adds to real TCP, beside a router, nftables and HAProxy.
    Path,
    /// How soon the other host of a pair takes over, by VRRP version 3.
    Takeover,
    /// The same by version 2, whose interval is a second.
    TakeoverV2,
    /// How long a client sees nobody when a host of a pair fails.
    Blackout,
    /// Whether a host whose daemon was killed answers for what is another's.
    Fence,
    /// How many sessions are lost when a host of a pair fails.
    Survival,
    /// What becomes of the youngest connections when a host of a pair fails, and what that costs.
    Window,
    /// What it takes to tell the other host of connections.
    Sync,
    /// What health checks cost, and whether they are in time.
    Checks,
    /// How evenly connections that stay are spread.
    Leastconn,
    /// How long a backend that has died gets connections, beside HAProxy.
    Death,
    /// How soon a free place is taken where connections are limited, beside HAProxy.
    Admission,
}

impl Group {
    /// Measures the group in network namespaces of its own. `programs` is the object with the
    /// programs beside the product's.
    pub fn run(self, programs: &Path) -> Result<Vec<Row>> {
        ensure!(Uid::effective().is_root(), "the benchmarks load eBPF programs and need root");
        let object = || {
            std::fs::read(programs).with_context(|| format!("cannot read {}", programs.display()))
        };
        match self {
            Self::Packet => on_one_processor(|bench| packet::measure(bench, &object()?)),
            Self::Memory => on_one_processor(|_| memory::measure()),
            Self::Reap => on_one_processor(|bench| reap::measure(bench, &object()?)),
            Self::Replica => on_one_processor(|_| replica::measure()),
            Self::Path => on_one_processor(|_| path::measure()),
            Self::Takeover => on_all_processors(takeover::measure),
            Self::TakeoverV2 => on_all_processors(takeover::measure_v2),
            Self::Blackout => on_all_processors(blackout::measure),
            Self::Fence => on_all_processors(fence::measure),
            Self::Survival => on_all_processors(survival::measure),
            Self::Window => on_all_processors(window::measure),
            Self::Sync => on_all_processors(|| sync::measure(&object()?)),
            Self::Checks => on_all_processors(checks::measure),
            Self::Leastconn => on_all_processors(leastconn::measure),
            Self::Death => on_all_processors(death::measure),
            Self::Admission => on_all_processors(admission::measure),
        }
    }
}

/// For costs: within a namespace, and with all that happens on the same processor.
fn on_one_processor(
    measure: impl FnOnce(&Namespace) -> Result<Vec<Row>> + Send,
) -> Result<Vec<Row>> {
    machine::settle()?;
    let namespace = Namespace::new("bench", &Dir::new()?)?;
    // No packet but ours.
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    namespace.enter(|| measure(&namespace))
}

/// For deadlines: those who keep them do not wait for each other.
fn on_all_processors(measure: impl FnOnce() -> Result<Vec<Row>>) -> Result<Vec<Row>> {
    machine::spread()?;
    measure()
}
