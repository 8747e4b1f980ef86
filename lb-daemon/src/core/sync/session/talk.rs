//! A conversation that has come beyond the greeting.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    super::{Message, Scope, Tables},
    ALIVE, PEER_GONE, Totals,
    ended::Ended,
    held::Held,
    limits::Limits,
    receiver::Receiver,
    sender::Sender,
};

/// How often the digests of the groups that are served are told.
pub(super) const DIGESTS: Duration = Duration::from_secs(10);
/// Room for so many messages is enough for the digests of however many groups: less than a link has
/// that nothing waits on.
const DIGEST_ROOM: usize = 8;

/// Both halves of a conversation.
#[derive(Debug)]
pub(super) struct Talk {
    limits: Limits,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// Groups that either host has told the other all of.
    pub(super) agreed: BTreeSet<String>,
    /// Groups that this host has told the other all of without serving them: the other may know more.
    pub(super) offered: BTreeSet<String>,
    /// Groups that the other has told this host all of.
    pub(super) heard_all: BTreeSet<String>,
    /// When the peer was last heard of.
    pub(super) heard: Instant,
    /// Whether this host said something of itself that is not so any more.
    pub(super) is_outdated: bool,
    /// Whether there is something to be said for which there was room.
    has_more: bool,
}

/// What of the session a conversation looks at.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) serving: &'a BTreeSet<String>,
    pub(super) recent: &'a BTreeSet<String>,
    pub(super) served: &'a BTreeSet<String>,
    pub(super) owed: &'a mut BTreeSet<String>,
    pub(super) ended: &'a mut Ended,
    pub(super) held: &'a mut Held,
    pub(super) totals: &'a mut Totals,
}

impl Talk {
    /// Begins with telling all of what is owed.
    pub(super) fn new(owed: &BTreeSet<String>, limits: Limits, now: Instant) -> Self {
        let mut sender = Sender::new(now, now + DIGESTS);
        sender.transfers.want(Scope { groups: owed.clone(), buckets: BTreeSet::new() });
        Self {
            limits,
            sender,
            receiver: Receiver::default(),
            agreed: BTreeSet::new(),
            offered: BTreeSet::new(),
            heard_all: BTreeSet::new(),
            heard: now,
            is_outdated: false,
            has_more: true,
        }
    }

    pub(super) fn poll(
        &mut self,
        mut told: Told<'_>,
        tables: &mut dyn Tables,
        room: usize,
        now: Instant,
        out: &mut Vec<Message>,
    ) -> Result<()> {
        if self.is_outdated {
            bail!("the configuration has changed");
        }
        if now >= self.heard + PEER_GONE {
            bail!("the peer has said nothing for {} s", PEER_GONE.as_secs());
        }
        if self.sender.stuck_at().is_some_and(|stuck| now >= stuck) {
            bail!("the peer acknowledges nothing");
        }
        let given_up = self.receiver.serves(told.serving);
        self.sender.transfers.hold_only(told.serving);
        if !given_up.is_empty() {
            told.owed.extend(given_up.iter().cloned());
            self.sender.transfers.want(Scope { groups: given_up, buckets: BTreeSet::new() });
        }
        let is_drained = self.drain(&mut told, tables, now)?;
        self.acknowledge(now, out);

        let end = out.len() + room.min(self.window());
        while out.len() < end {
            let Some(batch) = self.sender.queue.pop() else { break };
            told.totals.changes_sent += batch.changes.len() as u64;
            self.sender.tell(batch, now, out);
        }
        if is_drained && self.sender.queue.is_empty() && out.len() < end {
            if self.announce_given_up(&told, tables, now, out) {
                self.say_serving(&mut told, now, out);
            }
            self.transfer(&mut told, tables, end, now, out);
            self.digest(told.serving, tables, end, now, out);
        }
        if self.is_level() {
            told.ended.clear();
        }
        if room > 0 && now >= self.sender.last + ALIVE {
            self.sender.say(Message::Alive, now, out);
        }
        self.has_more = room > 0
            && self.window() > 0
            && (!is_drained || !self.sender.queue.is_empty() || self.sender.transfers.has_work());
        Ok(())
    }

    /// Reads changes. Returns whether that were all.
    fn drain(
        &mut self,
        told: &mut Told<'_>,
        tables: &mut dyn Tables,
        now: Instant,
    ) -> Result<bool> {
        let mut changes = Vec::new();
        let mut has_lost = false;
        let mut is_drained = false;
        for _ in 0..self.limits.drains {
            changes.clear();
            tables.changes(self.limits.drain, &mut changes)?;
            // What it tells may have been read before it hears of these.
            if !self.is_level() {
                told.ended.note(&changes, self.limits.ended);
            }
            has_lost |= self.sender.queue.push(&changes, told.held, self.limits, now).is_err();
            if changes.len() < self.limits.drain {
                is_drained = true;
                break;
            }
        }
        if tables.has_lost_changes() || has_lost {
            told.totals.lost += 1;
            self.sender.queue.clear();
            let count = told.held.take_all();
            told.totals.unacknowledged += count as u64;
            tables.release(count);
            told.owed.extend(told.recent.iter().cloned());
            self.sender.transfers.start_over(told.recent.clone());
        }
        Ok(is_drained)
    }

