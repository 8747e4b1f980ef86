//! Sessions that the balancer ends: both sides learn of it as soon as they say something.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_daemon::core::State;
use tests::lab::{
    Family, Held, Host, IdentServer, Lab, ScriptedServer, Service, Settings, Step, Tandem,
};

const PATIENCE: Duration = Duration::from_secs(20);

const READY: &[Step] = &[Step::Say("ready\n"), Step::Hang];
const UNFIT: &[Step] = &[Step::Say("unfit\n")];

#[test]
fn a_backend_that_goes_down_ends_its_sessions_if_told_to_and_keeps_them_by_default() -> Result<()> {
    down_ends_sessions(Family::V4)
}

#[test]
fn a_backend_of_ipv6_that_goes_down_ends_its_sessions() -> Result<()> {
    down_ends_sessions(Family::V6)
}

/// Its check fails, while its port still answers.
fn down_ends_sessions(family: Family) -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let servers = lab.backends().iter().map(|host| IdentServer::start(host, 80));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let agents = lab.backends().iter().map(|host| ScriptedServer::start(host, 9200, &[READY]));
    let agents = agents.collect::<Result<Vec<_>>>()?;
    let ends = "on_marked_down = \"shutdown-sessions\"";
    let toml = service(&lab, family, 80, ends) + &service(&lab, family, 81, "");
    let tandem = Tandem::start(&lab, &toml)?;
    tandem.wait_until("all backends have passed a check", PATIENCE, |status| {
        let mut backends = status.services.iter().flat_map(|service| &service.backends);
        backends.all(|b| b.eligible && b.check.as_ref().is_some_and(|check| check.passed > 0))
    })?;

    let hold = |port| Held::open(lab.client(), (lab.vip(family), port).into(), 8, PATIENCE);
    let (mut ending, mut staying) = (hold(80), hold(81));
    ending.tally().all_answered()?;
    staying.tally().all_answered()?;
    let status = tandem.status()?;
    assert!(status.services.iter().all(|service| service.backends[0].traffic.active == 4));

    agents[0].play(&[UNFIT]);
    tandem.wait_until("its sessions are ended", PATIENCE, |status| {
        let b1 = &status.services[0].backends[0];
        b1.state == State::Down && b1.traffic.active == 0
    })?;
    tandem.wait_until("it is down in the other service, too", PATIENCE, |status| {
        status.services[1].backends[0].state == State::Down
    })?;
    assert_eq!(ending.still_work(100), 4, "those of the other backend go on");
    let status = tandem.status()?;
    assert_eq!(status.verdicts["reset_no_flow"], 4, "who says something is answered by a RST");
    assert_eq!(staying.still_work(100), 8, "by default, nothing ends");
    assert_eq!(status.services[0].backends[1].traffic.active, 4);
    assert_eq!(status.services[1].backends[0].traffic.active, 4);
    Ok(())
}

#[test]
fn a_session_that_was_idle_for_too_long_resets_whoever_speaks_first() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let listener = lab.backends()[0].listen(80)?;
    let service = Service::new("web", (lab.vip4(), 80)).set("timeout = { client = \"1s\" }");
    let service = service.backends(lab.backends(), Family::V4, 80);
    let tandem = Tandem::start_with(&lab, &Settings::new(&lab, &service.to_string()))?;
    tandem.wait_until_all_serve()?;

    let open = || -> Result<[TcpStream; 2]> {
        let client = lab.client().enter(|| TcpStream::connect((lab.vip4(), 80)))?;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        exchange(&client, &server)?;
        exchange(&server, &client)?;
        Ok([client, server])
    };
    let [first, second] = [open()?, open()?];
    tandem.wait_until("both are reaped", PATIENCE, |status| {
        status.tables.iter().all(|table| table.connections == 0)
    })?;

    let [client, _server] = first;
    assert_reset(&client).context("the client")?;
    let [_client, server] = second;
    assert_reset(&server).context("the backend")
}

/// A service of which the check is on another port.
fn service(lab: &Lab, family: Family, port: u16, server: &str) -> String {
    let backend = |host: &Host| {
        let (name, address) = (host.name(), host.at(family, 80));
        format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n")
    };
    let backends: String = lab.backends().iter().map(backend).collect();
    let bind = SocketAddr::new(lab.vip(family), port);
    format!(
        "[[service]]\nname = \"s{port}\"\nbind = \"{bind}\"\n[service.server]\n{server}\n\
         [service.server.check]\nport = 9200\ninter = \"200ms\"\ntimeout = \"3s\"\nfall = 2\n\
         tcp_check = [{{ expect_string = \"ready\" }}]\n{backends}"
    )
}

fn exchange(mut from: &TcpStream, mut to: &TcpStream) -> Result<()> {
    from.write_all(b"hello")?;
    let mut heard = [0; 5];
    to.read_exact(&mut heard)?;
    ensure!(&heard == b"hello", "it is garbled: {heard:?}");
    Ok(())
}

/// Says something, which must be answered by a RST.
fn assert_reset(mut stream: &TcpStream) -> Result<()> {
    stream.write_all(b"again")?;
    let answer = stream.read(&mut [0; 16]);
    ensure!(
        answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "it was answered by {answer:?}"
    );
    Ok(())
}
