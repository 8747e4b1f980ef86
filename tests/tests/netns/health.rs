//! Backends that are killed, hang, refuse or flap.
//!
//! A noisy machine delays checks, so nothing here is measured by the clock: what counts is how
//! many checks passed and failed, and in which state every status seen on the way showed the
//! backend then.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_daemon::core::{BackendStatus, CheckStatus, Reason, State, Status};
use tests::lab::{
    Ask, Family, Host, IdentServer, Lab, Nginx, ScriptedServer, Step, Tally, Tandem, wait::until,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Quick, but with time enough for a slow machine to answer.
const CHECK: &str = r#"
inter = "200ms"
fastinter = "100ms"
downinter = "500ms"
timeout = "2s"
"#;

const READY: &[Step] = &[Step::Say("ready\n"), Step::Hang];
const SILENT: &[Step] = &[Step::Hang];

#[test]
fn a_killed_backend_goes_down_after_fall_failures_and_comes_back_after_rise_passes() -> Result<()> {
    let lab = Lab::two_arm(3)?;
    let mut servers = serve(&lab)?;
    let tandem = start(&lab, &format!("{CHECK}fall = 4\nrise = 3"))?;
    ask(&lab).all_answered()?;
    let before = backend(&tandem.status()?, 1).clone();

    let down = goes_down(&tandem, 1, 4, || drop(servers.remove(1)))?;
    assert_eq!(check(&down).reason, Reason::L4Connection);
    assert!(logged(&tandem, "WARN backend web/b2 is DOWN: L4CON ")?);

    let tally = ask(&lab);
    tally.all_answered()?;
    assert_eq!((tally.answered(), tally.count("b2")), (60, 0));
    let after = backend(&tandem.status()?, 1).clone();
    assert_eq!(after.traffic.connections, before.traffic.connections, "it got a connection");
    assert!(!after.eligible);

    let b2 = &lab.backends()[1];
    let up = comes_back(&tandem, 1, 3, || servers.push(IdentServer::start(b2, 80).unwrap()))?;
    assert_eq!(check(&up).reason, Reason::L4Ok);
    assert!(logged(&tandem, "INFO backend web/b2 is UP: L4OK ")?);
    let tally = ask(&lab);
    tally.all_answered()?;
    assert_eq!(tally.count("b2"), 20);
    Ok(())
}

#[test]
fn a_backend_whose_banner_never_comes_gets_no_connection_though_it_accepts() -> Result<()> {
    let lab = Lab::two_arm(3)?;
    let servers = serve(&lab)?;
    let agents = lab.backends().iter().map(|host| ScriptedServer::start(host, 9200, &[READY]));
    let agents = agents.collect::<Result<Vec<_>>>()?;
    let settings = r#"
        port = 9200
        inter = "200ms"
        timeout = "800ms"
        fall = 2
        rise = 2
        tcp_check = [{ expect_string = "ready" }]
    "#;
    let tandem = start(&lab, settings)?;
    assert_eq!(check(backend(&tandem.status()?, 0)).reason, Reason::L7Ok);

    let down = goes_down(&tandem, 0, 2, || agents[0].play(&[SILENT]))?;
    assert_eq!(check(&down).reason, Reason::L7Timeout);
    assert!(logged(&tandem, "WARN backend web/b1 is DOWN: L7TOUT ")?);

    // Its port 80 still answers, and would count.
    let accepted = servers[0].accepted();
    let tally = ask(&lab);
    tally.all_answered()?;
    assert_eq!((tally.count("b2"), tally.count("b3")), (30, 30));
    assert_eq!(servers[0].accepted(), accepted);

    comes_back(&tandem, 0, 2, || agents[0].play(&[READY]))?;
    assert_eq!(ask(&lab).count("b1"), 20);
    Ok(())
}

#[test]
fn a_backend_whose_cable_is_pulled_goes_down_by_timeouts_and_comes_back() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let settings = "inter = \"300ms\"\ntimeout = \"300ms\"\nfall = 3\nrise = 2";
    let tandem = start(&lab, settings)?;

    let b1 = &lab.backends()[0];
    goes_down(&tandem, 0, 3, || b1.unplug().unwrap())?;
    assert!(logged(&tandem, "WARN backend web/b1 is DOWN: L4TOUT ")?);
    let tally = ask(&lab);
    tally.all_answered()?;
    assert_eq!((tally.count("b1"), tally.count("b2")), (0, 60));

    comes_back(&tandem, 0, 2, || b1.plug().unwrap())?;
    let back = |status: &Status| status.services[0].backends.iter().all(|b| b.eligible);
    tandem.wait_until("its neighbour is known again", PATIENCE, back)?;
    assert_eq!(ask(&lab).count("b1"), 30);
    Ok(())
}

