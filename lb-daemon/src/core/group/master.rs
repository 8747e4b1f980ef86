//! What a master does: it advertises, and renews its lease with every advert that was sent.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Output, Role, Transition,
    announcements::Announcements,
    backup::{Heard, Until},
    machine::{Group, State},
    rules::Claim,
};
use crate::config;

/// A master answers no weaker one within this part of an interval after an advert, which that one
/// is just about to hear: should two ever take each other for weaker, they don't flood the network.
const ANSWERS_PER_INTERVAL: u32 = 100;

/// What a master keeps in mind.
#[derive(Debug)]
pub(super) struct Mastery {
    since: Instant,
    /// When the last advert was to be sent.
    sent: Instant,
    /// Until when it may serve: on the strength of the last advert that went out.
    pub(super) lease: Instant,
    announcements: Announcements,
    conflict: Option<Conflict>,
}

/// A take-over that becomes true when its advert has gone out.
#[derive(Debug)]
pub(super) struct Bid {
    /// When that was to be sent.
    sent: Instant,
    /// Why this host takes over, for people.
    why: String,
}

/// Another host took itself for the master.
#[derive(Debug)]
struct Conflict {
    rival: IpAddr,
    /// When it has been silent for longer than a master is.
    heals_at: Instant,
}

impl Mastery {
    pub(super) fn next_deadline(&self, interval: Duration) -> Instant {
        let advert = self.sent + interval;
        let healed = self.conflict.as_ref().map(|conflict| conflict.heals_at);
        let others = self.announcements.next_deadline().into_iter().chain(healed);
        others.chain([self.lease]).fold(advert, Instant::min)
    }
}

impl Group {
    /// Advert, lease, addresses, announcements: RFC 9568, 6.4.2 has the advert come before the
    /// announcements. Nothing but the advert is done before that has gone out.
    pub(super) fn take_over(&mut self, why: String, now: Instant, out: &mut Vec<Output>) {
        self.bid = Some(Bid { sent: now, why });
        self.put_out(out);
    }

    /// Becomes the master that a process before this one was, without anybody noticing: the
    /// addresses are on their interfaces, and the neighbours know where they are. With `begins`, it
    /// advertises at once, lest the change of processes makes an advert late.
    pub(super) fn carry_on(
        &mut self,
        lease: Instant,
        begins: bool,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let mut announcements = Announcements::default();
        announcements.begin(&self.config.announce, now);
        let mastery = Mastery { since: now, sent: now, lease, announcements, conflict: None };
        let why = "carries on from the daemon before".to_owned();
        let mut changed = Vec::new();
        self.change(State::Master(mastery), why, now, &mut changed);
        if begins {
            self.send_advert(now, out);
            out.push(Output::Hold(true));
            out.extend(changed.into_iter().map(|output| match output {
                Output::Changed(change) => {
                    Output::Changed(Transition { carries_on: true, ..change })
                }
                other => other,
            }));
        }
    }

    pub(super) fn send_advert(&mut self, now: Instant, out: &mut Vec<Output>) {
        let State::Master(mastery) = &mut self.state else { return };
        mastery.sent = now;
        self.put_out(out);
    }

    fn put_out(&mut self, out: &mut Vec<Output>) {
        out.push(Output::Send(self.rules.advert()));
        self.record.counts.sent += 1;
    }

    /// Takes in whether the last advert went out.
    pub(super) fn hear_of_sending(
        &mut self,
        result: Result<(), String>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        self.unsent = result.as_ref().err().cloned();
        match (self.bid.take(), result) {
            (Some(bid), Ok(())) => self.rule(bid, now, out),
            (Some(bid), Err(failure)) => self.wait_to_be_heard(bid.why, &failure, now, out),
            (None, Ok(())) => self.renew_lease(out),
            // The lease stays what it was.
            (None, Err(_)) => {}
        }
    }

    fn rule(&mut self, Bid { sent, why }: Bid, now: Instant, out: &mut Vec<Output>) {
        let mut announcements = Announcements::default();
        let times = announcements.begin(&self.config.announce, now);
        self.record.counts.became_master += 1;
        self.has_handed_over = false;
        let lease = sent + self.rules.lease();
        let mastery = Mastery { since: sent, sent, lease, announcements, conflict: None };
        out.extend([Output::Lease(Some(lease)), Output::Hold(true)]);
        announce(times, out);
        self.change(State::Master(mastery), why, now, out);
    }

