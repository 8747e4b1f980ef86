//! One group: its machine, and the way to its peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    config,
    core::{
        AdvertCounts, Election as View,
        group::{Group, Input, Leases, Output, Role, Standing, identity},
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

    /// Takes part in the election no longer.
    pub(super) fn leave(&mut self) {
        self.is_over = true;
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
    pub(super) fn turn(&mut self, leases: &mut dyn Leases, now: Instant, out: &mut Vec<Output>) {
        if self.look_at <= now {
            self.look(leases, now, out);
        }
        if self.role() == Role::Master {
            self.input(Input::Tick, now, out);
        }
        self.hear(now, out);
        self.input(Input::Tick, now, out);
    }

    pub(super) fn stand(
        &mut self,
        standing: Standing,
        leases: &mut dyn Leases,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        self.standing = Some(standing);
        // Often it is a link that changed.
        self.look(leases, now, out);
        self.tell_standing(leases, now, out);
    }

    pub(super) fn input(&mut self, input: Input, now: Instant, out: &mut Vec<Output>) {
        if let Some(machine) = &mut self.machine {
            out.extend(machine.handle(input, now));
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
        leases: &mut dyn Leases,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if *config == *self.config {
            return;
        }
        self.config = Arc::clone(&config);
        // Password, peers and addresses are the channel's too.
        self.close("not opened again yet".to_owned());
        self.look(leases, now, out);
        if let Some(machine) = &mut self.machine {
            out.extend(machine.reconfigure(config, now));
        }
    }

    pub(super) fn send(&mut self, advert: &crate::core::group::Advert, now: Instant) {
        if let Ok(channel) = &mut self.channel
            && let Err(error) = channel.send(advert)
        {
            // Counted by the channel; interface or address may be gone.
            self.look_at = now;
            self.doubts_source = vrrp_io::is_of_source(&error);
        }
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
            problem: machine.problem().map(str::to_owned),
            adverts,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.machine.as_ref().map_or(Role::Init, Group::role)
    }

    fn trouble(&self) -> Option<String> {
        self.channel.as_ref().err().cloned()
    }

    fn hear(&mut self, now: Instant, out: &mut Vec<Output>) {
        for _ in 0..VOLLEY {
            let Ok(channel) = &mut self.channel else { return };
            match channel.receive() {
                // Discarded and counted there.
                Ok(Some(Err(_))) => {}
                Ok(Some(Ok(received))) => self.input(Input::Advert(received), now, out),
                Ok(None) => return,
                Err(_) => {
                    self.look_at = now;
                    return;
                }
            }
        }
    }

    /// Looks after the way to the peers.
    fn look(&mut self, leases: &mut dyn Leases, now: Instant, out: &mut Vec<Output>) {
        self.look_at = now + LOOK;
        if self.channel.as_ref().is_ok_and(Channel::is_lost) {
            self.close(format!("interface {} is gone", self.config.interface));
            self.tell_standing(leases, now, out);
        }
        // A master that cannot speak must not stay one: its peers take over.
        if std::mem::take(&mut self.doubts_source)
            && self.channel.as_ref().is_ok_and(|channel| channel.has_lost_source().unwrap_or(true))
        {
            self.close("the address that adverts came from is gone".to_owned());
        }
        if self.channel.is_ok() {
            return;
        }
        match Channel::open(&self.config.interface, &self.config, &self.shared) {
            Ok(channel) => {
                let source = channel.source();
                self.channel = Ok(channel);
                if let Some(machine) = &mut self.machine {
                    machine.set_source(source);
                } else {
                    let config = Arc::clone(&self.config);
                    let counter = self.stands_in.unwrap_or_else(counter);
                    self.machine = Some(Group::new(config, source, counter, now));
                }
                self.tell_standing(leases, now, out);
            }
            Err(error) => {
                let why = format!("{error:#}");
                if self.channel.as_ref().err() != Some(&why) {
                    self.channel = Err(why);
                    self.tell_standing(leases, now, out);
                }
            }
        }
    }

    fn close(&mut self, why: String) {
        if let Ok(channel) = std::mem::replace(&mut self.channel, Err(why)) {
            self.counts.add(channel.counts());
        }
    }

    /// Tells the machine how this host is. Who cannot hear the peers is in no state to serve.
    ///
    /// The first time it also learns whether there is a lease of another process of this host to go
    /// on with.
    fn tell_standing(&mut self, leases: &mut dyn Leases, now: Instant, out: &mut Vec<Output>) {
        let (Some(mut standing), Some(machine)) = (self.standing.clone(), &self.machine) else {
            return;
        };
        standing.faults.extend(self.trouble());
        if machine.has_begun() {
            self.input(Input::Standing(standing), now, out);
            return;
        }
        match leases.claim(self.number, identity(&self.config)) {
            Some(lease) => self.input(Input::Resume { standing, lease }, now, out),
            None if self.stands_in.is_some() => self.leave(),
            None => self.input(Input::Standing(standing), now, out),
        }
    }
}

/// Where CARP's replay counter begins: higher than any that this host has used before.
fn counter() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
