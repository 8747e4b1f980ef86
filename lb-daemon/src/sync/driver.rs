//! The thread's loop.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    task::yield_now,
    time::{sleep_until, timeout, timeout_at},
};

use super::{
    Order, ends,
    link::{Broken, Link},
    meeting::{Meeting, Met},
    news::News,
    secure::Key,
    settings,
};
use crate::{
    config::Peer,
    core::{
        SyncStatus,
        sync::{Hello, Message, Session, Tables},
    },
};

/// Changes are taken at most this often, so that many go in one message.
const PACE: Duration = Duration::from_millis(1);
/// How long to leave the tables alone after an error, which another try would only repeat.
const TROUBLE: Duration = Duration::from_secs(1);
/// How long what is queued may take to go out when this host stops.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the thread has.
pub(super) struct Driver {
    session: Session,
    tables: Box<dyn Tables + Send>,
    /// Readable while the tables have changes to tell; nothing if they cannot say.
    reports: Option<AsyncFd<OwnedFd>>,
    orders: mpsc::UnboundedReceiver<Order>,
    peer: Arc<Peer>,
    hello: Hello,
    meeting: Meeting,
    link: Option<Link>,
    /// Callers that were hung up on.
    refused: Arc<AtomicU64>,
    news: News,
    /// When the session was last asked what there is to say, or may be asked again.
    polled: Instant,
    /// Whether it, or the peer, had more to say then.
    is_busy: bool,
}

/// Why the thread woke up.
enum Woken {
    Order(Option<Order>),
    Met(Met),
    Due,
}

impl Driver {
    /// To be called within the runtime that will [`run`](Self::run) it.
    pub(super) fn new(
        peer: Arc<Peer>,
        hello: Hello,
        tables: Box<dyn Tables + Send>,
        reports: Option<AsyncFd<OwnedFd>>,
        orders: mpsc::UnboundedReceiver<Order>,
        news: News,
    ) -> Self {
        let now = Instant::now();
        let refused = Arc::new(AtomicU64::new(0));
        Self {
            session: Session::new(hello.clone(), settings(&peer), now),
            tables,
            reports,
            orders,
            meeting: meet(&peer, &hello, &refused),
            peer,
            hello,
            link: None,
            refused,
            news,
            polled: now,
            is_busy: true,
        }
    }

    /// Keeps the conversation going until it is told to stop.
    pub(super) async fn run(mut self) {
        loop {
            match self.wait().await {
                Woken::Order(None | Some(Order::Stop)) => return self.farewell().await,
                Woken::Order(Some(Order::View(reply))) => {
                    // Whoever asked may have lost patience.
                    let _ = reply.try_send(self.status());
                }
                Woken::Order(Some(Order::Configure(peer, hello))) => self.configure(peer, hello),
                Woken::Met(met) => self.met(met),
                Woken::Due => {}
            }
            self.turn();
        }
    }

    async fn wait(&mut self) -> Woken {
        let pace = if self.session.is_in_a_hurry(self.polled) { Duration::ZERO } else { PACE };
        let rested = self.polled + pace;
        let due = self.session.next_deadline().max(rested);
        let is_busy = self.is_busy;
        let pause = async {
            // The sockets want to be looked at, however much there is to do.
            if is_busy { yield_now().await } else { sleep_until(due.into()).await }
        };
        tokio::select! {
            biased;
            order = self.orders.recv() => Woken::Order(order),
            met = self.meeting.next() => Woken::Met(met),
            () = pause => Woken::Due,
            () = something_to_hear(self.link.as_ref()) => Woken::Due,
            () = something_to_tell(self.reports.as_ref(), rested) => Woken::Due,
        }
    }

    /// Hears the peer, and says what there is to say.
    fn turn(&mut self) {
        let now = Instant::now();
        self.is_busy = false;
        if let Err(why) = self.converse(now) {
            self.part(&why, now);
        }
        self.news.ready(self.session.is_ready(now));
    }

    fn converse(&mut self, now: Instant) -> Result<(), String> {
        let mut out = Vec::new();
        let has_more = self.hear(now, &mut out)?;
        let room = self.link.as_ref().map_or(0, Link::room).saturating_sub(out.len());
        let answers = out.len();
        self.polled = now;
        if let Err(error) = self.session.poll(&mut *self.tables, room, now, &mut out) {
            if self.link.is_some() {
                return Err(format!("{}: {error:#}", self.end()));
            }
            self.polled = now + TROUBLE;
            return Err(format!("the flow tables cannot be read for the peer: {error:#}"));
        }
        self.is_busy = has_more || room > 0 && out.len() > answers;
        self.say(&out)
    }