#[test]
fn a_frozen_process_behind_a_living_kernel_is_found_by_a_tcp_check_only() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let servers = serve(&lab)?;
    let settings = r#"
        inter = "200ms"
        timeout = "800ms"
        fall = 2
        rise = 2
        tcp_check = [{ expect_regex = '^b[12]\n' }]
    "#;
    let tandem = start(&lab, settings)?;
    let down = goes_down(&tandem, 1, 2, || servers[1].freeze())?;
    assert_eq!(check(&down).reason, Reason::L7Timeout);
    let tally = ask(&lab);
    tally.all_answered()?;
    assert_eq!((tally.count("b1"), tally.count("b2")), (60, 0));
    comes_back(&tandem, 1, 2, || servers[1].thaw())?;
    assert_eq!(ask(&lab).count("b2"), 30);
    Ok(())
}

#[test]
fn a_flapping_backend_whose_failures_never_reach_fall_in_a_row_stays_up() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let wrong: &[Step] = &[Step::Say("not today\n")];
    let agent = ScriptedServer::start(&lab.backends()[0], 9200, &[READY, wrong, wrong])?;
    let settings = r#"
        port = 9200
        inter = "20ms"
        timeout = "5s"
        fall = 3
        tcp_check = [{ expect_string = "ready" }]
    "#;
    let tandem = start(&lab, settings)?;
    let status = tandem.wait_until("twenty failures", PATIENCE, |status| {
        assert_eq!(backend(status, 0).state, State::Up);
        check(backend(status, 0)).failed >= 20
    })?;
    let after = check(backend(&status, 0));
    assert_eq!(after.downs, 0);
    assert!(after.passed >= 9, "{after:?}");
    assert!(!logged(&tandem, "is DOWN")?);
    ask(&lab).all_answered()?;

    // One more in a row is one too many.
    agent.play(&[READY, wrong, wrong, wrong]);
    let down =
        |status: &Status| backend(status, 0).check.as_ref().is_some_and(|check| check.downs > 0);
    tandem.wait_until("it goes down", PATIENCE, down)?;
    assert!(logged(&tandem, "WARN backend web/b1 is DOWN: L7RSP ")?);
    Ok(())
}

#[test]
fn failures_are_followed_up_after_fastinter_and_a_backend_that_is_down_after_downinter()
-> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let agent = ScriptedServer::start(&lab.backends()[0], 9200, &[READY])?;
    // Twenty failures take a minute at the pace of `inter`, an hour each at that of `downinter`.
    let settings = r#"
        port = 9200
        inter = "3s"
        fastinter = "20ms"
        downinter = "1h"
        timeout = "5s"
        fall = 20
        tcp_check = [{ expect_string = "ready" }]
    "#;
    let tandem = start(&lab, settings)?;
    let down = goes_down(&tandem, 0, 20, || agent.play(&[&[]]))?;
    let down = check(&down);
    assert_eq!((down.reason, down.failed), (Reason::L7Response, 20));
    agent.play(&[READY]);
    let seen = agent.accepted();
    assert_eq!(u64::try_from(seen)?, down.passed + down.failed);

    // The next one is an hour away.
    let refused = ask(&lab);
    assert_eq!(refused.count("b1"), 0);
    let later = check(backend(&tandem.status()?, 0)).clone();
    assert_eq!((later.passed, later.failed), (down.passed, down.failed));
    assert_eq!(agent.accepted(), seen);
    Ok(())
}

#[test]
fn passes_are_followed_up_after_fastinter_and_a_backend_that_is_up_after_inter() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let agent = ScriptedServer::start(&lab.backends()[0], 9200, &[&[]])?;
    let settings = r#"
        port = 9200
        inter = "1h"
        fastinter = "20ms"
        downinter = "3s"
        timeout = "5s"
        rise = 20
        tcp_check = [{ expect_string = "ready" }]
    "#;
    let tandem = Tandem::start(&lab, &web(&lab, settings))?;
    // The first answer decides alone.
    let failed = |status: &Status| backend(status, 0).check.is_some();
    let status = tandem.wait_until("the first check", PATIENCE, failed)?;
    assert_eq!(backend(&status, 0).state, State::Down);

    let up = comes_back(&tandem, 0, 20, || agent.play(&[READY]))?;
    let up = check(&up);
    assert_eq!(up.passed, 20);
    ask(&lab).all_answered()?;
    let later = check(backend(&tandem.status()?, 0)).clone();
    assert_eq!((later.passed, later.failed), (up.passed, up.failed));
    assert_eq!(u64::try_from(agent.accepted())?, up.passed + up.failed);
    Ok(())
}