    /// Says what is in the tables.
    pub(super) fn acknowledge(&mut self, now: Instant, out: &mut Vec<Message>) {
        if self.receiver.acknowledged < self.receiver.received {
            self.receiver.acknowledged = self.receiver.received;
            self.sender.last = now;
            let refused = std::mem::take(&mut self.receiver.refused);
            out.push(Message::Ack { number: self.receiver.received, refused });
        }
    }

    /// Begins to tell all of what was given up. Returns whether the peer may hear that it was: if it knew
    /// that before, it would end the grace, and forget what has ended, while more is to come.
    fn announce_given_up(
        &mut self,
        told: &Told<'_>,
        tables: &mut dyn Tables,
        now: Instant,
        out: &mut Vec<Message>,
    ) -> bool {
        let transfers = &mut self.sender.transfers;
        let given_up = self.receiver.contest.given_up();
        if !given_up.iter().any(|group| transfers.waits_with(group)) {
            return true;
        }
        if !transfers.is_free() {
            return false;
        }
        let begins = transfers.next(told.served, self.limits, tables);
        if let Some(begins) = begins {
            self.sender.say(begins, now, out);
        }
        true
    }

    /// Says which groups are served, after all changes of those that are no longer. Before that, the peer
    /// is asked for all it has of groups that neither has told the other all of: it may have served them,
    /// too, and a daemon that was started anew does not know that it owes something. And of those that
    /// only this host has told of, when it did not serve them: its tables may be new, and the peer's not.
    fn say_serving(&mut self, told: &mut Told<'_>, now: Instant, out: &mut Vec<Message>) {
        if self.sender.said.as_ref() == Some(told.serving) {
            return;
        }
        let before = self.sender.said.replace(told.serving.clone()).unwrap_or_default();
        let groups: BTreeSet<_> = told
            .serving
            .difference(&before)
            .filter(|group| !self.agreed.contains(*group) || self.is_only_offered(group))
            .cloned()
            .collect();
        if !groups.is_empty() {
            self.agreed.retain(|group| !groups.contains(group));
            // Of these the peer knows what it had by chance.
            told.owed.extend(groups.iter().cloned());
            let scope = Scope { groups: groups.clone(), buckets: BTreeSet::new() };
            self.sender.say(Message::Want(scope), now, out);
            self.sender.transfers.want_after_the_peer(groups);
        }
        self.sender.say(Message::Serving(told.serving.clone()), now, out);
    }

    fn transfer(
        &mut self,
        told: &mut Told<'_>,
        tables: &mut dyn Tables,
        end: usize,
        now: Instant,
        out: &mut Vec<Message>,
    ) {
        for _ in 0..self.limits.transfer {
            if out.len() >= end {
                return;
            }
            let message = self.sender.transfers.next(told.served, self.limits, tables);
            let Some(message) = message else { return };
            if let Message::Transfer(connections) = &message {
                told.totals.connections_sent += connections.len() as u64;
            }
            self.sender.say(message, now, out);
        }
    }

    fn digest(
        &mut self,
        serving: &BTreeSet<String>,
        tables: &mut dyn Tables,
        end: usize,
        now: Instant,
        out: &mut Vec<Message>,
    ) {
        // They are short: where there is room for some messages, there is for those of all groups.
        if now < self.sender.digests
            || end.saturating_sub(out.len()) < serving.len().min(DIGEST_ROOM)
        {
            return;
        }
        self.sender.digests = now + DIGESTS;
        if !self.sender.transfers.is_idle() {
            return;
        }
        for group in serving {
            let digest = Box::new(tables.digest(group));
            self.sender.say(Message::Digest { group: group.clone(), digest }, now, out);
        }
    }

    /// How many messages may be sent before the peer has to acknowledge some.
    fn window(&self) -> usize {
        self.limits.unacked.saturating_sub(self.sender.unacked())
    }

    /// Whether this host has all that the peer serves.
    pub(super) fn is_whole(&self) -> bool {
        self.receiver.serving.as_ref().is_some_and(|serving| {
            serving
                .iter()
                .all(|group| self.agreed.contains(group) && !self.receiver.is_hearing_all_of(group))
        })
    }

    /// Whether both have the same, but for what is under way.
    pub(super) fn is_in_sync(&self) -> bool {
        self.is_whole()
            && !self.receiver.is_hearing()
            && self.sender.said.is_some()
            && self.sender.transfers.is_idle()
    }

    /// Whether the peer has nothing any more to tell or to forget that it has not heard of since.
    fn is_level(&self) -> bool {
        self.sender.said.is_some()
            && self.sender.transfers.is_idle()
            && !self.receiver.is_hearing()
            && !self.receiver.contest.has_two_masters()
    }

    fn is_only_offered(&self, group: &str) -> bool {
        self.offered.contains(group) && !self.heard_all.contains(group)
    }

    /// Whether nothing more of a group that this host serves is to come from the peer.
    pub(super) fn has_all_of(&self, group: &str) -> bool {
        self.agreed.contains(group)
            && self.receiver.serving.is_some()
            && !self.receiver.is_served_by_peer(group)
            && !self.receiver.is_hearing_of(group)
    }

    pub(super) fn next_deadline(&self, polled: Instant) -> Instant {
        if self.has_more || self.is_outdated || self.receiver.acknowledged < self.receiver.received
        {
            return polled;
        }
        let due = (self.sender.last + ALIVE).min(self.heard + PEER_GONE).min(self.sender.digests);
        self.sender.stuck_at().map_or(due, |stuck| due.min(stuck))
    }
}
