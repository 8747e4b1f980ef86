//! The one loop: takes events in, has the core decide, and runs the effects.
//!
//! Nothing in the loop waits for anything but the next event. Probes and sockets are tasks of
//! their own, the walk of the flow tables is a thread of its own; all of them answer by events.

mod flows;
mod in_force;
mod requests;
mod walks;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc as threads},
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep_until,
};
use tracing::{error, info, warn};

use crate::{
    admin::{Socket, metrics::Metrics},
    admission::{self, Admission},
    config::{Config, Parsed},
    core::{Core, Desired, Effect, Event, Inventory, Level, group::Command},
    dataplane::{self, Alarms, CounterReader, Dataplane},
    election::{Election, Part},
    hooks::{self, Hooks},
    netlink::Netlink,
    overrides::Overrides,
    probe,
    resolver::Resolver,
    stand_in,
    sync::Sync,
    tracking::{self, ProcessWatcher},
};

pub use self::walks::rest_after;
use self::walks::{end_sessions, walk};

/// How long to wait before the data plane is asked again to take what it did not take.
const APPLY_AGAIN: Duration = Duration::from_secs(1);
/// How often the data plane is asked whether too many handshakes with a backend have failed.
const LOOK: Duration = Duration::from_millis(100);
/// Requests of operators that may wait for the loop.
const REQUESTS: usize = 32;

/// Runs the daemon with the configuration at `path` until it is told to end.
///
/// By SIGTERM, it shall come back: packets go on flowing, and somebody [stands in](stand_in) for it.
/// By SIGINT or [`Request::Stop`](crate::admin::Request::Stop), it shall not: its groups are given up, the data plane is taken
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
        let admission = Admission::start(dataplane.gate(global)?, admission::is_wanted(&config))?;
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
}

/// Waits until `deadline`, or forever if there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