#[test]
fn a_dialogue_passes_whatever_segments_it_comes_in_and_fails_at_a_wrong_answer() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let pause = Step::Rest(Duration::from_millis(50));
    let dialogue = |end: &[Step]| {
        let beginning = [Step::Say("+WEL"), pause, Step::Say("COME\r\n"), Step::Hear("PING\r\n")];
        let middle = [Step::Say("+PO"), pause, Step::Say("NG\r\n"), Step::Hear("role\r\n")];
        [&beginning[..], &middle, end].concat()
    };
    let master = dialogue(&[Step::Say("role:master\r\n"), Step::Hear("QUIT\r\n")]);
    let slave = dialogue(&[Step::Say("role:slave\r\n")]);
    let server = ScriptedServer::start(&lab.backends()[0], 80, &[&master])?;
    let settings = r#"
        inter = "100ms"
        timeout = "5s"
        rise = 1
        fall = 1
        tcp_check = [
            { expect_string = "+WELCOME" },
            { send = "PING\r\n" },
            { expect_string = "+PONG" },
            { send_hex = "726f6c650d0a" },
            { expect_regex = 'role:m[a-z]+r\r\n' },
            { send = "QUIT\r\n" },
        ]
    "#;
    let tandem = start(&lab, settings)?;
    let first = check(backend(&tandem.status()?, 0)).clone();
    assert_eq!((first.reason, first.failed), (Reason::L7Ok, 0));
    until("the QUIT arrives", PATIENCE, || {
        ensure!(server.played() > 0, "no dialogue was played to its end");
        Ok(())
    })?;

    let down = goes_down(&tandem, 0, 1, || server.play(&[&slave]))?;
    let CheckStatus { reason, detail, .. } = check(&down);
    assert_eq!(*reason, Reason::L7Response);
    assert!(detail.contains("step 5") && detail.contains("role:slave"), "{detail}");

    comes_back(&tandem, 0, 1, || server.play(&[&master]))?;
    Ok(())
}

#[test]
fn an_http_check_follows_the_status_of_a_real_nginx_and_notices_its_death() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _ident = IdentServer::start(&lab.backends()[1], 80)?;
    let nginx = lab.backends().iter().map(|host| Nginx::start(host, 8080));
    let mut nginx = nginx.collect::<Result<Vec<_>>>()?;
    let settings = r#"
        port = 8080
        inter = "200ms"
        timeout = "2s"
        httpchk = { method = "GET", uri = "/health", status = "200" }
    "#;
    let tandem = start(&lab, settings)?;
    assert_eq!(check(backend(&tandem.status()?, 0)).reason, Reason::L7Ok);

    let down = goes_down(&tandem, 0, 3, || nginx[0].healthy(false).unwrap())?;
    assert_eq!(check(&down).reason, Reason::L7Status);
    assert!(check(&down).detail.contains("503"), "{}", check(&down).detail);
    assert!(logged(&tandem, "WARN backend web/b1 is DOWN: L7STS ")?);
    assert_eq!(ask(&lab).count("b2"), 60);

    let up = comes_back(&tandem, 0, 2, || nginx[0].healthy(true).unwrap())?;
    assert_eq!(check(&up).reason, Reason::L7Ok);
    assert!(logged(&tandem, "INFO backend web/b1 is UP: L7OK ")?);

    let down = goes_down(&tandem, 0, 3, || nginx[0].process_mut().kill())?;
    assert_eq!(check(&down).reason, Reason::L4Connection);
    Ok(())
}

#[test]
fn a_backend_goes_down_when_only_the_port_that_is_checked_is_closed() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let servers = serve(&lab)?;
    let agents = lab.backends().iter().map(|host| ScriptedServer::start(host, 9200, &[SILENT]));
    let mut agents = agents.collect::<Result<Vec<_>>>()?;
    let tandem = start(&lab, &format!("{CHECK}port = 9200"))?;
    // Nobody but clients connects to the port of the service.
    assert_eq!(servers.iter().map(IdentServer::accepted).sum::<usize>(), 0);

    let down = goes_down(&tandem, 0, 3, || drop(agents.remove(0)))?;
    assert_eq!(check(&down).reason, Reason::L4Connection);
    ask(&lab).all_answered()?;
    assert_eq!((servers[0].accepted(), servers[1].accepted()), (0, 60));

    let b1 = &lab.backends()[0];
    let reopen = || agents.push(ScriptedServer::start(b1, 9200, &[SILENT]).unwrap());
    comes_back(&tandem, 0, 2, reopen)?;
    ask(&lab).all_answered()?;
    assert_eq!((servers[0].accepted(), servers[1].accepted()), (30, 90));
    Ok(())
}

