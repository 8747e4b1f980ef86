//! Two hosts, one of which fails again and again, and what the wire and a client see of it.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};

use super::report::median;
use crate::lab::{
    Contest, Election, Fault, fence,
    member::{PORT, System},
};

/// Timers of an election, and what rows call them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    pub(super) name: &'static str,
    version: u8,
    advert_int: Duration,
}

pub(super) const V2_1S: Timers =
    Timers { name: "v2-1s", version: 2, advert_int: Duration::from_secs(1) };
pub(super) const V3_100MS: Timers =
    Timers { name: "v3-100ms", version: 3, advert_int: Duration::from_millis(100) };
pub(super) const V3_10MS: Timers =
    Timers { name: "v3-10ms", version: 3, advert_int: Duration::from_millis(10) };

/// What became of one fault, which came right after an advert: the worst moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Milliseconds from the fault to the first advert of the new master, by the kernel's times at
    /// the switch.
    pub(super) advert: f64,
    /// Milliseconds from that to the first SYN that the new master sends a server; zero if that
    /// was earlier.
    pub(super) forwarding: f64,
    /// The longest time without an answer that the client saw, in milliseconds.
    pub(super) gap: f64,
}

/// A pair at work. Both hosts have the same priority and do not preempt, so each fault makes the
/// other the master.
pub(super) struct Stage(Contest);

const PRIORITY: u8 = 100;

/// How rows call a fault.
pub(super) fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Kill => "kill",
        Fault::Link => "link",
        Fault::PowerOff => "power-off",
        Fault::Stop => "stop",
    }
}

impl Timers {
    /// Milliseconds from the fault to the first advert of the new master by the protocol alone.
    pub(super) fn by_the_protocol(self, fault: Fault) -> f64 {
        let election = self.election();
        milliseconds(match fault {
            Fault::Kill | Fault::Link | Fault::PowerOff => election.down_after(PRIORITY),
            Fault::Stop => election.skew(PRIORITY),
        })
    }

    pub(super) fn election(self) -> Election {
        Election::new(self.version, self.advert_int)
    }
}

impl Stage {
    /// Starts both hosts, the first of which becomes the master.
    pub(super) fn new(system: System, timers: Timers) -> Result<Self> {
        Contest::between(system, timers.election(), [PRIORITY; 2]).map(Self)
    }

    /// Takes so many samples, and tells of them: see [`Sample`].
    pub(super) fn series(
        &mut self,
        what: &str,
        fault: Fault,
        period: Duration,
        count: usize,
    ) -> Result<Vec<Sample>> {
        let samples = (1..=count).map(|nth| {
            self.take(fault, period).with_context(|| format!("{what}: {nth} of {count}"))
        });
        let samples: Vec<_> = samples.collect::<Result<_>>()?;
        let of =
            |figure: fn(&Sample) -> f64| median(&samples.iter().map(figure).collect::<Vec<_>>());
        eprintln!(
            "{what}: advert after {:.1} ms, forwards {:.1} ms later, gap {:.1} ms",
            of(|sample| sample.advert),
            of(|sample| sample.forwarding),
            of(|sample| sample.gap)
        );
        Ok(samples)
    }

    /// Has the master fail while a client opens a connection every `period`, and restores the
    /// host afterwards.
    fn take(&mut self, fault: Fault, period: Duration) -> Result<Sample> {
        let knocks = self.0.knocks(period)?;
        let master = self.0.master()?;
        let (at, started) = (SystemTime::now(), Instant::now());
        fault.strike(&mut self.0, master)?;
        let advert = self.0.advert_since(at, 1 - master)?;
        let forwarded = self.0.forwarding_since(at, 1 - master)?;
        knocks.wait_for(20, PATIENCE).context("after the takeover")?;
        let gap = knocks.longest_gap(started)?;
        drop(knocks);

        fault.heal(&mut self.0, master)?;
        Ok(Sample {
            advert: milliseconds(advert),
            forwarding: milliseconds(forwarded.saturating_sub(advert)),
            gap: milliseconds(gap),
        })
    }

    /// Kills the master's daemon, waits until the other host has taken over and the time of
    /// anybody who is still to stop by himself is up, and counts what the old master answers to so
    /// many rounds of questions.
    pub(super) fn answers_of_the_deposed(&mut self, rounds: u16) -> Result<usize> {
        let master = self.0.master()?;
        let at = SystemTime::now();
        self.0.member(master).elector().kill();
        self.0.advert_since(at, 1 - master)?;
        thread::sleep(3 * self.0.election().advert_int);
        let count = fence::answers_of(self.0.pair(), self.0.twin(master), PORT, rounds)?;
        self.0.start_again(master)?;
        Ok(count)
    }
}

/// For what takes no time on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
