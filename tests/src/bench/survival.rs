//! How many of 10,000 sessions are lost when the master of a pair fails, and when it comes back.
//!
//! | row | what |
//! |---|---|
//! | `survival/FAULT` | sessions lost, beside keepalived with HAProxy |
//! | `survival/FAULT/vs-unreplicated` | the same beside hosts that do not tell each other of connections |
//! | `survival/failback`, `survival/failback/vs-unreplicated` | sessions lost when the host that failed, by each of the faults that one comes back from (the others: by `kill`), takes over again; the worst of them |
//! | `survival/corrupted` | bytes that were not those sent, in all of that |
//! | `survival/stall/v3-100ms` | the longest time that an active session waited for an echo through a kill, in milliseconds, the median of 500 sessions, beside what the protocol's timers alone come to |
//! | `survival/window` | of the connections that were opened in the last 50 ms before a kill, one every millisecond, the share that survives, in per cent |
//!
//! The faults are those of `takeover`, and `power-off`: the host vanishes. Timers are those of version
//! 3 with ten adverts a second. Most sessions send a record of 64 bytes every second, some are idle, on
//! some it is the server that sends, and some send 160 kB a second; each byte is compared with that
//! which was sent. A session is lost when it ends, or when nothing comes on it for ten seconds. If hosts
//! that tell each other of connections lose one, or corrupt a byte, the group fails.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    pair::{self, V3_100MS},
    report::{Row, median},
};
use crate::lab::{
    Contest, Fault, Load, Openings, Outcome, SessionServer, Survival,
    member::System,
    survival::{PATIENCE, SESSIONS},
};

const GROUP: &str = "survival";
const LOAD: Load =
    Load { active: 8_980, idle: 750, pushed: 250, bulk: 20, period: Duration::from_secs(1) };
/// Those by which the stall is measured: the more often something is said, the less is by chance.
const LIVELY: Load =
    Load { active: 500, idle: 0, pushed: 0, bulk: 0, period: Duration::from_millis(100) };
/// Kills by which stall and window are measured.
const KILLS: usize = 5;
/// How young a connection is, and how often one is opened.
const WINDOW: Duration = Duration::from_millis(50);
const PERIOD: Duration = Duration::from_millis(1);

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let ours = Losses::of(System::Replicating)?;
    let alone = Losses::of(System::Tandem)?;
    let keepalived = Losses::of(System::Keepalived)?;
    let mut rows = Vec::new();
    for ((name, lost), (theirs, without)) in
        ours.rows.iter().zip(keepalived.rows.iter().zip(&alone.rows))
    {
        let mut row = |name: &str, peer, theirs: f64| {
            rows.push(Row::against(GROUP, name, "sessions lost", peer, &[(*lost, theirs)]));
        };
        row(name, "keepalived+haproxy", theirs.1);
        row(&format!("{name}/vs-unreplicated"), "no replication", without.1);
    }
    rows.push(Row::alone(GROUP, "corrupted", "bytes", &[ours.corrupted as f64]));
    rows.push(stall()?);
    rows.push(window()?);
    // What is promised is a promise of the bench, too; the rounds have been told by now.
    for (name, lost) in &ours.rows {
        ensure!(*lost == 0.0, "{GROUP}/{name}: {lost} sessions were lost");
    }
    ensure!(ours.corrupted == 0, "{GROUP}: {} bytes were not those sent", ours.corrupted);
    Ok(rows)
}

/// What a system loses, by the names of the rows.
#[derive(Default)]
struct Losses {
    rows: Vec<(String, f64)>,
    corrupted: u64,
}

impl Losses {
    fn of(system: System) -> Result<Self> {
        let mut losses = Self::default();
        let mut failbacks = Vec::new();
        for fault in [Fault::Kill, Fault::Link, Fault::PowerOff, Fault::Stop] {
            let name = name(fault);
            // Another place each time: servers and hosts still have much of what a client has lost.
            let mut survival = Survival::new(system, &V3_100MS.election(), LOAD)?;
            let outcome = survival.strike(fault).with_context(|| format!("{system:?}: {name}"))?;
            let lost = losses.add(system, name, &outcome);
            losses.rows.push((name.to_owned(), lost));
            // Those who lose everything do so each time.
            let comes_back = match system {
                System::Replicating | System::Synchronous => Fault::HEALING.contains(&fault),
                System::Tandem | System::Keepalived => fault == Fault::Kill,
            };
            if comes_back {
                let name = format!("failback after {name}");
                let outcome =
                    survival.heal(fault).with_context(|| format!("{system:?}: {name}"))?;
                failbacks.push(losses.add(system, &name, &outcome));
            }
        }
        losses.rows.push(("failback".to_owned(), failbacks.into_iter().fold(0.0, f64::max)));
        Ok(losses)
    }

    /// Tells of an outcome, and hands back how many were lost.
    fn add(&mut self, system: System, what: &str, outcome: &Outcome) -> f64 {
        let (lost, sessions) = (outcome.lost(), outcome.sessions);
        eprintln!(
            "{GROUP}: {system:?} {what}: {lost} of {sessions} lost {:?}, {} bytes corrupted, stall \
             {:.0?} at the median, {:.0?} at most",
            outcome.lost,
            outcome.corrupted,
            outcome.median_stall().unwrap_or_default(),
            outcome.longest_stall().unwrap_or_default(),
        );
        self.corrupted += outcome.corrupted;
        lost as f64
    }
}

/// How rows call a fault.
fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Link => "link-down",
        other => pair::name(other),
    }
}

fn stall() -> Result<Row> {
    let mut survival = Survival::new(System::Replicating, &V3_100MS.election(), LIVELY)?;
    let expected = V3_100MS.by_the_protocol(Fault::Kill);
    let mut rounds = Vec::new();
    for nth in 1..=KILLS {
        let outcome = survival.strike(Fault::Kill)?;
        outcome.none_lost()?;
        let stalls = outcome.stalls.iter().map(|stall| stall.as_secs_f64() * 1e3);
        let stall = median(&stalls.collect::<Vec<_>>());
        eprintln!("{GROUP}: stall {nth} of {KILLS}: {stall:.0} ms");
        rounds.push((stall, expected));
        survival.heal(Fault::Kill)?.none_lost()?;
    }
    let name = format!("stall/{}", V3_100MS.name);
    Ok(Row::against(GROUP, &name, "ms", "protocol", &rounds))
}

fn window() -> Result<Row> {
    let mut contest = Contest::for_sessions(V3_100MS.election(), 1, SESSIONS)?;
    let _server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for host in 0..2 {
        contest.enter(host, System::Replicating, 100)?;
    }
    contest.wait_until_in_sync()?;
    let to = (contest.vip().ip(), SESSIONS).into();
    let mut shares = Vec::new();
    for nth in 1..=KILLS {
        let openings = Openings::start(contest.pair().client(), to, PERIOD)?;
        thread::sleep(Duration::from_secs(1));
        let master = contest.master()?;
        let at = SystemTime::now();
        let crash = Instant::now();
        contest.member(master).crash();
        contest.advert_since(at, 1 - master)?;
        let (count, survived) = openings.survivors(crash, Duration::ZERO..WINDOW, PATIENCE)?;
        eprintln!("{GROUP}: window {nth} of {KILLS}: {survived} of {count} survived");
        shares.push(survived as f64 * 100.0 / count as f64);
        contest.start_again(master)?;
        contest.wait_until_in_sync()?;
    }
    Ok(Row::alone(GROUP, "window", "%", &shares))
}