#[test]
fn a_service_without_a_healthy_backend_refuses_and_serves_again_when_one_is_back() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let servers = serve(&lab)?;
    let tandem = start(&lab, CHECK)?;
    drop(servers);
    tandem.wait_until("the service is down", PATIENCE, |status| {
        let all_down = status.services[0].backends.iter().all(|b| b.state == State::Down);
        assert_eq!(status.services[0].state == State::Down, all_down);
        all_down
    })?;
    assert!(logged(&tandem, "ERROR service web is DOWN")?);
    assert_eq!(ask(&lab).failures, [("connection refused".to_owned(), 60)].into());

    let _b2 = IdentServer::start(&lab.backends()[1], 80)?;
    let up = |status: &Status| status.services[0].state == State::Up;
    tandem.wait_until("the service is up", PATIENCE, up)?;
    let log = fs::read_to_string(tandem.process().log())?;
    assert_eq!(log.matches("INFO service web is UP").count(), 2, "at the start and now: {log}");
    let tally = ask(&lab);
    tally.all_answered()?;
    assert_eq!(tally.count("b2"), 60);
    Ok(())
}

/// A server on port 80 of every backend.
fn serve(lab: &Lab) -> Result<Vec<IdentServer>> {
    lab.backends().iter().map(|host| IdentServer::start(host, 80)).collect()
}

/// A daemon with one service, all of whose backends have passed a check.
fn start(lab: &Lab, check: &str) -> Result<Tandem> {
    let tandem = Tandem::start(lab, &web(lab, check))?;
    let passed = |b: &BackendStatus| b.eligible && b.check.as_ref().is_some_and(|c| c.passed > 0);
    tandem.wait_until("all backends have passed a check", PATIENCE, |status| {
        status.services[0].backends.iter().all(passed)
    })?;
    Ok(tandem)
}

/// A service on port 80 with this check.
fn web(lab: &Lab, check: &str) -> String {
    let backend = |host: &Host| {
        let (name, address) = (host.name(), host.at(Family::V4, 80));
        format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n")
    };
    let backends: String = lab.backends().iter().map(backend).collect();
    let vip = lab.vip4();
    format!(
        "[[service]]\nname = \"web\"\nbind = \"{vip}:80\"\n\
         [service.server.check]\n{check}\n{backends}"
    )
}

fn ask(lab: &Lab) -> Tally {
    Ask::at((lab.vip4(), 80).into()).times(60).at_once(6).from(lab.client())
}

/// Waits until a backend that was up before `fault` is down, which must be with the last of `fall`
/// failures and not with one before: so says every status on the way.
fn goes_down(
    tandem: &Tandem,
    nth: usize,
    fall: u64,
    fault: impl FnOnce(),
) -> Result<BackendStatus> {
    let before = check(backend(&tandem.status()?, nth)).failed;
    fault();
    let status = tandem.wait_until("the backend goes down", PATIENCE, |status| {
        let now = backend(status, nth);
        let failures = check(now).failed - before;
        assert_eq!(now.state == State::Down, failures >= fall, "after {failures} failures");
        now.state == State::Down
    })?;
    Ok(backend(&status, nth).clone())
}

/// Waits until a backend that was down before `repair` is up, which must be with the last of
/// `rise` passes and not with one before.
fn comes_back(
    tandem: &Tandem,
    nth: usize,
    rise: u64,
    repair: impl FnOnce(),
) -> Result<BackendStatus> {
    let before = check(backend(&tandem.status()?, nth)).passed;
    repair();
    let status = tandem.wait_until("the backend comes back", PATIENCE, |status| {
        let now = backend(status, nth);
        let passes = check(now).passed - before;
        assert_eq!(now.state == State::Up, passes >= rise, "after {passes} passes");
        now.state == State::Up
    })?;
    Ok(backend(&status, nth).clone())
}

fn backend(status: &Status, nth: usize) -> &BackendStatus {
    &status.services[0].backends[nth]
}

fn check(backend: &BackendStatus) -> &CheckStatus {
    backend.check.as_ref().expect("it was checked")
}

/// Whether the daemon has logged this.
fn logged(tandem: &Tandem, text: &str) -> Result<bool> {
    let log = fs::read_to_string(tandem.process().log()).context("the log of the daemon")?;
    Ok(log.contains(text))
}
