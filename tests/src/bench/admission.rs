//! How soon a place that has become free is taken where connections are limited, beside HAProxy.
//!
//! | row | what |
//! |---|---|
//! | `admission/queue-wait` | milliseconds from the end of a connection to the SYN of the next one, whose client was waiting |
//! | `admission/queue-wait/p99` | the same, below which 99 of 100 are |
//! | `admission/lost` | connections that failed, of those that twice as many clients make as there are places |
//!
//! Both balance the same two backends with the same limit for each, on ports of their own, and take turns.
//! In the first two rows, as many clients wait as are served. One connection ends at a time: its client
//! closes it, and its end is the backend's FIN, as the switch before the backends sees it. Then somebody
//! else joins the line. It is an error if anybody is served before his turn, or before there is a place.
//! In the last row, each client makes one connection after the other, as fast as it can.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader},
    net::{SocketAddr, TcpStream},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    haproxy,
    report::{Row, median},
};
use crate::lab::{
    Capture, Churn, ChurnServer, Churned, Family, IdentServer, Lab, Namespace, Process, Seen,
    Service, Tandem, begin, wait::until,
};

const GROUP: &str = "admission";
const PEER: &str = "HAProxy";
/// Ports of the services and of their backends: the product's and HAProxy's.
const PORTS: [u16; 2] = [80, 81];
const BACKENDS: u8 = 2;
/// Most connections of a backend.
const MAXCONN: usize = 8;
/// Connections that are served at once.
const PLACES: usize = MAXCONN * BACKENDS as usize;
const ROUNDS: usize = 5;
/// Places that become free in a round.
const FREED: usize = 400;
/// Connections that are made in a round, where it is counted how many are lost.
const MADE: usize = 4_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut rows = queue_wait()?;
    rows.push(lost()?);
    Ok(rows)
}

/// The two rows of those that wait.
fn queue_wait() -> Result<Vec<Row>> {
    let stage = Stage::new(IdentServer::start)?;
    let switch = stage.lab.namespaces().find(|namespace| namespace.name() == "switch");
    let capture = Capture::on(switch.context("backends are at a switch")?)?;
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for nth in 1..=ROUNDS {
        let [ours, theirs] =
            PORTS.map(|port| stage.lab.client().enter(|| stage.waits(&capture, port)));
        let (ours, theirs) = (ours.context("Tandem")?, theirs.context(PEER)?);
        let (p50, tail) = ((median(&ours), median(&theirs)), (p99(&ours), p99(&theirs)));
        eprintln!(
            "{GROUP}: queue-wait {nth} of {ROUNDS}: {:.3} ms, {PEER} {:.3}; p99 {:.3} ms, {PEER} {:.3}",
            p50.0, p50.1, tail.0, tail.1
        );
        medians.push(p50);
        tails.push(tail);
    }
    Ok(vec![
        Row::against(GROUP, "queue-wait", "ms", PEER, &medians),
        Row::against(GROUP, "queue-wait/p99", "ms", PEER, &tails),
    ])
}

/// The row of those that fail, of all rounds together.
fn lost() -> Result<Row> {
    let stage = Stage::new(ChurnServer::start)?;
    let mut all = [(); 2].map(|()| Churned::default());
    for _ in 0..ROUNDS {
        for (port, all) in PORTS.into_iter().zip(&mut all) {
            let churn = Churn::at(stage.at(port)).times(MADE).at_once(2 * PLACES);
            all.merge(churn.from(stage.lab.client()));
        }
    }
    for (name, all) in ["Tandem", PEER].into_iter().zip(&all) {
        let (tried, late, took) = (all.tried(), all.late, all.took);
        eprintln!("{GROUP}: {name}: {tried} in {took:.1?}, {late} sent a SYN twice or more");
        eprintln!("{GROUP}: {name}: lost: {:?}", all.failures);
    }
    let queue = stage.tandem.status()?.services[0].queue.context("its connections are limited")?;
    eprintln!("{GROUP}: {} had to wait, {} of them at once", queue.queued, queue.most);
    let [ours, theirs] = all.map(|all| all.failures.values().sum::<usize>() as f64);
    Ok(Row::against(GROUP, "lost", "connections", PEER, &[(ours, theirs)]))
}

/// The product and HAProxy before backends that are served by `S`.
struct Stage<S> {
    tandem: Tandem,
    _haproxy: Process,
    _servers: Vec<S>,
    lab: Lab,
}

impl<S> Stage<S> {
    fn new(serve: impl Fn(&Namespace, u16) -> Result<S>) -> Result<Self> {
        let lab = Lab::two_arm(BACKENDS)?;
        let servers = lab.backends().iter().flat_map(|host| PORTS.map(|port| serve(host, port)));
        let servers = servers.collect::<Result<_>>()?;
        let tandem = Tandem::start(&lab, &service(&lab))?;
        tandem.wait_until_all_serve()?;
        let haproxy = start_haproxy(&lab)?;
        let stage = Self { tandem, _haproxy: haproxy, _servers: servers, lab };
        until("HAProxy listens", PATIENCE, || {
            stage.lab.client().connect(stage.at(PORTS[1]), PATIENCE)
        })?;
        stage.wait_until_clients_wait()?;
        Ok(stage)
    }

