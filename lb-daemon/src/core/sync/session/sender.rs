//! What this host tells the peer, and what of that the peer has.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::{
    super::Message,
    Refusal, Waiting,
    ended::End,
    lag::Lag,
    queue::{Batch, Queue},
    transfers::Transfers,
};

/// A peer that acknowledges nothing for this long is taken for stuck.
const STUCK: Duration = Duration::from_secs(30);

/// The half of a conversation that this host speaks.
#[derive(Debug)]
pub(super) struct Sender {
    /// Messages sent that are counted.
    sent: u64,
    unacked: VecDeque<Unacked>,
    /// Changes among them.
    unacked_changes: usize,
    pub(super) queue: Queue,
    pub(super) transfers: Transfers,
    /// The groups that the peer was told to be served here.
    pub(super) said: Option<BTreeSet<String>>,
    /// When the last message was sent, of any kind.
    pub(super) last: Instant,
    /// When digests are next due.
    pub(super) digests: Instant,
}

#[derive(Debug)]
struct Unacked {
    number: u64,
    /// When it was sent, ...
    at: Instant,
    /// ... when the first of its changes was reported, ...
    since: Instant,
    /// ... how many these are, ...
    changes: usize,
    /// ... what they have ended, ...
    ended: Vec<End>,
    /// ... and the [end](super::held::Held::end) of the SYN-ACKs that wait until it is acknowledged.
    held: u64,
}

impl Sender {
    pub(super) fn new(now: Instant, digests: Instant) -> Self {
        Self {
            sent: 0,
            unacked: VecDeque::new(),
            unacked_changes: 0,
            queue: Queue::default(),
            transfers: Transfers::default(),
            said: None,
            last: now,
            digests,
        }
    }

    /// Says something that is counted.
    pub(super) fn say(&mut self, message: Message, now: Instant, out: &mut Vec<Message>) {
        let (number, changes, held) = (0, 0, 0);
        self.count(Unacked { number, at: now, since: now, changes, ended: vec![], held });
        out.push(message);
    }

    /// Tells changes.
    pub(super) fn tell(&mut self, batch: Batch, now: Instant, out: &mut Vec<Message>) {
        let Batch { since, ended, held, .. } = batch;
        let changes = batch.changes.len();
        self.count(Unacked { number: 0, at: now, since, changes, ended, held });
        out.push(Message::Changes(batch.changes));
    }

    fn count(&mut self, message: Unacked) {
        self.sent += 1;
        self.last = message.at;
        self.unacked_changes += message.changes;
        self.unacked.push_back(Unacked { number: self.sent, ..message });
    }

    /// What has ended that the peer may not have heard of.
    pub(super) fn untold_ends(&self) -> impl Iterator<Item = End> + '_ {
        let sent = self.unacked.iter().flat_map(|message| message.ended.iter().copied());
        sent.chain(self.queue.ended())
    }

    /// How many messages the peer has not acknowledged.
    pub(super) fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// Whether the peer has every change that was read, and nothing is to be transferred.
    pub(super) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.unacked_changes == 0 && self.transfers.is_idle()
    }

    /// The peer has everything up to this message. Returns the end of the SYN-ACKs that have waited for
    /// that.
    pub(super) fn acknowledged(
        &mut self,
        number: u64,
        lag: &mut Lag,
        now: Instant,
    ) -> Result<u64, Refusal> {
        let mut held = 0;
        if number > self.sent {
            let sent = self.sent;
            let why = format!("it acknowledges message {number}, and was sent {sent}");
            return Err(Refusal { why });
        }
        while self.unacked.front().is_some_and(|message| message.number <= number) {
            let Some(message) = self.unacked.pop_front() else { break };
            self.unacked_changes -= message.changes;
            held = held.max(message.held);
            if message.changes > 0 {
                lag.note(now.saturating_duration_since(message.since), message.changes, now);
            }
        }
        Ok(held)
    }

    /// How long the oldest change has been waiting that the peer has not acknowledged.
    pub(super) fn behind(&self, now: Instant) -> Duration {
        let sent = self.unacked.iter().find(|message| message.changes > 0);
        let oldest = sent.map(|message| message.since).or_else(|| self.queue.oldest());
        oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When the peer is to be taken for stuck, if it acknowledges nothing until then.
    pub(super) fn stuck_at(&self) -> Option<Instant> {
        self.unacked.front().map(|message| message.at + STUCK)
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            messages: self.unacked.len() as u64,
            changes: (self.unacked_changes + self.queue.len()) as u64,
        }
    }
}
