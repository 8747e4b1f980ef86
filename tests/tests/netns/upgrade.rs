//! A daemon is replaced by one whose maps are laid out another way.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::{core::Status, dataplane};
use tests::lab::{
    Ask, Family, Held, IdentServer, Lab, Load, Openings, ScriptedServer, Service, SessionServer,
    Sessions, Settings, Step, Surroundings, Tally, Tandem, wait::until,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// The port of the sessions.
const SESSIONS: u16 = 7000;
const LOAD: Load =
    Load { active: 60, idle: 20, pushed: 20, bulk: 4, period: Duration::from_millis(100) };

#[test]
fn an_upgrade_to_other_maps_and_back_costs_no_connection() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let _sessions = SessionServer::start(&lab.backends()[0], SESSIONS)?;
    let mut tandem = start(&lab)?;
    let sessions = Sessions::open(lab.client(), (lab.vip4(), SESSIONS).into(), &LOAD)?;
    let mut held = Family::BOTH.map(|family| hold(&lab, family, 20));

    for _ in 0..2 {
        let (layouts, counted) = (tandem.layouts()?, count(&tandem)?);
        upgrade(&mut tandem)?;
        let now = tandem.layouts()?;
        ensure!(
            layouts.len() == 1 && now.len() == 1 && layouts != now,
            "{layouts:?}, then {now:?}"
        );
        until("the same counts", PATIENCE, || {
            let now = count(&tandem)?;
            ensure!(now == counted, "{counted:?}, then {now:?}");
            Ok(())
        })?;
        sessions.verify(PATIENCE)?.none_lost()?;
        for held in &mut held {
            ensure!(held.still_work(1000) == held.len(), "connections were lost");
        }
        for family in Family::BOTH {
            ask(&lab, family).all_answered()?;
        }
    }
    let log = fs::read_to_string(tandem.process().log())?;
    ensure!(!log.contains("were corrected"), "the counts were wrong:\n{log}");
    ensure!(!log.contains("broken entries"), "the tables were wrong:\n{log}");
    // What ends, ends as any other.
    drop((sessions, held));
    tandem.wait_until("no connections", PATIENCE, |status| {
        let mut backends = status.services.iter().flat_map(|service| &service.backends);
        backends.all(|backend| backend.traffic.active == 0)
    })?;
    Ok(())
}

#[test]
fn what_is_opened_while_a_daemon_is_upgraded_is_answered() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let mut tandem = start(&lab)?;
    let over = AtomicBool::new(false);
    let asked: Result<()> = thread::scope(|scope| {
        let asking = Family::BOTH.map(|family| {
            let (lab, over) = (&lab, &over);
            scope.spawn(move || -> Result<()> {
                while !over.load(Relaxed) {
                    // With pauses, which leave the daemon a processor.
                    thread::sleep(Duration::from_millis(20));
                    Ask::at(vip(lab, family)).times(4).from(lab.client()).all_answered()?;
                }
                Ok(())
            })
        });
        let upgrades = (0..2).try_for_each(|_| upgrade(&mut tandem));
        over.store(true, Relaxed);
        let asked = asking.into_iter().try_for_each(|one| one.join().expect("nobody panics"));
        upgrades.and(asked)
    });
    asked
}

#[test]
fn connections_that_were_opened_a_moment_before_or_after_survive() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let _sessions = SessionServer::start(&lab.backends()[0], SESSIONS)?;
    let mut tandem = start(&lab)?;
    for _ in 0..2 {
        let to = (lab.vip4(), SESSIONS).into();
        let openings = Openings::start(lab.client(), to, Duration::from_millis(4))?;
        upgrade(&mut tandem)?;
        let (count, survived) =
            openings.survivors(Instant::now(), Duration::ZERO..Duration::MAX, PATIENCE)?;
        assert_eq!(survived, count);
    }
    Ok(())
}

