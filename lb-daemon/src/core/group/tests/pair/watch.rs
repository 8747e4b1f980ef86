//! What must hold in the simulated world.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, thread,
};

use super::{
    super::*,
    host::{Host, Packet},
    rank::{Rank, is_farewell, is_owners, own_rank, preference, rank},
};

/// What became of a packet for one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Heard,
    /// It came in, but the daemon is stalled.
    Waiting,
    /// The network lost it.
    Lost,
    /// The host's daemon was not running.
    NobodyThere,
}

/// How often things happened: a run in which they didn't has shown nothing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) steps: u64,
    takeovers: u64,
    lapses: u64,
    yields: u64,
    healed: u64,
    fenced: u64,
    overlaps: u64,
    settled: u64,
    /// Leases that ended because adverts could not be sent.
    unheard: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.takeovers += other.takeovers;
        self.lapses += other.lapses;
        self.yields += other.yields;
        self.healed += other.healed;
        self.fenced += other.fenced;
        self.overlaps += other.overlaps;
        self.settled += other.settled;
        self.unheard += other.unheard;
    }

    pub(super) fn expect_everything(&self) {
        let counts = [
            self.takeovers,
            self.lapses,
            self.yields,
            self.healed,
            self.fenced,
            self.overlaps,
            self.settled,
            self.unheard,
        ];
        assert!(counts.iter().all(|&count| count > 50), "hardly anything happened: {self:?}");
    }
}

/// A daemon before it handled something.
#[derive(Debug)]
pub(super) struct Before {
    role: Role,
    /// Who claims to be master in what it is about to hear. Owners hear of none but owners.
    heard: Option<Rank>,
    rank: Rank,
    interval: Duration,
    /// Adverts it did not heed because they came again, or after later ones.
    pub(super) replays: u64,
}

impl Before {
    pub(super) fn of(daemon: &Group, input: &Input) -> Self {
        let heard = match input {
            Input::Advert(Received { advert, .. })
                if daemon.role() == Role::Master
                    && daemon.rules.is_owner()
                    && !is_owners(advert) =>
            {
                None
            }
            Input::Advert(received) if !is_farewell(&received.advert) => {
                Some(rank(&received.advert, received.source))
            }
            _ => None,
        };
        Self {
            role: daemon.role(),
            heard,
            rank: own_rank(daemon),
            interval: interval(daemon),
            replays: replays(daemon),
        }
    }
}

/// What a host owes after hearing a weaker master.
#[derive(Debug)]
struct Debt {
    announce: bool,
    report: bool,
}

/// The watcher.
#[derive(Debug)]
pub(super) struct Watch {
    seed: u64,
    pub(super) tally: Tally,
    sent: Vec<u64>,
    /// What became of the last advert (not farewell) of each host, by who was to hear it.
    fates: BTreeMap<(usize, usize), (u64, Option<Fate>)>,
    /// When each master last advertised, if it has not stalled since.
    last_sent: Vec<Option<Instant>>,
    debts: Vec<Option<Debt>>,
    /// The only server since it settled.
    server: Option<usize>,
    said: Vec<String>,
}

impl Watch {
    pub(super) fn new(seed: u64, hosts: usize) -> Self {
        Self {
            seed,
            tally: Tally::default(),
            sent: vec![0; hosts],
            fates: BTreeMap::new(),
            last_sent: vec![None; hosts],
            debts: (0..hosts).map(|_| None).collect(),
            server: None,
            said: Vec::new(),
        }
    }

    pub(super) fn describe(&mut self, hosts: &[Host]) {
        for (number, host) in hosts.iter().enumerate() {
            let config = &host.config;
            let (preempt, delay) = (config.preempt, config.preempt_delay);
            let line = format_args!("{number}: {:?}, {preempt}, {delay:?}", config.protocol);
            self.say(0, line);
        }
    }

    /// Notes something for the story of a failure.
    pub(super) fn say(&mut self, now: u64, what: fmt::Arguments<'_>) {
        self.said.push(format!("{:>12} us  {what}", now / 1000));
    }

    /// Gives a packet its number.
    pub(super) fn number(&mut self, sender: usize, advert: &Advert) -> Packet {
        self.sent[sender] += 1;
        let packet = (sender, self.sent[sender]);
        if !is_farewell(advert) {
            for number in 0..self.sent.len() {
                self.fates.insert((sender, number), (packet.1, None));
            }
        }
        packet
    }

    pub(super) fn settle(&mut self, (sender, sequence): Packet, number: usize, fate: Fate) {
        if let Some(last) = self.fates.get_mut(&(sender, number))
            && last.0 == sequence
            && last.1 != Some(Fate::Heard)
        {
            last.1 = Some(fate);
        }
    }