    /// The lease counts from the moment the advert was to be sent, which is before it was.
    fn renew_lease(&mut self, out: &mut Vec<Output>) {
        // The last word of one that is master no longer renews nothing.
        let State::Master(mastery) = &mut self.state else { return };
        mastery.lease = mastery.sent + self.rules.lease();
        out.push(Output::Lease(Some(mastery.lease)));
    }

    /// Whether this host is master, and hears another one that is master too.
    pub const fn is_disputed(&self) -> bool {
        matches!(&self.state, State::Master(mastery) if mastery.conflict.is_some())
    }

    /// Has a master stop serving and say so (RFC 9568, 6.4.3: priority 0).
    pub(super) fn bid_farewell(&mut self, out: &mut Vec<Output>) {
        if matches!(self.state, State::Master(_)) {
            let farewell = self.rules.farewell();
            out.extend([Output::Lease(None), Output::Send(farewell), Output::Hold(false)]);
            self.record.counts.sent += 1;
            self.record.counts.farewells_sent += 1;
        }
    }

    /// RFC 9568, 6.4.3: a master that hears a farewell sends an advert, so that no backup takes it
    /// for its own.
    pub(super) fn master_hears_farewell(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.send_advert(now, out);
        if let State::Master(Mastery { conflict: Some(conflict), .. }) = &mut self.state {
            conflict.heals_at = now;
        }
    }

    /// RFC 9568, 6.4.3: of two masters one gives way, and the other advertises at once.
    pub(super) fn master_hears(
        &mut self,
        rival: IpAddr,
        claim: &Claim,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if claim.wins {
            let last = self.rules.last_word(claim.interval);
            out.extend([Output::Lease(None), Output::Send(last), Output::Hold(false)]);
            self.record.counts.sent += 1;
            self.heard = Some(Heard::new(rival, claim));
            self.become_backup(Until::Down, format!("{rival} is preferred"), now, out);
            return;
        }

        let interval = self.rules.interval();
        let State::Master(mastery) = &mut self.state else { return };
        // A master that was only just preempted has not heard of it yet: that is no conflict.
        if now >= mastery.since + interval || mastery.conflict.is_some() {
            mastery.conflict = Some(Conflict { rival, heals_at: now + 2 * claim.interval });
        }
        mastery.announcements.hurry(interval, now);
        if now >= mastery.sent + interval / ANSWERS_PER_INTERVAL {
            self.send_advert(now, out);
        }
    }

    pub(super) fn run_master(&mut self, now: Instant, out: &mut Vec<Output>) {
        let State::Master(mastery) = &mut self.state else { return };
        if now >= mastery.sent + self.rules.interval() {
            self.send_advert(now, out);
        }
        let State::Master(mastery) = &mut self.state else { return };
        if let Some(times) = mastery.announcements.due(&self.config.announce, now) {
            announce(times, out);
        }
        if let Some(Conflict { rival, .. }) =
            mastery.conflict.take_if(|conflict| conflict.heals_at <= now)
        {
            announce(mastery.announcements.begin(&self.config.announce, now), out);
            let why = format!("{rival} took itself for the master, and no longer does");
            self.report(Role::Master, why, now, out);
        }
    }

    pub(super) fn reconfigure_master(
        &mut self,
        old: &config::Group,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let State::Master(mastery) = &mut self.state else { return };
        let has_other_addresses = old.addresses != self.config.addresses;
        let mut times = 0;
        if has_other_addresses {
            times = mastery.announcements.begin(&self.config.announce, now);
        } else if old.announce != self.config.announce {
            mastery.announcements.reconfigure(&self.config.announce, now);
        }
        if has_other_addresses || old.protocol != self.config.protocol {
            self.send_advert(now, out);
        }
        if has_other_addresses {
            out.push(Output::Hold(true));
        }
        announce(times, out);
    }

    /// Takes a master for beaten that comes to itself after its lease has ended, or that could not
    /// renew it.
    pub(super) fn notice_lapse(&mut self, now: Instant, out: &mut Vec<Output>) {
        let State::Master(mastery) = &self.state else { return };
        if now >= mastery.lease {
            let why = if let Some(why) = &self.unsent {
                format!("cannot advertise, so another may serve: {why}")
            } else {
                let held_up = now.saturating_duration_since(mastery.sent).as_millis();
                format!("was held up for {held_up} ms: another may serve")
            };
            out.extend([Output::Lease(None), Output::Hold(false)]);
            self.become_backup(Until::Down, why, now, out);
        }
    }
}

fn announce(times: u32, out: &mut Vec<Output>) {
    if times > 0 {
        out.push(Output::Announce { times });
    }
}
