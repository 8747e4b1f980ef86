//! Whether a host whose daemon was killed still answers for addresses that are the other's now.
//!
//! | row | what |
//! |---|---|
//! | `fence/double-answers` | answers of the old master to 100 ARP requests, neighbour solicitations and SYNs of both families each, sent to its MAC once the other has taken over and three intervals have gone by; beside keepalived with HAProxy |

use anyhow::Result;

use super::{
    pair::{Stage, V3_100MS},
    report::{Row, median},
};
use crate::lab::member::System;

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
    let counts = (0..COUNT).map(|_| Ok(stage.answers_of_the_deposed(ROUNDS)? as f64));
    let all: Vec<_> = counts.collect::<Result<_>>()?;
    eprintln!("{GROUP}: {system:?}: {} answers of the old master", median(&all));
    Ok(all)
}
