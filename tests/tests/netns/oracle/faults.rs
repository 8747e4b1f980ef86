//! What backends can do to a check, one fault after the other.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Result;
use tests::lab::{Family, Host, Lab, ScriptedServer, Step, Tandem};

use super::{Account, Oracle, agree, expect};

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
/// After a pause, so that nobody takes it for a refusal.
const CUT: &[Step] = &[Step::Rest(Duration::from_millis(100)), Step::Cut];
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

/// A backend, and what becomes of it.
struct Case {
    name: &'static str,
    asked: Asked,
    first: Fault,
    later: Fault,
}

/// What a backend does, and what that comes to: here, and at HAProxy.
#[derive(Clone, Copy)]
struct Fault {
    does: Does,
    ours: &'static str,
    theirs: &'static str,
}

/// What a backend does with connections.
#[derive(Clone, Copy)]
enum Does {
    /// Nobody listens.
    Refuse,
    /// The kernel accepts them, and nobody ever takes one: a process that hangs, or is overrun.
    LeaveUnattended,
    /// It follows a script.
    Play(&'static [Step]),
}

use Does::{LeaveUnattended, Play, Refuse};

const fn both(does: Does, reason: &'static str) -> Fault {
    Fault { does, ours: reason, theirs: reason }
}

const fn case(name: &'static str, asked: Asked, first: Fault, later: Fault) -> Case {
    Case { name, asked, first, later }
}

/// HAProxy calls a RST an error of the socket, whoever caused it.
const CUT_OFF: Fault = Fault { does: Play(CUT), ours: "L7RSP", theirs: "SOCKERR" };

const CASES: [Case; 21] = [
    case("refuses", CONNECT, both(Refuse, "L4CON"), both(Play(SILENT), "L4OK")),
    case("dies", CONNECT, both(Play(SILENT), "L4OK"), both(Refuse, "L4CON")),
    case("banner", BANNER, both(Play(READY), "L7OK"), both(Play(SPLIT), "L7OK")),
    case("hangs", BANNER, both(Play(SILENT), "L7TOUT"), both(Play(READY), "L7OK")),
    case("slow", BANNER, both(Play(SLOW), "L7TOUT"), both(Play(SPLIT), "L7OK")),
    case("wrong", BANNER, both(Play(READY), "L7OK"), both(Play(WRONG), "L7RSP")),
    case("hangs-up", BANNER, both(Play(GONE), "L7RSP"), both(Play(READY), "L7OK")),
    case("unwanted", NO_ERROR, both(Play(READY), "L7OK"), both(Play(WRONG), "L7RSP")),
    case("no-tls", TLS, both(Play(WRONG), "L6RSP"), both(Refuse, "L4CON")),
    case("tls-hangs", TLS, both(Play(SILENT), "L6TOUT"), both(Play(WRONG), "L6RSP")),
    case("status", STATUS, both(Play(HTTP_OK), "L7OK"), both(Play(HTTP_503), "L7STS")),
    case("body", BODY, both(Play(HTTP_503), "L7RSP"), both(Play(HTTP_OK), "L7OK")),
    case("no-http", STATUS, both(Play(WRONG), "L7RSP"), both(Play(HTTP_OK), "L7OK")),
    // Half open: who only connects is content with the kernel's handshake, and must know that.
    case("half-open", CONNECT, both(LeaveUnattended, "L4OK"), both(Refuse, "L4CON")),
    case("half-open-banner", BANNER, both(Play(READY), "L7OK"), both(LeaveUnattended, "L7TOUT")),
    case("half-open-tls", TLS, both(LeaveUnattended, "L6TOUT"), both(Play(WRONG), "L6RSP")),
    case("half-open-http", STATUS, both(Play(HTTP_OK), "L7OK"), both(LeaveUnattended, "L7TOUT")),
    // A SYN-ACK, and a RST next.
    case("cut", CONNECT, both(Play(CUT), "L4OK"), both(Refuse, "L4CON")),
    case("cut-banner", BANNER, CUT_OFF, both(Play(SPLIT), "L7OK")),
    case("cut-tls", TLS, both(Play(CUT), "L6RSP"), both(LeaveUnattended, "L6TOUT")),
    case("cut-http", STATUS, both(Play(HTTP_OK), "L7OK"), CUT_OFF),
];

#[test]
fn haproxy_and_tandem_come_to_the_same_states_for_the_same_reasons() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let host = &lab.backends()[0];
    let mut servers: Vec<Server> = Vec::new();
    for (case, port) in cases() {
        servers.push(Server::start(host, port, case.first.does)?);
    }
    let _cable = ScriptedServer::start(&lab.backends()[1], CABLE, &[SILENT])?;
    let haproxy = Oracle::start(&lab, &sections(&lab)?)?;
    let tandem = Tandem::start(&lab, &services(&lab)?)?;
    let agreed = |cable: &'static str, fault: &dyn Fn(&Case) -> Fault| {
        agree((&tandem, &haproxy), "both see all faults as they are", |ours, theirs| {
            for (name, found) in CASES.iter().map(|case| (case.name, fault(case))) {
                found_as("Tandem", ours, name, found.ours)?;
                found_as("HAProxy", theirs, name, found.theirs)?;
            }
            found_as("Tandem", ours, "cable", cable)?;
            found_as("HAProxy", theirs, "cable", cable)
        })
    };
    agreed("L4OK", &|case| case.first)?;

    for ((case, port), server) in cases().zip(&mut servers) {
        server.turn_to(host, port, case.later.does)?;
    }
    lab.backends()[1].unplug()?;
    agreed("L4TOUT", &|case| case.later)
}

/// Fails unless the last check found that, and the backend is up or down accordingly.
fn found_as(who: &str, account: &Account, name: &str, reason: &str) -> Result<()> {
    let state = if reason.ends_with("OK") { "UP" } else { "DOWN" };
    expect(who, account, &format!("{name}/b"), |said| said.state == state && said.reason == reason)
}

/// The cases with a port for each.
fn cases() -> impl Iterator<Item = (&'static Case, u16)> {
    CASES.iter().zip(8001..)
}

enum Server {
    Absent,
    Unattended(#[expect(dead_code, reason = "it is only held")] TcpListener),
    Scripted(ScriptedServer),
}

impl Server {
    fn start(host: &Host, port: u16, does: Does) -> Result<Self> {
        Ok(match does {
            Refuse => Self::Absent,
            LeaveUnattended => Self::Unattended(host.listen(port)?),
            Play(script) => Self::Scripted(ScriptedServer::start(host, port, &[script])?),
        })
    }

    /// Has it do something else, without a moment in which nobody listens if somebody is to.
    fn turn_to(&mut self, host: &Host, port: u16, does: Does) -> Result<()> {
        if let (Self::Scripted(server), Play(script)) = (&*self, does) {
            server.play(&[script]);
            return Ok(());
        }
        // The port must be free.
        *self = Self::Absent;
        *self = Self::start(host, port, does)?;
        Ok(())
    }
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

/// The same for HAProxy.
fn sections(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for (name, address, asked) in targets(lab) {
        write!(
            text,
            "backend {name}\n{}  server b {address} check inter 800ms rise 2 fall 2 {}\n",
            asked.haproxy, asked.server
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
