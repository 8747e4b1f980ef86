//! How soon the other host of a pair takes over, by the frames at the switch between them.
//!
//! | row | what |
//! |---|---|
//! | `takeover/TIMERS/FAULT` | milliseconds from the fault to the new master's first advert, beside keepalived |
//! | `takeover/TIMERS/FAULT/vs-protocol` | the same beside what the protocol's timers alone come to |
//! | `takeover/TIMERS/FAULT/forwarding` | milliseconds from that advert to the first SYN that the new master sends a server, beside keepalived with HAProxy; the client tries every other millisecond |
//!
//! The timers are a version and the time between adverts; the priority is 100. The fault comes
//! right after an advert, which makes it last longest: `kill` is a `SIGKILL` to the master's
//! daemon, `link` its cable pulled on the adverts' side, `stop` a `SIGINT`.

use std::time::Duration;

use anyhow::Result;

use super::{
    pair::{Fault, Sample, Stage, Timers, V2_1S, V3_10MS, V3_100MS},
    report::Row,
};
use crate::lab::member::System;

const GROUP: &str = "takeover";
/// How often each, with a fault every six seconds or every one.
const TIMERS: [(Timers, usize); 3] = [(V2_1S, 8), (V3_100MS, 20), (V3_10MS, 20)];
const PERIOD: Duration = Duration::from_millis(2);

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let keepalived = samples(System::Keepalived)?;
    let tandem = samples(System::Tandem)?;
    let mut rows = Vec::new();
    for ((timers, fault, ours), (.., theirs)) in tandem.into_iter().zip(keepalived) {
        let name = format!("{}/{}", timers.name, fault.name());
        let expected = timers.by_the_protocol(fault);
        let protocol: Vec<_> = ours.iter().map(|sample| (sample.advert, expected)).collect();
        let beside = |figure: fn(&Sample) -> f64| -> Vec<_> {
            ours.iter().map(figure).zip(theirs.iter().map(figure)).collect()
        };
        let advert = beside(|sample| sample.advert);
        let forwarding = beside(|sample| sample.forwarding);
        rows.push(Row::against(GROUP, &name, "ms", "keepalived", &advert));
        let to_protocol = format!("{name}/vs-protocol");
        rows.push(Row::against(GROUP, &to_protocol, "ms", "protocol", &protocol));
        let forwarded = format!("{name}/forwarding");
        rows.push(Row::against(GROUP, &forwarded, "ms", "keepalived", &forwarding));
    }
    Ok(rows)
}

fn samples(system: System) -> Result<Vec<(Timers, Fault, Vec<Sample>)>> {
    let mut all = Vec::new();
    for (timers, count) in TIMERS {
        let mut stage = Stage::new(system, timers)?;
        for fault in Fault::ALL {
            let what = format!("{GROUP}: {system:?} {}/{}", timers.name, fault.name());
            all.push((timers, fault, stage.series(&what, fault, PERIOD, count)?));
        }
    }
    Ok(all)
}
