//! Who serves when the active backends do not, and who when they are back.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::lab::{
    Ask, Close, Family, Held, Host, IdentServer, Lab, Service, Settings, Tandem, wait::until,
};

use super::{Oracle, PATIENCE, agree, expect};

/// Ports of the product, with one backup at a time and with all, and of HAProxy.
const OURS: [u16; 2] = [80, 81];
const THEIRS: [u16; 2] = [82, 83];
const CHECK: &str = "check inter 200ms rise 2 fall 2";

/// What happens to a backend's server, and who serves from then on: without `allbackups` and with it.
type Act = (&'static str, What, [&'static [&'static str]; 2]);

#[derive(Clone, Copy)]
enum What {
    Dies,
    ComesBack,
}

use What::{ComesBack, Dies};

const ACTS: [Act; 9] = [
    ("b1", Dies, [&["b2"], &["b2"]]),
    ("b3", Dies, [&["b2"], &["b2"]]),
    ("b2", Dies, [&["b4"], &["b4"]]),
    // The first of those that are there, not the one that was.
    ("b3", ComesBack, [&["b3"], &["b3", "b4"]]),
    ("b4", Dies, [&["b3"], &["b3"]]),
    ("b4", ComesBack, [&["b3"], &["b3", "b4"]]),
    ("b3", Dies, [&["b4"], &["b4"]]),
    ("b2", ComesBack, [&["b2"], &["b2"]]),
    ("b1", ComesBack, [&["b1", "b2"], &["b1", "b2"]]),
];

#[test]
fn haproxy_and_tandem_send_clients_to_the_same_backups_and_back() -> Result<()> {
    let lab = Lab::two_arm(4)?;
    let start = |host: &Host| Ok((host.name().to_owned(), IdentServer::start(host, 80)?));
    let mut servers: BTreeMap<_, _> = lab.backends().iter().map(start).collect::<Result<_>>()?;
    let haproxy = Oracle::start(&lab, &sections(&lab))?;
    let tandem = Tandem::start_with(&lab, &Settings::new(&lab, &services(&lab)))?;
    let host = |name: &str| {
        let found = lab.backends().iter().find(|host| host.name() == name);
        found.with_context(|| format!("no backend {name}"))
    };
    serve(&lab, [&["b1", "b2"], &["b1", "b2"]])?;

    let mut old = Vec::new();
    for (nth, (name, what, who)) in ACTS.into_iter().enumerate() {
        let server = match what {
            Dies => servers.remove(name),
            ComesBack => servers.insert(name.to_owned(), IdentServer::start(host(name)?, 80)?),
        };
        drop(server);
        let state = if servers.contains_key(name) { "UP" } else { "DOWN" };
        agree((&tandem, &haproxy), &format!("act {nth}"), |ours, theirs| {
            for service in ["first", "all"] {
                let path = format!("{service}/{name}");
                expect("Tandem", ours, &path, |said| said.state == state)?;
                expect("HAProxy", theirs, &path, |said| said.state == state)?;
            }
            Ok(())
        })?;
        serve(&lab, who).with_context(|| format!("after act {nth}, {name}"))?;
        // Sessions with the one who lives to the end: they stay where they are.
        if nth == ACTS.len() - 3 {
            for port in OURS.into_iter().chain(THEIRS) {
                let to = (lab.vip4(), port).into();
                old.push(Held::open(lab.client(), to, 3, Duration::from_secs(10)));
            }
        }
    }
    for held in &mut old {
        assert_eq!((held.tally().count("b4"), held.still_work(10_000)), (3, 3));
    }

    // Nobody is left. HAProxy has accepted by the time that it knows, and hangs up; here, nobody accepts.
    servers.clear();
    until("nobody serves", PATIENCE, || {
        for (ports, failure) in [(OURS, "connection refused"), (THEIRS, "unexpected end of file")] {
            for port in ports {
                let tally = Ask::at((lab.vip4(), port).into()).times(4).from(lab.client());
                let count = tally.failures.get(failure).copied().unwrap_or_default();
                ensure!(count == 4, "port {port}: {tally:?}");
            }
        }
        Ok(())
    })
}

/// Waits until these serve, and nobody else, whomever of the two a client asks.
fn serve(lab: &Lab, who: [&[&str]; 2]) -> Result<()> {
    until("they serve", PATIENCE, || {
        for ports in [OURS, THEIRS] {
            for (port, names) in ports.into_iter().zip(who) {
                let ask = Ask::at((lab.vip4(), port).into()).times(8).close(Close::Reset);
                let tally = ask.from(lab.client());
                let served: Vec<_> = tally.answers.keys().collect();
                ensure!(tally.failed() == 0 && served == names, "port {port}: {tally:?}");
            }
        }
        Ok(())
    })
}

/// Two active backends and two backups, twice.
fn services(lab: &Lab) -> String {
    let service = |(name, port): (&str, u16)| {
        let service = Service::new(name, (lab.vip4(), port)).checked();
        let service = service.set(&format!("allbackups = {}", name == "all"));
        let (active, backups) = lab.backends().split_at(2);
        let service = service.backends(active, Family::V4, 80);
        let backup = |service: Service, host: &Host| {
            service.backend_with(host, Family::V4, 80, "role = \"backup\"")
        };
        backups.iter().fold(service, backup).to_string()
    };
    ["first", "all"].into_iter().zip(OURS).map(service).collect()
}

/// The same for HAProxy.
fn sections(lab: &Lab) -> String {
    let section = |(name, port): (&str, u16)| {
        let option = if name == "all" { "  option allbackups\n" } else { "" };
        let server = |(nth, host): (usize, &Host)| {
            let backup = if nth < 2 { "" } else { " backup" };
            format!("  server {} {} {CHECK}{backup}\n", host.name(), host.at(Family::V4, 80))
        };
        let servers: String = lab.backends().iter().enumerate().map(server).collect();
        format!(
            "listen {name}\n  bind {}:{port}\n  timeout check 5s\n{option}{servers}",
            lab.vip4()
        )
    };
    ["first", "all"].into_iter().zip(THEIRS).map(section).collect()
}
