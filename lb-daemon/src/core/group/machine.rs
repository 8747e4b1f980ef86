//! The election of one group: what VRRP and CARP have in common.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::{
    Counts, Discard, Input, Output, Past, Received, Role, Standing, Transition,
    backup::{Heard, Until, Wait},
    master::{Bid, Mastery},
    record::Record,
    rules::{self, Claim, Rules, Verdict},
};
use crate::config;

/// One group's state machine.
///
/// ```text
///             well: standing       silence, a farewell, a weaker master
///   ┌──────┐ ─────────────► ┌────────┐ ──────────────────────► ┌────────┐ ◄─┐ weaker master:
///   │ Init │                │ Backup │                         │ Master │   │ advert, announce
///   └──┬───┘ ◄───────────── └─┬────▲─┘ ◄────────────────────── └───┬────┘ ──┘
///      │ faulty     stop      │    │    a better master, handover, │
///      ▼            faulty    ▼    │ well          a lapsed lease  ▼ faulty
///    Fault                  ┌────────┐                           Fault
///                           │ Fault  │
///                           └────────┘
/// ```
///
/// The owner of the addresses (VRRP's priority 255) becomes master without waiting as a backup.
///
/// All that [`handle`](Self::handle) returns is to be done in its order, and at once. `now` is read
/// after waiting and before anything is done: leases and intervals count from it. An advert by itself
/// lets no time run out: all that have come in are to be handed over, and then, if
/// [`next_deadline`](Self::next_deadline) is not in the future, an [`Input::Tick`].
///
/// Four things are done beyond the RFCs, so that no two hosts serve:
///
/// - Only an advert that went out renews the lease. A host whose adverts the kernel refuses to send
///   does not serve: its peer hears nothing of it, and takes over.
/// - A master whose lease has lapsed was held up for so long that a peer may have taken over. It
///   takes itself for beaten, and begins as a backup that has to hear nothing for the whole time.
/// - A backup whose time is up, but that comes to see so late that it was held up itself, listens
///   for another interval.
/// - A master that gives way sends its last advert after its lease is gone (ucarp does too): so the
///   other learns that there was a conflict, and announces the addresses again.
///
/// What remains: neither protocol has a word for "I have stopped serving", so a host that takes over
/// from a weaker master that works serves together with it until that one has heard its first
/// advert, and two hosts that do not hear each other both serve.
#[derive(Debug)]
pub struct Group {
    pub(super) config: Arc<config::Group>,
    /// This host's primary address.
    source: IpAddr,
    pub(super) rules: Box<dyn Rules>,
    pub(super) state: State,
    pub(super) standing: Standing,
    /// Whether the operator had it hand over, and nobody has needed it since.
    pub(super) has_handed_over: bool,
    /// The take-over that has not been told the others yet.
    pub(super) bid: Option<Bid>,
    /// Why the last advert was not sent; none if it was.
    pub(super) unsent: Option<String>,
    /// When the host may take over from the weaker master that it hears.
    pub(super) preempt_at: Option<Instant>,
    /// The last master that was heard and heeded.
    pub(super) heard: Option<Heard>,
    since: Instant,
    why: String,
    pub(super) record: Record,
}

/// The role, with what each needs to know.
#[derive(Debug)]
pub(super) enum State {
    /// Not yet told how the host is.
    Init,
    Backup(Wait),
    Master(Mastery),
    Fault,
    /// For good.
    Stopped,
}

impl Group {
    /// A group that waits for the first [`Standing`]. `source` is the address that its adverts are
    /// sent from.
    ///
    /// `counter` is where CARP's replay counter begins: higher than any that this host used before,
    /// such as the time of day in nanoseconds. Peers take what is a little lower for a replay.
    pub fn new(config: Arc<config::Group>, source: IpAddr, counter: u64, now: Instant) -> Self {
        Self {
            source,
            rules: rules::of(&config, counter),
            config,
            state: State::Init,
            standing: Standing::default(),
            has_handed_over: false,
            bid: None,
            unsent: None,
            preempt_at: None,
            heard: None,
            since: now,
            why: "has just started".to_owned(),
            record: Record::default(),
        }
    }