    /// The product loads what it has clients wait by in the background, and drops their SYNs until then.
    fn wait_until_clients_wait(&self) -> Result<()> {
        let to = self.at(PORTS[0]);
        let come = || self.lab.client().enter(|| begin(to));
        let mut clients = (0..PLACES).map(|_| come()).collect::<io::Result<Vec<_>>>()?;
        until("a client waits", PATIENCE, || {
            // Another one each time: one whose SYN was dropped takes ever longer to send it again.
            clients.push(come()?);
            let queue = self.tandem.status()?.services[0].queue;
            ensure!(queue.is_some_and(|queue| queue.waiting > 0), "the last was {queue:?}");
            Ok(())
        })
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.lab.vip4(), port).into()
    }

    /// For how long places were free before they were taken, in milliseconds. To be called on the client.
    fn waits(&self, capture: &Capture, port: u16) -> Result<Vec<f64>> {
        let mut line = Line::new(self.at(port));
        for _ in 0..PLACES {
            line.join()?;
            line.advance()?;
        }
        for _ in 0..PLACES {
            line.join()?;
        }
        let mut waits = Vec::with_capacity(FREED);
        while line.has_waiting() {
            waits.push(self.pass_on(capture, &mut line)?);
            if waits.len() + line.waiting.len() < FREED {
                line.join()?;
            }
        }
        Ok(waits)
    }

    /// Ends a connection, and waits for the next one to be served. Says how many milliseconds were between
    /// the two.
    fn pass_on(&self, capture: &Capture, line: &mut Line) -> Result<f64> {
        let port = line.to.port();
        let is_backend =
            |at| self.lab.backends().iter().any(|host| host.at(Family::V4, port) == at);
        capture.forget();
        line.leave();
        line.advance()?;
        let ended =
            seen(capture, "the end of a connection", |one| one.closes && is_backend(one.from))?;
        let begun = seen(capture, "the next connection", |one| one.opens && is_backend(one.to))?;
        let wait = begun.duration_since(ended).context("a place was taken before it was free")?;
        Ok(wait.as_secs_f64() * 1e3)
    }
}

/// The clients of a service: those that are served, and those that wait, in the order in which they came.
struct Line {
    to: SocketAddr,
    served: VecDeque<TcpStream>,
    waiting: VecDeque<TcpStream>,
}

impl Line {
    fn new(to: SocketAddr) -> Self {
        Self { to, served: VecDeque::new(), waiting: VecDeque::new() }
    }

    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A client comes.
    fn join(&mut self) -> io::Result<()> {
        self.waiting.push_back(begin(self.to)?);
        Ok(())
    }

    /// The client leaves that was served for longest.
    fn leave(&mut self) {
        self.served.pop_front();
    }

    /// Waits until the first of those that wait is served, and fails if it is anybody else.
    fn advance(&mut self) -> Result<()> {
        let greeted = |stream: &TcpStream| stream.peek(&mut [0]).is_ok_and(|length| length > 0);
        let served = until("the next client is served", PATIENCE, || {
            let served: Vec<usize> =
                (0..self.waiting.len()).filter(|nth| greeted(&self.waiting[*nth])).collect();
            ensure!(!served.is_empty(), "none of {} is", self.waiting.len());
            Ok(served)
        })?;
        ensure!(served == [0], "of those that wait, these were served by their place: {served:?}");
        let first = self.waiting.pop_front().context("it was there")?;
        first.set_nonblocking(false)?;
        first.set_read_timeout(Some(PATIENCE))?;
        // What it leaves unread would make a RST of its FIN.
        BufReader::new(&first).read_line(&mut String::new())?;
        self.served.push_back(first);
        Ok(())
    }
}

/// When the first segment came by the switch that is `wanted`.
fn seen(capture: &Capture, what: &str, wanted: impl Fn(&Seen) -> bool) -> Result<SystemTime> {
    capture.wait_for(what, PATIENCE, |frame| frame.segment().filter(&wanted).map(|_| frame.at))
}

/// What 99 of 100 are below.
fn p99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() * 99 / 100]
}

/// The product's service.
fn service(lab: &Lab) -> String {
    Service::new("web", (lab.vip4(), PORTS[0]))
        .set(&format!("balance = \"leastconn\"\nserver.maxconn = {MAXCONN}"))
        .set("timeout = { queue = \"1m\" }")
        .backends(lab.backends(), Family::V4, PORTS[0])
        .to_string()
}

/// Starts HAProxy with the same.
fn start_haproxy(lab: &Lab) -> Result<Process> {
    let settings = ["balance leastconn", "timeout queue 1m", "timeout connect 5s"];
    haproxy::start(lab, PORTS[1], &settings, &format!("maxconn {MAXCONN}"))
}
