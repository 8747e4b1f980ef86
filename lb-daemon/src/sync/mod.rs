//! The conversation with the peer: sockets, encryption, and the thread that has the session speak.
//!
//! ```text
//!  daemon's loop ── configure, view, stop ──► sync thread ── Event::Sync, Event::Peer ──► daemon's loop
//!
//!     tables ◄──► session ◄── messages ── codec ◄── bytes ── secure ◄── TCP ──► the peer
//!  (data plane)   (core)   ── messages ─►       ── bytes ─►
//! ```
//!
//! The session ([`core::sync`](crate::core::sync)) decides what is said; here it is carried. All that
//! touches the tables is done on this one thread, so a slow peer, a slow kernel or a walk of a large
//! table delays neither elections nor checks; and nothing here waits for the peer: what it does not
//! take is queued up to a bound, and then the session is told that there is no room.
//!
//! The host with the lower `[sync] listen` calls the other one, again and again until it is there. A
//! call of the peer while there is a connection replaces that: it was started anew, or has lost it.

pub mod codec;
mod driver;
mod link;
mod meeting;
mod news;
mod secure;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, SyncSender},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use self::{driver::Driver, news::News};
use crate::{
    config::Peer,
    core::{
        Event, PeerNews, SyncStatus,
        sync::{Ends, Hello, Settings, Tables, View},
    },
};

/// How long to wait for an answer of the thread before the last one has to do: it may be in the
/// middle of a walk of the tables.
const PATIENCE: Duration = Duration::from_millis(100);

/// What people read when the thread has ended that nobody told to.
const PANIC: &str = "the conversation with the peer has ended by a panic, which is on the standard \
                     error output: only a new start helps";

/// The sync thread. Dropping it [stops](Self::stop) the conversation.
#[derive(Debug)]
pub struct Sync {
    orders: UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
    /// What it answered last, or before that what everybody knows.
    seen: Mutex<SyncStatus>,
}

/// What the thread is told.
#[derive(Debug)]
enum Order {
    Configure(Arc<Peer>, Hello),
    /// Answer with what can be seen.
    View(SyncSender<SyncStatus>),
    Stop,
}

impl Sync {
    /// Starts the thread, in the network namespace of the calling one. `wake` is readable while
    /// `tables` have changes to tell; without it they are asked every millisecond.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a thread or a file.
    pub fn start(
        peer: Arc<Peer>,
        hello: Hello,
        tables: Box<dyn Tables + Send>,
        wake: Option<OwnedFd>,
        events: UnboundedSender<Event>,
    ) -> Result<Self> {
        let (orders, inbox) = unbounded_channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime of the sync thread")?;
        let wake = {
            let _inside = runtime.enter();
            // SAFETY: an `OwnedFd` is the same open file for as long as it lives.
            let watch = |fd| unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
            wake.map(watch).transpose()
        };
        let wake = match wake {
            Ok(wake) => wake,
            Err(error) => {
                // Another runtime may be waiting for this function, and dropping one waits as well.
                runtime.shutdown_background();
                return Err(error).context("cannot wait for changes of the flow tables");
            }
        };
        let seen = Mutex::new(not_begun(&peer));
        let wait = peer.preempt_wait;
        let driver = {
            let _inside = runtime.enter();
            Driver::new(peer, hello, tables, wake, inbox, News::new(events.clone()))
        };
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(driver.run())));
            if result.is_err() {
                let _ = events.send(Event::Peer(PeerNews::Failed { why: PANIC.to_owned() }));
                ready_after(wait, events);
            }
        };
        let thread = std::thread::Builder::new()
            .name("sync".to_owned())
            .spawn(run)
            .context("cannot start the sync thread")?;
        Ok(Self { orders, thread: Some(thread), seen })
    }

    /// Puts another configuration in force. The conversation goes on if nothing changed that both
    /// have to agree on. Does not wait.
    pub fn configure(&self, peer: Arc<Peer>, hello: Hello) {
        self.order(Order::Configure(peer, hello));
    }

    /// How it stands; if the thread is busy, how it stood when this was asked last.
    pub fn view(&self) -> SyncStatus {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.order(Order::View(reply));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.recv_timeout(PATIENCE) {
            Ok(status) => *seen = status,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let View { lag, totals, ready, .. } = std::mem::take(&mut seen.conversation);
                let why = PANIC.to_owned();
                seen.conversation = View { why, ready, lag, totals, ..View::default() };
            }
        }
        seen.clone()
    }

    /// Tells the peer what it does not know yet, as far as it takes that within half a second, and
    /// that this host stops; waits until that is done.
    pub fn stop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }

    fn order(&self, order: Order) {
        // The thread ends only when this is dropped, or by a panic, which it tells.
        let _ = self.orders.send(order);
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Has this host wait no longer than that for connections of the peer's which nobody takes in: it may
/// take over from a master that works then, as if the peer were not there.
pub fn ready_after(wait: Duration, events: UnboundedSender<Event>) {
    let run = move || {
        std::thread::sleep(wait);
        // The daemon's loop may end before.
        let _ = events.send(Event::Sync { ready: true });
    };
    // Without a thread it goes on waiting, and serves only when there is no master.
    let _ = std::thread::Builder::new().name("sync wait".to_owned()).spawn(run);
}

/// How it stands before the thread has said so.
fn not_begun(peer: &Peer) -> SyncStatus {
    let why = "it has only just begun".to_owned();
    let conversation = View { why, ..View::default() };
    SyncStatus { listen: peer.listen, peer: peer.peer, refused: 0, conversation }
}

/// Between which addresses the two talk.
const fn ends(peer: &Peer) -> Ends {
    Ends { listen: peer.listen, peer: peer.peer }
}

fn settings(peer: &Peer) -> Settings {
    Settings { preempt_wait: peer.preempt_wait }
}