#[test]
fn a_limit_that_an_agent_has_set_stays_until_the_next_daemon_has_heard_the_agent() -> Result<()> {
    const FEW: &[Step] = &[Step::Say("maxconn:1\n")];
    const NOTHING: &[Step] = &[Step::Hang];

    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let host = &lab.backends()[0];
    let agent = ScriptedServer::start(host, 9707, &[FEW])?;
    let service = Service::new("web4", (lab.vip4(), 80));
    // An answer is awaited for longer than the test takes.
    let keys = "agent = { port = 9707, inter = \"1h\" }";
    let service = service.backend_with(host, Family::V4, 80, keys).to_string();
    let mut tandem = Tandem::start_with(&lab, &settings(&lab, &service, 20))?;
    let limit = |status: &Status| status.services[0].backends[0].limit;
    tandem.wait_until("the agent is heard", PATIENCE, |status| limit(status) == Some(1))?;
    agent.play(&[NOTHING]);

    tandem.restart()?;
    let status = tandem.wait_until_all_serve()?;
    ensure!(limit(&status) == Some(1), "a restart has changed the limit: {status:?}");
    upgrade(&mut tandem)?;
    let status = tandem.status()?;
    ensure!(limit(&status) == Some(1), "an upgrade has changed the limit: {status:?}");
    Ok(())
}

#[test]
fn a_daemon_that_was_killed_before_an_upgrade_leaves_no_connections_to_the_next() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let mut tandem = start(&lab)?;
    let mut held = hold(&lab, Family::V4, 10);
    tandem.kill9();
    tandem.change_layout()?;
    tandem.start_again()?;
    begins_anew(&lab, &tandem, &mut held)
}

#[test]
fn a_version_that_tells_of_its_connections_another_way_is_refused() -> Result<()> {
    const NAME: &str = "tandem-of-another-version";

    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let mut tandem = start(&lab)?;
    let mut held = hold(&lab, Family::V4, 10);
    tandem.suspend()?;
    let address = SocketAddr::from_abstract_name(NAME)?;
    let listener = lab.balancer().enter(|| UnixListener::bind_addr(&address))?;
    let lead = format!("cd /sys/fs/bpf/tandem/* && rm exporter && ln -s {NAME} exporter");
    lab.balancer().command("sh").args(["-c", &lead]).run()?;
    let teller = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        Ok(stream.write_all(b"{\"version\":999,\"more\":[]}\n")?)
    });
    tandem.change_layout()?;
    tandem.start_again()?;
    teller.join().expect("nobody panics")?;
    let log = fs::read_to_string(tandem.process().log())?;
    ensure!(log.contains("cannot take over the connections of another version"), "{log}");
    begins_anew(&lab, &tandem, &mut held)
}

