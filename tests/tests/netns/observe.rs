//! Backends whose check is content, and that refuse clients all the same.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::{BackendStatus, CheckStatus, Reason, State, Status};
use tests::lab::{Ask, Family, Host, IdentServer, Lab, ScriptedServer, Step, Tally, Tandem};

const PATIENCE: Duration = Duration::from_secs(20);

const READY: &[Step] = &[Step::Say("ready\n"), Step::Hang];
const UNFIT: &[Step] = &[Step::Say("unfit\n")];

#[test]
fn a_backend_that_refuses_clients_is_marked_down_and_comes_back_by_its_check() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let mut servers = serve(&lab)?;
    let agents = lab.backends().iter().map(|host| ScriptedServer::start(host, 9200, &[READY]));
    let agents = agents.collect::<Result<Vec<_>>>()?;
    let tandem =
        start(&lab, "on_error = \"mark-down\"\nerror_limit = 5\ncheck.inter = \"200ms\"", "")?;
    ask(&lab, 20).all_answered()?;

    drop(servers.remove(0));
    let tally = ask(&lab, 20);
    ensure!(tally.failed() >= 5, "only {} were refused", tally.failed());
    let status =
        tandem.wait_until("it is marked down", PATIENCE, |status| check(status, 0).downs > 0)?;
    // From here on, its check agrees.
    agents[0].play(&[UNFIT]);
    ensure!(logged(&tandem, "b1 is DOWN: HANA 5 handshakes of clients in a row failed")?);
    let b1 = backend(&status, 0);
    let errors = b1.traffic.connection_errors;
    ensure!(errors == tally.failed() as u64, "{errors} of {} are counted", tally.failed());
    ensure!(b1.observe.as_ref().is_some_and(|it| it.alarms >= 1), "{:?}", b1.observe);
    ensure!(backend(&status, 1).traffic.connection_errors == 0, "b2 has refused nobody");

    tandem.wait_until("it stays down", PATIENCE, |status| {
        let b1 = backend(status, 0);
        b1.state == State::Down && check(status, 0).reason == Reason::L7Response
    })?;
    let tally = ask(&lab, 40);
    tally.all_answered()?;
    ensure!((tally.count("b1"), tally.count("b2")) == (0, 40), "b1 is not left out");

    servers.push(IdentServer::start(&lab.backends()[0], 80)?);
    let downs = check(&tandem.status()?, 0).downs;
    agents[0].play(&[READY]);
    tandem.wait_until("it is up by its check", PATIENCE, |status| backend(status, 0).eligible)?;
    let tally = ask(&lab, 40);
    tally.all_answered()?;
    ensure!(tally.count("b1") == 20, "b1 has {}", tally.count("b1"));
    let status = tandem.status()?;
    ensure!(check(&status, 0).downs == downs && backend(&status, 0).state == State::Up);
    Ok(())
}

#[test]
fn failed_handshakes_are_failed_checks_by_default() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let mut servers = serve(&lab)?;
    let agents = lab.backends().iter().map(|host| ScriptedServer::start(host, 9200, &[READY]));
    let _agents = agents.collect::<Result<Vec<_>>>()?;
    // With one check only, the first is made at once.
    let unchecked = "observe = \"none\"\ncheck = { enabled = false }";
    let tandem = start(&lab, "check.inter = \"1h\"\ncheck.timeout = \"3s\"", unchecked)?;

    // Ten of them are one, and the next real check is an hour away.
    drop(servers.remove(1));
    for times in 1..=3 {
        ask(&lab, 20);
        let status = tandem.wait_until("it is told of", PATIENCE, |status| {
            backend(status, 1).observe.as_ref().is_some_and(|it| it.alarms == times)
        })?;
        let down = backend(&status, 1).state == State::Down;
        ensure!(down == (times == 3), "down after {times} failures: {down}");
        ensure!(check(&status, 1).reason == Reason::Observed && check(&status, 1).failing == times);
    }
    Ok(())
}

fn serve(lab: &Lab) -> Result<Vec<IdentServer>> {
    lab.backends().iter().map(|host| IdentServer::start(host, 80)).collect()
}

/// A daemon with one service, whose backends are observed, checked on another port, and have passed. The
/// first of them has settings of its own.
fn start(lab: &Lab, server: &str, first: &str) -> Result<Tandem> {
    let backend = |(host, settings): (&Host, &str)| {
        let (name, address) = (host.name(), host.at(Family::V4, 80));
        format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n{settings}\n")
    };
    let settings = [first].into_iter().chain(std::iter::repeat(""));
    let backends: String = lab.backends().iter().zip(settings).map(backend).collect();
    let tandem = Tandem::start(
        lab,
        &format!(
            "[[service]]\nname = \"web\"\nbind = \"{}:80\"\n[service.server]\nobserve = \"layer4\"\n\
             {server}\ncheck.port = 9200\ncheck.tcp_check = [{{ expect_string = \"ready\" }}]\n\
             {backends}",
            lab.vip4(),
        ),
    )?;
    let passed = |b: &BackendStatus| b.check.as_ref().is_some_and(|check| check.passed > 0);
    tandem.wait_until("all backends have passed a check", PATIENCE, |status| {
        let mut backends = status.services[0].backends.iter();
        backends.all(|b| b.eligible && (passed(b) || b.state == State::Unchecked))
    })?;
    Ok(tandem)
}

/// Clients one after the other, so that backends have them in turn.
fn ask(lab: &Lab, times: usize) -> Tally {
    Ask::at((lab.vip4(), 80).into()).times(times).from(lab.client())
}

fn backend(status: &Status, nth: usize) -> &BackendStatus {
    &status.services[0].backends[nth]
}

fn check(status: &Status, nth: usize) -> CheckStatus {
    backend(status, nth).check.clone().expect("it was checked")
}

/// Whether the daemon has logged this.
fn logged(tandem: &Tandem, text: &str) -> Result<bool> {
    let log = fs::read_to_string(tandem.process().log()).context("the log of the daemon")?;
    Ok(log.contains(text))
}
