//! The story that plays by itself: each step does something, and holds only if what must follow
//! was seen.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::unix::process::parent_id,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::{State, Status, Traffic};
use tests::lab::{MariaDb, http_get};

use crate::{
    config::{WEBSERVERS, Wishes},
    stage::{BALANCERS, Stage, find},
    takeover,
};

/// Requests of each step.
pub(crate) const REQUESTS: usize = 150;
/// Rows of the MySQL session.
const ROWS: u64 = 2000;
const DEAD: &str = WEBSERVERS[0];
const DRAINED: &str = WEBSERVERS[WEBSERVERS.len() - 1];

type Step = fn(&mut Stage) -> Result<String>;

const STEPS: [(&str, Step); 11] = [
    ("one balancer is the master, the other one stands by", takeover::roles),
    ("requests to the virtual address are spread over the web servers", spread),
    ("a MySQL session runs through the virtual address", session),
    ("a killed web server gets no more connections", kill),
    ("the web server comes back", come_back),
    ("an invalid file is refused, and the old one stays in force", refuse),
    ("a drained web server gets no new connections", drain),
    ("all connection counters return to zero", return_to_zero),
    (
        "kill -9 of the master: the other balancer takes over, and a MySQL session goes on",
        takeover::kill_the_master,
    ),
    ("the killed balancer starts again, and takes the group back", takeover::take_back),
    ("`tandem failover web` hands the group over on purpose", takeover::hand_over),
];

/// Brings everything up, plays all steps and says what was seen.
pub(crate) fn play() -> Result<()> {
    let (parent, started) = (parent_id(), Instant::now());
    say("bringing up the lab")?;
    let mut stage = Stage::set(|step| drop(say(&format!("   {step}"))))?;
    for (number, (title, step)) in (1..).zip(STEPS) {
        ensure!(parent_id() == parent, "whoever started the demo is gone");
        say(&format!("{number}. {title}"))?;
        let seen = step(&mut stage).with_context(|| format!("step {number} did not hold"))?;
        for line in seen.lines().filter(|line| !line.is_empty()) {
            say(&format!("   {line}"))?;
        }
    }
    say(&format!("every step held ({:.0} s)", started.elapsed().as_secs_f64()))
}

fn spread(stage: &mut Stage) -> Result<String> {
    let answers = ask(stage)?;
    for name in WEBSERVERS {
        ensure!(answers.contains_key(name), "{name} gave no answer: {}", list(&answers));
    }
    Ok(format!("{REQUESTS} requests: {}", list(&answers)))
}

fn session(stage: &mut Stage) -> Result<String> {
    let rows: Vec<_> = (1..=ROWS).map(|n| format!("INSERT INTO t VALUES ({n});")).collect();
    let sql = format!(
        "CREATE OR REPLACE TABLE t (n INT); BEGIN; {} COMMIT; \
         SELECT @@report_host, COUNT(*), SUM(n) FROM t; DROP TABLE t",
        rows.concat()
    );
    let answer = MariaDb::query(stage.pair.client(), stage.mysql(), &sql)?;
    let wanted = format!("\t{ROWS}\t{}", ROWS * (ROWS + 1) / 2);
    let (host, rest) = answer.trim_end().split_at(answer.find('\t').context("no columns")?);
    ensure!(rest == wanted, "the server said {answer:?} instead of {wanted:?}");
    Ok(format!("{ROWS} rows written and read on {host}, in one session"))
}

fn kill(stage: &mut Stage) -> Result<String> {
    stage.kill(DEAD);
    let killed = Instant::now();
    let seen = stage.wait_for(stage.master()?, DEAD, State::Down)?;
    let took = killed.elapsed();
    for host in BALANCERS {
        stage.wait_for(host, DEAD, State::Down)?;
    }
    let check = find(&seen, DEAD).and_then(|backend| backend.check.as_ref());
    let why = check.map(|check| check.reason.to_string()).unwrap_or_default();
    let answers = none_for(DEAD, stage)?;
    Ok(format!(
        "{DEAD} is DOWN after {:.1} s ({why}), on both balancers\n\
         {REQUESTS} requests, none failed: {}; connections to {DEAD}: none",
        took.as_secs_f64(),
        list(&answers)
    ))
}

