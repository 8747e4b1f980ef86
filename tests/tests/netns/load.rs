//! Load: a million connections, and a flood of SYNs beside ordinary clients.

#![allow(clippy::cast_precision_loss, reason = "what is counted here is far below 2^52")]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use lb_daemon::core::{Status, Traffic};
use tests::lab::{
    Churn, ChurnServer, Churned, Ending, Family, HalfOpen, Held, IdentServer, Lab, Service,
    Settings, Tandem,
};

const SECOND: Duration = Duration::from_secs(1);
/// Client addresses. Each has ports for 64,000 connections, so that no connection is the second of
/// its tuple.
const CLIENTS: u16 = 64;

/// How connections end, of a thousand. Those of clients that vanish fill the servers' open files.
const MIX: [(Ending, usize); 5] = [
    (Ending::ClientCloses, 600),
    (Ending::ClientResets, 160),
    (Ending::ServerCloses, 80),
    (Ending::ServerResets, 155),
    (Ending::ClientVanishes, 5),
];

#[test]
fn a_million_connections_leave_nothing_behind() -> Result<()> {
    /// Those that both ends know of, and at the end of these, of clients that vanish.
    const TALKS: usize = 970_000;
    const LAST_TALKS: usize = 1000;
    /// SYNs that nobody follows up, and at the end of these.
    const SYNS: usize = 30_000;
    const LAST_SYNS: usize = 1000;

    let lab = Lab::two_arm(2)?;
    let servers = lab.backends().iter().map(|one| ChurnServer::start(one, 80));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let timeout = r#"timeout = { connect = "2s", client = "10s", server = "10s" }"#;
    // With so many ports one comes round after ten seconds. By then the backend's kernel, which
    // repeats the SYN-ACK of a client that never answers after 1, 3 and 7 s, was told that there is
    // no such connection; but its TIME_WAIT lasts for 60 s.
    let mut sources = lab.add_sources(Family::V4, 2)?;
    sources.push(lab.source(Family::V4));
    let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
    let settings = format!("{timeout}\nsource = {sources:?}");
    // At 33,000 connections a second, those that linger after their end are a quarter of a million.
    let room = "maxconn = 524288\nsource_ports = \"1024-65535\"";
    let tandem = start(&lab, &settings, room)?;

    let to = (lab.vip4(), 80).into();
    let churn = Churn::at(to).sources(clients(&lab)).at_once(500);
    let syns = HalfOpen::at(to).per_second(1000);
    let mut churned = thread::scope(|scope| {
        let some =
            scope.spawn(|| syns.clone().count(SYNS - LAST_SYNS).send(lab.client(), nowhere(&lab)));
        let churned = churn.clone().times(TALKS - LAST_TALKS).mix(&MIX).from(lab.client());
        some.join().expect("sending does not panic")?;
        anyhow::Ok(churned)
    })?;
    println!("{}", told(&churned));
    let refused = refused(&lab)?;
    println!("what made the backends refuse a SYN: {refused:?}");
    ensure!(refused["PAWSTimewait"] == 0, "a SYN came to a backend with an earlier timestamp");
    let vanish = churn.times(LAST_TALKS).mix(&[(Ending::ClientVanishes, 1)]);
    churned.merge(vanish.from(lab.client()));
    churned.all_succeeded()?;
    assert_eq!(churned.succeeded(), TALKS);
    // The numbers of the others are below these.
    let last = nowhere(&lab);
    syns.per_second(20_000)
        .count(LAST_SYNS)
        .send(lab.client(), |number| last(SYNS - LAST_SYNS + number))?;

    let abandoned = tandem.status()?;
    ensure!(active(&abandoned) >= LAST_TALKS as u64, "they count no more: {abandoned:?}");
    ensure!(abandoned.tables.iter().any(|table| table.half_open > 0), "nothing is half open");
    let since = Instant::now();
    // Ten seconds of silence, and then the next walk of the table; nobody helps by hanging up. Walks
    // rest sixty times as long as the last one had a processor.
    let status = tandem.wait_until("every count is zero", 60 * SECOND, |status| {
        let tables = status.tables.iter();
        active(status) == 0
            && tables.clone().all(|table| table.connections == 0 && table.half_open == 0)
    })?;
    println!("every count is zero {:.1} s after the last", since.elapsed().as_secs_f64());

    // What the clients saw is what the servers saw.
    let mut ended = BTreeMap::new();
    for (ending, count) in servers.iter().flat_map(ChurnServer::ended) {
        *ended.entry(ending).or_default() += count;
    }
    assert_eq!(ended, churned.ended);
    // A SYN that is sent again is a connection of its own if the first was answered by a segment
    // that made the client send an RST.
    let opened: u64 = backends(&status).map(|traffic| traffic.connections).sum();
    let at_least = (TALKS + SYNS) as u64;
    let expected = at_least..=at_least + churned.resent;
    ensure!(expected.contains(&opened), "{opened} were opened, not {expected:?}");
    assert_eq!(status.verdicts["forward_new"], opened);
    for verdict in ["drop_table_full", "drop_no_port", "drop_internal"] {
        assert_eq!(status.verdicts[verdict], 0, "{verdict}");
    }
    // The servers, who still wait for those that vanished, learn of it when they speak.
    let forsaken: usize = servers.iter().map(ChurnServer::forget).sum();
    assert_eq!(forsaken, churned.ended[&Ending::ClientVanishes]);
    Ok(())
}

