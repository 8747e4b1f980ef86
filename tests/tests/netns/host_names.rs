//! Backends by host name, as the system's resolver knows them.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::{BackendStatus, State, Status};
use tests::lab::{Ask, Family, Held, IdentServer, Lab, Settings, Tally, Tandem};

const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "db1.lab.invalid";

#[test]
fn new_connections_follow_a_host_name_and_those_that_are_there_stay() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let servers = lab.backends().iter().map(|host| IdentServer::start(host, 80));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let [b1, b2] = [0, 1].map(|nth: usize| lab.backends()[nth].at(Family::V4, 80));
    let hosts = HostsFile::put(&lab)?;

    let tandem = Tandem::start_with(&lab, &settings(&lab))?;
    let status = tandem.wait_until("the name does not resolve", PATIENCE, |status| {
        let host = backend(status).host.as_ref();
        host.is_some_and(|host| host.problem.is_some())
    })?;
    let db1 = backend(&status);
    ensure!((db1.state, db1.address) == (State::Down, None), "{db1:?}");
    ensure!(ask(&lab).answered() == 0, "nobody is there");

    hosts.say(&format!("{} {NAME}\n", b1.ip()))?;
    tandem.wait_until("it has an address", PATIENCE, |status| {
        let db1 = backend(status);
        db1.eligible && db1.address == Some(b1) && checks(db1) > 0
    })?;
    ask(&lab).all_answered()?;
    ensure!(ask(&lab).count("b1") == TIMES);
    let mut held = Held::open(lab.client(), (lab.vip4(), 80).into(), 4, PATIENCE);
    held.tally().all_answered()?;

    hosts.say(&format!("{} {NAME}\n", b2.ip()))?;
    tandem.wait_until("it has another address", PATIENCE, |status| {
        let db1 = backend(status);
        db1.eligible && db1.address == Some(b2)
    })?;
    let tally = ask(&lab);
    tally.all_answered()?;
    ensure!(tally.count("b2") == TIMES, "new connections go to {}", tally.count("b1"));
    ensure!(held.still_work(100) == 4, "connections to the old address end");

    hosts.say("")?;
    let status = tandem.wait_until("it does not resolve any more", PATIENCE, |status| {
        backend(status).host.as_ref().is_some_and(|host| host.problem.is_some())
    })?;
    ensure!(backend(&status).address == Some(b2) && backend(&status).state == State::Up);
    ask(&lab).all_answered()?;
    ensure!(held.still_work(100) == 4);
    Ok(())
}

const TIMES: usize = 10;

fn settings(lab: &Lab) -> Settings {
    let toml = format!(
        "[[service]]\nname = \"db\"\nbind = \"{}:80\"\n[service.server.check]\ninter = \"200ms\"\n\
         timeout = \"3s\"\n[[service.backend]]\nname = \"db1\"\naddress = \"{NAME}:80\"\n",
        lab.vip4()
    );
    Settings::new(lab, &toml).global("resolve_interval = \"200ms\"")
}

/// `/etc/hosts` as the balancer sees it.
struct HostsFile(PathBuf);

impl HostsFile {
    fn put(lab: &Lab) -> Result<Self> {
        lab.balancer().cover("/etc/hosts", "").map(Self)
    }

    /// What it says from now on.
    fn say(&self, text: &str) -> Result<()> {
        fs::write(&self.0, text).context("cannot write the hosts file")
    }
}

fn ask(lab: &Lab) -> Tally {
    Ask::at((lab.vip4(), 80).into()).times(TIMES).from(lab.client())
}

fn backend(status: &Status) -> &BackendStatus {
    &status.services[0].backends[0]
}

fn checks(backend: &BackendStatus) -> u64 {
    backend.check.as_ref().map_or(0, |check| check.passed)
}
