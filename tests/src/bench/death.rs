//! How long a backend that has died still gets connections, beside HAProxy.
//!
//! | row | what |
//! |---|---|
//! | `death/last-connection/refuses` | milliseconds from the moment in which the ports of a backend are closed, and a SYN is answered by a RST, to the last connection that is sent to it |
//! | `death/last-connection/silent` | the same after its cable was pulled, and a SYN is not answered |
//!
//! Both balance the same two backends at the same time, on ports of their own, and check the same port
//! of theirs with the same settings. A client of each opens a connection every 5 ms. A connection counts by
//! its first SYN, as the switch before the backends sees it; HAProxy tries each once. The backend dies at
//! another point of the checks' interval each time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

use super::{haproxy, report::Row};
use crate::lab::{Capture, Family, Host, IdentServer, Knocks, Lab, Process, Tandem, wait::until};

const GROUP: &str = "death";
const PEER: &str = "HAProxy";
/// Ports of the services and of their backends: the product's and HAProxy's.
const PORTS: [u16; 2] = [80, 81];
const CHECKED: u16 = 9200;
const INTER: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(5);
/// So long is one without connections that will get no more: longer than any pause between two.
const QUIET: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
const ROUNDS: u32 = 10;

/// How the backend dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    Refuses,
    Silent,
}

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut stage = Stage::new()?;
    let kinds = [("refuses", Death::Refuses), ("silent", Death::Silent)];
    let row = |(name, death)| {
        let rounds = (0..ROUNDS).map(|nth| {
            // As far apart as they go.
            thread::sleep(INTER * nth / ROUNDS);
            let [ours, theirs] = stage.round(death)?;
            eprintln!("{GROUP}: {name} {} of {ROUNDS}: {ours:.0} ms, {PEER} {theirs:.0}", nth + 1);
            Ok((ours, theirs))
        });
        let rounds = rounds.collect::<Result<Vec<_>>>()?;
        Ok(Row::against(GROUP, &format!("last-connection/{name}"), "ms", PEER, &rounds))
    };
    kinds.into_iter().map(row).collect()
}

struct Stage {
    _knocks: Vec<Knocks>,
    capture: Capture,
    _tandem: Tandem,
    _haproxy: Process,
    /// Those of the backend that dies.
    servers: Vec<IdentServer>,
    _others: Vec<IdentServer>,
    lab: Lab,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::two_arm(2)?;
        let [dies, lives] = lab.backends() else { unreachable!("it has two") };
        let (servers, others) = (serve(dies)?, serve(lives)?);
        let tandem = Tandem::start(&lab, &service(&lab))?;
        tandem.wait_until_all_serve()?;
        let haproxy = start_haproxy(&lab)?;
        let switch = lab.namespaces().find(|namespace| namespace.name() == "switch");
        let capture = Capture::on(switch.context("backends are at a switch")?)?;
        let knock = |port| Knocks::start(lab.client(), (lab.vip4(), port).into(), PERIOD);
        let knocks = PORTS.map(knock).into_iter().collect::<Result<Vec<_>>>()?;
        let stage = Self {
            _knocks: knocks,
            capture,
            _tandem: tandem,
            _haproxy: haproxy,
            servers,
            _others: others,
            lab,
        };
        stage.wait_until_both_send_to_it()?;
        Ok(stage)
    }

    /// Has the backend die and come back. Says how many milliseconds after its death the last connection
    /// was sent to it, by the product and by HAProxy.
    fn round(&mut self, death: Death) -> Result<[f64; 2]> {
        let died = SystemTime::now();
        match death {
            Death::Refuses => self.servers.clear(),
            Death::Silent => self.dies().unplug()?,
        }
        until("nobody sends to it", PATIENCE, || {
            let last =
                PORTS.map(|port| self.last_connection(port).unwrap_or(died)).into_iter().max();
            let quiet = SystemTime::now().duration_since(last.unwrap_or(died))?;
            ensure!(quiet >= QUIET, "the last connection was {quiet:?} ago");
            Ok(())
        })?;
        let after = PORTS.map(|port| {
            let last = self.last_connection(port).unwrap_or(died);
            last.duration_since(died).unwrap_or_default().as_secs_f64() * 1e3
        });
        match death {
            Death::Refuses => self.servers = serve(self.dies())?,
            Death::Silent => self.dies().plug()?,
        }
        self.wait_until_both_send_to_it()?;
        Ok(after)
    }

    fn dies(&self) -> &Host {
        &self.lab.backends()[0]
    }

    /// Forgets what was seen, and waits for a connection of both to the backend.
    fn wait_until_both_send_to_it(&self) -> Result<()> {
        self.capture.forget();
        until("both send to it", PATIENCE, || {
            for port in PORTS {
                self.last_connection(port).with_context(|| format!("none to port {port}"))?;
            }
            anyhow::Ok(())
        })
    }

    /// When the last connection to a port of the backend was begun, of those that were seen.
    fn last_connection(&self, port: u16) -> Option<SystemTime> {
        let at = self.dies().at(Family::V4, port);
        let mut begun: BTreeMap<SocketAddr, SystemTime> = BTreeMap::new();
        for frame in self.capture.frames() {
            if let Some(segment) = frame.segment()
                && segment.opens
                && segment.to == at
            {
                begun.entry(segment.from).or_insert(frame.at);
            }
        }
        begun.into_values().max()
    }
}

/// The servers of a backend: of both services, and that which is checked.
fn serve(host: &Host) -> Result<Vec<IdentServer>> {
    PORTS.into_iter().chain([CHECKED]).map(|port| IdentServer::start(host, port)).collect()
}

/// The product's service.
fn service(lab: &Lab) -> String {
    let backend = |host: &Host| {
        let address = host.at(Family::V4, PORTS[0]);
        format!("[[service.backend]]\nname = \"{}\"\naddress = \"{address}\"\n", host.name())
    };
    let backends: String = lab.backends().iter().map(backend).collect();
    format!(
        "[[service]]\nname = \"web\"\nbind = \"{}:{}\"\n\
         [service.server.check]\nport = {CHECKED}\ninter = \"{}ms\"\nfastinter = \"200ms\"\n\
         timeout = \"500ms\"\nrise = 2\nfall = 3\n{backends}",
        lab.vip4(),
        PORTS[0],
        INTER.as_millis()
    )
}

/// Starts HAProxy with the same.
fn start_haproxy(lab: &Lab) -> Result<Process> {
    let settings = ["retries 0", "timeout connect 500ms", "timeout check 500ms"];
    let inter = INTER.as_millis();
    let check = format!("check port {CHECKED} inter {inter}ms fastinter 200ms rise 2 fall 3");
    haproxy::start(lab, PORTS[1], &settings, &check)
}