    /// Notes that a host's daemon died, and what it knew with it.
    pub(super) fn forget(&mut self, number: usize) {
        self.last_sent[number] = None;
        self.debts[number] = None;
        for ((_, to), (_, fate)) in &mut self.fates {
            if *to == number && *fate == Some(Fate::Heard) {
                *fate = Some(Fate::NobodyThere);
            }
        }
    }

    /// Looks at what a daemon did.
    pub(super) fn after(
        &mut self,
        hosts: &[Host],
        now: u64,
        number: usize,
        mut before: Before,
        outputs: &[Output],
    ) {
        let host = &hosts[number];
        let Some(daemon) = &host.daemon else { return };
        if replays(daemon) > before.replays {
            before.heard = None;
        }
        for output in outputs {
            if !matches!(output, Output::Lease(Some(_)) | Output::Hold(_)) {
                self.say(now, format_args!("{number}: {output:?}"));
            }
        }
        let role = daemon.role();
        in_order(outputs);
        let renews = |output: &Output| matches!(output, Output::Lease(Some(_)));
        expect(!host.mute || !outputs.iter().any(renews), "an unsent advert renews no lease");
        expect(host.lease == daemon.lease(), "the map has the lease of the machine");
        expect(
            host.lease.is_some() == (role == Role::Master),
            "a master, and only a master, has a lease",
        );
        self.on_time(host, now, number, &before, outputs);

        let was_master = before.role == Role::Master;
        // Who gives way knowingly says so in between.
        let lapsed = outputs.starts_with(&[Output::Lease(None), Output::Hold(false)]);
        if was_master && lapsed {
            self.tally.lapses += 1;
            self.tally.unheard += u64::from(daemon.unsent().is_some());
        }
        match before.heard {
            Some(heard) if was_master && !lapsed && heard > before.rank => {
                self.tally.yields += 1;
                expect(role == Role::Backup, "a master gives way to a better one");
            }
            Some(_) if was_master && !lapsed => {
                expect(role == Role::Master, "a master does not give way to a worse one");
            }
            _ => {}
        }
        self.keep_debts(daemon, host, now, number, &before, outputs);
        if role == Role::Master && !was_master {
            self.tally.takeovers += 1;
        }
    }

    /// Adverts are never late while the daemon runs.
    fn on_time(
        &mut self,
        host: &Host,
        now: u64,
        number: usize,
        before: &Before,
        outputs: &[Output],
    ) {
        let local = host.local(now);
        let is_master = host.lease.is_some();
        for output in outputs {
            let Output::Send(advert) = output else { continue };
            if let (Some(last), false) = (self.last_sent[number], is_farewell(advert)) {
                // A nanosecond each for the two roundings of its clock.
                let due = last + before.interval + Duration::from_nanos(2);
                expect(local <= due, "an advert is never late");
            }
            self.last_sent[number] = Some(local);
        }
        if !is_master {
            self.last_sent[number] = None;
        }
    }

    /// A master that hears a weaker one owes an announcement, and a report once it is over.
    fn keep_debts(
        &mut self,
        daemon: &Group,
        host: &Host,
        now: u64,
        number: usize,
        before: &Before,
        outputs: &[Output],
    ) {
        if daemon.role() != Role::Master || before.role != Role::Master {
            self.debts[number] = None;
            return;
        }
        if before.heard.is_some_and(|heard| heard < before.rank) {
            let ruled = host.local(now).saturating_duration_since(daemon.since());
            self.debts[number] = Some(Debt { announce: true, report: ruled > before.interval });
        }
        for output in outputs {
            match (output, &mut self.debts[number]) {
                (Output::Announce { .. }, Some(debt)) => debt.announce = false,
                (Output::Changed(_), Some(debt)) => {
                    debt.report = false;
                    self.tally.healed += 1;
                }
                _ => {}
            }
        }
    }

    /// Nobody begins to serve while another does, unless the network kept it from knowing, or to
    /// take over from a weaker one that works, and hears of it. What the protocols cannot do is
    /// excused.
    pub(super) fn begins_to_serve(&mut self, hosts: &[Host], now: u64, number: usize) {
        let Some(daemon) = &hosts[number].daemon else { return };
        let why = daemon.why().to_owned();
        for (other, host) in hosts.iter().enumerate().filter(|(other, _)| *other != number) {
            if !host.serves_at(now) {
                if !host.is_running() && host.lease.is_some() {
                    self.tally.fenced += 1;
                }
                continue;
            }
            self.tally.overlaps += 1;
            let intervals = hosts.iter().map(|host| rules::of(&host.config, 0).patience());
            let are_alike = intervals.collect::<BTreeSet<_>>().len() < 2;
            let sender = host.source.to_string();
            // It was another's of three hosts, or came after its sender had taken over anew. (Who
            // bids farewell has no lease: that is looked at where it happens.)
            let heard_farewell = why.ends_with("gave the group up");
            // Its successor may not have been heard by it either.
            let preempts = why.ends_with("is weaker") || why == "owns the addresses";
            let is_excused = preempts
                || heard_farewell
                || match self.fates.get(&(other, number)) {
                    // For another, or (having handed over beside one that is deaf) for nobody.
                    Some((_, Some(Fate::Heard | Fate::Waiting))) => {
                        let waited_for_it =
                            why.starts_with("nothing more") && why.ends_with(&sender);
                        !are_alike && !waited_for_it
                    }
                    // With unequal intervals it may have begun with a shorter one.
                    Some((_, Some(Fate::NobodyThere))) => !are_alike,
                    Some((_, Some(Fate::Lost) | None)) => true,
                    None => false,
                };
            expect(is_excused, "nobody begins to serve while another does");
        }
    }

