//! What a session does with a message.

use std::{collections::BTreeSet, time::Instant};

use super::{
    super::{Digest, Message, Scope, Tables},
    Link, Refusal, Session, greeting,
    talk::Talk,
};

/// So many messages are acknowledged at once, however many more come in.
const ACKNOWLEDGE: u64 = 64;

impl Session {
    /// Does what a message of the peer's says, at once: when this returns, it is in the tables.
    ///
    /// # Errors
    ///
    /// If the conversation cannot go on: the link is to be closed, after what is in `out` was sent.
    pub fn receive(
        &mut self,
        message: Message,
        tables: &mut dyn Tables,
        now: Instant,
        out: &mut Vec<Message>,
    ) -> Result<(), Refusal> {
        let was_whole = self.is_whole();
        let result = match &self.link {
            Link::Down { .. } => Ok(()),
            Link::Greeting => self.greet(message, now, out),
            Link::Up(_) => self.hear(message, tables, now, out),
        };
        if was_whole && !self.is_whole() {
            self.readiness.breaks(now);
        }
        if let Err(refusal) = &result
            && !matches!(self.link, Link::Down { .. })
        {
            self.down(&refusal.why, false, now);
        }
        result
    }

    fn greet(
        &mut self,
        message: Message,
        now: Instant,
        out: &mut Vec<Message>,
    ) -> Result<(), Refusal> {
        let theirs = match message {
            Message::Hello(hello) => hello,
            Message::Bye(why) => {
                let why = format!("the peer says: {why}");
                self.down(&why, true, now);
                return Err(Refusal { why });
            }
            _ => return Err(Refusal { why: "the peer does not say who it is".to_owned() }),
        };
        let compared = greeting::compare(&self.hello, &theirs);
        self.peer = Some(theirs);
        match compared {
            Ok(notices) => self.notices = notices,
            Err(why) => {
                out.push(Message::Bye(why.clone()));
                self.down(&why, true, now);
                return Err(Refusal { why });
            }
        }
        self.totals.conversations += 1;
        self.ended.link();
        self.link = Link::Up(Box::new(Talk::new(&self.owed, self.limits, now)));
        Ok(())
    }

    fn hear(
        &mut self,
        message: Message,
        tables: &mut dyn Tables,
        now: Instant,
        out: &mut Vec<Message>,
    ) -> Result<(), Refusal> {
        let Link::Up(talk) = &mut self.link else { return Ok(()) };
        talk.heard = now;
        if !matches!(message, Message::Ack { .. } | Message::Hello(_)) {
            talk.receiver.received += 1;
        }
        let totals = &mut self.totals;
        let broken = |error: anyhow::Error| Refusal { why: format!("{error:#}") };
        match message {
            Message::Hello(_) => return Err(unexpected("says again who it is")),
            Message::Changes(changes) => {
                totals.changes_received += changes.len() as u64;
                let changes = changes.into_iter();
                let refused = talk.receiver.adopt(changes, tables, totals).map_err(broken)?;
                talk.receiver.refused = talk.receiver.refused.saturating_add(refused);
            }
            Message::TransferBegins { id, scope, served } => {
                talk.receiver.begin(id, scope, served, &self.owed, tables);
            }
            Message::Transfer(connections) => {
                if !talk.receiver.part(connections, &self.ended, tables, totals).map_err(broken)? {
                    return Err(unexpected("goes on with a transfer that has not begun"));
                }
            }
            Message::TransferEnds { id } => {
                let ended = talk.receiver.end(id, &self.owed, tables, totals).map_err(broken)?;
                let Some(scope) = ended else {
                    return Err(unexpected("ends a transfer that has not begun"));
                };
                if scope.buckets.is_empty() {
                    talk.sender.transfers.release(&scope.groups);
                    talk.heard_all.extend(scope.groups.iter().cloned());
                    talk.agreed.extend(scope.groups);
                }
                talk.sender.say(Message::TransferDone { id }, now, out);
            }
            Message::TransferDone { id } => match talk.sender.transfers.done(id) {
                Some(scope) => {
                    totals.transfers_sent += 1;
                    if scope.buckets.is_empty() {
                        let is_owed = |group: &String| {
                            !scope.groups.contains(group)
                                || talk.sender.transfers.owes_all_of(group)
                        };
                        self.owed.retain(is_owed);
                        talk.receiver.contest.settle(is_owed);
                        // What the peer serves it tells all of after that.
                        let is_all = |group: &String| !talk.receiver.is_served_by_peer(group);
                        let groups: BTreeSet<_> = scope.groups.into_iter().filter(is_all).collect();
                        talk.offered.extend(groups.difference(&self.serving).cloned());
                        talk.agreed.extend(groups);
                    }
                }
                None if talk.sender.transfers.has_begun(id) => {}
                None => return Err(unexpected("has a transfer that has not begun")),
            },
            Message::Want(scope) if scope.buckets.is_empty() => {
                // Its own come after that, and nothing is forgotten before it has these.
                talk.agreed.retain(|group| !scope.groups.contains(group));
                let asked = talk.sender.transfers.ask(scope.groups);
                self.owed.extend(asked.intersection(&self.hello.groups).cloned());
            }
            Message::Want(scope) => talk.sender.transfers.want(scope),
            Message::Digest { group, digest } => self.compare(&group, &digest, tables, now, out),
            Message::Serving(groups) => {
                let mut offered = std::mem::take(&mut self.uncertain);
                offered.retain(|group| !groups.contains(group) && !self.owed.contains(group));
                if !offered.is_empty() {
                    self.owed.extend(offered.iter().cloned());
                    talk.sender.transfers.want(Scope { groups: offered, buckets: BTreeSet::new() });
                }
                talk.receiver.peer_serves(groups);
            }
            Message::Ack { number, refused } => {
                let end = talk.sender.acknowledged(number, &mut self.lag, now)?;
                let count = self.held.take_before(end);
                // Some of these may have been released, and counted, before.
                let refused = u64::from(refused).min(count as u64);
                totals.unacknowledged += refused;
                totals.held += count as u64 - refused;
                tables.release(count);
            }
            Message::Alive => {}
            Message::Bye(why) => return Err(Refusal { why: format!("the peer says: {why}") }),
        }
        if let Link::Up(talk) = &mut self.link
            && talk.receiver.received - talk.receiver.acknowledged >= ACKNOWLEDGE
        {
            talk.acknowledge(now, out);
        }
        Ok(())
    }

    /// Asks for what is not the same, time and again.
    fn compare(
        &mut self,
        group: &str,
        theirs: &Digest,
        tables: &mut dyn Tables,
        now: Instant,
        out: &mut Vec<Message>,
    ) {
        let Link::Up(talk) = &mut self.link else { return };
        if !talk.agreed.contains(group)
            || !talk.receiver.is_served_by_peer(group)
            || talk.receiver.is_hearing_of(group)
            || tables.serving().contains(group)
            || self.owed.contains(group)
        {
            return;
        }
        let ours = tables.digest(group);
        let verdict = talk.receiver.suspicions.compare(group, theirs, &ours, now);
        self.totals.digests += 1;
        self.totals.mismatches += verdict.differing;
        self.totals.repaired += verdict.repair.len() as u64;
        if !verdict.repair.is_empty() {
            let groups = BTreeSet::from([group.to_owned()]);
            let scope = Scope { groups, buckets: verdict.repair };
            talk.sender.say(Message::Want(scope), now, out);
        }
    }
}

fn unexpected(what: &str) -> Refusal {
    Refusal { why: format!("the peer {what}") }
}
