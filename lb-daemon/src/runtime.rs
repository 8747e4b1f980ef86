//! The one loop: takes events in, has the core decide, and runs the effects.
//!
//! Nothing in the loop waits for anything but the next event. Probes and sockets are tasks of
//! their own, the walk of the flow tables is a thread of its own; all of them answer by events.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep_until,
};
use tracing::{error, info, warn};

use crate::{
    admin::{Handle, Reloaded, Request, Response, Socket, metrics::Metrics},
    config::{self, Config, Parsed},
    core::{Core, Counters, Effect, Event, InterfaceStatus, Inventory, Level, Status},
    dataplane::{self, CounterReader, Dataplane, Reaper},
    netlink::Netlink,
    probe,
};

/// Walks of the flow tables are at least this far apart, ...
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// ... and rest this many times as long as the last one took.
const SWEEP_REST: u32 = 20;
/// Requests of operators that may wait for the loop.
const REQUESTS: usize = 32;

/// Runs the daemon with the configuration at `path` until it is told to stop by SIGTERM or SIGINT.
///
/// Then the data plane is taken away, and connections end. If the daemon dies in any other way,
/// packets go on flowing, and the next daemon carries on with the same connections.
pub async fn run(path: PathBuf, parsed: Parsed) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    // What can fail for want of a free address comes before anything that packets notice.
    let config = Arc::new(parsed.config);
    let socket = Socket::bind(&config.admin.socket)?;
    let metrics = config.admin.metrics.map(Metrics::bind).transpose()?;
    let (events, mut inbox) = mpsc::unbounded_channel();
    let netlink = Netlink::open(events.clone())?;
    let mut runtime = Runtime::start(path, config.clone(), netlink, events)?;

    let (requests, mut asked) = mpsc::channel(REQUESTS);
    if let Some(metrics) = metrics {
        info!(address = %metrics.address(), "serving /metrics");
        tokio::spawn(metrics.serve(requests.clone()));
    }
    tokio::spawn(socket.serve(requests));

    runtime.put_in_force(config, &parsed.warnings).await;
    info!(config = %runtime.path.display(), "ready");
    // Without systemd there is nobody to notify, which is no error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let why = loop {
        let deadline = runtime.core.next_deadline();
        tokio::select! {
            Some(event) = inbox.recv() => runtime.handle(event),
            Some(request) = asked.recv() => runtime.answer(request).await,
            () = until(deadline) => runtime.handle(Event::Tick),
            _ = hangup.recv() => {
                // Whoever sent the signal cannot be told more than the log is.
                let _ = runtime.reload().await;
            }
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            error = runtime.netlink.failed() => return Err(error),
        }
    };
    info!("{why}: detaching the XDP program and stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    dataplane::detach(&runtime.config.global.bpffs)?;
    Ok(())
}

struct Runtime {
    path: PathBuf,
    config: Arc<Config>,
    core: Core,
    dataplane: Dataplane,
    counters: CounterReader,
    netlink: Netlink,
    events: mpsc::UnboundedSender<Event>,
    started: Instant,
    last_error: Option<String>,
}

