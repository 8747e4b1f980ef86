//! One group: its machine, and the way to its peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::hands::Hands;
use crate::{
    config,
    core::{
        AdvertCounts, Election as View, Event,
        group::{Advert, Group, Input, Lost, Output, Role, Standing, identity},
    },
    vrrp_io::{self, Channel},
};

/// How often to look whether the interface is still there, or there again.
const LOOK: Duration = Duration::from_secs(1);
/// Adverts that are taken in one after the other, before other groups have their turn.
const VOLLEY: usize = 64;

/// By how much CARP's replay counter goes ahead of the last one that is known: more than the adverts
/// that can have been sent since. Peers heed whatever is higher.
const LEAP: u64 = 1 << 16;

/// A group's place in the election.
#[derive(Debug)]
pub(super) struct Seat {
    /// Its number in the data plane.
    pub(super) number: u16,
    pub(super) config: Arc<config::Group>,
    /// The addresses of all groups.
    pub(super) shared: Arc<BTreeSet<IpAddr>>,
    /// None until the interface has once had an address to send from.
    machine: Option<Group>,
    /// The way to the peers, or why there is none.
    channel: Result<Channel, String>,
    /// Another channel is being opened: what it will be known by.
    opening: Option<u64>,
    look_at: Instant,
    /// Whether sending failed as it does when the source address is gone.
    doubts_source: bool,
    /// How this host is; none before the daemon's loop knows.
    pub(super) standing: Option<Standing>,
    /// What went over earlier channels.
    counts: vrrp_io::Counts,
    since: Instant,
    /// Where CARP's replay counter begins, for who stands in for a daemon; nothing for a daemon.
    stands_in: Option<u64>,
    /// Whether this process takes part in the election no longer.
    is_over: bool,
}

impl Seat {
    pub(super) fn new(
        number: u16,
        config: Arc<config::Group>,
        shared: Arc<BTreeSet<IpAddr>>,
        standing: Option<Standing>,
        now: Instant,
    ) -> Self {
        Self {
            number,
            config,
            shared,
            machine: None,
            channel: Err("not opened yet".to_owned()),
            opening: None,
            look_at: now,
            doubts_source: false,
            standing,
            counts: vrrp_io::Counts::default(),
            since: now,
            stands_in: None,
            is_over: false,
        }
    }

    /// The same for who stands in for a daemon that was the master: the election is over as soon as
    /// this host is not. `counters` has where CARP's replay counter was, by the group's name.
    pub(super) fn stand_in(mut self, counters: &BTreeMap<String, u64>) -> Self {
        let last = counters.get(&self.config.name).copied().unwrap_or_default();
        self.stands_in = Some(last.saturating_add(LEAP));
        self
    }

    /// Whether this process takes part in the election no longer.
    pub(super) fn is_over(&self) -> bool {
        let has_begun = self.machine.as_ref().is_some_and(Group::has_begun);
        self.is_over || self.stands_in.is_some() && has_begun && self.role() != Role::Master
    }

    /// Where CARP's replay counter is.
    pub(super) fn counter(&self) -> u64 {
        self.machine.as_ref().map_or(0, Group::counter)
    }