    /// Takes in what happened, and says what is to be done about it, in this order.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Output> {
        let mut out = Vec::new();
        if let Input::Sent(result) = input {
            self.hear_of_sending(result, now, &mut out);
            return out;
        }
        self.notice_lapse(now, &mut out);
        match input {
            Input::Advert(received) => {
                self.hear(&received, now, &mut out);
                // Others may have come in with it, which change what is due.
                return out;
            }
            Input::Standing(standing) => self.stand(standing, now, &mut out),
            Input::Resume { standing, lease } => {
                if matches!(self.state, State::Init) && now < lease {
                    self.resume(standing, lease, now, &mut out);
                } else {
                    self.stand(standing, now, &mut out);
                }
            }
            Input::Failover => self.hand_over(now, &mut out),
            Input::Stop => self.stop(now, &mut out),
            Input::Sent(_) | Input::Tick => {}
        }
        self.run_due(now, &mut out);
        out
    }

    /// When [`Input::Tick`] is due at the latest; none while only other inputs change anything.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Backup(wait) => Some(wait.deadline(&*self.rules)),
            State::Master(mastery) => Some(mastery.next_deadline(self.rules.interval())),
            State::Init | State::Fault | State::Stopped => None,
        }
    }

    /// Whether `config` is another version of this election, which
    /// [`reconfigure`](Self::reconfigure) can put in force. Otherwise this one is to be stopped, and
    /// another group made.
    pub fn is_same_election(&self, config: &config::Group) -> bool {
        let identity = |group: &config::Group| match &group.protocol {
            config::Protocol::Vrrp(vrrp) => {
                (Some((vrrp.version, vrrp.family)), vrrp.virtual_router_id)
            }
            config::Protocol::Carp(carp) => (None, carp.vhid),
        };
        self.config.name == config.name
            && self.config.interface == config.interface
            && self.config.vmac() == config.vmac()
            && identity(&self.config) == identity(config)
    }

    /// Puts another configuration in force after a reload, without losing the role. A master tells
    /// the peers at once. With other addresses, [`Output::Hold`] is said again, for those of the new
    /// configuration.
    pub fn reconfigure(&mut self, config: Arc<config::Group>, now: Instant) -> Vec<Output> {
        let mut out = Vec::new();
        self.notice_lapse(now, &mut out);
        let old = std::mem::replace(&mut self.config, config);
        self.rules.reconfigure(&self.config);
        if (old.preempt, old.preempt_delay) != (self.config.preempt, self.config.preempt_delay) {
            self.preempt_at = None;
        }
        self.reconfigure_master(&old, now, &mut out);
        self.run_due(now, &mut out);
        out
    }

    /// Has adverts come from this address from now on: the way to the peers is a new one, perhaps
    /// because the interface was renumbered.
    pub fn set_source(&mut self, source: IpAddr) {
        self.source = source;
        self.unsent = None;
    }

    /// The address that its adverts come from.
    pub const fn source(&self) -> IpAddr {
        self.source
    }

    /// The configuration in force.
    pub const fn config(&self) -> &Arc<config::Group> {
        &self.config
    }

    /// Whether the first standing is known, with which the election begins.
    pub const fn has_begun(&self) -> bool {
        !matches!(self.state, State::Init)
    }

    /// Where CARP's replay counter is; for VRRP, which has none, zero.
    pub fn counter(&self) -> u64 {
        self.rules.counter()
    }

    /// Role of this host.
    pub const fn role(&self) -> Role {
        match self.state {
            State::Init | State::Stopped => Role::Init,
            State::Backup(_) => Role::Backup,
            State::Master(_) => Role::Master,
            State::Fault => Role::Fault,
        }
    }

    /// Since when it has that role.
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Why, for people.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Priority in force (CARP: 255 less `advskew` in force).
    pub fn priority(&self) -> u8 {
        self.rules.priority()
    }

    /// Until when it may serve the group; none if it must not.
    pub const fn lease(&self) -> Option<Instant> {
        match &self.state {
            State::Master(mastery) => Some(mastery.lease),
            _ => None,
        }
    }

    /// The master's address, as far as this host knows.
    pub fn master(&self) -> Option<IpAddr> {
        match self.state {
            State::Master(_) => Some(self.source),
            State::Backup(_) | State::Fault => self.heard.map(|heard| heard.sender),
            State::Init | State::Stopped => None,
        }
    }

    /// The last changes of role (and healed conflicts), the oldest first.
    pub fn transitions(&self) -> impl Iterator<Item = &Past> {
        self.record.transitions()
    }

    /// Adverts sent, received and discarded.
    pub const fn counts(&self) -> &Counts {
        &self.record.counts
    }

    /// What is wrong with the last advert that came in, for people; none if nothing is.
    pub fn problem(&self) -> Option<&str> {
        self.record.problem.as_deref()
    }

    /// Why the last advert could not be sent, for people; none if it was.
    pub fn unsent(&self) -> Option<&str> {
        self.unsent.as_deref()
    }

    /// Has another reason for the same role.
    pub(super) fn set_why(&mut self, why: String) {
        self.why = why;
    }

    fn hear(&mut self, received: &Received, now: Instant, out: &mut Vec<Output>) {
        self.record.counts.received += 1;
        let sender = received.source;
        let verdict = if sender == self.source {
            let what = "has our own address: a loop, or another host with it".to_owned();
            Verdict::Discard(Discard::Own, what)
        } else {
            self.rules.judge(received, self.source)
        };
        let verdict = self.defend_ownership(verdict);

        let complaint = match verdict {
            Verdict::Discard(reason, what) => Some((reason, what)),
            Verdict::Farewell => {
                self.record.counts.farewells_received += 1;
                match self.state {
                    State::Backup(_) => self.backup_hears_farewell(sender, now),
                    State::Master(_) => self.master_hears_farewell(now, out),
                    State::Init | State::Fault | State::Stopped => {}
                }
                None
            }
            Verdict::Claim(mut claim) => {
                let complaint = claim.complaint.take();
                match self.state {
                    State::Backup(_) => self.backup_hears(sender, &claim, now, out),
                    State::Master(_) => self.master_hears(sender, &claim, now, out),
                    State::Init | State::Fault | State::Stopped => {
                        self.heard = Some(Heard::new(sender, &claim));
                    }
                }
                complaint
            }
        };
        if let Some((reason, _)) = complaint {
            self.record.discard(reason);
        }
        self.record.problem = complaint.map(|(_, what)| format!("an advert of {sender} {what}"));
    }

    /// RFC 9568, 7.1: the owner of the addresses MUST discard what others say about them. Two that
    /// take themselves for the owner would both be masters for good, so that rule is not for what
    /// another one says (erratum 8298): the address decides, as at any other priority.
    fn defend_ownership(&self, verdict: Verdict) -> Verdict {
        if !(self.rules.is_owner() && matches!(self.state, State::Master(_))) {
            return verdict;
        }
        let what = "claims addresses that this host owns (priority 255)".to_owned();
        match verdict {
            Verdict::Discard(..) => verdict,
            Verdict::Claim(claim) if claim.is_owner => {
                Verdict::Claim(Claim { complaint: Some((Discard::Owner, what)), ..claim })
            }
            Verdict::Claim(_) | Verdict::Farewell => Verdict::Discard(Discard::Owner, what),
        }
    }

    /// Goes on as the master that a process before this one was. If this host must not be master,
    /// it gives the group up as any master does: who had it says nothing more.
    fn resume(&mut self, standing: Standing, lease: Instant, now: Instant, out: &mut Vec<Output>) {
        let is_well = standing.faults.is_empty();
        self.rules.adjust(standing.adjustment);
        self.standing = standing;
        self.carry_on(lease, is_well, now, out);
        if !is_well {
            self.fail(now, out);
        }
    }

    fn stand(&mut self, standing: Standing, now: Instant, out: &mut Vec<Output>) {
        let priority = self.rules.priority();
        self.rules.adjust(standing.adjustment);
        self.standing = standing;
        let is_well = self.standing.faults.is_empty();

        match (&self.state, is_well) {
            (State::Stopped, _) => {}
            (State::Init, _) => {
                // What an earlier daemon left behind: nobody knows how old it is.
                out.extend([Output::Lease(None), Output::Hold(false)]);
                if is_well {
                    self.begin("has started", now, out);
                } else {
                    self.fail(now, out);
                }
            }
            (State::Fault, true) => self.begin("all that is tracked is well again", now, out),
            (State::Fault, false) => self.why = self.standing.faults.join("; "),
            (State::Backup(_) | State::Master(_), false) => self.fail(now, out),
            // It has given way to another owner, and waits for that one to be gone.
            (State::Backup(_), true) if self.heard.is_some_and(|heard| heard.is_owner) => {}
            (State::Backup(_), true) => self.claim_ownership(now, out),
            (State::Master(_), true) => {
                if self.rules.priority() != priority {
                    self.send_advert(now, out);
                }
            }
        }
    }

    /// Takes part in the election (RFC 9568, 6.4.1): the owner of the addresses as their master.
    fn begin(&mut self, why: &str, now: Instant, out: &mut Vec<Output>) {
        self.claim_ownership(now, out);
        if self.bid.is_none() {
            self.become_backup(Until::Down, why.to_owned(), now, out);
        }
    }

    /// Takes over at once if the addresses are this host's own.
    fn claim_ownership(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.rules.is_owner() && self.may_preempt() {
            self.take_over("owns the addresses".to_owned(), now, out);
        }
    }

    fn fail(&mut self, now: Instant, out: &mut Vec<Output>) {
        let why = self.standing.faults.join("; ");
        self.bid_farewell(out);
        self.change(State::Fault, why, now, out);
    }

    fn hand_over(&mut self, now: Instant, out: &mut Vec<Output>) {
        if matches!(self.state, State::Master(_)) {
            self.bid_farewell(out);
            self.has_handed_over = true;
            let why = "hands over on the operator's request".to_owned();
            self.become_backup(Until::HandedOver, why, now, out);
        }
    }

    fn stop(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.bid_farewell(out);
        let was_running = self.role() != Role::Init;
        let why = "the daemon stops".to_owned();
        if was_running {
            self.change(State::Stopped, why, now, out);
        } else {
            self.state = State::Stopped;
        }
    }

    fn run_due(&mut self, now: Instant, out: &mut Vec<Output>) {
        match self.state {
            State::Backup(_) => self.run_backup(now, out),
            State::Master(_) => self.run_master(now, out),
            State::Init | State::Fault | State::Stopped => {}
        }
    }

    /// Goes to another state, or (from master to master) reports that a conflict has healed.
    pub(super) fn change(
        &mut self,
        state: State,
        why: String,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let from = self.role();
        self.state = state;
        self.bid = None;
        self.since = now;
        self.why.clone_from(&why);
        self.preempt_at = None;
        self.report(from, why, now, out);
    }

    pub(super) fn report(&mut self, from: Role, why: String, now: Instant, out: &mut Vec<Output>) {
        let (to, priority) = (self.role(), self.priority());
        let transition = Transition { from, to, priority, why, carries_on: false };
        self.record.note(transition.clone(), now);
        out.push(Output::Changed(transition));
    }
}
