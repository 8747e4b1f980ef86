//! The story that plays by itself: each step does something, and holds only if what must follow
//! was seen.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::unix::process::parent_id,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::{State, Status};
use tests::lab::{MariaDb, http_get};

use crate::{
    config::{WEBSERVERS, Wishes},
    stage::{Stage, find},
};

/// Requests of each step.
const REQUESTS: usize = 150;
/// Rows of the MySQL session.
const ROWS: u64 = 2000;
const DEAD: &str = WEBSERVERS[0];
const DRAINED: &str = WEBSERVERS[WEBSERVERS.len() - 1];

type Step = fn(&mut Stage) -> Result<String>;

const STEPS: [(&str, Step); 9] = [
    ("requests to the virtual address are spread over the web servers", spread),
    ("a MySQL session runs through the virtual address", session),
    ("a killed web server gets no more connections", kill),
    ("the web server comes back", come_back),
    ("an invalid file is refused, and the old one stays in force", refuse),
    ("a drained web server gets no new connections", drain),
    ("kill -9 of the daemon: packets and connections go on", survive),
    ("the daemon starts again and carries on", carry_on),
    ("all connection counters return to zero", return_to_zero),
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
    let answer = MariaDb::query(stage.lab.client(), stage.mysql(), &sql)?;
    let wanted = format!("\t{ROWS}\t{}", ROWS * (ROWS + 1) / 2);
    let (host, rest) = answer.trim_end().split_at(answer.find('\t').context("no columns")?);
    ensure!(rest == wanted, "the server said {answer:?} instead of {wanted:?}");
    Ok(format!("{ROWS} rows written and read on {host}, in one session"))
}

fn kill(stage: &mut Stage) -> Result<String> {
    stage.kill(DEAD);
    let killed = Instant::now();
    let before = stage.wait_for(DEAD, State::Down)?;
    let took = killed.elapsed();
    let check = find(&before, DEAD).and_then(|backend| backend.check.as_ref());
    let why = check.map(|check| check.reason.to_string()).unwrap_or_default();
    let answers = none_for(DEAD, stage)?;
    Ok(format!(
        "{DEAD} is DOWN after {:.1} s ({why})\n\
         {REQUESTS} requests, none failed: {}; connections to {DEAD}: none",
        took.as_secs_f64(),
        list(&answers)
    ))
}

fn come_back(stage: &mut Stage) -> Result<String> {
    stage.start(DEAD)?;
    let started = Instant::now();
    stage.wait_for(DEAD, State::Up)?;
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
    let before = stage.tandem.status()?.config.generation;
    ensure!(
        stage.configure(Wishes { mistaken: true, ..Wishes::default() }).is_err(),
        "the file was taken"
    );
    let status = stage.tandem.status()?;
    let reason = status.config.last_error.context("the status does not say why")?;
    ensure!(status.config.generation == before, "another configuration is in force: {reason}");
    ask(stage)?;
    let directory = format!("{}/", stage.lab.dir().path().display());
    Ok(format!("{}\n{REQUESTS} requests, none failed", reason.trim_end().replace(&directory, "")))
}

fn drain(stage: &mut Stage) -> Result<String> {
    stage.configure(Wishes { drained: Some(DRAINED), ..Wishes::default() })?;
    stage.wait_for(DRAINED, State::Drain)?;
    let answers = none_for(DRAINED, stage)?;
    stage.configure(Wishes::default())?;
    stage.wait_for(DRAINED, State::Up)?;
    Ok(format!("{REQUESTS} requests, none failed: {}", list(&answers)))
}

fn survive(stage: &mut Stage) -> Result<String> {
    const SESSION: &str = "SELECT CONNECTION_ID(); DO SLEEP(3); SELECT CONNECTION_ID()";
    let (client, mysql) = (stage.lab.client().clone(), stage.mysql());
    let session = thread::spawn(move || MariaDb::query(&client, mysql, SESSION));
    stage.tandem.wait_until("the MySQL session is open", Duration::from_secs(10), |status| {
        let mysql = status.services.iter().filter(|service| service.name == "mysql");
        mysql.flat_map(|service| &service.backends).any(|backend| backend.traffic.active > 0)
    })?;
    stage.tandem.kill9();
    let answers = ask(stage)?;
    let ids = session.join().expect("asking does not panic")?;
    let ids: Vec<_> = ids.lines().collect();
    ensure!(ids.len() == 2 && ids[0] == ids[1], "the MySQL session said {ids:?}");
    Ok(format!(
        "{REQUESTS} requests without a daemon, none failed: {}\n\
         the MySQL session that was open went on",
        list(&answers)
    ))
}

fn carry_on(stage: &mut Stage) -> Result<String> {
    stage.tandem.start_again()?;
    for name in Stage::backends() {
        stage.wait_for(name, State::Up)?;
    }
    let answers = ask(stage)?;
    Ok(format!("{REQUESTS} requests, none failed: {}", list(&answers)))
}

fn return_to_zero(stage: &mut Stage) -> Result<String> {
    let active = |status: &Status| -> u64 {
        let backends = status.services.iter().flat_map(|service| &service.backends);
        backends.map(|backend| backend.traffic.active).sum()
    };
    let status = stage.tandem.wait_until("no connections", Duration::from_secs(30), |status| {
        active(status) == 0 && status.tables.iter().all(|table| table.half_open == 0)
    })?;
    let backends = status.services.iter().flat_map(|service| &service.backends);
    let opened: u64 = backends.map(|backend| backend.traffic.connections).sum();
    Ok(format!("{opened} connections opened, 0 open, 0 half open"))
}

/// Asks the web service many times, and fails unless every request is answered. Who answered how
/// often.
fn ask(stage: &Stage) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for number in 1..=REQUESTS {
        let answer = http_get(stage.lab.client(), stage.web(), "/")
            .with_context(|| format!("request {number} of {REQUESTS} failed"))?;
        *answers.entry(answer.body.trim_end().to_owned()).or_default() += 1;
    }
    Ok(answers)
}

/// Asks, and fails if a backend gets a connection, let alone answers.
fn none_for(backend: &str, stage: &Stage) -> Result<BTreeMap<String, usize>> {
    let opened = || -> Result<u64> {
        let status = stage.tandem.status()?;
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

fn list(answers: &BTreeMap<String, usize>) -> String {
    let parts: Vec<_> = answers.iter().map(|(name, count)| format!("{name} {count}")).collect();
    parts.join(", ")
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("nobody listens")
}
