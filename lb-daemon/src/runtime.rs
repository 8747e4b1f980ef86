//! The one loop: takes events in, has the core decide, and runs the effects.
//!
//! Nothing in the loop waits for anything but the next event. Probes and sockets are tasks of
//! their own, the walk of the flow tables is a thread of its own; all of them answer by events.

mod flows;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc as threads},
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
    admission::Admission,
    config::{self, Config, Parsed, Peer},
    core::{
        Core, Counters, Desired, Effect, Elections, Event, InterfaceStatus, Inventory, Level,
        Status,
        group::Command,
        sync::{Hello, VERSIONS},
    },
    dataplane::{self, Alarms, CounterReader, Dataplane, Drift, Ender, Reaper, Sweep},
    election::{Election, Part},
    hooks::{self, Hooks},
    netlink::{Netlink, Ways},
    overrides::Overrides,
    probe,
    resolver::Resolver,
    stand_in,
    sync::{Sync, ready_after},
    tracking::{self, ProcessWatcher},
};

/// Walks of the flow tables are at least this far apart, ...
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// ... and rest this many times as long as the last one had a processor.
const SWEEP_REST: u32 = 60;
/// How long to wait before the data plane is asked again to take what it did not take.
const APPLY_AGAIN: Duration = Duration::from_secs(1);
/// How often the data plane is asked whether too many handshakes with a backend have failed.
const LOOK: Duration = Duration::from_millis(100);
/// Requests of operators that may wait for the loop.
const REQUESTS: usize = 32;

/// Runs the daemon with the configuration at `path` until it is told to end.
///
/// By SIGTERM, it shall come back: packets go on flowing, and somebody [stands in](stand_in) for it.
/// By SIGINT or [`Request::Stop`], it shall not: its groups are given up, the data plane is taken
/// away, and connections end. If the daemon dies in any other way, packets go on flowing, and the next
/// daemon carries on with the same connections.
pub async fn run(path: PathBuf, parsed: Parsed) -> Result<()> {
    // Before anything else fails for the same reason and says less about it.
    dataplane::check_privileges()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    // What can fail for want of a free address comes before anything that packets notice.
    let config = Arc::new(parsed.config);
    let socket = Socket::bind(&config.admin.socket)?;
    let metrics = config.admin.metrics.map(Metrics::bind).transpose()?;
    let (events, mut inbox) = mpsc::unbounded_channel();
    let netlink = Netlink::open(events.clone())?;
    let bpffs = config.global.bpffs.clone();
    let is_first = !dataplane::exists(&bpffs);
    let mut runtime = Runtime::start(path, config, netlink, events).inspect_err(|_| {
        if is_first {
            // Nothing of an earlier daemon is to be kept alive, so nothing stays behind.
            let _ = dataplane::detach(&bpffs);
        }
    })?;

    let (requests, mut asked) = mpsc::channel(REQUESTS);
    if let Some(metrics) = metrics {
        info!(address = %metrics.address(), "serving /metrics");
        tokio::spawn(metrics.serve(requests.clone()));
    }
    tokio::spawn(socket.serve(requests));

    let warnings = parsed.warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
    runtime.put_in_force(runtime.config.clone(), &warnings);
    if runtime.config.groups.is_empty() {
        // The core has nothing to say, but an earlier daemon may have had groups.
        runtime.election.command(Command::Configure(Vec::new()));
    }
    info!(config = %runtime.path.display(), "ready");
    // Without systemd there is nobody to notify, which is no error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let end = loop {
        let deadline = runtime.next_deadline();
        tokio::select! {
            Some(event) = inbox.recv() => runtime.handle(event),
            Some(request) = asked.recv() => {
                if runtime.answer(request).is_break() {
                    break End::Stop("`tandem stop`");
                }
            }
            () = until(deadline) => runtime.tick(),
            _ = hangup.recv() => {
                // Whoever sent the signal cannot be told more than the log is.
                let _ = runtime.reload();
            }
            _ = terminate.recv() => break End::Restart,
            _ = interrupt.recv() => break End::Stop("SIGINT"),
            error = runtime.netlink.failed() => return Err(error),
            error = runtime.election.failed() => return Err(error),
        }
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let why = match end {
        End::Stop(why) => why,
        // Its end is that of all its processes: nobody could stand in for it.
        End::Restart if std::process::id() == 1 => "SIGTERM to the first process",
        End::Restart => match stand_in::hand_over(&runtime.config, &bpffs, &runtime.election) {
            Ok(_successor) => {
                info!("SIGTERM: ending, to be started again; packets go on flowing");
                // What was not handed over is given up. The others are told nothing.
                runtime.election.stop();
                runtime.hooks.finish(hooks::LAST).await;
                return Ok(());
            }
            Err(error) => {
                error!("nobody can stand in for this daemon until the next one: {error:#}");
                "SIGTERM"
            }
        },
    };
    info!("{why}: detaching the XDP program and stopping");
    // Gives all groups up; what it tells at last is heard before the hooks end.
    runtime.election.stop();
    while let Ok(event) = inbox.try_recv() {
        runtime.handle(event);
    }
    // Now the other host serves, and is told what it does not know yet.
    if let Some(mut sync) = runtime.sync.take() {
        sync.stop();
    }
    runtime.hooks.finish(hooks::LAST).await;
    dataplane::detach(&bpffs)?;
    Ok(())
}

