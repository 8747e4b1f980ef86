//! Two hosts, one of which fails again and again, and what the wire and a client see of it.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::report::median;
use crate::lab::{
    Capture, Election, Family, Frame, IdentServer, Knocks, Pair, Twin,
    member::{Member, PORT, System},
};

/// What happens to the host that holds the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its daemon is killed by `SIGKILL`.
    Kill,
    /// The cable on the client's side, where the adverts are, is pulled at the switch.
    Link,
    /// Its daemon is stopped by `SIGTERM`.
    Stop,
}

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
pub(super) struct Stage {
    // First, so that nobody serves any more when the place is taken apart.
    members: [Box<dyn Member>; 2],
    _server: IdentServer,
    election: Election,
    capture: Capture,
    pub(super) pair: Pair,
}

const PRIORITY: u8 = 100;

impl Fault {
    pub(super) const ALL: [Self; 3] = [Self::Kill, Self::Link, Self::Stop];

    /// How rows call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Link => "link",
            Self::Stop => "stop",
        }
    }
}

impl Timers {
    /// Milliseconds from the fault to the first advert of the new master by the protocol alone.
    pub(super) fn by_the_protocol(self, fault: Fault) -> f64 {
        let election = self.election();
        milliseconds(match fault {
            Fault::Kill | Fault::Link => election.down_after(PRIORITY),
            Fault::Stop => election.skew(PRIORITY),
        })
    }

    fn election(self) -> Election {
        Election::new(self.version, self.advert_int)
    }
}

impl Stage {
    /// Starts both hosts, the first of which becomes the master.
    pub(super) fn new(system: System, timers: Timers) -> Result<Self> {
        let pair = Pair::new(1)?;
        let server = IdentServer::start(&pair.servers()[0], PORT)?;
        let capture = Capture::on(pair.switch())?;
        let election = timers.election();
        let start = |host| {
            system
                .start(&pair, host, &election, PRIORITY)
                .with_context(|| format!("{system:?} on host {}", host + 1))
        };
        let first = start(0)?;
        let patience = election.down_after(PRIORITY) * 2 + Duration::from_secs(5);
        capture.wait_for("an advert", patience, |frame| frame.advert())?;
        let second = start(1)?;
        let stage = Self { members: [first, second], _server: server, election, capture, pair };
        stage.settle();
        Ok(stage)
    }

    /// Has the master fail while a client opens a connection every `period`, and restores the
    /// host afterwards.
    pub(super) fn take(&mut self, fault: Fault, period: Duration) -> Result<Sample> {
        let vip = (self.pair.vip(Family::V4), PORT).into();
        let knocks = Knocks::start(self.pair.client(), vip, period)?;
        knocks.wait_for(20, PATIENCE).context("before the fault")?;
        let master = self.master()?;
        let (at, started) = (SystemTime::now(), Instant::now());
        self.strike(master, fault)?;

        let other = &self.pair.twins()[1 - master];
        let since = |frame: &Frame| frame.at.duration_since(at).ok();
        let patience = self.election.down_after(PRIORITY) + PATIENCE;
        let advert = self.capture.wait_for("an advert of the new master", patience, |frame| {
            is_advert(frame, other).then(|| since(frame))?
        })?;
        let forwarded = self.capture.wait_for("a forwarded SYN", PATIENCE, |frame| {
            let opens = &*frame.port == other.back.port.name() && frame.segment()?.opens;
            opens.then(|| since(frame))?
        })?;
        knocks.wait_for(20, PATIENCE).context("after the takeover")?;
        let gap = knocks.longest_gap(started)?;
        drop(knocks);
        self.restore(master, fault)?;
        Ok(Sample {
            advert: milliseconds(advert),
            forwarding: milliseconds(forwarded.saturating_sub(advert)),
            gap: milliseconds(gap),
        })
    }

    /// Takes so many samples, and tells of them.
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

    /// Kills the master's daemon, waits until the other host has taken over and the time of
    /// anybody who is still to stop by himself is up, and hands back the number of the old master.
    pub(super) fn depose(&mut self) -> Result<usize> {
        let master = self.master()?;
        self.strike(master, Fault::Kill)?;
        self.capture.forget();
        let (other, patience) =
            (&self.pair.twins()[1 - master], self.election.down_after(PRIORITY));
        self.capture.wait_for("a new master", patience + PATIENCE, |frame| {
            is_advert(frame, other).then_some(())
        })?;
        thread::sleep(3 * self.election.advert_int);
        Ok(master)
    }

    /// Undoes a fault, and waits until the host is ready to take over.
    pub(super) fn restore(&mut self, host: usize, fault: Fault) -> Result<()> {
        let member = &mut self.members[host];
        match fault {
            Fault::Link => self.pair.twins()[host].front.plug()?,
            Fault::Kill => member.start_again()?,
            Fault::Stop => {
                member.elector().wait(PATIENCE)?;
                member.start_again()?;
            }
        }
        self.settle();
        Ok(())
    }

    fn strike(&mut self, host: usize, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill => self.members[host].elector().kill(),
            Fault::Link => self.pair.twins()[host].front.pull()?,
            Fault::Stop => self.members[host].elector().signal(Signal::SIGTERM)?,
        }
        Ok(())
    }

    /// The number of the host that sends the next advert. It has just sent it.
    fn master(&self) -> Result<usize> {
        self.capture.forget();
        let twins = self.pair.twins();
        let patience = 3 * self.election.advert_int + PATIENCE;
        self.capture.wait_for("an advert of the master", patience, |frame| {
            twins.iter().position(|twin| is_advert(frame, twin))
        })
    }

    /// Time enough for a host that has just started to hear an advert.
    fn settle(&self) {
        thread::sleep(self.election.advert_int + Duration::from_millis(300));
    }
}

/// Whether a host says by this frame that it is the master.
fn is_advert(frame: &Frame, of: &Twin) -> bool {
    let advert = frame.advert().filter(|advert| advert.priority > 0);
    &*frame.port == of.front.port.name() && advert.is_some()
}

/// For what takes no time on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
