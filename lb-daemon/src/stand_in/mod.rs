//! Stands in for a daemon that is being restarted.
//!
//! A daemon that is told to end by SIGTERM shall come back, by `systemctl restart` say. Packets go on
//! flowing without it, but those of a group only until its lease ends. So it starts a process that
//! goes on with the elections in which this host is master, and with nothing else:
//!
//! ```text
//!  daemon ──plan──► stand-in              next daemon
//!    │                 │ opens its sockets     │
//!    │ ◄────ready──────┤                       │
//!    ├──────go───────► │ claims the leases     │
//!    │ ◄────taken──────┤ adverts, leases       │
//!   ends               │        ...            │ claims the leases, each as soon as it knows
//!                      │                       │ how the host is
//!                     ends without a word      │ adverts, leases
//! ```
//!
//! All three are this host, with the same addresses: no peer can tell them apart, and none of them
//! needs another one to answer once it has begun. What keeps two from being master at a time is the
//! lease alone, which passes from one to the other in one step ([`Leases`]).
//!
//! A daemon of another version cannot read this one's maps. It asks the stand-in, which can, what they
//! hold ([`Exporter`]).
//!
//! [`Leases`]: crate::core::group::Leases

mod hand_over;
mod plan;

use std::{
    collections::BTreeMap,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::unistd::{getppid, setsid};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{info, warn};

pub use self::{
    hand_over::{Successor, hand_over},
    plan::{Plan, receive},
};
use crate::{
    core::{
        Event, Level, Notice,
        group::{Command, Numbered, Transition},
        hooks,
    },
    dataplane::{self, Exporter, Lock},
    election::{Election, Part},
    hooks::{self, Hooks},
};

/// How long the next daemon may take to come, and then from one question to the next.
const PATIENCE: Duration = Duration::from_secs(30);
/// Names another number of seconds in the environment: for tests, which have less.
const PATIENCE_VARIABLE: &str = "TANDEM_STAND_IN_SECONDS";
/// How long sockets may take to open.
const OPENING: Duration = Duration::from_secs(2);
/// How often to look whether it has come.
const LOOK: Duration = Duration::from_millis(100);

/// What the two say to each other after the plan.
const READY: &str = "ready\n";
const GO: &str = "go\n";
const TAKEN: &str = "taken\n";

/// Goes on with a daemon's elections until the next daemon has them, or a better host. If none comes
/// in time, the groups are given up and the data plane is taken away, as a daemon does that stops.
pub async fn run(plan: Plan) -> Result<()> {
    // The terminal, and whoever started the daemon, have nothing to do with this process.
    let _ = setsid();
    let parent = getppid();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (events, mut inbox) = mpsc::unbounded_channel();
    let mut place = Place::take(plan, events)?;

    let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
    let stream = std::os::unix::net::UnixStream::from(stdin);
    stream.set_nonblocking(true)?;
    let mut daemon = BufReader::new(UnixStream::from_std(stream)?);
    daemon.write_all(READY.as_bytes()).await.context("cannot answer the daemon")?;
    let mut word = String::new();
    daemon.read_line(&mut word).await.context("the daemon does not answer")?;
    if word != GO {
        // It has thought better of it, or has died: then the next one finds its leases.
        return Ok(());
    }
    place.begin().await?;
    // If it has just died, its groups are looked after all the same.
    let _ = daemon.write_all(TAKEN.as_bytes()).await;

    let (mut has_let_go, mut since) = (false, None);
    let lock = loop {
        let mut rest = [0];
        tokio::select! {
            Some(event) = inbox.recv() => place.handle(event),
            // Its hooks may take a while.
            _ = daemon.read(&mut rest), if !has_let_go => has_let_go = true,
            _ = terminate.recv() => break place.lock().ok().flatten(),
            _ = interrupt.recv() => break place.lock().ok().flatten(),
            error = place.election.failed() => return Err(error),
            () = tokio::time::sleep(LOOK) => {}
        }
        if has_let_go && getppid() != parent {
            // Not before: while it ends, it still has the data plane's lock.
            since.get_or_insert_with(Instant::now);
        }
        let Some(since) = since else { continue };
        // One that asks is there.
        let waited = place.silence().min(since.elapsed());
        if place.is_superfluous(waited < patience()) {
            info!("no longer standing in for the daemon");
            break None;
        }
        // One that is there, but does not know yet how this host is, is waited for; so is one that asked
        // until a moment ago, and died.
        if waited >= patience() {
            match place.lock() {
                Ok(None) => {}
                Ok(lock) => {
                    warn!("no daemon has come back within {:?}", patience());
                    break lock;
                }
                Err(error) => {
                    warn!("nobody can come back: {error:#}");
                    break None;
                }
            }
        }
    };
    place.leave(lock, inbox).await
}

/// What the process has.
struct Place {
    plan: Plan,
    election: Election,
    hooks: Hooks,
    /// None if it cannot be.
    exporter: Option<Exporter>,
}

impl Place {
    /// Makes all ready that takes time: from now on the peers are heard.
    fn take(plan: Plan, events: mpsc::UnboundedSender<Event>) -> Result<Self> {
        let counters: BTreeMap<_, _> =
            plan.masteries.iter().map(|one| (one.name.clone(), one.counter)).collect();
        let leases = Box::new(dataplane::leases(&plan.config.global.bpffs)?);
        let election = Election::start(Part::StandIn(counters), leases, events)?;
        let numbered = plan.masteries.iter().filter_map(|one| {
            let config = plan.config.groups.iter().find(|group| group.name == one.name)?;
            Some(Numbered { number: one.number, config: config.clone() })
        });
        election.command(Command::Configure(numbered.collect()));
        let exporter = Exporter::start(&plan.config.global.bpffs)
            .inspect_err(|error| warn!("an upgrade would not find the connections: {error:#}"))
            .ok();
        Ok(Self { plan, election, hooks: Hooks::new(), exporter })
    }

    /// Goes on as master of the groups, as soon as their sockets are open. Those that nothing came of
    /// in a while stay the daemon's.
    async fn begin(&self) -> Result<()> {
        for one in &self.plan.masteries {
            let (group, standing) = (one.name.clone(), one.standing.clone());
            self.election.command(Command::Standing { group, standing });
        }
        let deadline = Instant::now() + OPENING;
        let mut count = self.election.masteries()?.len();
        // Of those that were lost meanwhile, there is nothing to be seen.
        while count < self.election.view()?.groups.len() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
            count = self.election.masteries()?.len();
        }
        info!(groups = count, "standing in for a daemon that is to come back");
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        match event {
            // There is nothing new about that.
            Event::Group { transition: Transition { carries_on: true, .. }, .. } => {}
            Event::Group { name, transition } => {
                let group = self.plan.config.groups.iter().find(|group| group.name == name);
                if let Some(request) = group.and_then(|group| hooks(group, &transition)) {
                    self.hooks.run(request);
                }
                log(&Notice::Group { group: name, transition });
            }
            Event::Claimed { name, claimed } => log(&Notice::Claimed { group: name, claimed }),
            _ => {}
        }
    }

    /// Whether there is a daemon again, or no data plane any more, and nothing that is left to go on
    /// with, or, if that `may_ask`, to be told.
    fn is_superfluous(&self, may_ask: bool) -> bool {
        // Who cannot tell goes on.
        let has_groups = !self.election.masteries().is_ok_and(|left| left.is_empty());
        let is_gone = || !self.plan.config.global.bpffs.exists();
        let is_asked = may_ask && self.exporter.as_ref().is_some_and(Exporter::is_wanted);
        !has_groups && !is_asked && (is_gone() || self.lock().is_ok_and(|lock| lock.is_none()))
    }

    /// For how long nobody has been told what the data plane holds.
    fn silence(&self) -> Duration {
        self.exporter.as_ref().map_or(Duration::MAX, Exporter::silence)
    }

    /// The data plane's lock, if no daemon has it.
    fn lock(&self) -> Result<Option<Lock>> {
        dataplane::lock(&self.plan.config.global.bpffs)
    }

    /// Does what a daemon does that stops. Without the lock, another one has the data plane.
    async fn leave(
        mut self,
        lock: Option<Lock>,
        mut inbox: mpsc::UnboundedReceiver<Event>,
    ) -> Result<()> {
        self.election.stop();
        while let Ok(event) = inbox.try_recv() {
            self.handle(event);
        }
        if let Some(lock) = lock {
            info!("detaching the XDP program and stopping");
            dataplane::detach(&self.plan.config.global.bpffs)?;
            drop(lock);
        }
        self.hooks.finish(hooks::LAST).await;
        Ok(())
    }
}

fn log(notice: &Notice) {
    match notice.level() {
        Level::Info => info!("{notice}"),
        Level::Warn | Level::Error => warn!("{notice}"),
    }
}

fn patience() -> Duration {
    let wanted = std::env::var(PATIENCE_VARIABLE).ok().and_then(|text| text.parse().ok());
    wanted.map_or(PATIENCE, Duration::from_secs)
}
