//! The steps of the story in which the group moves from one balancer to the other.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::group::Role;
use tests::lab::{Family, Knocks, fence, wait::stretched};

use crate::{
    config::{PREEMPT_DELAY, PRIORITIES, WEB},
    lasting::Lasting,
    stage::{BALANCERS, Stage, group},
    story::{REQUESTS, ask, list},
};

/// Time between the connections of the client that looks out for a blackout.
const PERIOD: Duration = Duration::from_millis(5);
/// What no blackout may exceed, on an ordinary machine: a client that connects in the midst of it
/// sends its first packet again after a second, and that one must be answered.
const LONGEST: Duration = Duration::from_secs(1);
/// Answers that are waited for before and after each takeover.
const ANSWERS: usize = 40;
/// Connections that are open when the master is killed.
const OPEN: usize = 20;
/// Rounds of questions to a balancer for the virtual addresses.
const ROUNDS: u16 = 20;

/// Who is master, by the word of both.
pub(crate) fn roles(stage: &mut Stage) -> Result<String> {
    ensure!(stage.master()? == 0, "the balancer with the lower priority is the master");
    let mut lines = Vec::new();
    for host in BALANCERS {
        let status = stage.tandem(host).status()?;
        let group = group(&status).context("the status lacks the group")?;
        let (name, role, priority) = (stage.twin(host).name(), group.role, PRIORITIES[host]);
        lines.push(format!("{name} {role}, priority {priority}: {}", group.why));
    }
    ensure!(!lines[1].contains("MASTER"), "both say that they are the master: {lines:?}");
    Ok(lines.join("\n"))
}

/// The master dies without a word.
pub(crate) fn kill_the_master(stage: &mut Stage) -> Result<String> {
    let (old, new) = hosts(stage)?;
    let before = fence::answers_of(&stage.pair, stage.twin(old), WEB, ROUNDS)?;
    ensure!(before > 0, "the master does not answer for its addresses");
    let open = open_connections(stage)?;
    let mut lasting = Lasting::open(stage)?;
    lasting.go_on()?;

    let gap = blackout(stage, new, |stage| {
        stage.kill_tandem(old);
        Ok(())
    })?;
    let answers = ask(stage)?;
    let vip = stage.pair.vip(Family::V4).to_string();
    let left = stage.twin(old).ip("address show dev front")?;
    ensure!(left.contains(&vip), "somebody took the addresses off the killed balancer:\n{left}");
    let after = fence::answers_of(&stage.pair, stage.twin(old), WEB, ROUNDS)?;
    ensure!(after == 0, "the killed balancer still answers, {after} times");
    let alive = open.into_iter().filter_map(|stream| goes_on(stream).ok()).count();
    ensure!(alive == OPEN, "of {OPEN} connections that were open, only {alive} went on");
    lasting.go_on().context("the MySQL session")?;
    let session = same(&lasting);
    stage.lasting = Some(lasting);
    let [old, new] = [old, new].map(|host| stage.twin(host).name().to_owned());
    Ok(format!(
        "{old} killed, {new} is the master: no answer to new connections for {} ms\n\
         {REQUESTS} requests, none failed: {}\n\
         {old} still has the addresses, but answers nothing: by ARP and TCP {after} times, {before} \
         times before\n\
         of {OPEN} connections that were open, {alive} went on\n\
         {session}",
        gap.as_millis(),
        list(&answers),
    ))
}

/// It returns; having the higher priority, it takes over again.
pub(crate) fn take_back(stage: &mut Stage) -> Result<String> {
    let started = Instant::now();
    let mut took = Duration::ZERO;
    let gap = blackout(stage, 0, |stage| {
        stage.start_tandem(0)?;
        took = stage.wait_for_role(0, Role::Master)? - started;
        Ok(())
    })?;
    ensure!(took >= PREEMPT_DELAY, "it did not wait for its preempt_delay, but {took:?}");
    stage.wait_for_role(1, Role::Backup)?;
    stage.wait_for_all(0)?;
    let answers = ask(stage)?;
    let session = session_goes_on(stage)?;
    let [first, second] = BALANCERS.map(|host| stage.twin(host).name());
    Ok(format!(
        "{first} is the master again after {:.1} s (preempt_delay {} s), {second} stands by: no \
         answer for {} ms\n\
         {REQUESTS} requests, none failed: {}\n\
         {session}",
        took.as_secs_f64(),
        PREEMPT_DELAY.as_secs(),
        gap.as_millis(),
        list(&answers)
    ))
}

/// An operator has it moved.
pub(crate) fn hand_over(stage: &mut Stage) -> Result<String> {
    let (old, new) = hosts(stage)?;
    let gap = blackout(stage, new, |stage| stage.hand_over(old).map(drop))?;
    stage.wait_for_role(old, Role::Backup)?;
    let answers = ask(stage)?;
    // Whoever was told to give it up leaves it where it is, for all its priority.
    std::thread::sleep(PREEMPT_DELAY + Duration::from_millis(500));
    ensure!(stage.master()? == new, "the group did not stay where it was moved");
    let session = session_goes_on(stage)?;
    let [old, new] = [old, new].map(|host| stage.twin(host).name());
    Ok(format!(
        "{new} is the master and stays it, {old} stands by: no answer for {} ms\n\
         {REQUESTS} requests, none failed: {}\n\
         {session}",
        gap.as_millis(),
        list(&answers)
    ))
}

/// The MySQL session that was opened before the kill is the same as ever.
fn session_goes_on(stage: &mut Stage) -> Result<String> {
    let lasting = stage.lasting.as_mut().context("there is no session")?;
    lasting.go_on().context("the MySQL session")?;
    Ok(same(lasting))
}

fn same(lasting: &Lasting) -> String {
    let Lasting { id, server, count, .. } = lasting;
    format!(
        "the MySQL session goes on: number {id} on {server}, its temporary table counts {count}"
    )
}

/// The master and the other one.
fn hosts(stage: &Stage) -> Result<(usize, usize)> {
    let master = stage.master()?;
    Ok((master, 1 - master))
}

/// The longest time for which a client that opens connections all the time, to `MariaDB` as that
/// speaks first, had no answer while this happened and made a balancer the master.
fn blackout(
    stage: &mut Stage,
    next: usize,
    happens: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<Duration> {
    let knocks = Knocks::start(stage.pair.client(), stage.mysql(), PERIOD)?;
    let patience = Duration::from_secs(10);
    knocks.wait_for(ANSWERS, patience).context("before anything has happened")?;
    let start = Instant::now();
    happens(stage)?;
    stage.wait_for_role(next, Role::Master)?;
    knocks.wait_for(ANSWERS, patience).context("after the takeover")?;
    let gap = knocks.longest_gap(start)?;
    ensure!(gap < stretched(LONGEST), "new connections had no answer for {gap:?}");
    Ok(gap)
}

/// Connections to the web service on which nothing was asked yet.
fn open_connections(stage: &Stage) -> Result<Vec<TcpStream>> {
    let (client, web) = (stage.pair.client(), stage.web());
    (0..OPEN).map(|_| client.connect(web, Duration::from_secs(5))).collect()
}

/// Whether a request on a connection is answered.
fn goes_on(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "the answer is {answer:?}");
    Ok(())
}
