//! A conversation with the peer, as a pure state machine: messages in, messages out.
//!
//! One half is what this host says (`sender`, `queue`, `transfers`), the other what the peer says
//! (`receiver`, `digests`). Every link begins a new conversation, from nothing: what a cut took away is
//! told again by a transfer.

mod contest;
mod digests;
mod ended;
mod greeting;
mod held;
mod lag;
mod limits;
mod queue;
mod readiness;
mod receive;
mod receiver;
mod sender;
mod talk;
#[cfg(test)]
mod tests;
mod transfers;
mod view;

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use self::{ended::Ended, held::Held, lag::Lag, limits::Limits, readiness::Readiness, talk::Talk};
pub use self::{
    greeting::VERSIONS,
    view::{LagView, NotReady, PeerView, Stage, Totals, View, Waiting},
};
use super::{Change, Hello, Message, Reported, Tables};

/// After this long without another message a host says that it is there.
const ALIVE: Duration = Duration::from_secs(1);
/// A peer that has said nothing for this long is gone.
pub const PEER_GONE: Duration = Duration::from_secs(5);
/// How often the tables are asked to look for what was missing.
const REPAIR: Duration = Duration::from_millis(250);

/// What an operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long this host waits for the peer's connections before it may take over without.
    pub preempt_wait: Duration,
}

/// Why the conversation has to end: the link is to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub why: String,
}

/// The conversations with a peer, one after the other.
///
/// Whoever has the link calls [`connected`](Self::connected) when it stands,
/// [`receive`](Self::receive) with each message that comes in,
/// [`disconnected`](Self::disconnected) when it is closed, and [`poll`](Self::poll) after all of them,
/// when [`next_deadline`](Self::next_deadline) has come, and when the program has reported changes. What
/// is put in `out` is to be sent in this order.
#[derive(Debug)]
pub struct Session {
    hello: Hello,
    settings: Settings,
    limits: Limits,
    link: Link,
    /// Since when the link has been as it is: standing or not.
    since: Instant,
    /// Why there is no conversation.
    why: String,
    /// What the peer last said of itself.
    peer: Option<Hello>,
    notices: Vec<String>,
    /// Groups served when that was last looked at.
    serving: BTreeSet<String>,
    /// Groups that were served here while the peer was not told: it is owed all that is here.
    owed: BTreeSet<String>,
    /// Groups that a daemon before this one may have served while the peer was not told. It is owed all
    /// of them, of those that it serves itself when it asks for them.
    uncertain: BTreeSet<String>,
    /// Groups served here since the peer last had everything.
    recent: BTreeSet<String>,
    /// The same, and groups that a daemon before this one may have served: what is silent at the peer may
    /// have gone on here.
    served: BTreeSet<String>,
    /// What ended here since the peer last had everything.
    ended: Ended,
    /// Groups whose grace this host has not ended since it took over.
    graces: BTreeSet<String>,
    readiness: Readiness,
    held: Held,
    totals: Totals,
    lag: Lag,
    polled: Instant,
    repaired: Instant,
}

/// How far the present link has come.
#[derive(Debug)]
enum Link {
    Down {
        refused: bool,
    },
    /// The peer's greeting is waited for.
    Greeting,
    Up(Box<Talk>),
}

impl Session {
    /// A session without a link. `hello` is what this host says of itself.
    pub fn new(hello: Hello, settings: Settings, now: Instant) -> Self {
        Self {
            uncertain: hello.groups.clone(),
            served: hello.groups.clone(),
            hello,
            settings,
            limits: Limits::REAL,
            link: Link::Down { refused: false },
            since: now,
            why: "no connection yet: does the peer run, and do firewalls let [sync] through?"
                .to_owned(),
            peer: None,
            notices: Vec::new(),
            serving: BTreeSet::new(),
            owed: BTreeSet::new(),
            recent: BTreeSet::new(),
            ended: Ended::default(),
            graces: BTreeSet::new(),
            readiness: Readiness::new(now),
            held: Held::default(),
            totals: Totals::default(),
            lag: Lag::default(),
            polled: now,
            repaired: now,
        }
    }

