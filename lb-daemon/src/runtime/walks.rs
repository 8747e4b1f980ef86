//! The threads that walk the flow tables: one ends what has expired, one what is to end before its time.

use std::{sync::mpsc as threads, thread, time::Duration};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::{
    core::Event,
    dataplane::{Drift, Ender, Reaper, Sweep},
};

/// Walks of the flow tables are at least this far apart, ...
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// ... and rest this many times as long as the last one had a processor.
const SWEEP_REST: u32 = 60;

/// Walks the flow tables on a thread of its own for as long as somebody listens.
pub(super) fn walk(mut reaper: Reaper, events: mpsc::UnboundedSender<Event>) -> Result<()> {
    let run = move || {
        let drift = reaper.recount();
        if drift != Drift::default() {
            warn!("counts did not agree with the flow tables, and were corrected: {drift}");
        }
        while !events.is_closed() {
            let pause = match reaper.sweep() {
                Ok(sweep) => {
                    if sweep.healed != 0 {
                        warn!(entries = sweep.healed, "broken entries of the flow tables removed");
                    }
                    let pause = pause_after(&sweep);
                    let (backends, services) = (sweep.backends, sweep.services);
                    let _ = events.send(Event::Walked { backends, services });
                    pause
                }
                Err(error) => {
                    error!("cannot walk the flow tables: {error:#}");
                    SWEEP_PAUSE * 10
                }
            };
            thread::sleep(pause);
        }
    };
    thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(run)
        .context("cannot start the reaper thread")?;
    Ok(())
}

/// Ends connections on a thread of its own, which walks the flow tables for that: backends whose
/// connections are to end are sent to it by their numbers.
pub(super) fn end_sessions(ender: Ender) -> Result<threads::Sender<(u16, String)>> {
    let (sender, backends) = threads::channel::<(u16, String)>();
    let run = move || {
        for (number, backend) in backends {
            match ender.end_backend(number) {
                Ok(0) => {}
                Ok(count) => {
                    warn!("{count} connections of {backend} ended, since it is DOWN or MAINT");
                }
                Err(error) => error!("cannot end the connections of {backend}: {error:#}"),
            }
        }
    };
    thread::Builder::new()
        .name("ender".to_owned())
        .spawn(run)
        .context("cannot start the thread that ends connections")?;
    Ok(sender)
}

/// How long the walker of the flow tables rests after a walk that had a processor for so long. What
/// it waited for others does not count: a busy host is no reason to end connections late.
pub fn rest_after(processor: Duration) -> Duration {
    SWEEP_PAUSE.max(processor * SWEEP_REST)
}

/// How long to wait after a walk: not long while much is there to be ended. Else connections would
/// come to an end faster than they are removed.
fn pause_after(sweep: &Sweep) -> Duration {
    const MUCH: u64 = 8;
    // Two entries a connection.
    if sweep.reaped * 2 * MUCH >= sweep.entries { SWEEP_PAUSE } else { rest_after(sweep.processor) }
}
