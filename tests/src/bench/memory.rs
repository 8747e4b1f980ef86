//! What a connection costs in kernel memory.
//!
//! | row | what |
//! |---|---|
//! | `memory/per-connection` | the IPv4 flow table, both entries of a connection and all overhead, over the number of connections it has room for |
//!
//! The kernel says itself what a map occupies. The table is allocated as a whole, so what a
//! connection costs does not depend on how many there are; `min` and `max` are those of several
//! sizes.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use lb_daemon::dataplane::{self, Dataplane};

use super::{
    balancer::{CAPACITY, global, map_path},
    report::Row,
};

/// The default, a round number, a power of two, and the size just above it.
const SIZES: [u32; 4] = [131_072, 1_000_000, CAPACITY, CAPACITY + 1];

/// Measures the group in the namespace that the calling thread is in.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut values = Vec::new();
    for size in SIZES {
        eprintln!("memory: a table for {size} connections");
        let global = global(size, "lo");
        let dataplane = Dataplane::open(&global, None)?;
        let map = MapData::from_pin(map_path(&global.bpffs, "FLOWS_V4"))?;
        values.push(occupied(&map)? as f64 / f64::from(size));
        drop(dataplane);
        dataplane::detach(&global.bpffs)?;
    }
    Ok(vec![Row::alone("memory", "per-connection", "bytes", &values)])
}

/// Bytes the kernel holds for a map.
fn occupied(map: &MapData) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let value = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(value.context("the kernel does not say what a map occupies")?.trim().parse()?)
}