    /// A link stands. One that stood before is gone.
    pub fn connected(&mut self, now: Instant, out: &mut Vec<Message>) {
        self.disconnected("the peer has connected anew", now);
        self.link = Link::Greeting;
        self.since = now;
        out.push(Message::Hello(self.hello.clone()));
    }

    /// There is no link any more, or there could be none, for this reason.
    pub fn disconnected(&mut self, why: &str, now: Instant) {
        if let Link::Down { refused } = self.link {
            if !refused {
                why.clone_into(&mut self.why);
            }
            return;
        }
        self.down(why, false, now);
    }

    fn down(&mut self, why: &str, refused: bool, now: Instant) {
        if let Link::Up(talk) = &self.link {
            // What was under way is lost.
            self.readiness.ends(talk.is_whole(), now);
            self.owed.append(&mut self.recent);
            self.owed.extend(self.serving.iter().cloned());
            for end in talk.sender.untold_ends() {
                self.ended.end(end, self.limits.ended);
            }
            self.held.lapse();
        }
        self.link = Link::Down { refused };
        self.since = now;
        why.clone_into(&mut self.why);
    }

    /// Does what is due: reads changes and tells them, and transfers, digests and signs of life.
    /// `room` is how many messages the link takes without waiting; with none, changes are read
    /// nevertheless.
    ///
    /// # Errors
    ///
    /// If the conversation has come to its end, or the tables cannot be read: the link is to be closed.
    pub fn poll(
        &mut self,
        tables: &mut dyn Tables,
        room: usize,
        now: Instant,
        out: &mut Vec<Message>,
    ) -> Result<()> {
        self.polled = now;
        // Before the changes are read: then all of a group that was given up are among them.
        let serving = tables.serving();
        self.graces.retain(|group| serving.contains(group));
        self.graces.extend(serving.difference(&self.serving).cloned());
        let before = std::mem::replace(&mut self.serving, serving);
        self.served.extend(before.union(&self.serving).cloned());
        if now.saturating_duration_since(self.repaired) >= REPAIR {
            self.repaired = now;
            tables.repair()?;
            if let Some(peer) = &self.peer {
                tables.peer_has(&peer.groups);
            }
        }

        match &mut self.link {
            Link::Down { .. } => self.discard(before, tables)?,
            Link::Greeting => {
                self.discard(before, tables)?;
                if now >= self.since + PEER_GONE {
                    bail!("the peer has not said who it is for {} s", PEER_GONE.as_secs());
                }
            }
            Link::Up(talk) => {
                self.recent.extend(self.serving.iter().cloned());
                let told = talk::Told {
                    serving: &self.serving,
                    recent: &self.recent,
                    served: &self.served,
                    owed: &mut self.owed,
                    ended: &mut self.ended,
                    held: &mut self.held,
                    totals: &mut self.totals,
                };
                talk.poll(told, tables, room, now, out)?;
                if talk.sender.is_settled() {
                    self.recent.clone_from(&self.serving);
                    // A peer that has not said what it serves may yet ask for what a daemon before this one served.
                    if talk.receiver.serving.is_some() {
                        self.served.clone_from(&self.serving);
                    }
                }
            }
        }
        self.end_graces(tables);
        self.hold(tables, now);
        Ok(())
    }

    /// Releases what must not wait any longer, and says whether more is to be held.
    fn hold(&mut self, tables: &mut dyn Tables, now: Instant) {
        let (late, behind) = match &self.link {
            Link::Up(talk) => {
                (self.held.take_late(self.limits, now), Some(talk.sender.behind(now)))
            }
            Link::Down { .. } | Link::Greeting => (self.held.take_all(), None),
        };
        self.totals.unacknowledged += late as u64;
        tables.hold(self.held.decide(behind, self.limits));
        tables.release(late);
    }