    /// Has the session hear what has come. Returns whether there may be more.
    fn hear(&mut self, now: Instant, out: &mut Vec<Message>) -> Result<bool, String> {
        let Some(link) = &mut self.link else { return Ok(false) };
        let mut heard = Vec::new();
        let result = link.hear(&mut heard);
        for message in heard {
            let (mut greeting, mut is_last) = (None, false);
            match &message {
                Message::Hello(hello) => greeting = Some(hello.clone()),
                Message::Bye(_) => is_last = true,
                _ => {}
            }
            if let Err(refusal) = self.session.receive(message, &mut *self.tables, now, out) {
                if !is_last && !matches!(out.last(), Some(Message::Bye(_))) {
                    out.push(Message::Bye(refusal.to_string()));
                }
                // If that fails, the peer has to do without.
                let _ = self.say(out);
                return Err(format!("{}: {refusal}", self.end()));
            }
            if let Some(hello) = greeting {
                self.news.connected(self.peer.peer, hello.node, hello.program);
            }
        }
        result.map_err(|broken| self.broken(&broken))
    }

    /// Queues what there is to say, and sends as much of it as the peer takes.
    fn say(&mut self, out: &[Message]) -> Result<(), String> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.say(out).and_then(|()| link.flush()).map_err(|broken| self.broken(&broken))
    }

    fn broken(&self, broken: &Broken) -> String {
        format!("the peer at {} {broken}", self.peer.peer)
    }

    fn end(&self) -> String {
        format!("the conversation with the peer at {} has ended", self.peer.peer)
    }

    fn met(&mut self, met: Met) {
        let now = Instant::now();
        match met {
            Met::Peer(stream, channel) => {
                if self.link.is_some() {
                    // It would not call if it had the old one.
                    self.session.disconnected("the peer called anew", now);
                }
                self.link = Some(Link::new(stream, channel));
                let mut out = Vec::new();
                self.session.connected(now, &mut out);
                if let Err(why) = self.say(&out) {
                    self.part(&why, now);
                }
            }
            // A stranger's call is no harm to a conversation.
            Met::Nobody(_) if self.link.is_some() => {}
            Met::Nobody(why) => {
                self.session.disconnected(&why, now);
                self.news.failed(why);
            }
        }
    }

    /// Ends the conversation, if there is one.
    fn part(&mut self, why: &str, now: Instant) {
        if let Some(link) = self.link.take() {
            self.meeting.lost();
            // The peer shall hear why.
            tokio::spawn(timeout(FAREWELL, link.close()));
        }
        self.session.disconnected(why, now);
        self.news.lost(why.to_owned());
    }

    fn configure(&mut self, peer: Arc<Peer>, hello: Hello) {
        self.session.configure(hello.clone(), settings(&peer));
        let meets_as_before = ends(&peer) == ends(&self.peer) && peer.key == self.peer.key;
        // A hello is only said at first.
        let says_the_same = hello == self.hello;
        (self.peer, self.hello) = (peer, hello);
        if !says_the_same || !meets_as_before {
            self.part("another configuration was put in force", Instant::now());
        }
        if !meets_as_before {
            self.meeting = meet(&self.peer, &self.hello, &self.refused);
        }
    }

    fn status(&self) -> SyncStatus {
        SyncStatus {
            listen: self.peer.listen,
            peer: self.peer.peer,
            refused: self.refused.load(Relaxed),
            conversation: self.session.view(Instant::now()),
        }
    }

    /// Sends what is queued, and takes leave.
    async fn farewell(mut self) {
        let end = (Instant::now() + FAREWELL).into();
        // Whoever does not take it in time does without.
        let _ = timeout_at(end, async {
            self.turn();
            while self.link.is_some() && self.session.view(Instant::now()).queue.changes > 0 {
                let rested = Instant::now() + PACE;
                tokio::select! {
                    () = something_to_hear(self.link.as_ref()) => {}
                    () = sleep_until(rested.into()) => {}
                }
                self.turn();
            }
            let why = format!("tandem stops on {}", self.hello.node);
            let _ = self.say(&[Message::Bye(why)]);
            if let Some(link) = self.link.take() {
                link.close().await;
            }
        })
        .await;
        // No client waits for a peer that is told nothing any more.
        let now = Instant::now();
        self.session.disconnected("tandem stops", now);
        let _ = self.session.poll(&mut *self.tables, 0, now, &mut Vec::new());
    }
}

fn meet(peer: &Peer, hello: &Hello, refused: &Arc<AtomicU64>) -> Meeting {
    let versions = hello.versions.clone();
    Meeting::begin(ends(peer), Key::new(&peer.key), versions, Arc::clone(refused))
}

/// Waits until the peer has said something, or takes more of what it is told.
async fn something_to_hear(link: Option<&Link>) {
    match link {
        // An error shows again when it is used.
        Some(link) => drop(link.ready().await),
        None => std::future::pending().await,
    }
}

/// Waits until `rested`, and then until there are changes.
async fn something_to_tell(reports: Option<&AsyncFd<OwnedFd>>, rested: Instant) {
    sleep_until(rested.into()).await;
    let Some(reports) = reports else { return };
    // What was left over the last time does not make it readable anew.
    let mut fds = [PollFd::new(reports.get_ref().as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        return;
    }
    match reports.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        // The runtime is about to end.
        Err(_) => std::future::pending().await,
    }
}
