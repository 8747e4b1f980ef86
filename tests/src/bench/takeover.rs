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
//! daemon (with keepalived, to HAProxy as well), `link` its cable pulled on the adverts' side, `stop`
//! has it end by itself.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{
    pair::{self, Sample, Stage, Timers, V2_1S, V3_10MS, V3_100MS},
    report::Row,
};
use crate::lab::{Fault, member::System};

const GROUP: &str = "takeover";
const V3: [Timers; 2] = [V3_100MS, V3_10MS];
const REPEATS: usize = 20;
const PERIOD: Duration = Duration::from_millis(2);

/// Measures what is of version 3.
pub(super) fn measure() -> Result<Vec<Row>> {
    let keepalived = samples(System::Keepalived, &V3)?;
    Ok(rows(samples(System::Tandem, &V3)?, keepalived))
}

/// Measures what is of version 2. Its faults come every six seconds, in between which there is hardly
/// anything to do; so both systems have theirs in the same ten minutes, each in a lab of its own.
pub(super) fn measure_v2() -> Result<Vec<Row>> {
    let (tandem, keepalived) = thread::scope(|scope| {
        let tandem = scope.spawn(|| samples(System::Tandem, &[V2_1S]));
        let keepalived = samples(System::Keepalived, &[V2_1S]);
        (tandem.join().expect("measuring does not panic"), keepalived)
    });
    Ok(rows(tandem?, keepalived?))
}

fn rows(tandem: Vec<Series>, keepalived: Vec<Series>) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((timers, fault, ours), (.., theirs)) in tandem.into_iter().zip(keepalived) {
        let name = format!("{}/{}", timers.name, pair::name(fault));
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
    rows
}

/// What became of the faults of one kind.
type Series = (Timers, Fault, Vec<Sample>);

fn samples(system: System, of: &[Timers]) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    for &timers in of {
        let mut stage = Stage::new(system, timers)?;
        for fault in Fault::HEALING {
            let what = format!("{GROUP}: {system:?} {}/{}", timers.name, pair::name(fault));
            all.push((timers, fault, stage.series(&what, fault, PERIOD, REPEATS)?));
        }
    }
    Ok(all)
}