    /// Nobody can be told of changes: all will be told later.
    fn discard(&mut self, before: BTreeSet<String>, tables: &mut dyn Tables) -> Result<()> {
        self.owed.extend(before);
        self.owed.extend(self.serving.iter().cloned());
        let mut changes = Vec::new();
        for _ in 0..self.limits.drains {
            changes.clear();
            tables.changes(self.limits.drain, &mut changes)?;
            self.ended.note_untold(&changes, self.limits.ended);
            let is_answer = |it: &&Reported| matches!(it.change, Change::Answered(_));
            let answered = changes.iter().filter(is_answer).count();
            self.totals.unacknowledged += answered as u64;
            tables.release(answered);
            if changes.len() < self.limits.drain {
                break;
            }
        }
        tables.has_lost_changes();
        Ok(())
    }

    /// Ends the grace of groups that nothing more is to be heard of.
    fn end_graces(&mut self, tables: &mut dyn Tables) {
        let is_over = |group: &String| match &self.link {
            Link::Up(talk) => talk.has_all_of(group),
            Link::Greeting => false,
            Link::Down { .. } => self.readiness.was_whole(),
        };
        let over: Vec<_> = self.graces.iter().filter(|group| is_over(group)).cloned().collect();
        for group in over {
            tables.end_grace(&group);
            self.graces.remove(&group);
        }
    }

    /// When [`poll`](Self::poll) is to be called at the latest.
    pub fn next_deadline(&self) -> Instant {
        let due = match &self.link {
            // What was held for the peer is to go on.
            Link::Down { .. } | Link::Greeting if self.held.is_on() => self.polled,
            Link::Down { .. } => self.polled + REPAIR,
            Link::Greeting => self.since + PEER_GONE,
            Link::Up(talk) => talk.next_deadline(self.polled),
        };
        let late = self.held.next_deadline(self.limits);
        late.map_or(due, |late| due.min(late)).min(self.repaired + REPAIR)
    }

    /// Whether changes are to be told at once, because clients wait for it, rather than many in a
    /// message.
    pub fn is_in_a_hurry(&self, now: Instant) -> bool {
        self.held.is_in_a_hurry(now)
    }

    /// Takes over another configuration. A conversation in which this host said something else of itself
    /// ends at the next [`poll`](Self::poll).
    pub fn configure(&mut self, hello: Hello, settings: Settings) {
        self.settings = settings;
        if self.hello != hello {
            self.hello = hello;
            if let Link::Up(talk) = &mut self.link {
                talk.is_outdated = true;
            }
        }
    }

    /// Whether this host may take over from a master that works: the tables are whole, or were waited
    /// for for long enough.
    pub fn is_ready(&self, now: Instant) -> bool {
        self.is_whole() || self.readiness.has_waited(self.settings.preempt_wait, now)
    }

    fn is_whole(&self) -> bool {
        matches!(&self.link, Link::Up(talk) if talk.is_whole())
    }

    /// How it stands.
    pub fn view(&self, now: Instant) -> View {
        let talk = if let Link::Up(talk) = &self.link { Some(talk) } else { None };
        let ready = self.is_ready(now);
        let serving = talk.and_then(|talk| talk.receiver.serving.clone());
        View {
            state: match &self.link {
                Link::Down { refused: true } => Stage::Refused,
                Link::Down { .. } => Stage::Disconnected,
                Link::Greeting => Stage::Greeting,
                Link::Up(talk) if talk.is_in_sync() => Stage::InSync,
                Link::Up(_) => Stage::Transferring,
            },
            since_seconds: now.saturating_duration_since(self.since).as_secs(),
            why: if talk.is_some() { String::new() } else { self.why.clone() },
            peer: self.peer.as_ref().map(|peer| PeerView {
                node: peer.node.clone(),
                program: peer.program.clone(),
                serving: serving.unwrap_or_default(),
            }),
            notices: self.notices.clone(),
            ready,
            not_ready: (!ready).then(|| NotReady {
                why: match talk {
                    Some(_) => "the peer's connections are coming in".to_owned(),
                    None => format!("not connected to the peer: {}", self.why),
                },
                at_most_seconds: self.readiness.left(self.settings.preempt_wait, now).as_secs(),
            }),
            lag: self.lag.view(now),
            queue: talk.map(|talk| talk.sender.waiting()).unwrap_or_default(),
            held: self.held.len() as u64,
            is_holding: self.held.is_on(),
            totals: self.totals,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refusal {}
