//! How long a client sees nobody when the master of a pair fails.
//!
//! | row | what |
//! |---|---|
//! | `blackout/TIMERS/FAULT` | the longest time between two answers, in milliseconds, to a client that opens a connection every 5 ms and waits for a greeting; beside keepalived with HAProxy |
//!
//! Timers and faults are those of `takeover`.

use std::time::Duration;

use anyhow::Result;

use super::{
    pair::{self, Stage, Timers, V2_1S, V3_10MS, V3_100MS},
    report::Row,
};
use crate::lab::{Fault, member::System};

const GROUP: &str = "blackout";
// A gap is so many periods, and one more or less by chance: what is short needs many.
const TIMERS: [(Timers, usize); 3] = [(V2_1S, 5), (V3_100MS, 10), (V3_10MS, 40)];
const PERIOD: Duration = Duration::from_millis(5);

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let keepalived = gaps(System::Keepalived)?;
    for ((name, ours), (_, theirs)) in gaps(System::Tandem)?.into_iter().zip(keepalived) {
        let rounds: Vec<_> = ours.into_iter().zip(theirs).collect();
        rows.push(Row::against(GROUP, &name, "ms", "keepalived+haproxy", &rounds));
    }
    Ok(rows)
}

fn gaps(system: System) -> Result<Vec<(String, Vec<f64>)>> {
    let mut all = Vec::new();
    for (timers, count) in TIMERS {
        let mut stage = Stage::new(system, timers)?;
        for fault in Fault::HEALING {
            let name = format!("{}/{}", timers.name, pair::name(fault));
            let what = format!("{GROUP}: {system:?} {name}");
            let samples = stage.series(&what, fault, PERIOD, count)?;
            all.push((name, samples.iter().map(|sample| sample.gap).collect()));
        }
    }
    Ok(all)
}
