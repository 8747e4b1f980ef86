//! The same backends, with the same faults, checked by HAProxy and by the product: both must come to
//! the same states for the same reasons.
//!
//! Neither is measured by the clock. A fault is there until both have said what they think of it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::State;
use tests::lab::{Family, Host, Lab, Process, ScriptedServer, Step, Tandem, wait::until};

const PATIENCE: Duration = Duration::from_secs(30);
/// The port of the backend whose cable is pulled.
const CABLE: u16 = 8000;

const READY: &[Step] = &[Step::Say("ready\n"), Step::Hang];
const SPLIT: &[Step] =
    &[Step::Say("re"), Step::Rest(Duration::from_millis(60)), Step::Say("ady\n"), Step::Hang];
/// Slower than the time for a check, which is 800 ms.
const SLOW: &[Step] = &[Step::Rest(Duration::from_secs(2)), Step::Say("ready\n"), Step::Hang];
const WRONG: &[Step] = &[Step::Say("not today\n")];
const SILENT: &[Step] = &[Step::Hang];
const GONE: &[Step] = &[];
const HTTP_OK: &[Step] = &[Step::Say("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nup")];
const HTTP_503: &[Step] = &[Step::Say("HTTP/1.0 503 No\r\nContent-Length: 4\r\n\r\ndown")];

const BANNER: Asked = Asked {
    tandem: r#"tcp_check = [{ expect_string = "ready" }]"#,
    haproxy: "  option tcp-check\n  tcp-check expect string ready\n",
    server: "",
};
const NO_ERROR: Asked = Asked {
    tandem: r#"tcp_check = [{ expect_not_string = "today", min_recv = 5 }]"#,
    haproxy: "  option tcp-check\n  tcp-check expect min-recv 5 ! string today\n",
    server: "",
};
const CONNECT: Asked = Asked { tandem: "", haproxy: "", server: "" };
const TLS: Asked =
    Asked { tandem: "ssl = true\nverify = \"none\"", haproxy: "", server: "check-ssl verify none" };
const STATUS: Asked = Asked {
    tandem: r#"httpchk = { method = "GET", uri = "/" }"#,
    haproxy: "  option httpchk GET /\n",
    server: "",
};
const BODY: Asked = Asked {
    tandem: r#"httpchk = { method = "GET", uri = "/", expect_regex = "^up$" }"#,
    haproxy: "  option httpchk GET /\n  http-check expect rstring ^up$\n",
    server: "",
};

/// A check, as either is told of it.
#[derive(Clone, Copy)]
struct Asked {
    tandem: &'static str,
    /// Lines of a section.
    haproxy: &'static str,
    /// Words of a server's line.
    server: &'static str,
}

/// A backend, and what becomes of it: at first and later, what it does and what that comes to. A
/// server that does nothing does not even listen.
struct Case {
    name: &'static str,
    asked: Asked,
    first: (Option<&'static [Step]>, &'static str),
    later: (Option<&'static [Step]>, &'static str),
}

const CASES: [Case; 13] = [
    Case { name: "refuses", asked: CONNECT, first: (None, "L4CON"), later: (Some(SILENT), "L4OK") },
    Case { name: "dies", asked: CONNECT, first: (Some(SILENT), "L4OK"), later: (None, "L4CON") },
    Case {
        name: "banner",
        asked: BANNER,
        first: (Some(READY), "L7OK"),
        later: (Some(SPLIT), "L7OK"),
    },
    Case {
        name: "hangs",
        asked: BANNER,
        first: (Some(SILENT), "L7TOUT"),
        later: (Some(READY), "L7OK"),
    },
    Case {
        name: "slow",
        asked: BANNER,
        first: (Some(SLOW), "L7TOUT"),
        later: (Some(SPLIT), "L7OK"),
    },
    Case {
        name: "wrong",
        asked: BANNER,
        first: (Some(READY), "L7OK"),
        later: (Some(WRONG), "L7RSP"),
    },
    Case {
        name: "hangs-up",
        asked: BANNER,
        first: (Some(GONE), "L7RSP"),
        later: (Some(READY), "L7OK"),
    },
    Case {
        name: "unwanted",
        asked: NO_ERROR,
        first: (Some(READY), "L7OK"),
        later: (Some(WRONG), "L7RSP"),
    },
    Case { name: "no-tls", asked: TLS, first: (Some(WRONG), "L6RSP"), later: (None, "L4CON") },
    Case {
        name: "tls-hangs",
        asked: TLS,
        first: (Some(SILENT), "L6TOUT"),
        later: (Some(WRONG), "L6RSP"),
    },
    Case {
        name: "status",
        asked: STATUS,
        first: (Some(HTTP_OK), "L7OK"),
        later: (Some(HTTP_503), "L7STS"),
    },
    Case {
        name: "body",
        asked: BODY,
        first: (Some(HTTP_503), "L7RSP"),
        later: (Some(HTTP_OK), "L7OK"),
    },
    Case {
        name: "no-http",
        asked: STATUS,
        first: (Some(WRONG), "L7RSP"),
        later: (Some(HTTP_OK), "L7OK"),
    },
];

