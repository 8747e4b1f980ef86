//! How evenly `leastconn` spreads connections that stay.
//!
//! | row | what |
//! |---|---|
//! | `leastconn/held` | the largest difference, in connections, between what a backend has and what its weight says, while connections come and none goes |
//! | `leastconn/slow-start` | the same while the heaviest backend climbs from 1 to 100 % of its weight |
//! | `leastconn/drain` | the same of the others while one is drained |
//! | `leastconn/after-drain` | the same of all when that one is back |
//!
//! Ten backends weigh from 1 to 5, and there are 10,000 connections in the end. What a weight says is
//! reckoned with the weights of the moment, after each batch of connections.

use std::{net::SocketAddr, net::TcpStream, time::Duration};

use anyhow::{Context as _, Result};
use lb_daemon::core::BackendStatus;

use super::report::Row;
use crate::lab::{Family, Lab, Process, Service, SessionServer, Tandem, deviation, dial};

const GROUP: &str = "leastconn";
const WEIGHTS: [u16; 10] = [1, 1, 1, 2, 2, 2, 3, 3, 4, 5];
/// The one that climbs is the last; the one that is drained is another.
const DRAINED: usize = 3;
/// A step of the climb is a twentieth of this. In that time, a batch is opened.
const SLOW_START: &str = "40s";
const PORT: u16 = 80;
/// Connections before the climb, with each step of it, during the drain, and in all.
const BEFORE: usize = 4_800;
const STEP: usize = 200;
const DURING: usize = 500;
const IN_ALL: usize = 10_000;
/// Connections between two looks.
const BATCH: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut stage = Stage::new()?;
    let mut rows = Vec::new();
    let last = WEIGHTS.len() - 1;

    stage.order(last, "maint")?;
    rows.push(stage.row("held", BEFORE, |nth| nth != last)?);

    stage.order(last, "ready")?;
    rows.push(stage.climb(last)?);

    stage.order(DRAINED, "drain")?;
    rows.push(stage.row("drain", DURING, |nth| nth != DRAINED)?);

    stage.order(DRAINED, "ready")?;
    // It has to catch up first.
    stage.open(BATCH)?;
    let rest = IN_ALL.saturating_sub(stage.held.len());
    rows.push(stage.row("after-drain", rest, |_| true)?);
    Ok(rows)
}

/// A balancer, its backends, and the connections.
struct Stage {
    held: Vec<TcpStream>,
    tandem: Tandem,
    _servers: Vec<Process>,
    lab: Lab,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::two_arm(u8::try_from(WEIGHTS.len())?)?;
        // Both ends of each connection would be more than one process may have open.
        let servers = lab.backends().iter().map(|host| SessionServer::process(host, PORT));
        let servers = servers.collect::<Result<_>>()?;
        let service = Service::new("web", (lab.vip4(), PORT))
            .set("balance = \"leastconn\"")
            .set(&format!("server.slowstart = \"{SLOW_START}\""));
        let service =
            lab.backends().iter().zip(WEIGHTS).fold(service, |service, (host, weight)| {
                service.backend_with(host, Family::V4, PORT, &format!("weight = {weight}"))
            });
        let tandem = Tandem::start(&lab, &service.to_string())?;
        tandem.wait_until_all_serve()?;
        Ok(Self { held: Vec::with_capacity(IN_ALL), tandem, _servers: servers, lab })
    }

    fn order(&self, nth: usize, word: &str) -> Result<()> {
        let name = format!("web/{}", self.lab.backends()[nth].name());
        let words = ["backend", &name, word, "--socket"];
        self.tandem.verb(&words).arg(self.tandem.socket()).run().map(drop)
    }

    fn backends(&self) -> Result<Vec<BackendStatus>> {
        Ok(self.tandem.status()?.services[0].backends.clone())
    }

    /// Opens more connections, which stay.
    fn open(&mut self, count: usize) -> Result<()> {
        let to: SocketAddr = (self.lab.vip4(), PORT).into();
        let open = || (0..count).map(|_| dial(to, None, PATIENCE)).collect::<Result<Vec<_>, _>>();
        let more = self.lab.client().enter(open).context("a connection cannot be opened")?;
        self.held.extend(more);
        Ok(())
    }

    /// Opens a batch of connections, and says how unevenly all are spread then among those backends.
    fn deviation(&mut self, batch: usize, of: impl Fn(usize) -> bool) -> Result<f64> {
        let before = self.backends()?;
        self.open(batch)?;
        let after = self.backends()?;
        let of: Vec<&str> =
            (0..after.len()).filter(|nth| of(*nth)).map(|nth| &*after[nth].name).collect();
        Ok(deviation(&before, &after, |backend| of.contains(&&*backend.name)))
    }

    /// The worst while `count` connections come.
    fn row(&mut self, name: &str, count: usize, of: impl Fn(usize) -> bool) -> Result<Row> {
        let each = (0..count.div_ceil(BATCH)).map(|_| self.deviation(BATCH, &of));
        let each = each.collect::<Result<Vec<_>>>()?;
        Ok(self.worst(name, &each))
    }

    /// The worst after each step of a backend's climb.
    fn climb(&mut self, nth: usize) -> Result<Row> {
        let percent = |backend: &BackendStatus| backend.slow_start.map_or(100, |one| one.percent);
        let (mut each, mut last) = (Vec::new(), 0);
        while last < 100 {
            let status = self.tandem.wait_until("the next step", PATIENCE, |status| {
                percent(&status.services[0].backends[nth]) > last
            })?;
            last = percent(&status.services[0].backends[nth]);
            each.push(self.deviation(STEP, |_| true)?);
        }
        Ok(self.worst("slow-start", &each))
    }

    fn worst(&self, name: &str, each: &[f64]) -> Row {
        let worst = each.iter().copied().fold(0.0, f64::max);
        let (looks, held) = (each.len(), self.held.len());
        eprintln!("{GROUP}: {name}: {worst:.2} at most in {looks} looks, {held} held by then");
        Row::alone(GROUP, name, "connections", &[worst])
    }
}
