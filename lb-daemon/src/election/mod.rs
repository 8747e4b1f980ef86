//! Drives the election of every group on a thread that nothing holds up.
//!
//! ```text
//!  daemon's loop ── Command ──► election thread ── Job ──► deputy thread
//!        ▲                        │  ▲      │                 addresses, announcements
//!        └──── Event::Group ──────┘  │      ├──► lease in the data plane
//!                            adverts ┘      └──► adverts
//!
//!  daemon's loop ◄── Event::Claimed ── sentry thread: who else claims the addresses that are held
//! ```
//!
//! The machines ([`core::group`](crate::core::group)) decide; here their deadlines are kept and
//! their outputs carried out. A lease and an advert are a store to memory and a datagram to a
//! socket that never blocks. What takes the kernel's time, addresses and announcements, is done in
//! the same order by a deputy. Both threads ask for real-time scheduling, so that no load of this
//! host makes adverts late; where that is not allowed they run as any other.

mod deputy;
mod driver;
mod hands;
mod seat;
mod sentry;

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use self::driver::Driver;
use crate::{
    core::{
        Elections, Event,
        group::{Command, Leases, Standing},
    },
    wake::Wake,
};

/// How long to wait for an answer of the thread, which has nothing to do that takes long.
const PATIENCE: Duration = Duration::from_millis(100);

/// The election thread. Dropping it [stops](Self::stop) the election.
#[derive(Debug)]
pub struct Election {
    orders: mpsc::Sender<Order>,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread has ended, in whatever way.
    ended: oneshot::Receiver<()>,
}

/// For whom the elections are driven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// For a daemon, which takes part in all of them.
    Daemon,
    /// For a daemon that has ended and shall come back: only those go on in which it was master, and
    /// only for as long as this host stays it. Where CARP's replay counters were, by group.
    StandIn(BTreeMap<String, u64>),
}

/// A group that this host is master of, for another process to carry on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mastery {
    /// Its name.
    pub name: String,
    /// Its number in the data plane.
    pub number: u16,
    /// How well this host is for it.
    pub standing: Standing,
    /// CARP's replay counter; zero for VRRP.
    pub counter: u64,
}

/// What the thread is told.
#[derive(Debug)]
enum Order {
    Command(Command),
    /// Answer with what can be seen.
    View(mpsc::SyncSender<Elections>),
    /// Answer with the groups that this host is master of.
    Masteries(mpsc::SyncSender<Vec<Mastery>>),
}

impl Election {
    /// Starts the threads, in the network namespace of the calling one. There are no groups until a
    /// [`Command::Configure`].
    ///
    /// # Errors
    ///
    /// If the kernel refuses a thread or a socket.
    pub fn start(
        part: Part,
        leases: Box<dyn Leases>,
        events: UnboundedSender<Event>,
    ) -> Result<Self> {
        let wake = Arc::new(Wake::new()?);
        let (orders, inbox) = mpsc::channel();
        let driver = Driver::new(part, inbox, Arc::clone(&wake), leases, events)?;
        let (alive, ended) = oneshot::channel();
        let run = move || {
            let _dropped_at_the_end: oneshot::Sender<()> = alive;
            driver.run();
        };
        let thread = std::thread::Builder::new()
            .name("election".to_owned())
            .spawn(run)
            .context("cannot start the election thread")?;
        Ok(Self { orders, wake, thread: Some(thread), ended })
    }

    /// Passes a command on. Does not wait.
    pub fn command(&self, command: Command) {
        self.order(Order::Command(command));
    }

    /// What the elections have come to.
    ///
    /// # Errors
    ///
    /// If the thread does not answer.
    pub fn view(&self) -> Result<Elections> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.order(Order::View(reply));
        answer.recv_timeout(PATIENCE).context("the election thread does not answer")
    }

    /// The groups that this host is master of, not before all commands so far were heeded. This may
    /// take a while on a busy host.
    ///
    /// # Errors
    ///
    /// If the thread does not answer.
    pub fn masteries(&self) -> Result<Vec<Mastery>> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.order(Order::Masteries(reply));
        answer.recv_timeout(20 * PATIENCE).context("the election thread does not answer")
    }

    /// Gives all groups up that no other process has claimed meanwhile, and waits until that is done. Commands that come later are not heeded.
    pub fn stop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }

    /// Waits until the threads have ended though nobody told them to, which should never happen, and
    /// says why. From then on this host takes part in no election: the owner must start anew or
    /// end. Not to be asked again.
    pub async fn failed(&mut self) -> anyhow::Error {
        let _ = (&mut self.ended).await;
        anyhow!("the election has ended by a panic, which is on the standard error output")
    }

    fn order(&self, order: Order) {
        // The thread ends only when this is dropped, or by a panic, which `failed` tells.
        let _ = self.orders.send(order);
        self.wake.ring();
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks for real-time scheduling of the calling thread: before all ordinary ones, but not before
/// what the kernel itself does at that level.
fn schedule_first() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: a plain system call; the parameter outlives it.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const lowest)
    };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(
            "no real-time scheduling ({error}): a busy host may send its adverts late; in a \
             container, allow CAP_SYS_NICE"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::unistd::getuid;
    use tokio::{sync::mpsc::unbounded_channel, time::timeout};

    use super::*;
    use crate::{
        config,
        core::group::{Lost, Numbered},
    };

    /// A data plane that fails.
    struct Broken;

    impl Leases for Broken {
        fn is_running(&self, _: u16, _: u64) -> bool {
            panic!("a test wants it")
        }

        fn claim(&mut self, _: u16, _: u64) -> Option<Instant> {
            None
        }

        fn renew(&mut self, _: u16, _: u64, _: Instant) -> Result<(), Lost> {
            Ok(())
        }

        fn end(&mut self, _: u16) -> Result<(), Lost> {
            Ok(())
        }

        fn check(&self, _: u16) -> Result<(), Lost> {
            Ok(())
        }

        fn doubt(&mut self, _: u16) {}

        fn end_others(&mut self, _: &[(u16, u64)]) {}
    }

    const GROUP: &str = r#"
        [global]
        interfaces = ["lo"]

        [[group]]
        name = "a"
        interface = "nowhere"
        protocol = "vrrp"
        version = 3
        virtual_router_id = 51
        virtual_ipaddress = ["192.0.2.1/32"]
    "#;

    #[tokio::test]
    async fn a_thread_that_panics_is_told() {
        // Nobody else may have a raw socket.
        if !getuid().is_root() {
            return;
        }
        let (events, _inbox) = unbounded_channel();
        let mut election =
            Election::start(Part::Daemon, Box::new(Broken), events).expect("the rights of root");
        let soon = Duration::from_millis(100);
        assert!(timeout(soon, election.failed()).await.is_err(), "nothing is wrong yet");
        let groups = config::parse(GROUP, "test").expect("a group").config.groups;
        let numbered = Numbered { number: 1, config: groups[0].clone() };
        election.command(Command::Configure(vec![numbered]));
        let patience = Duration::from_secs(10);
        timeout(patience, election.failed()).await.expect("to be told");
    }
}
