//! What it costs to find expired connections among a million.
//!
//! | row | what |
//! |---|---|
//! | `reap/share` | processor time of the reaper's thread over the time from one sweep to the next, when nothing has expired |
//! | `reap/sweep` | how long such a sweep takes |
//! | `reap/expiry` | how long a sweep takes that ends all the connections |
//!
//! The rests between sweeps are not waited for, only counted: the daemon's own rule says how long
//! they are.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use aya::sys::{Stats, enable_stats};
use lb_daemon::{dataplane::Sweep, runtime};

use super::{balancer::Balancer, range::Range, report::Row};
use crate::lab::Namespace;

const GROUP: &str = "reap";
const CONNECTIONS: u32 = 1_000_000;
const SWEEPS: usize = 5;

/// Measures the group in the namespace that the calling thread is in.
pub(super) fn measure(namespace: &Namespace, object: &[u8]) -> Result<Vec<Row>> {
    // The generator counts by the kernel's statistics. They stay on for the sweeps, which run
    // programs only to end connections.
    let _stats = enable_stats(Stats::RunTime)?;
    let mut range = Range::new(object)?;
    let lane = range.lane(namespace)?;
    let mut balancer = Balancer::new(&lane)?;
    eprintln!("reap: opening {CONNECTIONS} connections");
    balancer.grow(&mut range, CONNECTIONS, |_, _, _| Ok(()))?;

    let mut reaper = balancer.reaper()?;
    let (mut shares, mut times) = (Vec::new(), Vec::new());
    for sweep in 1..=SWEEPS {
        let Sweep { reaped, processor, took, .. } = reaper.sweep()?;
        eprintln!("reap: sweep {sweep} of {SWEEPS} took {took:.1?}");
        ensure!(reaped == 0, "{reaped} connections had expired");
        let period = took + runtime::rest_after(processor);
        shares.push(processor.as_secs_f64() / period.as_secs_f64() * 100.0);
        times.push(took.as_secs_f64());
    }

    balancer.set_timeout(Duration::from_millis(1))?;
    // What the connections' own slack allows beyond the timeout, a 64th of the old one.
    thread::sleep(Duration::from_secs(3));
    let Sweep { reaped, took, .. } = reaper.sweep()?;
    ensure!(reaped == u64::from(CONNECTIONS), "only {reaped} connections were ended");
    Ok(vec![
        Row::alone(GROUP, "share", "% of one core", &shares),
        Row::alone(GROUP, "sweep", "s", &times),
        Row::alone(GROUP, "expiry", "s", &[took.as_secs_f64()]),
    ])
}
