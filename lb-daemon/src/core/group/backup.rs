//! What a backup does: it waits.

use std::{
    cmp::Ordering,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Discard, Output,
    machine::{Group, State},
    rules::{Claim, Rules},
};

/// Why a host takes over that has heard no master, for people.
const NOBODY: &str = "no master was heard";

/// Waiting for a master to be gone: the `Master_Down_Timer`. How long that takes follows from the
/// rules in force at the time, for weights and reloads change them.
#[derive(Debug)]
pub(super) struct Wait {
    from: Instant,
    /// Time between the master's adverts (RFC 9568's `Active_Adver_Interval`).
    interval: Duration,
    until: Until,
    /// Why it ends, for people.
    why: String,
}

/// For what a backup waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// For the master to be silent for too long.
    Down,
    /// For nobody to be faster, after the master's farewell.
    Skew,
    /// For a successor to be silent for too long, which may have missed our farewell. It is given
    /// an interval more than a silent master, for which it waits itself, so that it is first
    /// whatever its priority.
    HandedOver,
    /// For a sign of life, after the host was held up and cannot tell silence from deafness.
    Relieved,
}

/// A master that was heard and heeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) sender: IpAddr,
    /// The time it takes between its adverts.
    pub(super) interval: Duration,
    /// Whether it says that it owns the addresses.
    pub(super) is_owner: bool,
}

impl Heard {
    pub(super) const fn new(sender: IpAddr, claim: &Claim) -> Self {
        Self { sender, interval: claim.interval, is_owner: claim.is_owner }
    }
}

impl Wait {
    pub(super) fn deadline(&self, rules: &dyn Rules) -> Instant {
        self.from
            + match self.until {
                Until::Down => rules.master_down(self.interval),
                Until::Skew => rules.skew(self.interval),
                Until::HandedOver => rules.master_down(self.interval) + self.interval,
                Until::Relieved => self.interval + rules.skew(self.interval),
            }
    }
}

impl Group {
    pub(super) fn become_backup(
        &mut self,
        until: Until,
        why: String,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let own = self.rules.patience();
        let interval = self.heard.map_or(own, |heard| own.max(heard.interval));
        let wait = Wait { from: now, interval, until, why: NOBODY.to_owned() };
        self.change(State::Backup(wait), why, now, out);
    }

    /// Whether it may take over from a weaker master that works.
    pub(super) fn may_preempt(&self) -> bool {
        self.is_to_preempt() && self.standing.ready
    }

    /// Whether it is to take over from a weaker master as soon as it is ready.
    fn is_to_preempt(&self) -> bool {
        // RFC 9568, 6.1: the owner always preempts.
        (self.config.preempt || self.rules.is_owner()) && !self.has_handed_over
    }

    /// RFC 9568, 6.4.2: the timer is set to `Skew_Time`. Unless it ends before that, which the RFC
    /// does not say: who is about to take over from a weaker master has no reason to wait longer for
    /// one that leaves.
    pub(super) fn backup_hears_farewell(&mut self, sender: IpAddr, now: Instant) {
        let why = format!("{sender} gave the group up");
        self.wait_for_nobody(why, now);
    }

    /// A take-over for this reason failed, for want of a way to tell the others: they may take over
    /// themselves.
    pub(super) fn wait_to_be_heard(
        &mut self,
        reason: String,
        failure: &str,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let why = format!("cannot advertise: {failure}");
        if let State::Backup(wait) = &mut self.state {
            wait.from = now;
            wait.until = Until::Down;
            wait.why = reason;
            self.set_why(why);
        } else {
            self.become_backup(Until::Down, why, now, out);
        }
    }

    fn wait_for_nobody(&mut self, why: String, now: Instant) {
        let State::Backup(wait) = &mut self.state else { return };
        let skewed = Wait { from: now, interval: wait.interval, until: Until::Skew, why };
        if skewed.deadline(&*self.rules) < wait.deadline(&*self.rules) {
            *wait = skewed;
        }
    }

    /// RFC 9568, 6.4.2: an advert that is heeded starts the time anew, with its sender's interval;
    /// one of a weaker master is discarded if this host preempts, so that the time runs out.
    pub(super) fn backup_hears(
        &mut self,
        sender: IpAddr,
        claim: &Claim,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if claim.is_too_slow {
            self.wait_for_nobody(format!("{sender} advertises too seldom"), now);
            return;
        }
        if !(claim.strength == Ordering::Less && self.is_to_preempt()) {
            self.preempt_at = None;
        } else if self.may_preempt() && self.has_delayed(now) {
            self.record.discard(Discard::Weaker);
            self.ignore(sender, now, out);
            return;
        }

        self.heard = Some(Heard::new(sender, claim));
        let why = format!("nothing more was heard of {sender}");
        self.state =
            State::Backup(Wait { from: now, interval: claim.interval, until: Until::Down, why });
    }

    /// Whether `preempt_delay` is over. As in keepalived, it begins once, here with the first advert of a
    /// weaker master after which this host could take over: that it is not ready for a moment, because
    /// the peer transfers its connections again, makes the wait no longer.
    fn has_delayed(&mut self, now: Instant) -> bool {
        let delay = if self.rules.is_owner() { Duration::ZERO } else { self.config.preempt_delay };
        *self.preempt_at.get_or_insert(now + delay) <= now
    }

    fn ignore(&mut self, sender: IpAddr, now: Instant, out: &mut Vec<Output>) {
        let State::Backup(wait) = &mut self.state else { return };
        let reason = format!("{sender} is weaker");
        if self.rules.preempts_at_once() {
            self.take_over(reason, now, out);
        } else {
            wait.why = reason;
        }
    }

    pub(super) fn run_backup(&mut self, now: Instant, out: &mut Vec<Output>) {
        let State::Backup(wait) = &mut self.state else { return };
        let Some(late) = now.checked_duration_since(wait.deadline(&*self.rules)) else { return };
        if late > wait.interval {
            wait.from = now;
            wait.until = Until::Relieved;
            return;
        }
        let why = std::mem::take(&mut wait.why);
        self.take_over(why, now, out);
    }
}
