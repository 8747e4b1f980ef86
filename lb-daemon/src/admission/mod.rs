//! The thread that has SYNs wait for a place.
//!
//! ```text
//!  daemon's loop ── rules, view ──► admission thread ◄── arrivals, free places ── the program
//!                                     Queues (core) ──── whose turn it is ──────► the program
//! ```
//!
//! It sleeps until the program wakes it by the ring buffer, so that a client is served as soon as there is a
//! place for it. Nothing else is done there. If it is not there, or is held up, nobody waits: a SYN that finds no
//! place is dropped then, and its client sends it again.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{error, warn};

use crate::{
    config::{Backend, Config},
    core::{
        Desired,
        admission::{Arrival, Door, QueueView, Queues, Rules, rules},
    },
    wake::Wake,
};

/// It is said anew that SYNs may wait after so long: well before it is forgotten.
const SAY_AGAIN: Duration = Duration::from_millis(300);
/// Records of the program that are taken at once.
const AT_ONCE: usize = 256;

/// The thread. Dropping it ends it, and nobody waits any longer.
#[derive(Debug)]
pub struct Admission {
    orders: Option<Sender<BTreeMap<u16, Rules>>>,
    wake: Arc<Wake>,
    seen: Arc<Mutex<Seen>>,
    /// What it was told last.
    rules: BTreeMap<u16, Rules>,
    thread: Option<JoinHandle<()>>,
}

/// What people see of it.
#[derive(Debug, Default)]
struct Seen {
    queues: BTreeMap<u16, QueueView>,
    /// Why nobody can wait; none if they can.
    failure: Option<String>,
}

impl Admission {
    /// Starts the thread, which has nobody wait at first. If somebody may have to soon (`is_wanted`), it gets
    /// ready for that while the rest of the daemon starts; else when it is first told of it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a thread or a file.
    pub fn start(door: impl Door + Send + 'static, is_wanted: bool) -> Result<Self> {
        let (orders, inbox) = channel();
        let wake = Arc::new(Wake::new()?);
        let seen = Arc::default();
        let porter = Porter {
            door,
            is_able: None,
            queues: Queues::default(),
            inbox,
            wake: Arc::clone(&wake),
            seen: Arc::clone(&seen),
            said: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("admission".to_owned())
            .spawn(move || porter.run(is_wanted))
            .context("cannot start the thread for clients that wait")?;
        let rules = BTreeMap::new();
        Ok(Self { orders: Some(orders), wake, seen, rules, thread: Some(thread) })
    }

    /// Has them wait by what the data plane was told. To be called after that: whom it makes room for is
    /// served now.
    pub fn configure(&mut self, desired: &Desired) {
        let rules = rules(desired);
        if rules.is_empty() && self.rules.is_empty() {
            return;
        }
        self.rules.clone_from(&rules);
        if let Some(orders) = &self.orders {
            // The thread ends only when this is dropped, or by a panic, which was reported.
            let _ = orders.send(rules);
            self.wake.ring();
        }
    }

    /// Who waits, by number of the service: those where nobody ever has to are not there.
    #[must_use]
    pub fn view(&self) -> BTreeMap<u16, QueueView> {
        lock(&self.seen).queues.clone()
    }

    /// Why nobody can wait, if somebody should; none if they can.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        if self.rules.is_empty() { None } else { lock(&self.seen).failure.clone() }
    }
}

/// Whether somebody may have to wait by this configuration, whatever agents will say.
pub fn is_wanted(config: &Config) -> bool {
    config.services.iter().any(|service| {
        let is_limited = |backend: &Backend| backend.limits.maxconn.is_some();
        service.maxconn.is_some() || service.backends.iter().any(is_limited)
    })
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.orders = None;
        self.wake.ring();
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Porter<D: Door> {
    door: D,
    /// Whether SYNs can wait; nothing before anybody had to.
    is_able: Option<bool>,
    queues: Queues,
    inbox: Receiver<BTreeMap<u16, Rules>>,
    wake: Arc<Wake>,
    seen: Arc<Mutex<Seen>>,
    /// When it was last said that SYNs may wait.
    said: Instant,
}

impl<D: Door> Porter<D> {
    /// Works until it is told to end.
    fn run(mut self, is_wanted: bool) {
        if is_wanted {
            self.is_able();
        }
        let mut arrivals = Vec::new();
        loop {
            self.wait();
            if self.obey().is_break() {
                return;
            }
            match self.door.arrivals(AT_ONCE, &mut arrivals) {
                Ok(_) => self.turn(&mut arrivals),
                Err(error) => {
                    error!("clients do not wait any more where `maxconn` is reached: {error:#}");
                    lock(&self.seen).failure = Some(format!("{error:#}"));
                    return;
                }
            }
        }
    }

    /// Puts the rules in force that were sent last. Breaks if there will be none any more.
    fn obey(&mut self) -> ControlFlow<()> {
        let mut last = None;
        loop {
            match self.inbox.try_recv() {
                Ok(rules) => last = Some(rules),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return ControlFlow::Break(()),
            }
        }
        if let Some(rules) = last {
            self.queues.configure(rules, &mut self.door);
            self.say();
        }
        ControlFlow::Continue(())
    }

    /// Sleeps until there is something to do.
    fn wait(&self) {
        let say = (!self.queues.services().is_empty()).then(|| self.said + SAY_AGAIN);
        let due = say.into_iter().chain(self.queues.next_deadline()).min();
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spent asking.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.door.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted or not, what there is to do is looked for.
        let _ = poll(&mut fds, timeout);
        self.wake.hush();
    }

    /// Has everybody have their turn.
    fn turn(&mut self, arrivals: &mut Vec<Arrival>) {
        let now = Instant::now();
        let (queues, door) = (&mut self.queues, &mut self.door);
        for arrival in arrivals.drain(..) {
            queues.arrive(arrival, now, door);
        }
        queues.call_all(door);
        queues.expire(now, door);
        if now.saturating_duration_since(self.said) >= SAY_AGAIN {
            self.say();
        }
        lock(&self.seen).queues = self.queues.view(now);
    }

    fn say(&mut self) {
        self.said = Instant::now();
        self.queues.leave_to_others(&mut self.door);
        let services = self.queues.services();
        if services.is_empty() || self.is_able() {
            self.door.hold_open(&services);
        }
    }

    /// Whether SYNs can wait. The first time it takes long.
    fn is_able(&mut self) -> bool {
        let (door, seen) = (&mut self.door, &self.seen);
        *self.is_able.get_or_insert_with(|| match door.prepare() {
            Ok(()) => true,
            Err(error) => {
                warn!(
                    "clients are turned away where `maxconn` is reached, and do not wait: {error:#}"
                );
                lock(seen).failure = Some(format!("{error:#}"));
                false
            }
        })
    }
}

impl<D: Door> Drop for Porter<D> {
    /// Whatever ends the thread, nobody is said to wait any more.
    fn drop(&mut self) {
        let mut seen = lock(&self.seen);
        seen.queues.clear();
        if std::thread::panicking() {
            seen.failure = Some("its thread has panicked, as the log tells".to_owned());
        }
    }
}
