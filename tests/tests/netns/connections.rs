//! Connections opened, closed, reset and abandoned: every count returns to zero.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Result, ensure};
use lb_daemon::core::{Status, TableStatus};
use tests::lab::{
    Ask, Close, Family, HalfOpen, Held, IdentServer, Lab, Service, Settings, Tandem, wait::until,
};

const SECOND: Duration = Duration::from_secs(1);

fn serve(lab: &Lab) -> Result<Vec<IdentServer>> {
    lab.backends().iter().map(|backend| IdentServer::start(backend, 80)).collect()
}

fn service(lab: &Lab, family: Family, settings: &str) -> Service {
    let service = Service::new("web", (lab.vip(family), 80)).set(settings);
    service.backends(lab.backends(), family, 80)
}

fn start(lab: &Lab, settings: &Settings) -> Result<Tandem> {
    let tandem = Tandem::start_with(lab, settings)?;
    tandem.wait_until_all_serve()?;
    Ok(tandem)
}

/// Waits until nothing is counted as open any more.
fn wait_until_all_is_zero(tandem: &Tandem) -> Result<Status> {
    tandem.wait_until("every count is zero", 30 * SECOND, |status| {
        let mut backends = status.services.iter().flat_map(|service| &service.backends);
        backends.all(|backend| backend.traffic.active == 0)
            && status.tables.iter().all(|table| table.connections == 0 && table.half_open == 0)
    })
}

fn table(status: &Status, family: Family) -> &TableStatus {
    let name = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    status.tables.iter().find(|table| table.family == name).expect("each family has a table")
}

/// An address and port of a client that never answers, another for each of 60,000 numbers.
fn nowhere(lab: &Lab, family: Family) -> impl Fn(usize) -> SocketAddr {
    move |number| {
        let number = u16::try_from(number).expect("it is less than 60,000");
        (lab.nowhere(family, number), 5000 + number).into()
    }
}

#[test]
fn counts_are_exact_and_return_to_zero() -> Result<()> {
    // In all 20,000 connections over IPv4.
    counts_return_to_zero(Family::V4, [12_000, 5000, 3000])
}

#[test]
fn counts_of_ipv6_are_exact_and_return_to_zero() -> Result<()> {
    counts_return_to_zero(Family::V6, [2000, 2000, 1000])
}

fn counts_return_to_zero(family: Family, [closed, reset, abandoned]: [usize; 3]) -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let service = service(&lab, family, "timeout = { connect = \"5s\" }");
    let tandem = start(&lab, &Settings::new(&lab, &service.to_string()))?;

    let to = (lab.vip(family), 80).into();
    let mut held = Held::open(lab.client(), to, 100, 5 * SECOND);
    held.tally().all_answered()?;
    HalfOpen::at(to).count(abandoned).send(lab.client(), nowhere(&lab, family))?;
    let ask = |times, how| Ask::at(to).times(times).at_once(50).close(how).from(lab.client());
    ask(closed - 100, Close::Fin).all_answered()?;
    ask(reset, Close::Reset).all_answered()?;
    assert_eq!(held.still_work(1000), 100);
    tandem.wait_until("only the held ones count", 30 * SECOND, |status| {
        let active = status.services[0].backends.iter().map(|backend| backend.traffic.active);
        active.collect::<Vec<_>>() == [50, 50]
    })?;
    held.close(Close::Fin)?;

    let status = wait_until_all_is_zero(&tandem)?;
    let opened: Vec<_> =
        status.services[0].backends.iter().map(|backend| backend.traffic.connections).collect();
    let half = u64::try_from(closed + reset + abandoned)? / 2;
    assert_eq!(opened, [half, half]);
    assert_eq!(status.verdicts["forward_new"], 2 * half);
    for verdict in ["drop_table_full", "drop_no_port", "drop_internal"] {
        assert_eq!(status.verdicts[verdict], 0, "{verdict}");
    }
    assert_eq!(table(&status, family).evicted, 0);
    Ok(())
}

#[test]
fn a_flood_of_syns_evicts_only_half_open_connections() -> Result<()> {
    a_flood_evicts_only_its_own(Family::V4)
}

#[test]
fn a_flood_of_ipv6_syns_evicts_only_half_open_connections() -> Result<()> {
    a_flood_evicts_only_its_own(Family::V6)
}

fn a_flood_evicts_only_its_own(family: Family) -> Result<()> {
    const FLOOD: usize = 4000;
    const BOUND: u64 = 2048;
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let settings = |timeout| {
        let settings = Settings::new(&lab, &service(&lab, family, timeout).to_string());
        settings.global(&format!("max_half_open = {BOUND}"))
    };
    // No SYN of the flood gets too old, so what goes was evicted.
    let tandem = start(&lab, &settings("timeout = { connect = \"10m\" }"))?;
    let (client, to) = (lab.client(), (lab.vip(family), 80).into());
    let mut held = Held::open(client, to, 200, 5 * SECOND);
    held.tally().all_answered()?;

    // A client has two seconds to answer before the flood reaches its place.
    let flood = HalfOpen::at(to).count(FLOOD).per_second(1000);
    let asked = thread::scope(|scope| {
        let flood = scope.spawn(|| flood.send(client, nowhere(&lab, family)));
        let mut asked = 0;
        while !flood.is_finished() {
            Ask::at(to).times(20).echo(1000).from(client).all_answered()?;
            asked += 20;
        }
        flood.join().expect("the flood does not panic")?;
        Ok::<_, anyhow::Error>(asked)
    })?;
    ensure!(asked > 0, "nobody was asked during the flood");
    assert_eq!(held.still_work(1000), 200, "established connections go on");

    let status = tandem.status()?;
    let table = table(&status, family);
    ensure!(table.half_open <= BOUND, "more than the bound: {table:?}");
    ensure!(table.evicted > 0, "nobody was evicted: {table:?}");
    // Each of the flood is half open still, or had to make room.
    assert_eq!(table.half_open + table.evicted, FLOOD as u64, "{table:?}");
    assert_eq!(status.verdicts["reset_no_flow"], 0, "no connection of a client was evicted");

    // Those that are left go when they are late; the rest when they are closed.
    tandem.configure(&settings("timeout = { connect = \"1s\" }"))?;
    tandem.reload()?;
    tandem.wait_until("nothing is half open", 15 * SECOND, |status| {
        status.tables.iter().all(|table| table.half_open == 0)
    })?;
    assert_eq!(held.still_work(1000), 200);
    held.close(Close::Reset)?;
    wait_until_all_is_zero(&tandem)?;
    Ok(())
}

