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

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::error;

use crate::{
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
    seen: Arc<Mutex<BTreeMap<u16, QueueView>>>,
    /// What it was told last.
    rules: BTreeMap<u16, Rules>,
    thread: Option<JoinHandle<()>>,
}

impl Admission {
    /// Starts the thread, which has nobody wait at first.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a thread or a file.
    pub fn start(door: impl Door + Send + 'static) -> Result<Self> {
        let (orders, inbox) = channel();
        let wake = Arc::new(Wake::new()?);
        let seen = Arc::default();
        let porter = Porter {
            door,
            queues: Queues::default(),
            inbox,
            wake: Arc::clone(&wake),
            seen: Arc::clone(&seen),
            said: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("admission".to_owned())
            .spawn(move || porter.run())
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
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
struct Porter<D> {
    door: D,
    queues: Queues,
    inbox: Receiver<BTreeMap<u16, Rules>>,
    wake: Arc<Wake>,
    seen: Arc<Mutex<BTreeMap<u16, QueueView>>>,
    /// When it was last said that SYNs may wait.
    said: Instant,
}

impl<D: Door> Porter<D> {
    fn run(mut self) {
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
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = self.queues.view(now);
    }

    fn say(&mut self) {
        self.said = Instant::now();
        let door = &mut self.door;
        self.queues.leave_to_others(door);
        door.hold_open(&self.queues.services());
    }
}