#[test]
fn haproxy_and_tandem_come_to_the_same_states_for_the_same_reasons() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let host = &lab.backends()[0];
    let mut servers: Vec<Option<ScriptedServer>> = Vec::new();
    for (case, port) in cases() {
        servers.push(serve(host, port, case.first.0)?);
    }
    let _cable = ScriptedServer::start(&lab.backends()[1], CABLE, &[SILENT])?;
    let haproxy = Oracle::start(&lab)?;
    let tandem = Tandem::start(&lab, &services(&lab)?)?;
    let mut expected: BTreeMap<String, String> =
        CASES.iter().map(|case| (case.name.to_owned(), case.first.1.to_owned())).collect();
    expected.insert("cable".to_owned(), "L4OK".to_owned());
    agree(&tandem, &haproxy, &expected)?;

    for ((case, port), server) in cases().zip(&mut servers) {
        match (&server, case.later.0) {
            (Some(server), Some(script)) => server.play(&[script]),
            (_, later) => {
                *server = None;
                *server = serve(host, port, later)?;
            }
        }
        expected.insert(case.name.to_owned(), case.later.1.to_owned());
    }
    lab.backends()[1].unplug()?;
    expected.insert("cable".to_owned(), "L4TOUT".to_owned());
    agree(&tandem, &haproxy, &expected)
}

/// The cases with a port for each.
fn cases() -> impl Iterator<Item = (&'static Case, u16)> {
    CASES.iter().zip(8001..)
}

fn serve(host: &Host, port: u16, script: Option<&[Step]>) -> Result<Option<ScriptedServer>> {
    script.map(|script| ScriptedServer::start(host, port, &[script])).transpose()
}

/// Waits until both say of all what is expected, each having had time for more than one check.
fn agree(tandem: &Tandem, haproxy: &Oracle, expected: &BTreeMap<String, String>) -> Result<()> {
    until("both see all faults as they are", PATIENCE, || {
        let ours = ours(tandem)?;
        let theirs = haproxy.verdicts()?;
        for (name, reason) in expected {
            let is_up = reason.ends_with("OK");
            let wanted = (is_up, reason.clone());
            ensure!(theirs.get(name) == Some(&wanted), "{name}: HAProxy {:?}", theirs.get(name));
            ensure!(ours.get(name) == Some(&wanted), "{name}: Tandem {:?}", ours.get(name));
        }
        Ok(())
    })
}

/// Whether each backend is up, and what its last check found.
fn ours(tandem: &Tandem) -> Result<BTreeMap<String, (bool, String)>> {
    let services = tandem.status()?.services;
    let verdict = |service: &lb_daemon::core::ServiceStatus| {
        let backend = &service.backends[0];
        let reason = backend.check.as_ref().map(|check| check.reason.code().to_owned());
        (service.name.clone(), (backend.state == State::Up, reason.unwrap_or_default()))
    };
    Ok(services.iter().map(verdict).collect())
}

/// A service for each case, and one whose backend's cable is pulled.
fn services(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for (name, address, asked) in targets(lab) {
        write!(
            text,
            "[[service]]\nname = \"{name}\"\nbind = \"{}:{}\"\n\
             [[service.backend]]\nname = \"b\"\naddress = \"{address}\"\n\
             [service.backend.check]\ninter = \"800ms\"\nrise = 2\nfall = 2\n{}\n",
            lab.vip4(),
            address.port(),
            asked.tandem
        )?;
    }
    Ok(text)
}

/// Whom both check, and how.
fn targets(lab: &Lab) -> Vec<(&'static str, SocketAddr, Asked)> {
    let [first, second] = [&lab.backends()[0], &lab.backends()[1]];
    let targets = cases().map(|(case, port)| (case.name, first.at(Family::V4, port), case.asked));
    targets.chain([("cable", second.at(Family::V4, CABLE), CONNECT)]).collect()
}

/// An HAProxy that checks the same backends from the same host.
struct Oracle {
    process: Process,
    socket: PathBuf,
}

impl Oracle {
    fn start(lab: &Lab) -> Result<Self> {
        let (file, socket) = (lab.dir().join("oracle.cfg"), lab.dir().join("oracle.sock"));
        std::fs::write(&file, Self::configuration(lab, &socket)?)?;
        let command = lab.balancer().command("haproxy").arg("-db").arg("-f").arg(&file);
        let oracle = Self { process: command.spawn()?, socket };
        until("the start of HAProxy", PATIENCE, || oracle.verdicts().map(drop))
            .with_context(|| oracle.process.log_tail(20))?;
        Ok(oracle)
    }

    fn configuration(lab: &Lab, socket: &Path) -> Result<String> {
        let mut text = format!(
            "global\n  nbthread 1\n  stats socket {}\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
             timeout client 5s\n  timeout server 5s\n",
            socket.display()
        );
        for (name, address, asked) in targets(lab) {
            write!(
                text,
                "backend {name}\n{}  server b {address} check inter 800ms rise 2 fall 2 {}\n",
                asked.haproxy, asked.server
            )?;
        }
        Ok(text)
    }

    /// Whether each backend is up, and what its last check found.
    fn verdicts(&self) -> Result<BTreeMap<String, (bool, String)>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(b"show stat\n")?;
        let mut table = String::new();
        stream.read_to_string(&mut table)?;
        let mut lines = table.trim_start_matches("# ").lines().filter(|line| !line.is_empty());
        let titles: Vec<&str> = lines.next().context("no table")?.split(',').collect();
        let column = |title: &str| {
            let place = titles.iter().position(|found| *found == title);
            place.with_context(|| format!("no column {title} in {titles:?}"))
        };
        let [name, server, state, reason] =
            [column("pxname")?, column("svname")?, column("status")?, column("check_status")?];
        let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
        let verdict = |row: Vec<&str>| {
            // A check that is under way has an asterisk.
            let reason = row[reason].trim_start_matches("* ").to_owned();
            (row[name].to_owned(), (row[state] == "UP", reason))
        };
        Ok(rows.filter(|row| row.get(server) == Some(&"b")).map(verdict).collect())
    }
}
