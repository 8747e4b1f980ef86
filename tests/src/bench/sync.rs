//! What it takes to tell the other host of a pair of connections.
//!
//! | row | what |
//! |---|---|
//! | `sync/rate` | connections that were opened in a second, for ten seconds; they all last |
//! | `sync/lag/p99` | milliseconds until the other host had acknowledged one of them, which 99 of 100 took at most |
//! | `sync/cpu/master`, `sync/cpu/backup` | processor time of either daemon over those ten seconds |
//! | `sync/snapshot` | seconds from the start of a daemon until it had a million connections of the other |
//! | `sync/snapshot/adverts` | the longest time between two adverts of the master meanwhile, beside the interval that was set |
//!
//! Both daemons are real ones with a link between them, one on each host of a pair. Handshakes are
//! played by programs in the kernel, at the end of a cable to either host.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    addr::{Address as _, Port, V4},
    flow::FlowKey,
};

use super::{
    machine::processor_time,
    pair::V3_100MS,
    range::{Flags, Lane, Range},
    report::Row,
};
use crate::lab::{Contest, Family, Namespace, Tandem, member, wait::until};

const GROUP: &str = "sync";
/// Connections a second, and for how long.
const RATE: u32 = 50_000;
const SPAN: Duration = Duration::from_secs(10);
/// Connections of the snapshot.
const MANY: u32 = 1_000_000;
/// How often some are opened.
const BEAT: Duration = Duration::from_millis(10);
/// The interface of both hosts at which handshakes are played, and the service there.
const LOAD: &str = "load";
const PORT: u16 = 9000;
/// Backends enough that half of the ports are enough for all connections.
const BACKENDS: u8 = 40;
/// Clients, each of which has its share of the connections.
const CLIENTS: u32 = 1_000;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures the group. `object` has the programs that play.
pub(super) fn measure(object: &[u8]) -> Result<Vec<Row>> {
    let mut contest = Contest::for_sessions(V3_100MS.election(), 0, PORT)?;
    let player = Namespace::new("player", contest.pair().dir())?;
    player.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    player.enter(|| measure_in(&player, &mut contest, object))
}

fn measure_in(player: &Namespace, contest: &mut Contest, object: &[u8]) -> Result<Vec<Row>> {
    let mut range = Range::new(object)?;
    let mut lanes = Vec::new();
    for host in 0..2 {
        lanes.push(range.cable(player, (contest.twin(host), LOAD))?);
        settle(contest.twin(host))?;
        enter(contest, host)?;
    }
    for number in 0..MANY {
        range.set_tuple(number, tuple(contest, number)?)?;
    }
    contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    let mut rows = told(&mut range, &lanes[0], contest)?;
    rows.extend(snapshot(&mut range, &lanes[0], contest)?);
    Ok(rows)
}