    pub(super) fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref().ok()
    }

    /// When [`turn`](Self::turn) is due.
    pub(super) fn deadline(&self) -> Instant {
        let machine = self.machine.as_ref().and_then(Group::next_deadline);
        machine.map_or(self.look_at, |deadline| deadline.min(self.look_at))
    }

    /// Does what is due: hears the peers, and lets the machine look at the time.
    ///
    /// A backup that was held up hears first what has come in meanwhile, lest it take over from a
    /// master that lives. A master that was held up finds out first that it may be none any more.
    pub(super) fn turn(&mut self, now: Instant, hands: &mut Hands) {
        if self.role() == Role::Master
            && let Err(lost) = hands.leases().check(self.number)
        {
            self.lose(lost, now, hands);
            return;
        }
        if self.look_at <= now {
            self.look(now, hands);
        }
        if self.role() == Role::Master {
            self.input(Input::Tick, now, hands);
        }
        self.hear(now, hands);
        self.input(Input::Tick, now, hands);
    }

    pub(super) fn stand(&mut self, standing: Standing, now: Instant, hands: &mut Hands) {
        self.standing = Some(standing);
        // Often it is a link that changed.
        self.look(now, hands);
        self.tell_standing(now, hands);
    }

    pub(super) fn input(&mut self, input: Input, now: Instant, hands: &mut Hands) {
        if self.is_over {
            return;
        }
        if let Some(machine) = &mut self.machine {
            let outputs = machine.handle(input, now);
            self.carry_out(outputs, now, hands);
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>, now: Instant, hands: &mut Hands) {
        for output in outputs {
            if let Output::Send(advert) = output {
                let result = self.send(&advert, now, hands);
                self.input(Input::Sent(result), now, hands);
            } else if let Err(lost) = hands.carry_out(self.number, &self.config, output) {
                self.lose(lost, now, hands);
            }
            if self.is_over {
                return;
            }
        }
    }

    /// Ends this process's part in the election. Who has claimed the group is the master now, in the
    /// name of this host: it is not for this process to say anything, or to touch the addresses. If
    /// nobody shall serve the group here, it is given up.
    fn lose(&mut self, lost: Lost, now: Instant, hands: &mut Hands) {
        self.is_over = true;
        match (lost, &mut self.machine) {
            (Lost::Ended, Some(machine)) => {
                for output in machine.handle(Input::Stop, now) {
                    match output {
                        Output::Lease(_) => {}
                        // Nobody waits for the answer.
                        Output::Send(advert) => drop(self.send(&advert, now, hands)),
                        output => drop(hands.carry_out(self.number, &self.config, output)),
                    }
                }
            }
            _ => hands.forget(&self.config),
        }
    }

    /// Whether `config` is this election, with other settings at most.
    pub(super) fn is_same_election(&self, config: &config::Group) -> bool {
        match &self.machine {
            Some(machine) => machine.is_same_election(config),
            None => false,
        }
    }

    pub(super) fn reconfigure(
        &mut self,
        config: Arc<config::Group>,
        now: Instant,
        hands: &mut Hands,
    ) {
        if *config == *self.config {
            return;
        }
        self.config = Arc::clone(&config);
        // Password, peers and addresses are the channel's too. Until there is another one, this one is
        // better than none.
        self.opening = Some(hands.open(&self.config, &self.shared));
        if let Some(machine) = &mut self.machine {
            let outputs = machine.reconfigure(config, now);
            self.carry_out(outputs, now, hands);
        }
    }

    /// Sends an advert, or says why that cannot be done.
    fn send(&mut self, advert: &Advert, now: Instant, hands: &Hands) -> Result<(), String> {
        let channel = self.channel.as_mut().map_err(|why| why.clone())?;
        let result = channel.send(advert);
        let was_unsent = self.machine.as_ref().is_some_and(|machine| machine.unsent().is_some());
        if let Err(error) = &result {
            // Interface or address may be gone.
            self.look_at = now;
            self.doubts_source = vrrp_io::is_of_source(error);
        }
        let failure = result.err().map(|error| error.to_string());
        if was_unsent != failure.is_some() {
            let name = self.config.name.clone();
            hands.tell(Event::Advertises { name, failure: failure.clone() });
        }
        failure.map_or(Ok(()), Err)
    }

    pub(super) fn view(&self) -> View {
        let mut counts = self.counts;
        if let Ok(channel) = &self.channel {
            counts.add(channel.counts());
        }
        let mut adverts = AdvertCounts { sent: counts.sent, ..AdvertCounts::default() };
        for why in vrrp_io::Discard::ALL {
            adverts.discarded.insert(why.name().to_owned(), counts.discarded(why));
        }
        let Some(machine) = &self.machine else {
            return View {
                role: Role::Init,
                since: self.since,
                priority: 0,
                master: None,
                lease: None,
                why: self.trouble().unwrap_or_default(),
                problem: None,
                adverts,
            };
        };
        let (mut heeded, judged) = (counts.received, machine.counts());
        for (why, count) in &judged.discarded {
            *adverts.discarded.entry(why.label().to_owned()).or_default() += count;
            heeded = heeded.saturating_sub(*count);
        }
        adverts.received = heeded;
        View {
            role: machine.role(),
            since: machine.since(),
            priority: machine.priority(),
            master: machine.master(),
            lease: machine.lease(),
            why: machine.why().to_owned(),
            problem: machine
                .unsent()
                .map(|why| format!("adverts cannot be sent: {why}"))
                .or_else(|| machine.problem().map(str::to_owned)),
            adverts,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.machine.as_ref().map_or(Role::Init, Group::role)
    }

    fn trouble(&self) -> Option<String> {
        self.channel.as_ref().err().cloned()
    }

    fn hear(&mut self, now: Instant, hands: &mut Hands) {
        for _ in 0..VOLLEY {
            let Ok(channel) = &mut self.channel else { return };
            match channel.receive() {
                // Discarded and counted there.
                Ok(Some(Err(_))) => {}
                Ok(Some(Ok(received))) => {
                    self.input(Input::Advert(received), now, hands);
                    if self.machine.as_ref().is_some_and(Group::is_disputed) {
                        hands.leases().doubt(self.number);
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    self.look_at = now;
                    return;
                }
            }
        }
    }

    /// Looks after the way to the peers.
    fn look(&mut self, now: Instant, hands: &mut Hands) {
        self.look_at = now + LOOK;
        if self.channel.as_ref().is_ok_and(Channel::is_lost) {
            self.close(format!("interface {} is gone", self.config.interface), hands);
            self.tell_standing(now, hands);
        }
        // Another one finds the address to send from anew, or that there is none.
        let doubts_source = std::mem::take(&mut self.doubts_source);
        if (doubts_source || self.channel.is_err()) && self.opening.is_none() {
            self.opening = Some(hands.open(&self.config, &self.shared));
        }
    }

    /// Takes in what came of opening a channel.
    pub(super) fn opened(
        &mut self,
        ticket: u64,
        result: Result<Channel, String>,
        now: Instant,
        hands: &mut Hands,
    ) {
        if self.opening != Some(ticket) {
            // It was for an earlier configuration.
            hands.close(result);
            return;
        }
        self.opening = None;
        match result {
            Ok(channel) => {
                let source = channel.source();
                self.replace(Ok(channel), hands);
                if let Some(machine) = &mut self.machine {
                    machine.set_source(source);
                } else {
                    let config = Arc::clone(&self.config);
                    let counter = self.stands_in.unwrap_or_else(counter);
                    self.machine = Some(Group::new(config, source, counter, now));
                }
                self.tell_standing(now, hands);
            }
            // A master that cannot speak must not stay one: its peers take over.
            Err(why) if self.channel.as_ref().err() != Some(&why) => {
                self.close(why, hands);
                self.tell_standing(now, hands);
            }
            Err(_) => {}
        }
    }

    /// Gives the channel up for good.
    pub(super) fn leave(&mut self, hands: &Hands) {
        self.close("the group is gone".to_owned(), hands);
    }

    fn close(&mut self, why: String, hands: &Hands) {
        self.replace(Err(why), hands);
    }

    fn replace(&mut self, channel: Result<Channel, String>, hands: &Hands) {
        let old = std::mem::replace(&mut self.channel, channel);
        if let Ok(old) = &old {
            self.counts.add(old.counts());
        }
        hands.close(old);
    }

    /// Tells the machine how this host is. Who cannot hear the peers is in no state to serve.
    ///
    /// The first time it also learns whether there is a lease of another process of this host to go
    /// on with.
    fn tell_standing(&mut self, now: Instant, hands: &mut Hands) {
        let (Some(mut standing), Some(machine)) = (self.standing.clone(), &self.machine) else {
            return;
        };
        standing.faults.extend(self.trouble());
        if machine.has_begun() {
            self.input(Input::Standing(standing), now, hands);
            return;
        }
        match hands.leases().claim(self.number, identity(&self.config)) {
            Some(lease) => self.input(Input::Resume { standing, lease }, now, hands),
            None if self.stands_in.is_some() => self.is_over = true,
            None => self.input(Input::Standing(standing), now, hands),
        }
    }
}

/// Where CARP's replay counter begins: higher than any that this host has used before.
fn counter() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