fn come_back(stage: &mut Stage) -> Result<String> {
    stage.start(DEAD)?;
    let started = Instant::now();
    for host in BALANCERS {
        stage.wait_for(host, DEAD, State::Up)?;
    }
    let took = started.elapsed();
    let answers = ask(stage)?;
    ensure!(answers.contains_key(DEAD), "{DEAD} gave no answer: {}", list(&answers));
    Ok(format!(
        "{DEAD} is UP after {:.1} s\n{REQUESTS} requests: {}",
        took.as_secs_f64(),
        list(&answers)
    ))
}

fn refuse(stage: &mut Stage) -> Result<String> {
    let master = stage.master()?;
    let before = stage.tandem(master).status()?.config.generation;
    let taken = stage.configure(Wishes { mistaken: true, ..Wishes::default() });
    ensure!(taken.is_err(), "the file was taken");
    let status = stage.tandem(master).status()?;
    let reason = status.config.last_error.context("the status does not say why")?;
    ensure!(status.config.generation == before, "another configuration is in force: {reason}");
    ask(stage)?;
    let directory = format!("{}/", stage.pair.dir().path().display());
    Ok(format!("{}\n{REQUESTS} requests, none failed", reason.trim_end().replace(&directory, "")))
}

fn drain(stage: &mut Stage) -> Result<String> {
    stage.configure(Wishes { drained: Some(DRAINED), ..Wishes::default() })?;
    for host in BALANCERS {
        stage.wait_for(host, DRAINED, State::Drain)?;
    }
    let answers = none_for(DRAINED, stage)?;
    stage.configure(Wishes::default())?;
    for host in BALANCERS {
        stage.wait_for(host, DRAINED, State::Up)?;
    }
    Ok(format!("both files reloaded; {REQUESTS} requests, none failed: {}", list(&answers)))
}

fn return_to_zero(stage: &mut Stage) -> Result<String> {
    let sum = |status: &Status, of: fn(&Traffic) -> u64| -> u64 {
        let backends = status.services.iter().flat_map(|service| &service.backends);
        backends.map(|backend| of(&backend.traffic)).sum()
    };
    let mut opened = Vec::new();
    for host in BALANCERS {
        let tandem = stage.tandem(host);
        let status = tandem.wait_until("no connections", Duration::from_secs(30), |status| {
            let half_open = status.tables.iter().any(|table| table.half_open > 0);
            sum(status, |traffic| traffic.active) == 0 && !half_open
        })?;
        let count = sum(&status, |traffic| traffic.connections);
        opened.push(format!("{}: {count} connections opened", stage.twin(host).name()));
    }
    Ok(format!("{}; 0 open, 0 half open", opened.join(", ")))
}

/// Asks the web service many times, and fails unless every request is answered. Who answered how
/// often.
pub(crate) fn ask(stage: &Stage) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for number in 1..=REQUESTS {
        let answer = http_get(stage.pair.client(), stage.web(), "/")
            .with_context(|| format!("request {number} of {REQUESTS} failed"))?;
        *answers.entry(answer.body.trim_end().to_owned()).or_default() += 1;
    }
    Ok(answers)
}

/// Asks, and fails if a backend gets a connection, let alone answers.
fn none_for(backend: &str, stage: &Stage) -> Result<BTreeMap<String, usize>> {
    let tandem = stage.tandem(stage.master()?);
    let opened = || -> Result<u64> {
        let status = tandem.status()?;
        let found = find(&status, backend).context("the status lacks a backend")?;
        Ok(found.traffic.connections)
    };
    let before = opened()?;
    let answers = ask(stage)?;
    let more = opened()? - before;
    ensure!(more == 0, "{more} connections went to {backend}");
    ensure!(!answers.contains_key(backend), "{backend} answered: {}", list(&answers));
    Ok(answers)
}

pub(crate) fn list(answers: &BTreeMap<String, usize>) -> String {
    let parts: Vec<_> = answers.iter().map(|(name, count)| format!("{name} {count}")).collect();
    parts.join(", ")
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("nobody listens")
}
