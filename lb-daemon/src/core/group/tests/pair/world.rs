//! The simulated world: hosts, their network, and what befalls them.

use super::{
    super::*,
    host::{Host, Packet},
    random::Random,
    watch::{Before, Fate, Watch},
};

/// Priorities that hosts have, an owner's among them; CARP's `advskew` is what they lack of 255.
const RANKS: [u8; 7] = [1, 50, 100, 101, 200, 254, 255];

/// All there is. Times are nanoseconds.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) hosts: Vec<Host>,
    random: Random,
    /// Packets under way: when each arrives, where, which it is, and what it says.
    flying: Vec<(u64, usize, Packet, Received)>,
    /// Whether each host is on the other side.
    parted: Vec<bool>,
    /// Whether nothing reaches each host, though the others hear it.
    deaf: Vec<bool>,
    loss: u64,
    delay: u64,
    doubling: u64,
    /// The longest interval of any host.
    pub(super) interval: u64,
    /// The shortest interval that a host may have. No packet is under way for longer: a farewell
    /// would be taken for one of its sender's next time as a master.
    shortest: u64,
    /// Whether nothing befalls anyone, since then.
    quiet_since: Option<u64>,
    /// When the weather changes.
    changes_at: u64,
    /// When the next thing befalls somebody.
    befalls_at: u64,
    pub(super) watch: Watch,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = random.pick(&[2, 2, 3]);
        let kind = random.below(4);
        let preempt = random.chance(60);
        let alike = random.chance(30);
        let delay = random.pick(&[0, 0, 0, 2, 5]);
        let epoch = Instant::now();
        let mut hosts = Vec::new();
        for number in 0..count {
            let rank: u8 = if alike { 100 } else { random.pick(&RANKS) };
            let protocol = match kind {
                0 => vrrp(VrrpVersion::V2, rank, seconds(1)),
                1 => vrrp(VrrpVersion::V3, rank, millis(10)),
                2 if alike => vrrp(VrrpVersion::V3, rank, millis(100)),
                2 => vrrp(VrrpVersion::V3, rank, millis(random.pick(&[100, 50, 250]))),
                _ => carp(1, if alike { 100 } else { advskew(rank) }),
            };
            let mut config = group(protocol);
            config.preempt = preempt;
            config.preempt_delay = seconds(delay);
            config.announce.delay = seconds(random.pick(&[0, 5]));
            config.announce.refresh = seconds(random.pick(&[0, 3]));
            hosts.push(Host {
                daemon: None,
                config: Arc::new(config),
                source: host(10 + number),
                standing: well(),
                link: true,
                mute: false,
                stalled: None,
                queue: Vec::new(),
                lease: None,
                fast: random.pick(&[-500, 0, 500]),
                // Among three, a host that goes back for one is a replay to the other.
                adopts: count == 2 && number == 1 && random.chance(80),
                counter: 0,
                epoch,
            });
        }
        let (shortest, interval) = match kind {
            0 => (1_000_000_000, 1_000_000_000),
            1 => (10_000_000, 10_000_000),
            2 => (50_000_000, 250_000_000),
            _ => (1_000_000_000, 2_000_000_000),
        };
        let mut world = Self {
            now: interval,
            watch: Watch::new(seed, hosts.len()),
            parted: vec![false; hosts.len()],
            deaf: vec![false; hosts.len()],
            hosts,
            random,
            flying: Vec::new(),
            loss: 0,
            delay: shortest / 1000,
            doubling: 0,
            interval,
            shortest,
            quiet_since: None,
            changes_at: 0,
            befalls_at: 0,
        };
        world.watch.describe(&world.hosts);
        for number in 0..world.hosts.len() {
            world.start(number);
        }
        world.calm();
        world
    }

    /// Goes on for so many steps.
    pub(super) fn live(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        self.watch.tally.steps += 1;
        let arrival = self.flying.iter().map(|packet| packet.0).min().unwrap_or(u64::MAX);
        let (wake, waking) = self.next_wake();
        let next = arrival.min(wake).min(self.changes_at).min(self.befalls_at).max(self.now);
        self.watch.time_passes(&self.hosts, self.now, next);
        self.now = next;

        if arrival <= next {
            self.arrive();
        } else if wake <= next {
            self.wake(waking);
        } else if self.changes_at <= next {
            self.change_weather();
        } else {
            self.befall();
        }
        self.watch.look(&self.hosts, self.now, self.settled());
    }

    /// Since when the network has been good for long enough that one master must be found.
    fn settled(&self) -> Option<u64> {
        let delay = self.hosts[0].config.preempt_delay.as_nanos();
        let bound = 12 * self.interval + u64::try_from(delay).expect("delays are short");
        self.quiet_since.map(|since| since + bound).filter(|&settled| settled <= self.now)
    }

    /// The host that has to do something next, and when.
    fn next_wake(&self) -> (u64, usize) {
        let at = |host: &Host| match (&host.daemon, host.stalled) {
            (None, _) => None,
            (Some(_), Some(until)) => Some(until),
            (Some(daemon), None) => daemon.next_deadline().map(|due| host.world(due)),
        };
        let wakes = self.hosts.iter().enumerate();
        wakes
            .filter_map(|(number, host)| at(host).map(|at| (at, number)))
            .min()
            .unwrap_or((u64::MAX, 0))
    }

    fn wake(&mut self, number: usize) {
        if self.hosts[number].stalled.take().is_some() {
            self.watch.say(self.now, format_args!("{number} goes on"));
            // The driver hands over what came in first. A machine that was held up for long enough to
            // know it does not rely on that.
            if self.is_late_by_an_interval(number) && self.random.chance(50) {
                self.tell(number, Input::Tick);
            }
            for (packet, received) in std::mem::take(&mut self.hosts[number].queue) {
                self.deliver(number, packet, received);
            }
        }
        self.tell(number, Input::Tick);
    }

    fn is_late_by_an_interval(&self, number: usize) -> bool {
        let host = &self.hosts[number];
        let due = host.daemon.as_ref().and_then(Group::next_deadline);
        due.is_some_and(|due| host.world(due) + self.interval < self.now)
    }

    fn arrive(&mut self) {
        let next = (0..self.flying.len()).min_by_key(|&index| self.flying[index].0);
        let (_, number, packet, received) = self.flying.swap_remove(next.expect("one arrives"));
        let (host, sender) = (&mut self.hosts[number], packet.0);
        if !host.link || self.deaf[number] || self.parted[number] != self.parted[sender] {
            self.watch.settle(packet, number, Fate::Lost);
        } else if host.stalled.is_some() && host.daemon.is_some() {
            host.queue.push((packet, received));
            self.watch.settle(packet, number, Fate::Waiting);
        } else if host.daemon.is_some() {
            self.deliver(number, packet, received);
        } else {
            self.watch.settle(packet, number, Fate::NobodyThere);
        }
    }

    fn deliver(&mut self, number: usize, packet: Packet, received: Received) {
        self.watch.say(self.now, format_args!("{number} hears {:?}", received.advert));
        let discarded = self.hosts[number].replays();
        self.tell(number, Input::Advert(received));
        // Its sender may have gone back for what it heard while one that went before was under way.
        let is_behind = self.hosts[packet.0].adopts && self.hosts[number].replays() > discarded;
        self.watch.settle(packet, number, if is_behind { Fate::Lost } else { Fate::Heard });
    }

    /// Has a daemon handle something and does what it says.
    fn tell(&mut self, number: usize, input: Input) {
        let host = &mut self.hosts[number];
        let local = host.local(self.now);
        let Some(daemon) = &mut host.daemon else { return };
        let before = Before::of(daemon, &input);
        let heard = match &input {
            Input::Advert(received) => Some(received.advert.clone()),
            _ => None,
        };
        let outputs = daemon.handle(input, local);
        if let Some(advert) = heard
            && host.replays() == before.replays
        {
            host.adopt(&advert);
        }
        self.perform(number, before, outputs);
    }

    fn perform(&mut self, number: usize, before: Before, outputs: Vec<Output>) {
        let served = self.hosts[number].serves_at(self.now);
        let mut done = Vec::new();
        for output in outputs {
            match &output {
                Output::Send(advert) => {
                    let result = self.send(number, advert);
                    done.push(output);
                    let host = &mut self.hosts[number];
                    let local = host.local(self.now);
                    let daemon = host.daemon.as_mut().expect("it said what to send");
                    for output in daemon.handle(Input::Sent(result), local) {
                        self.do_plainly(number, &output);
                        done.push(output);
                    }
                }
                other => {
                    self.do_plainly(number, other);
                    done.push(output);
                }
            }
        }
        self.watch.after(&self.hosts, self.now, number, before, &done);
        if !served && self.hosts[number].serves_at(self.now) {
            self.watch.begins_to_serve(&self.hosts, self.now, number);
        }
    }

    fn do_plainly(&mut self, number: usize, output: &Output) {
        match output {
            Output::Lease(lease) => self.hosts[number].lease = *lease,
            Output::Send(_) => panic!("an answer to sending is no reason to send"),
            Output::Hold(_) | Output::Announce { .. } | Output::Changed(_) => {}
        }
    }

    fn send(&mut self, sender: usize, advert: &Advert) -> Result<(), String> {
        if self.hosts[sender].mute {
            return Err("not permitted".to_owned());
        }
        let advert = self.hosts[sender].counted(advert);
        let packet = self.watch.number(sender, &advert);
        let source = self.hosts[sender].source;
        for number in (0..self.hosts.len()).filter(|&number| number != sender) {
            if !self.hosts[sender].link || self.random.chance(self.loss) {
                self.watch.settle(packet, number, Fate::Lost);
                continue;
            }
            for _ in 0..=u64::from(self.random.chance(self.doubling)) {
                let arrives = self.now + 1 + self.random.below(self.delay);
                let received = Received { source, advert: advert.clone() };
                self.flying.push((arrives, number, packet, received));
            }
        }
        Ok(())
    }

    fn start(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let local = host.local(self.now);
        let counter = self.now;
        host.counter = self.random.below(u64::MAX);
        host.daemon = Some(Group::new(Arc::clone(&host.config), host.source, counter, local));
        host.stalled = None;
        self.watch.say(self.now, format_args!("{number} starts"));
        let standing = self.standing(number);
        self.tell(number, Input::Standing(standing));
    }

    fn kill(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        host.daemon = None;
        host.stalled = None;
        for (packet, _) in std::mem::take(&mut host.queue) {
            self.watch.settle(packet, number, Fate::NobodyThere);
        }
        self.watch.forget(number);
        self.watch.say(self.now, format_args!("{number} dies"));
    }

    fn standing(&self, number: usize) -> Standing {
        let host = &self.hosts[number];
        let mut standing = host.standing.clone();
        if !host.link {
            standing.faults.push("eth0 is down".to_owned());
        }
        standing
    }

    /// Quiet and storm take turns.
    fn change_weather(&mut self) {
        if self.quiet_since.is_some() {
            self.quiet_since = None;
            self.loss = self.random.pick(&[0, 5, 20, 50]);
            self.delay = self.shortest / self.random.pick(&[1, 4, 100, 1000]);
            self.doubling = self.random.pick(&[0, 10]);
            self.befalls_at = self.now;
            self.changes_at = self.now + self.interval * (5 + self.random.below(60));
            let (loss, delay) = (self.loss, self.delay);
            self.watch.say(self.now, format_args!("storm: {loss} % lost, {delay} ns"));
        } else {
            self.calm();
        }
    }

    /// Mends everything but the hosts that are to be gone, of which there are never all.
    fn calm(&mut self) {
        self.loss = 0;
        self.doubling = 0;
        self.delay = self.shortest / 1000;
        self.parted.fill(false);
        self.deaf.fill(false);
        self.watch.say(self.now, format_args!("quiet"));
        let spared = self.random.below(self.hosts.len() as u64);
        for number in 0..self.hosts.len() {
            let is_spared = number as u64 == spared;
            self.hosts[number].link = true;
            self.hosts[number].mute = false;
            if self.hosts[number].stalled.is_some() {
                self.hosts[number].stalled = Some(self.now);
            }
            match self.random.below(6) {
                0 if !is_spared => self.kill(number),
                1 if !is_spared => self.fault(number),
                _ => self.mend(number),
            }
        }
        let healthy = self.hosts.iter().filter(|host| host.is_healthy()).count();
        assert!(healthy > 0, "the spared host is healthy");
        self.quiet_since = Some(self.now);
        self.befalls_at = u64::MAX;
        let delay = self.hosts[0].config.preempt_delay.as_nanos();
        let delay = u64::try_from(delay).expect("delays are short");
        self.changes_at = self.now + 24 * self.interval + delay;
    }

    fn mend(&mut self, number: usize) {
        self.hosts[number].standing.faults.clear();
        self.hosts[number].standing.ready = true;
        if self.hosts[number].daemon.is_none() {
            self.start(number);
        } else if self.hosts[number].is_running() {
            let standing = self.standing(number);
            self.tell(number, Input::Standing(standing));
        } else {
            // It hears of it when it goes on: until then it is what it was.
            self.wake(number);
            let standing = self.standing(number);
            self.tell(number, Input::Standing(standing));
        }
    }

    fn fault(&mut self, number: usize) {
        self.hosts[number].standing.faults = vec!["check_it fails".to_owned()];
        let standing = self.standing(number);
        if self.hosts[number].stalled.is_some() {
            self.wake(number);
        }
        self.tell(number, Input::Standing(standing));
    }

    /// Something befalls somebody.
    fn befall(&mut self) {
        self.befalls_at = self.now + self.random.below(4 * self.interval);
        let number = self.random.below(self.hosts.len() as u64);
        let number = usize::try_from(number).expect("hosts are few");
        let is_running = self.hosts[number].is_running();
        match self.random.below(12) {
            0 => {
                self.parted[number] = !self.parted[number];
                self.watch.say(self.now, format_args!("{number} changes sides"));
            }
            1 if is_running => {
                let until = self.now + 1 + self.random.below(6 * self.interval);
                self.hosts[number].stalled = Some(until);
                self.watch.say(self.now, format_args!("{number} stalls until {until}"));
            }
            2 => self.kill(number),
            3 | 4 if self.hosts[number].daemon.is_none() => self.start(number),
            5 => {
                self.hosts[number].link = !self.hosts[number].link;
                let link = self.hosts[number].link;
                self.watch.say(self.now, format_args!("{number} has its link: {link}"));
                self.tell_standing(number);
            }
            6 => {
                self.hosts[number].standing.ready = self.random.chance(70);
                self.hosts[number].standing.adjustment =
                    self.random.pick(&[0, 0, -10, -60, -300, 20]);
                self.tell_standing(number);
            }
            7 if is_running => {
                self.watch.say(self.now, format_args!("{number} is to hand over"));
                self.tell(number, Input::Failover);
            }
            8 if is_running => {
                self.tell(number, Input::Stop);
                self.kill(number);
            }
            9 if is_running => self.reload(number),
            10 => {
                self.hosts[number].mute = !self.hosts[number].mute;
                let mute = self.hosts[number].mute;
                self.watch.say(self.now, format_args!("{number} is mute: {mute}"));
            }
            11 => {
                self.deaf[number] = !self.deaf[number];
                let deaf = self.deaf[number];
                self.watch.say(self.now, format_args!("{number} is deaf: {deaf}"));
            }
            _ => {}
        }
    }

    fn tell_standing(&mut self, number: usize) {
        if self.hosts[number].is_running() {
            let standing = self.standing(number);
            self.watch.say(self.now, format_args!("{number}: {standing:?}"));
            self.tell(number, Input::Standing(standing));
        }
    }

    /// Another priority, by a reload.
    fn reload(&mut self, number: usize) {
        let rank = self.random.pick(&RANKS);
        let host = &mut self.hosts[number];
        let local = host.local(self.now);
        let mut config = (*host.config).clone();
        match &mut config.protocol {
            Protocol::Vrrp(vrrp) => vrrp.priority = rank,
            Protocol::Carp(carp) => carp.advskew = advskew(rank),
        }
        host.config = Arc::new(config);
        self.watch.say(self.now, format_args!("{number} reloads: {rank}"));
        if let Some(daemon) = &mut host.daemon {
            let before = Before::of(daemon, &Input::Tick);
            let outputs = daemon.reconfigure(Arc::clone(&host.config), local);
            self.perform(number, before, outputs);
        }
    }
}

const fn advskew(rank: u8) -> u8 {
    255 - rank
}