#[test]
fn a_daemon_that_takes_long_is_told_for_as_long_as_it_asks() -> Result<()> {
    /// Longer than who stands in waits for the next daemon.
    const LONG: Duration = Duration::from_secs(6);
    const BPFFS: &str = "/sys/fs/bpf/tandem";

    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let mut tandem = start_with(&lab, 2)?;
    let mut held = hold(&lab, Family::V4, 10);
    tandem.suspend()?;
    // A daemon has the lock before it asks.
    let (lock, mut stream) = lab.balancer().enter(|| {
        let lock = dataplane::lock(Path::new(BPFFS))?.context("a daemon has the data plane")?;
        let links = fs::read_dir(BPFFS)?.map(|entry| Ok(entry?.path().join("exporter")));
        let links: Vec<PathBuf> = links.collect::<Result<_>>()?;
        let name = links.iter().find_map(|link| fs::read_link(link).ok()).context("no link")?;
        let address = SocketAddr::from_abstract_name(name.as_os_str().as_encoded_bytes())?;
        anyhow::Ok((lock, UnixStream::connect_addr(&address)?))
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let (begun, mut asked) = (Instant::now(), 0);
    while begun.elapsed() < LONG {
        stream.write_all(b"pass\n").with_context(|| format!("it is gone after {asked}"))?;
        let told = lines.by_ref();
        let end = told.find(|line| line.as_ref().map_or(true, |line| line.contains("cursors")));
        ensure!(matches!(end, Some(Ok(_))), "it tells no more after {asked}: {end:?}");
        asked += 1;
        thread::sleep(Duration::from_millis(200));
    }
    // And not for ever.
    ensure!(lines.next().is_none(), "it says something that it was not asked");
    drop(lock);
    tandem.start_again()?;
    tandem.wait_until_all_serve()?;
    ensure!(held.still_work(100) == held.len(), "connections were lost");
    Ok(())
}

/// Fails unless a daemon says that connections ended, as they did, and new ones work.
fn begins_anew(lab: &Lab, tandem: &Tandem, held: &mut Held) -> Result<()> {
    tandem.wait_until_all_serve()?;
    let log = fs::read_to_string(tandem.process().log())?;
    ensure!(log.contains("removing the data plane of another version"), "{log}");
    ensure!(tandem.layouts()?.len() == 1, "the old one is still there");
    ensure!(held.still_work(10) == 0, "who carries them?");
    ask(lab, Family::V4).all_answered()
}

/// A daemon with services of both families, which somebody may stand in for.
fn start(lab: &Lab) -> Result<Tandem> {
    start_with(lab, 20)
}

/// The same, with whoever stands in waiting for so many seconds.
fn start_with(lab: &Lab, patience: u32) -> Result<Tandem> {
    let service = |name: &str, family, port| {
        let service = Service::new(name, (lab.vip(family), port));
        service.backends(lab.backends(), family, port).to_string()
    };
    let mut sessions = Service::new("sessions", (lab.vip4(), SESSIONS));
    sessions = sessions.backends(&lab.backends()[..1], Family::V4, SESSIONS);
    let services = service("web4", Family::V4, 80) + &service("web6", Family::V6, 80);
    let services = services + &sessions.to_string();
    let tandem = Tandem::start_with(lab, &settings(lab, &services, patience))?;
    tandem.wait_until_all_serve()?;
    Ok(tandem)
}

fn settings(lab: &Lab, services: &str, patience: u32) -> Settings {
    let environment = vec![("TANDEM_STAND_IN_SECONDS", patience.to_string().into())];
    let surroundings = Surroundings { environment, sees_processes: true };
    let settings = Settings { surroundings, ..Settings::new(lab, services) };
    // Small tables: what takes time is to look at every place of them.
    settings.global("maxconn = 20000")
}

fn upgrade(tandem: &mut Tandem) -> Result<()> {
    tandem.change_layout()?;
    tandem.restart()?;
    tandem.wait_until_all_serve().map(drop)
}

/// How many connections each backend has, by `tandem flows`.
fn count(tandem: &Tandem) -> Result<Vec<String>> {
    let counted = tandem.verb(&["flows", "--count", "--json", "--socket"]);
    let counted = counted.arg(tandem.socket()).run()?;
    let backend = |line: &str| {
        let count: serde_json::Value = serde_json::from_str(line)?;
        Ok(["service", "backend", "established"].map(|key| count[key].to_string()).join(" "))
    };
    counted.lines().map(backend).collect()
}

fn serve(lab: &Lab) -> Result<Vec<IdentServer>> {
    lab.backends().iter().map(|host| IdentServer::start(host, 80)).collect()
}

fn hold(lab: &Lab, family: Family, count: usize) -> Held {
    Held::open(lab.client(), vip(lab, family), count, PATIENCE)
}

fn ask(lab: &Lab, family: Family) -> Tally {
    Ask::at(vip(lab, family)).times(20).at_once(4).from(lab.client())
}

fn vip(lab: &Lab, family: Family) -> net::SocketAddr {
    (lab.vip(family), 80).into()
}
