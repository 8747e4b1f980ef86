//! Whether a host whose daemon was killed still answers for addresses that are the other's now.
//!
//! | row | what |
//! |---|---|
//! | `fence/double-answers` | answers of the old master to 100 ARP requests, neighbour solicitations and SYNs of both families each, sent to its MAC once the other has taken over and three intervals have gone by; beside keepalived with HAProxy |

use anyhow::Result;

use super::{
    pair::{Fault, Stage, V3_100MS},
    report::{Row, median},
};
use crate::lab::{
    fence,
    member::{PORT, System},
};

const GROUP: &str = "fence";
const ROUNDS: u16 = 100;
const COUNT: usize = 5;

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let theirs = answers(System::Keepalived)?;
    let rounds: Vec<_> = answers(System::Tandem)?.into_iter().zip(theirs).collect();
    Ok(vec![Row::against(GROUP, "double-answers", "answers", "keepalived+haproxy", &rounds)])
}

fn answers(system: System) -> Result<Vec<f64>> {
    let mut stage = Stage::new(system, V3_100MS)?;
    let mut all = Vec::new();
    for _ in 0..COUNT {
        let old = stage.depose()?;
        let twin = &stage.pair.twins()[old];
        let count = fence::answers_of(&stage.pair, twin, PORT, ROUNDS)?;
        all.push(count as f64);
        stage.restore(old, Fault::Kill)?;
    }
    eprintln!("{GROUP}: {system:?}: {} answers of the old master", median(&all));
    Ok(all)
}