impl Runtime {
    fn start(
        path: PathBuf,
        config: Arc<Config>,
        netlink: Netlink,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self> {
        let global = &config.global;
        let (mut dataplane, inventory) = Dataplane::open(global)?;
        if let Err(error) = dataplane.attach(global) {
            if inventory == Inventory::default() {
                // Nothing of an earlier daemon is to be kept alive, so nothing stays behind.
                let _ = dataplane::detach(&global.bpffs);
            }
            return Err(error);
        }
        if inventory != Inventory::default() {
            info!(
                services = inventory.services.len(),
                backends = inventory.backends.len(),
                "carrying on with the connections of the daemon before"
            );
        }
        let counters = dataplane.counters()?;
        walk(dataplane.reaper(global)?, events.clone())?;
        let now = Instant::now();
        Ok(Self {
            path,
            config,
            core: Core::new(&inventory, now),
            dataplane,
            counters,
            netlink,
            events,
            started: now,
            last_error: None,
        })
    }

    fn handle(&mut self, event: Event) {
        for effect in self.core.handle(event, Instant::now()) {
            self.run(effect);
        }
    }

    fn run(&mut self, effect: Effect) {
        match effect {
            Effect::Apply(desired) => {
                if let Err(error) = self.dataplane.apply(&desired) {
                    error!("the data plane does not take the new state: {error:#}");
                }
            }
            Effect::Probe(request) => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let (probe, outcome) = probe::run(request).await;
                    // Nobody listens any more when the daemon is stopping.
                    let _ = events.send(Event::Probed { probe, outcome });
                });
            }
            Effect::Resolve(target) => self.netlink.resolve(target),
            Effect::Notify(notice) => match notice.level() {
                Level::Info => info!("{notice}"),
                Level::Warn => warn!("{notice}"),
                Level::Error => error!("{notice}"),
            },
        }
    }

    async fn answer(&mut self, Handle { request, reply }: Handle) {
        let response = match request {
            Request::Status => match self.status() {
                Ok(status) => Response::Status(Box::new(status)),
                Err(error) => Response::Failed(format!("{error:#}")),
            },
            Request::Reload => match self.reload().await {
                Ok(reloaded) => Response::Reloaded(reloaded),
                Err(error) => Response::Failed(format!("{error:#}")),
            },
        };
        // Whoever asked may be gone.
        let _ = reply.send(response);
    }

    fn status(&self) -> Result<Status> {
        let counters = self.counters.read(self.core.backends())?;
        let mut status = self.core.status(&counters, Instant::now());
        env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
        status.uptime_seconds = self.started.elapsed().as_secs();
        status.config.path = self.path.display().to_string();
        status.config.last_error.clone_from(&self.last_error);
        status.interfaces = self
            .dataplane
            .attached()
            .iter()
            .map(|(name, attached)| InterfaceStatus {
                name: name.clone(),
                mode: attached.mode.to_string(),
            })
            .collect();
        Ok(status)
    }

    /// Reads the configuration again; the old one stays in force if the new one cannot be.
    async fn reload(&mut self) -> Result<Reloaded> {
        match self.try_reload().await {
            Ok(reloaded) => {
                info!(generation = reloaded.generation, "configuration reloaded");
                self.last_error = None;
                Ok(reloaded)
            }
            Err(error) => {
                error!("the old configuration stays in force: {error:#}");
                self.last_error = Some(format!("{error:#}"));
                Err(error)
            }
        }
    }

    async fn try_reload(&mut self) -> Result<Reloaded> {
        let Parsed { config, mut warnings } = config::load(&self.path)?;
        if let Err(error) = self.dataplane.attach(&config.global) {
            // What was attached already goes back to what the old configuration says.
            self.dataplane.attach(&self.config.global)?;
            return Err(error);
        }
        self.dataplane.configure(&config.global)?;
        for setting in fixed_settings(&self.config, &config) {
            warn!("{setting} is changed in the file, but takes effect only at the next start");
        }
        self.put_in_force(Arc::new(config), &warnings).await;
        let status = self.core.status(&Counters::default(), Instant::now());
        Ok(Reloaded {
            generation: status.config.generation,
            warnings: warnings.drain(..).map(|w| w.to_string()).collect(),
        })
    }

    async fn put_in_force(&mut self, config: Arc<Config>, warnings: &[config::Diagnostic]) {
        for warning in warnings {
            warn!("{warning}");
        }
        self.config = config.clone();
        self.handle(Event::Config(config));
        for service in &self.config.services {
            for bind in &service.bind {
                if let Ok(false) = self.netlink.holds(bind.ip()).await {
                    warn!(
                        "service {}: {} is an address of no interface of this host, so nobody \
                         finds it here: `ip address add {}/{} dev {}`",
                        service.name,
                        bind.ip(),
                        bind.ip(),
                        if bind.is_ipv4() { 32 } else { 128 },
                        self.config.global.interfaces.first().map_or("...", String::as_str),
                    );
                }
            }
        }
    }
}

/// Walks the flow tables on a thread of its own for as long as somebody listens.
fn walk(mut reaper: Reaper, events: mpsc::UnboundedSender<Event>) -> Result<()> {
    let run = move || {
        while !events.is_closed() {
            let pause = match reaper.sweep() {
                Ok(sweep) => {
                    let (backends, services) = (sweep.backends, sweep.services);
                    let _ = events.send(Event::Walked { backends, services });
                    rest_after(sweep.took)
                }
                Err(error) => {
                    error!("cannot walk the flow tables: {error:#}");
                    SWEEP_PAUSE * SWEEP_REST
                }
            };
            std::thread::sleep(pause);
        }
    };
    std::thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(run)
        .context("cannot start the reaper thread")?;
    Ok(())
}

/// How long the walker of the flow tables rests after a walk that took so long.
pub fn rest_after(walk: Duration) -> Duration {
    SWEEP_PAUSE.max(walk * SWEEP_REST)
}

/// Settings that differ but cannot change while the daemon runs.
fn fixed_settings<'a>(old: &Config, new: &'a Config) -> impl Iterator<Item = &'a str> {
    let (a, b) = (&old.global, &new.global);
    [
        ("[global] maxconn", a.maxconn != b.maxconn),
        ("[global] max_half_open", a.max_half_open != b.max_half_open),
        ("[global] bpffs", a.bpffs != b.bpffs),
        ("[admin] socket", old.admin.socket != new.admin.socket),
        ("[admin] metrics", old.admin.metrics != new.admin.metrics),
        ("[log]", old.log != new.log),
    ]
    .into_iter()
    .filter_map(|(name, changed)| changed.then_some(name))
}

/// Waits until `deadline`, or forever if there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
