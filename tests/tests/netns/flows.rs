//! `tandem flows` lists, filters and counts the connections that there are.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result};
use lb_daemon::core::{Connection, ConnectionCount, ConnectionState};
use tests::lab::{Close, Family, Held, IdentServer, Lab, Service, Settings, Tandem};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn connections_are_listed_filtered_and_counted() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let (tandem, _servers) = start(&lab)?;
    assert!(list(&tandem, &[])?.is_empty(), "there are none yet");

    let hold = |to: SocketAddr, count| Held::open(lab.client(), to, count, PATIENCE);
    let web = hold((lab.vip4(), 80).into(), 6);
    let six = hold((lab.vip(Family::V6), 80).into(), 4);
    let mail = hold((lab.vip4(), 25).into(), 3);
    for held in [&web, &six, &mail] {
        held.tally().all_answered()?;
    }

    let all = list(&tandem, &[])?;
    assert_eq!(all.len(), 13);
    let clients: BTreeSet<_> = all.iter().map(|connection| connection.client).collect();
    assert_eq!(clients.len(), 13, "each is there once");
    for connection in &all {
        assert_eq!(connection.state, ConnectionState::Established, "{connection:?}");
        assert!(!connection.adopted && connection.age_ms < 60_000, "{connection:?}");
        assert!(connection.client_idle_ms <= connection.age_ms + 2, "{connection:?}");
        let backend =
            lab.backends().iter().find(|b| Some(b.name()) == connection.backend.as_deref());
        let backend = backend.context("a backend without a name")?;
        let family = if connection.bind.is_ipv4() { Family::V4 } else { Family::V6 };
        assert_eq!(connection.server, backend.at(family, 80));
        assert_eq!(connection.source.is_ipv4(), connection.bind.is_ipv4());
        assert!((1024..32_768).contains(&connection.source.port()), "{connection:?}");
    }

    let b1 = lab.backends()[0].name().to_owned();
    let client = all[0].client.ip().to_string();
    let length = |filter: &[&str]| list(&tandem, filter).map(|connections| connections.len());
    assert_eq!(length(&["--service", "web"])?, 6);
    assert_eq!(length(&["--service", "mail"])?, 3);
    assert_eq!(length(&["--backend", &format!("web/{b1}")])?, 3, "in turn");
    assert_eq!(length(&["--client", &client])?, 9, "those of IPv4");
    assert_eq!(length(&["--client", "::/0"])?, 4);
    assert_eq!(length(&["--client", "192.0.2.0/24"])?, 0);
    assert_eq!(length(&["--state", "opening"])?, 0);
    assert_eq!(length(&["--state", "established", "--service", "web6"])?, 4);
    assert_eq!(length(&["--limit", "5"])?, 5);

    let counts = lines::<ConnectionCount>(&tandem, &["--count", "--service", "web"])?;
    let counts: Vec<_> =
        counts.into_iter().map(|c| (c.service, c.backend, c.established)).collect();
    let named = |host: usize| Some(lab.backends()[host].name().to_owned());
    let web_name = || Some("web".to_owned());
    assert_eq!(counts, [(web_name(), named(0), 3), (web_name(), named(1), 3)]);

    let table = verb(&tandem, &["--service", "mail"]).run()?;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.starts_with("CLIENT ") && table.contains(" mail/"), "{table}");
    let unknown = verb(&tandem, &["--service", "wep"]).output(PATIENCE)?;
    assert!(unknown.stderr.contains("there is no service wep; there are: "), "{}", unknown.stderr);

    web.close(Close::Reset)?;
    tandem.wait_until("those of the service are over", PATIENCE, |status| {
        status.services[0].backends.iter().all(|backend| backend.traffic.active == 0)
    })?;
    let left = list(&tandem, &["--service", "web"])?;
    assert!(left.iter().all(|c| c.state == ConnectionState::Closed), "{left:?}");
    Ok(())
}

/// The daemon stops walking when nobody reads, and goes on with all else.
#[test]
fn a_reader_that_is_slow_or_gone_holds_up_nobody() -> Result<()> {
    const COUNT: usize = 4000;
    let lab = Lab::two_arm(2)?;
    let (tandem, _servers) = start(&lab)?;
    let held = Held::open(lab.client(), (lab.vip4(), 80).into(), COUNT, PATIENCE);
    held.tally().all_answered()?;

    let mut slow = UnixStream::connect(tandem.socket())?;
    let request = r#"{"version":1,"body":{"flows":{"filter":{},"limit":null}}}"#;
    writeln!(slow, "{request}")?;
    let mut slow = BufReader::new(slow);
    let mut first = String::new();
    slow.read_line(&mut first)?;
    assert!(first.contains("established") && first.len() < 200_000, "{first}");
    // The rest is more than the socket holds, and nobody reads it.
    tandem.status()?;
    assert_eq!(list(&tandem, &[])?.len(), COUNT);
    drop(slow);
    assert_eq!(list(&tandem, &[])?.len(), COUNT);
    Ok(())
}

fn start(lab: &Lab) -> Result<(Tandem, Vec<IdentServer>)> {
    let servers = lab.backends().iter().map(|host| IdentServer::start(host, 80));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let service = |name: &str, family, port| {
        let service = Service::new(name, (lab.vip(family), port));
        service.backends(lab.backends(), family, 80).to_string()
    };
    let toml = service("web", Family::V4, 80)
        + &service("mail", Family::V4, 25)
        + &service("web6", Family::V6, 80);
    let tandem = Tandem::start_with(lab, &Settings::new(lab, &toml))?;
    tandem.wait_until_all_serve()?;
    Ok((tandem, servers))
}

fn verb(tandem: &Tandem, arguments: &[&str]) -> tests::lab::Command {
    tandem.verb(&["flows", "--socket"]).arg(tandem.socket()).args(arguments)
}

fn list(tandem: &Tandem, filter: &[&str]) -> Result<Vec<Connection>> {
    lines(tandem, filter)
}

/// What `tandem flows --json` says.
fn lines<T: serde::de::DeserializeOwned>(tandem: &Tandem, arguments: &[&str]) -> Result<Vec<T>> {
    let output = verb(tandem, arguments).arg("--json").run()?;
    Ok(output.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}