#[test]
fn a_full_table_refuses_new_connections_and_keeps_the_old() -> Result<()> {
    const ROOM: usize = 1024;
    let lab = Lab::two_arm(2)?;
    let servers = serve(&lab)?;
    let settings = Settings::new(&lab, &service(&lab, Family::V4, "").to_string());
    let tandem = start(&lab, &settings.global(&format!("maxconn = {ROOM}")))?;
    let to = (lab.vip4(), 80).into();
    let mut held = Held::open(lab.client(), to, ROOM, 5 * SECOND);
    held.tally().all_answered()?;
    let status = tandem.status()?;
    let full = table(&status, Family::V4);
    assert_eq!((full.connections, full.capacity), (1024, 1024));

    let late = Ask::at(to).times(20).at_once(20).limit(2 * SECOND).from(lab.client());
    assert_eq!(late.failures, [("timed out".to_owned(), 20)].into());
    let status = tandem.status()?;
    ensure!(status.verdicts["drop_table_full"] >= 20, "they were not counted");
    assert_eq!(status.verdicts["forward_new"], 1024);
    assert_eq!(servers.iter().map(IdentServer::accepted).sum::<usize>(), ROOM);
    assert_eq!(held.still_work(1000), ROOM, "those in the table go on");

    held.close(Close::Reset)?;
    wait_until_all_is_zero(&tandem)?;
    Ask::at(to).times(100).at_once(10).from(lab.client()).all_answered()
}

#[test]
fn without_a_free_port_new_connections_are_dropped() -> Result<()> {
    const PORTS: usize = 100;
    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let settings = Settings::new(&lab, &service(&lab, Family::V4, "").to_string());
    let tandem = start(&lab, &settings.global("source_ports = \"2000-2099\""))?;
    let to = (lab.vip4(), 80).into();
    let mut held = Held::open(lab.client(), to, PORTS, 5 * SECOND);
    held.tally().all_answered()?;

    let late = Ask::at(to).times(20).at_once(20).limit(2 * SECOND).from(lab.client());
    assert_eq!(late.failures, [("timed out".to_owned(), 20)].into());
    ensure!(tandem.status()?.verdicts["drop_no_port"] >= 20, "they were not counted");
    assert_eq!(held.still_work(1000), PORTS);
    held.close(Close::Reset)?;
    wait_until_all_is_zero(&tandem)?;
    Ask::at(to).times(PORTS).from(lab.client()).all_answered()
}

#[test]
fn an_idle_connection_goes_after_the_clients_timeout() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let other = Service::new("patient", (lab.vip4(), 81));
    let services = [
        service(&lab, Family::V4, "timeout = { client = \"1s\" }"),
        other.backends(lab.backends(), Family::V4, 80),
    ];
    let tandem = start(&lab, &Settings::new(&lab, &services.map(|one| one.to_string()).concat()))?;
    let hold = |port| Held::open(lab.client(), (lab.vip4(), port).into(), 10, 5 * SECOND);
    let (mut idle, mut patient) = (hold(80), hold(81));
    idle.tally().all_answered()?;
    patient.tally().all_answered()?;

    let status = tandem.wait_until("idle connections are gone", 15 * SECOND, |status| {
        status.services[0].backends[0].traffic.active == 0
    })?;
    assert_eq!(table(&status, Family::V4).connections, 10, "only those of the other service");
    // Who comes back after that learns at once that the connection is no more.
    assert_eq!(idle.still_work(10), 0);
    assert_eq!(tandem.status()?.verdicts["reset_no_flow"], 10);
    assert_eq!(patient.still_work(1000), 10);
    Ok(())
}

#[test]
fn a_backend_that_falls_silent_is_given_up_after_the_servers_timeout() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let service = service(&lab, Family::V4, "timeout = { server = \"1s\" }");
    let tandem = start(&lab, &Settings::new(&lab, &service.to_string()))?;
    let to = (lab.vip4(), 80).into();
    let mut held = Held::open(lab.client(), to, 1, 3 * SECOND);
    held.tally().all_answered()?;
    lab.backends()[0].unplug()?;
    // The client goes on talking.
    until("the connection is given up", 15 * SECOND, || {
        held.still_work(10);
        let active = tandem.status()?.services[0].backends[0].traffic.active;
        ensure!(active == 0, "it is still there");
        Ok(())
    })?;
    wait_until_all_is_zero(&tandem)?;
    Ok(())
}
