//! One group: its machine, and the way to its peers.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    config,
    core::{
        AdvertCounts, Election as View,
        group::{Group, Input, Output, Role, Standing},
    },
    vrrp_io::{self, Channel},
};

/// How often to look whether the interface is still there, or there again.
const LOOK: Duration = Duration::from_secs(1);
/// Adverts that are taken in one after the other, before other groups have their turn.
const VOLLEY: usize = 64;

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
        }
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
    pub(super) fn turn(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.look_at <= now {
            self.look(now, out);
        }
        if self.role() == Role::Master {
            self.input(Input::Tick, now, out);
        }
        self.hear(now, out);
        self.input(Input::Tick, now, out);
    }

    pub(super) fn stand(&mut self, standing: Standing, now: Instant, out: &mut Vec<Output>) {
        self.standing = Some(standing);
        // Often it is a link that changed.
        self.look(now, out);
        self.tell_standing(now, out);
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
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if *config == *self.config {
            return;
        }
        self.config = Arc::clone(&config);
        // Password, peers and addresses are the channel's too.
        self.close("not opened again yet".to_owned());
        self.look(now, out);
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
    fn look(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.look_at = now + LOOK;
        if self.channel.as_ref().is_ok_and(Channel::is_lost) {
            self.close(format!("interface {} is gone", self.config.interface));
            self.tell_standing(now, out);
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
                    self.machine = Some(Group::new(config, source, counter(), now));
                }
                self.tell_standing(now, out);
            }
            Err(error) => {
                let why = format!("{error:#}");
                if self.channel.as_ref().err() != Some(&why) {
                    self.channel = Err(why);
                    self.tell_standing(now, out);
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
    fn tell_standing(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let Some(mut standing) = self.standing.clone() {
            standing.faults.extend(self.trouble());
            self.input(Input::Standing(standing), now, out);
        }
    }
}

/// Where CARP's replay counter begins: higher than any that this host has used before.
fn counter() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