/// What ends the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Another daemon is to come soon.
    Restart,
    /// This host is to serve no longer, for this reason.
    Stop(&'static str),
}

struct Runtime {
    path: PathBuf,
    /// The configuration in force, ...
    config: Arc<Config>,
    /// ... but for the settings that stay what they were at the start.
    initial: Arc<Config>,
    core: Core,
    dataplane: Dataplane,
    /// What the data plane did not take, and when to try again.
    unapplied: Option<(Instant, Desired)>,
    counters: CounterReader,
    alarms: Alarms,
    /// When to look at those next; not at all if nothing comes of them.
    look: Option<Instant>,
    netlink: Netlink,
    resolver: Resolver,
    processes: ProcessWatcher,
    hooks: Hooks,
    election: Election,
    /// What has clients wait where connections are limited.
    admission: Admission,
    /// What operators said of backends.
    overrides: Overrides,
    /// Backends whose connections are to end: their numbers, and their names for the log.
    endings: threads::Sender<(u16, String)>,
    /// The conversation with the peer, if there is one.
    sync: Option<Sync>,
    /// The interfaces that frames leave by, as the conversation's thread knows them.
    exits: Arc<Mutex<BTreeSet<String>>>,
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
        let (mut dataplane, inventory) = Dataplane::open(global, config.sync.as_deref())?;
        dataplane.attach(global)?;
        if inventory != Inventory::default() {
            info!(
                services = inventory.services.len(),
                backends = inventory.backends.len(),
                "carrying on with the connections of the daemon before"
            );
        }
        let (counters, alarms) = (dataplane.counters()?, dataplane.alarms()?);
        let leases = Box::new(dataplane.leases()?);
        let election = Election::start(Part::Daemon, leases, events.clone())?;
        let admission = Admission::start(dataplane.gate(global)?)?;
        walk(dataplane.reaper(global)?, events.clone())?;
        let endings = end_sessions(dataplane.ender(global)?)?;
        let (overrides, kept) = Overrides::open(config.admin.state_file.clone())?;
        let now = Instant::now();
        let mut core = Core::new(&inventory, now);
        core.handle(Event::Overrides(kept), now);
        Ok(Self {
            path,
            initial: config.clone(),
            config,
            core,
            dataplane,
            unapplied: None,
            counters,
            alarms,
            look: None,
            netlink,
            resolver: Resolver::new(events.clone()),
            processes: ProcessWatcher::start(events.clone()),
            hooks: Hooks::new(),
            election,
            admission,
            overrides,
            endings,
            sync: None,
            exits: Arc::default(),
            events,
            started: now,
            last_error: None,
        })
    }

    fn next_deadline(&self) -> Option<Instant> {
        let retry = self.unapplied.as_ref().map(|(due, _)| *due);
        self.core.next_deadline().into_iter().chain(retry).chain(self.look).min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if let Some((_, desired)) = self.unapplied.take_if(|(due, _)| *due <= now) {
            self.apply(desired);
        }
        if self.look.is_some_and(|due| due <= now) {
            self.look();
        }
        self.handle(Event::Tick);
    }

    /// Tells the core of the alarms of those backends that it wants to know of.
    fn look(&mut self) {
        let alarms = self.alarms.look(self.core.observed());
        let mut backends = self.config.services.iter().flat_map(|service| &service.backends);
        let is_wanted = backends.any(|backend| backend.observe.is_some());
        self.look = is_wanted.then(|| Instant::now() + LOOK);
        if !alarms.is_empty() {
            self.handle(Event::Observed(alarms));
        }
    }

    fn handle(&mut self, event: Event) {
        if matches!(event, Event::RoutesChanged) {
            // An interface may have come back, too.
            self.dataplane.reattach(&self.config.global);
        }
        for effect in self.core.handle(event, Instant::now()) {
            self.run(effect);
        }
    }

    fn run(&mut self, effect: Effect) {
        match effect {
            Effect::Apply(desired) => self.apply(desired),
            Effect::EndSessions { number, backend } => {
                // The thread ends only with the daemon.
                let _ = self.endings.send((number, backend));
            }
            Effect::Probe(request) => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let (probe, outcome) = probe::run(request).await;
                    // Nobody listens any more when the daemon is stopping.
                    let _ = events.send(Event::Probed { probe, outcome });
                });
            }
            Effect::AskAgent(request) => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let (probe, heard) = probe::ask_agent(request).await;
                    let _ = events.send(Event::Agent { probe, heard });
                });
            }
            Effect::LookUp(name) => self.resolver.look_up(name),
            Effect::Resolve(target) => self.netlink.resolve(target),
            Effect::Moved { links, from, to } => {
                info!(%from, %to, "a neighbour moved to another link-layer address");
                if let Err(error) = self.dataplane.neighbour_moved(&links, from, to) {
                    error!("cannot follow a neighbour that moved: {error:#}");
                }
            }
            Effect::RunScript(request) => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let (run, outcome) = tracking::run_script(request).await;
                    let _ = events.send(Event::Ran { run, outcome });
                });
            }
            Effect::WatchProcesses(names) => self.processes.watch(names),
            Effect::Election(command) => self.election.command(command),
            Effect::Keep(overrides) => self.overrides.keep(overrides),
            Effect::Hook(request) => self.hooks.run(request),
            Effect::Notify(notice) => match notice.level() {
                Level::Info => info!("{notice}"),
                Level::Warn => warn!("{notice}"),
                Level::Error => error!("{notice}"),
            },
        }
    }

    fn apply(&mut self, desired: Desired) {
        self.unapplied = None;
        if let Err(error) = self.dataplane.apply(&desired) {
            error!("the data plane does not take the new state, trying again: {error:#}");
            self.unapplied = Some((Instant::now() + APPLY_AGAIN, desired));
        } else {
            self.admission.configure(&desired);
        }
    }

    /// Breaks if the daemon is to stop.
    fn answer(&mut self, Handle { request, parts, reply }: Handle) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let response = match request {
            Request::Status => match self.status() {
                Ok(status) => Response::Status(Box::new(status)),
                Err(error) => Response::Failed(format!("{error:#}")),
            },
            Request::Failover { group } => match self.core.failover(&group) {
                Ok(effect) => {
                    self.run(effect);
                    Response::FailingOver
                }
                Err(error) => Response::Failed(error.to_string()),
            },
            Request::Backend { backend, order } => {
                match self.core.administer(&backend, order, Instant::now()) {
                    Ok(effects) => {
                        for effect in effects {
                            self.run(effect);
                        }
                        // What survives this daemon is what is said to be done.
                        self.overrides.confirm(move |kept| {
                            let _ = reply.send(Response::Administered { not_kept: kept.err() });
                        });
                        return flow;
                    }
                    Err(error) => Response::Failed(error.to_string()),
                }
            }
            Request::Reload => match self.reload() {
                Ok(reloaded) => Response::Reloaded(reloaded),
                Err(error) => Response::Failed(format!("{error:#}")),
            },
            Request::Flows { filter, limit } => {
                let names = self.core.connection_names();
                flows::list(self.dataplane.flows(), names, filter, limit, parts, reply);
                return flow;
            }
            Request::FlowCounts { filter } => {
                drop(parts);
                let names = self.core.connection_names();
                flows::count(self.dataplane.flows(), names, filter, reply);
                return flow;
            }
            Request::Stop => {
                flow = ControlFlow::Break(());
                Response::Stopping
            }
        };
        drop(parts);
        // Whoever asked may be gone.
        let _ = reply.send(response);
        flow
    }

    fn status(&self) -> Result<Status> {
        let mut counters = self.counters.read(self.core.backends())?;
        counters.queues = self.admission.view();
        let elections = self.election.view()?;
        let mut status = self.core.status(&counters, &elections, Instant::now());
        env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
        status.uptime_seconds = self.started.elapsed().as_secs();
        status.config.path = self.path.display().to_string();
        status.config.last_error.clone_from(&self.last_error);
        status.sync = self.sync.as_ref().map(Sync::view);
        status.not_kept = self.overrides.not_kept();
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
    fn reload(&mut self) -> Result<Reloaded> {
        match self.try_reload() {
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

    fn try_reload(&mut self) -> Result<Reloaded> {
        let Parsed { config, warnings } = config::load(&self.path)?;
        if let Err(error) = self.set_up(&config) {
            // What was changed already goes back to what the old configuration says.
            let old = self.config.clone();
            if let Err(error) = self.set_up(&old) {
                error!("cannot go back to the old configuration: {error:#}");
            }
            return Err(error);
        }
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        warnings.extend(fixed_settings(&self.initial, &config).map(|setting| {
            format!("{setting} differs from what the daemon runs with: it takes a new start")
        }));
        self.put_in_force(Arc::new(config), &warnings);
        let status = self.core.status(&Counters::default(), &Elections::default(), Instant::now());
        Ok(Reloaded { generation: status.config.generation, warnings })
    }

    fn set_up(&mut self, config: &Config) -> Result<()> {
        self.dataplane.attach(&config.global)?;
        self.dataplane.configure(&config.global, config.sync.as_deref())
    }

    fn put_in_force(&mut self, config: Arc<Config>, warnings: &[String]) {
        for warning in warnings {
            warn!("{warning}");
        }
        self.config = config.clone();
        *self.exits.lock().unwrap_or_else(PoisonError::into_inner) =
            config.global.interfaces.iter().cloned().collect();
        self.handle(Event::Config(config));
        self.look();
        self.converse();
        self.warn_of_absent_addresses();
    }

    /// Begins, changes or ends the conversation with the peer, as the configuration says. A host that
    /// cannot have one serves all the same.
    fn converse(&mut self) {
        let config = &self.config;
        let Some(peer) = config.sync.clone() else {
            // Waits half a second for the peer at most.
            self.sync = None;
            return;
        };
        let hello = hello(config);
        match &self.sync {
            Some(sync) => sync.configure(peer, hello),
            None => match self.start_sync(Arc::clone(&peer), hello) {
                Ok(sync) => self.sync = Some(sync),
                Err(error) => {
                    error!("connections are not kept on the peer, too: {error:#}");
                    ready_after(peer.preempt_wait, self.events.clone());
                }
            },
        }
    }

    fn start_sync(&self, peer: Arc<Peer>, hello: Hello) -> Result<Sync> {
        let ways = Ways::start(Arc::clone(&self.exits))?;
        let find = Box::new(move |address| ways.find(address));
        let replica = self.dataplane.replica(&self.config.global, find)?;
        let wake = replica.wake()?;
        Sync::start(peer, hello, Box::new(replica), Some(wake), self.events.clone())
    }

    /// Listing the host's addresses takes a while, and the loop does not wait for it.
    fn warn_of_absent_addresses(&self) {
        // A group's addresses come and go with it.
        let services = self.config.services.iter().filter(|service| service.group.is_none());
        let owners: BTreeMap<IpAddr, String> =
            services.flat_map(|s| s.bind.iter().map(|bind| (bind.ip(), s.name.clone()))).collect();
        let interface = self.config.global.interfaces.first().cloned().unwrap_or_default();
        let absent = self.netlink.absent(owners.keys().copied().collect());
        tokio::spawn(async move {
            // Whether the kernel can be asked at all is followed elsewhere.
            for ip in absent.await.unwrap_or_default() {
                warn!(
                    "service {}: {ip} is an address of no interface of this host, so nobody finds \
                     it here: `ip address add {ip}/{} dev {interface}`",
                    owners[&ip],
                    if ip.is_ipv4() { 32 } else { 128 },
                );
            }
        });
    }
}

/// What this host says of itself to its peer.
fn hello(config: &Config) -> Hello {
    Hello {
        versions: VERSIONS,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        node: config.global.node.clone(),
        source_ports: config::own_ports(&config.global.source_ports, config.sync.as_deref()),
        groups: config.groups.iter().map(|group| group.name.clone()).collect(),
    }
}

/// Walks the flow tables on a thread of its own for as long as somebody listens.
fn walk(mut reaper: Reaper, events: mpsc::UnboundedSender<Event>) -> Result<()> {
    let run = move || {
        let drift = reaper.recount();
        if drift != Drift::default() {
            warn!("counts did not agree with the flow tables, and were corrected: {drift}");
        }
        while !events.is_closed() {
            let pause = match reaper.sweep() {
                Ok(sweep) => {
                    if sweep.healed != 0 {
                        warn!(entries = sweep.healed, "broken entries of the flow tables removed");
                    }
                    let pause = pause_after(&sweep);
                    let (backends, services) = (sweep.backends, sweep.services);
                    let _ = events.send(Event::Walked { backends, services });
                    pause
                }
                Err(error) => {
                    error!("cannot walk the flow tables: {error:#}");
                    SWEEP_PAUSE * 10
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

/// Ends connections on a thread of its own, which walks the flow tables for that: backends whose
/// connections are to end are sent to it by their numbers.
fn end_sessions(ender: Ender) -> Result<threads::Sender<(u16, String)>> {
    let (sender, backends) = threads::channel::<(u16, String)>();
    let run = move || {
        for (number, backend) in backends {
            match ender.end_backend(number) {
                Ok(0) => {}
                Ok(count) => {
                    warn!("{count} connections of {backend} ended, since it is DOWN or MAINT");
                }
                Err(error) => error!("cannot end the connections of {backend}: {error:#}"),
            }
        }
    };
    std::thread::Builder::new()
        .name("ender".to_owned())
        .spawn(run)
        .context("cannot start the thread that ends connections")?;
    Ok(sender)
}

/// How long the walker of the flow tables rests after a walk that had a processor for so long. What
/// it waited for others does not count: a busy host is no reason to end connections late.
pub fn rest_after(processor: Duration) -> Duration {
    SWEEP_PAUSE.max(processor * SWEEP_REST)
}

/// How long to wait after a walk: not long while much is there to be ended. Else connections would
/// come to an end faster than they are removed.
fn pause_after(sweep: &Sweep) -> Duration {
    const MUCH: u64 = 8;
    // Two entries a connection.
    if sweep.reaped * 2 * MUCH >= sweep.entries { SWEEP_PAUSE } else { rest_after(sweep.processor) }
}

/// Settings that differ but cannot change while the daemon runs.
fn fixed_settings(old: &Config, new: &Config) -> impl Iterator<Item = &'static str> + use<> {
    let (a, b) = (&old.global, &new.global);
    [
        ("[global] maxconn", a.maxconn != b.maxconn),
        ("[global] max_half_open", a.max_half_open != b.max_half_open),
        ("[global] bpffs", a.bpffs != b.bpffs),
        ("[admin] socket", old.admin.socket != new.admin.socket),
        ("[admin] state_file", old.admin.state_file != new.admin.state_file),
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