    /// Looks at what the time that passed brought with it: leases end by themselves.
    pub(super) fn time_passes(&mut self, hosts: &[Host], from: u64, to: u64) {
        for (number, host) in hosts.iter().enumerate() {
            if host.stalled.is_some() || host.daemon.is_none() {
                self.last_sent[number] = None;
            } else if host.serves_at(from) {
                let is_heard = host.daemon.as_ref().is_some_and(|daemon| daemon.unsent().is_none());
                expect(
                    host.serves_at(to) || !is_heard,
                    "no running master that can advertise lets its lease lapse",
                );
            }
        }
        if self.server.is_some_and(|server| !hosts[server].serves_at(to)) {
            expect(false, "once settled, the group is served without a break");
        }
    }

    /// Looks at the world after every step. `settled` is since when there must be one server.
    pub(super) fn look(&mut self, hosts: &[Host], now: u64, settled: Option<u64>) {
        if settled.is_none() {
            if let Some(server) = self.server.take() {
                self.tally.settled += 1;
                let debt = self.debts[server].take();
                let is_paid = debt.is_none_or(|debt| !debt.announce && !debt.report);
                expect(is_paid, "the winner of a conflict has announced and reported it");
            }
            return;
        }
        let servers = (0..hosts.len()).filter(|&number| hosts[number].serves_at(now));
        let servers: Vec<_> = servers.collect();
        expect(servers.len() == 1, "once settled, there is exactly one server");
        let server = servers[0];
        expect(
            self.server.is_none_or(|before| before == server),
            "once settled, it is always the same server",
        );
        self.server = Some(server);

        let ranks = hosts.iter().filter_map(|host| host.daemon.as_ref());
        let ranks = ranks.filter(|daemon| daemon.role() != Role::Fault);
        let is_free =
            hosts[server].config.preempt && ranks.clone().all(|daemon| !daemon.has_handed_over);
        if is_free {
            let best = ranks.map(|daemon| preference(own_rank(daemon))).max();
            let own = hosts[server].daemon.as_ref().map(|daemon| preference(own_rank(daemon)));
            expect(own == best, "once settled, the most preferred host serves");
        }
    }
}

fn expect(holds: bool, what: &str) {
    assert!(holds, "it does not hold that {what}");
}

/// Leases follow an advert, come before what depends on them, and go before anyone is told that they
/// may serve.
fn in_order(outputs: &[Output]) {
    let place = |wanted: &dyn Fn(&Output) -> bool| outputs.iter().position(wanted);
    let lease = place(&|output| matches!(output, Output::Lease(_)));
    let send = place(&|output| matches!(output, Output::Send(_)));
    let unlease = place(&|output| *output == Output::Lease(None));
    let hold = place(&|output| matches!(output, Output::Hold(_)));
    let announce = place(&|output| matches!(output, Output::Announce { .. }));
    expect(send.is_none() || unlease < send, "a lease is gone before others are told");
    let is_backed = |at: usize| matches!(outputs[at - 1], Output::Send(_));
    let renewals = (0..outputs.len()).filter(|&at| matches!(outputs[at], Output::Lease(Some(_))));
    expect(
        renewals.into_iter().all(|at| at > 0 && is_backed(at)),
        "an advert comes before its lease",
    );
    if hold.is_some() {
        expect(lease < hold, "addresses move after the lease");
        expect(announce.is_none() || hold < announce, "announced are addresses on hand");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            let begin = self.said.len().saturating_sub(120);
            let story = self.said[begin..].join("\n");
            let seed = self.seed;
            eprintln!("{story}\nTANDEM_PAIR_SEED={seed} replays this");
        }
    }
}

pub(super) fn replays(daemon: &Group) -> u64 {
    daemon.counts().discarded.get(&Discard::Replay).copied().unwrap_or_default()
}

fn interval(daemon: &Group) -> Duration {
    daemon.rules.interval()
}