#[test]
fn a_flood_of_syns_leaves_others_alone() -> Result<()> {
    const FLOOD: usize = 500_000;
    const PER_SECOND: u32 = 50_000;
    const ESTABLISHED: usize = 1000;
    let lab = Lab::two_arm(2)?;
    let servers = lab.backends().iter().map(|one| ChurnServer::start(one, 80));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let idents = lab.backends().iter().map(|one| IdentServer::start(one, 81));
    let _idents = idents.collect::<Result<Vec<_>>>()?;
    let tandem = start(&lab, "", "")?;

    let to = (lab.vip4(), 80).into();
    let mut held = Held::open(lab.client(), (lab.vip4(), 81).into(), ESTABLISHED, 5 * SECOND);
    held.tally().all_answered()?;
    let over = AtomicBool::new(false);
    let (flooded, churned, working) = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let started = Instant::now();
            let flood = HalfOpen::at(to).count(FLOOD).per_second(PER_SECOND);
            let sent = flood.send(lab.client(), random(&lab));
            over.store(true, Relaxed);
            sent.map(|()| started.elapsed())
        });
        let working = scope.spawn(|| {
            let mut working = ESTABLISHED;
            while !over.load(Relaxed) {
                working = working.min(held.still_work(100));
            }
            working
        });
        let churn = Churn::at(to).sources(clients(&lab)).limit(5 * SECOND).times(1000).at_once(20);
        let mut churned = Churned::default();
        while !over.load(Relaxed) {
            churned.merge(churn.from(lab.client()));
        }
        let flooded = flood.join().expect("sending does not panic")?;
        anyhow::Ok((flooded, churned, working.join().expect("an echo does not panic")))
    })?;
    let rate = FLOOD as f64 / flooded.as_secs_f64();
    println!("beside {rate:.0} random SYNs a second: {}", told(&churned));
    println!("of {ESTABLISHED} established connections {} suffered", ESTABLISHED - working);
    assert_eq!(working, ESTABLISHED);
    // The place of a client's SYN goes to a SYN of the flood when 32,768 have come: 650 ms for a
    // handshake of microseconds. If a machine that is short of breath takes longer, or a SYN finds
    // another of the flood on its port at the backend, it is sent again, which five seconds allow
    // twice.
    ensure!(churned.succeeded() * 1000 >= churned.tried() * 999, "{}", told(&churned));
    let status = tandem.status()?;
    let table = &status.tables[0];
    ensure!(table.half_open <= table.half_open_capacity, "more than the bound: {table:?}");
    ensure!(table.evicted > 0, "the flood was too small: {table:?}");
    Ok(())
}

/// Starts a daemon with a service of all backends.
fn start(lab: &Lab, settings: &str, global: &str) -> Result<Tandem> {
    let services = [80, 81].map(|port| {
        let service = Service::new(format!("p{port}"), (lab.vip4(), port)).set(settings);
        service.backends(lab.backends(), Family::V4, port).to_string()
    });
    let settings = Settings::new(lab, &services.concat()).global(global);
    let tandem = Tandem::start_with(lab, &settings)?;
    tandem.wait_until_all_serve()?;
    Ok(tandem)
}

fn clients(lab: &Lab) -> impl Iterator<Item = IpAddr> {
    (0..CLIENTS).map(|number| lab.crowd(Family::V4, number))
}

/// An address and port of a client that never answers, another for each of 60,000 numbers.
fn nowhere(lab: &Lab) -> impl Fn(usize) -> SocketAddr {
    move |number| {
        let number = u16::try_from(number).expect("it is less than 60,000");
        (lab.nowhere(Family::V4, number), 5000 + number).into()
    }
}

/// One of four billion addresses and ports of clients that never answer, by a number.
fn random(lab: &Lab) -> impl Fn(usize) -> SocketAddr {
    move |number| {
        let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [a, b, c, d, ..] = (mixed ^ mixed >> 29).to_be_bytes();
        (lab.nowhere(Family::V4, u16::from_be_bytes([a, b])), u16::from_be_bytes([c, d])).into()
    }
}

fn backends(status: &Status) -> impl Iterator<Item = Traffic> {
    status.services.iter().flat_map(|one| &one.backends).map(|one| one.traffic)
}

fn active(status: &Status) -> u64 {
    backends(status).map(|traffic| traffic.active).sum()
}

/// How often the backends' kernels answered a SYN by something else because its port had been used
/// before: by a connection in `TIME_WAIT` with later timestamps, or by one that is still there.
fn refused(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let mut refused = BTreeMap::new();
    for backend in lab.backends() {
        // A line of names and a line of numbers for each of several groups.
        let text = backend.enter(|| fs::read_to_string("/proc/thread-self/net/netstat"))?;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("TcpExt: ")).collect();
        let [names, numbers] = lines[..] else { bail!("no names and numbers of TCP: {text}") };
        for (name, number) in names.split(' ').zip(numbers.split(' ')) {
            if ["PAWSTimewait", "TCPSYNChallenge"].contains(&name) {
                *refused.entry(name.to_owned()).or_default() += number.parse::<u64>()?;
            }
        }
    }
    Ok(refused)
}

/// How it went, in a line.
fn told(churned: &Churned) -> String {
    let (tried, succeeded) = (churned.tried(), churned.succeeded());
    let share = |part: usize, whole: usize| part as f64 * 100.0 / whole as f64;
    format!(
        "{tried} connections, {:.0} a second; {:.3} % succeeded, {:.3} % of these needed more than \
         one SYN ({} SYNs); {:?}; {:?}",
        tried as f64 / churned.took.as_secs_f64(),
        share(succeeded, tried),
        share(churned.late, succeeded),
        churned.resent,
        churned.ended,
        churned.failures,
    )
}
