//! The benchmarks behind `cargo xtask bench`.
//!
//! A machine's speed drifts by a tenth within an hour, and no two machines are alike. So a figure
//! here is a ratio wherever it can be one: what is measured and its peer take turns, A B A B, and
//! a row holds the medians over those rounds. What the rows mean is told where they are made:
//! `packet`, `memory`, `reap`, `path`.
#![allow(
    clippy::cast_precision_loss,
    reason = "nothing measured here is exact to the sixteenth digit"
)]

mod balancer;
mod gauge;
mod machine;
mod memory;
mod packet;
mod path;
mod range;
mod reap;
mod report;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Uid;

pub use self::{
    machine::{Machine, settle},
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
    /// What the balancer adds to real TCP, beside a router, nftables and HAProxy.
    Path,
}

impl Group {
    /// Measures the group in a network namespace of its own. `programs` is the object with the
    /// programs beside the product's.
    pub fn run(self, programs: &Path) -> Result<Vec<Row>> {
        ensure!(Uid::effective().is_root(), "the benchmarks load eBPF programs and need root");
        let object = std::fs::read(programs)
            .with_context(|| format!("cannot read {}", programs.display()))?;
        let namespace = Namespace::new("bench", &Dir::new()?)?;
        // No packet but ours.
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        namespace.enter(|| match self {
            Self::Packet => packet::measure(&namespace, &object),
            Self::Memory => memory::measure(),
            Self::Reap => reap::measure(&namespace, &object),
            Self::Path => path::measure(),
        })
    }
}
