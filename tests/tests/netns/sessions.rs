//! Sessions that the balancer ends: both sides learn of it as soon as they say something.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
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
    let listener = lab.backends()[0].listen(82)?;
    let ends = "on_marked_down = \"shutdown-sessions\"";
    let vip = |port| SocketAddr::new(lab.vip(family), port);
    let toml = service(lab.backends(), vip(80), 80, ends)
        + &service(lab.backends(), vip(81), 80, "")
        + &service(&lab.backends()[..1], vip(82), 82, ends);
    let tandem = Tandem::start(&lab, &toml)?;
    tandem.wait_until("all backends have passed a check", PATIENCE, |status| {
        let mut backends = status.services.iter().flat_map(|service| &service.backends);
        backends.all(|b| b.eligible && b.check.as_ref().is_some_and(|check| check.passed > 0))
    })?;

    let hold = |port| Held::open(lab.client(), vip(port), 8, PATIENCE);
    let (mut ending, mut staying) = (hold(80), hold(81));
    ending.tally().all_answered()?;
    staying.tally().all_answered()?;
    let [client, server] = open(&lab, &listener, vip(82))?;
    let status = tandem.status()?;
    let active = status.services.iter().map(|service| service.backends[0].traffic.active);
    assert_eq!(active.collect::<Vec<_>>(), [4, 4, 1]);

    agents[0].play(&[UNFIT]);
    tandem.wait_until("its sessions are ended", PATIENCE, |status| {
        [0, 2]
            .map(|nth| &status.services[nth].backends[0])
            .iter()
            .all(|backend| backend.state == State::Down && backend.traffic.active == 0)
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
    // The backend learns of it as well, and first if it is the first to say something.
    assert_reset(&server).context("the backend")?;
    assert_reset(&client).context("the client")
}

#[test]
fn a_session_that_was_idle_for_too_long_resets_whoever_speaks_first() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let listener = lab.backends()[0].listen(80)?;
    let service = Service::new("web", (lab.vip4(), 80)).set("timeout = { client = \"1s\" }");
    let service = service.backends(lab.backends(), Family::V4, 80);
    let tandem = Tandem::start_with(&lab, &Settings::new(&lab, &service.to_string()))?;
    tandem.wait_until_all_serve()?;

    let open = || open(&lab, &listener, (lab.vip4(), 80).into());
    let [first, second] = [open()?, open()?];
    tandem.wait_until("both are reaped", PATIENCE, |status| {
        status.tables.iter().all(|table| table.connections == 0)
    })?;

    let [client, _server] = first;
    assert_reset(&client).context("the client")?;
    let [_client, server] = second;
    assert_reset(&server).context("the backend")
}

/// A service of which the check is on another port than the backends'.
fn service(backends: &[Host], bind: SocketAddr, port: u16, server: &str) -> String {
    let family = if bind.is_ipv4() { Family::V4 } else { Family::V6 };
    let backend = |host: &Host| {
        let (name, address) = (host.name(), host.at(family, port));
        format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n")
    };
    let backends: String = backends.iter().map(backend).collect();
    format!(
        "[[service]]\nname = \"s{}\"\nbind = \"{bind}\"\n[service.server]\n{server}\n\
         [service.server.check]\nport = 9200\ninter = \"200ms\"\ntimeout = \"3s\"\nfall = 2\n\
         tcp_check = [{{ expect_string = \"ready\" }}]\n{backends}",
        bind.port()
    )
}

/// A connection on which both sides have spoken: the client's end and the server's.
fn open(lab: &Lab, listener: &TcpListener, to: SocketAddr) -> Result<[TcpStream; 2]> {
    let client = lab.client().enter(|| TcpStream::connect(to))?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    exchange(&client, &server)?;
    exchange(&server, &client)?;
    Ok([client, server])
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