/// Connections that come one after the other.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate times a few seconds"
)]
fn told(range: &mut Range, lane: &Lane, contest: &mut Contest) -> Result<Vec<Row>> {
    let pids = [0, 1].map(|host| contest.tandem(host).process().pid());
    let times = || -> Result<Vec<Duration>> { pids.into_iter().map(processor_time).collect() };
    let before = times()?;
    let started = Instant::now();
    let mut opened = 0;
    while started.elapsed() < SPAN {
        thread::sleep(BEAT);
        let due = (started.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
        let share = due - opened;
        range.fire(lane, Flags::Syn, (opened, share), share)?;
        opened = due;
    }
    let took = started.elapsed().as_secs_f64();
    let after = times()?;
    // Those on whose way a frame was lost are none.
    let there = connections(contest.tandem(0))?;
    ensure!(there * 100 >= u64::from(opened) * 95, "of {opened} connections {there} are there");
    until("the other host has them all", PATIENCE, || {
        let theirs = connections(contest.tandem(1))?;
        ensure!(theirs == there, "it has {theirs} of {there}");
        Ok(())
    })?;
    let status = contest.tandem(0).status_json()?;
    let lag = &status["sync"]["conversation"]["lag"]["p99_seconds"];
    let lag = lag.as_f64().with_context(|| format!("no lag in {}", status["sync"]))?;
    eprintln!("{GROUP}: {there} connections in {took:.1} s, {:.1} ms behind", lag * 1e3);
    let cpu = |host: usize| after[host].saturating_sub(before[host]).as_secs_f64() / took * 100.0;
    Ok(vec![
        Row::alone(GROUP, "rate", "connections/s", &[there as f64 / took]),
        Row::alone(GROUP, "lag/p99", "ms", &[lag * 1e3]),
        Row::alone(GROUP, "cpu/master", "% of one core", &[cpu(0)]),
        Row::alone(GROUP, "cpu/backup", "% of one core", &[cpu(1)]),
    ])
}

/// A host that begins without any.
fn snapshot(range: &mut Range, lane: &Lane, contest: &mut Contest) -> Result<Vec<Row>> {
    const BATCH: u32 = 20_000;

    contest.member(1).retire()?;
    contest.member(1).elector().wait(PATIENCE)?;
    // More than once, for frames may be lost.
    for first in (0..MANY).step_by(BATCH as usize).cycle().take(3 * (MANY / BATCH) as usize) {
        range.fire(lane, Flags::Syn, (first, BATCH), BATCH)?;
        if first == 0 && connections(contest.tandem(0))? >= u64::from(MANY) {
            break;
        }
    }
    let there = connections(contest.tandem(0))?;
    ensure!(there * 100 >= u64::from(MANY) * 99, "only {there} connections could be opened");

    contest.capture().forget();
    let started = Instant::now();
    let at = SystemTime::now();
    contest.member(1).start_again()?;
    until("the other host has them all", PATIENCE, || {
        let theirs = connections(contest.tandem(1))?;
        ensure!(theirs == there, "it has {theirs} of {there}");
        Ok(())
    })?;
    let took = started.elapsed().as_secs_f64();
    contest.only_master(0)?;
    let frames = contest.capture().frames();
    let adverts: Vec<_> =
        frames.iter().filter(|one| one.advert().is_some() && one.at > at).collect();
    let gaps = adverts.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at));
    let longest = gaps.collect::<Result<Vec<_>, _>>()?.into_iter().max().context("no adverts")?;
    eprintln!("{GROUP}: {there} connections in {took:.1} s, adverts {longest:.1?} apart at most");
    let interval = contest.election().advert_int;
    let gap = [(longest.as_secs_f64() * 1e3, interval.as_secs_f64() * 1e3)];
    Ok(vec![
        Row::alone(GROUP, "snapshot", "s", &[took]),
        Row::against(GROUP, "snapshot/adverts", "ms", "interval", &gap),
    ])
}

/// Lets a host reach the backends, who never answer for themselves.
fn settle(twin: &Namespace) -> Result<()> {
    twin.ip(&format!("route add 10.6.0.0/24 dev {LOAD}"))?;
    for number in 0..BACKENDS {
        let mac = format!("02:00:00:00:06:{:02x}", number + 1);
        twin.ip(&format!(
            "neigh replace {} lladdr {mac} dev {LOAD} nud permanent",
            backend(number)
        ))?;
    }
    Ok(())
}

/// Starts a daemon.
fn enter(contest: &mut Contest, host: usize) -> Result<()> {
    let (vip, source) = (contest.pair().vip(Family::V4), contest.pair().source(Family::V4));
    let mut lines = member::sync(contest.pair(), host, member::SYNC_KEY);
    write!(
        lines,
        "
[[service]]
name = \"{LOAD}\"
bind = \"{vip}:{PORT}\"
source = [\"{source}\"]
timeout = {{ connect = \"5s\", client = \"1h\", server = \"1h\" }}
server.check = {{ enabled = false }}
"
    )?;
    for number in 0..BACKENDS {
        let address = backend(number);
        write!(lines, "[[service.backend]]\nname = \"b{number}\"\naddress = \"{address}:80\"\n")?;
    }
    let mut settings = contest.settings(host, 101 - u8::try_from(host)?, &lines);
    settings.interfaces.push(LOAD.to_owned());
    let room = "maxconn = 1048576\nsource_ports = \"1024-65535\"";
    let tandem = Tandem::start_on(contest.twin(host), &settings.global(room))?;
    contest.enter_as(host, Box::new(tandem))
}

fn backend(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 6, 0, number + 1)
}

/// What a client's packet on a connection has.
fn tuple(contest: &Contest, number: u32) -> Result<FlowKey<V4>> {
    let address = Ipv4Addr::from(u32::from_be_bytes([10, 8, 0, 0]) + number % CLIENTS);
    let v4 = |address: IpAddr| V4::from_ip(address).context("it is of IPv6");
    Ok(FlowKey {
        src: v4(address.into())?,
        dst: v4(contest.pair().vip(Family::V4))?,
        sport: Port::new(u16::try_from(1024 + number / CLIENTS)?),
        dport: Port::new(PORT),
    })
}

/// Connections in the tables of a daemon.
fn connections(tandem: &Tandem) -> Result<u64> {
    Ok(tandem.status()?.tables.iter().map(|table| table.connections).sum())
}
