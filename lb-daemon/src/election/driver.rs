//! The thread's loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Mastery, Order, Part,
    deputy::{self, Job},
    schedule_first,
    seat::Seat,
    sentry::Sentry,
    wake::Wake,
};
use crate::core::{
    Elections, Event,
    group::{Command, Input, Leases, Lost, Numbered, Output, Role, identity},
};

use std::os::fd::AsFd as _;

/// How often to look whether another process has claimed a group, or ended its lease, if that is to
/// be expected.
const LOOK: Duration = Duration::from_millis(20);

/// What the thread has.
pub(super) struct Driver {
    orders: mpsc::Receiver<Order>,
    wake: Arc<Wake>,
    part: Part,
    leases: Box<dyn Leases>,
    events: UnboundedSender<Event>,
    jobs: mpsc::Sender<Job>,
    deputy: JoinHandle<()>,
    sentry: Sentry,
    /// By name of the group.
    seats: BTreeMap<String, Seat>,
}

impl Driver {
    pub(super) fn new(
        part: Part,
        orders: mpsc::Receiver<Order>,
        wake: Arc<Wake>,
        leases: Box<dyn Leases>,
        events: UnboundedSender<Event>,
    ) -> Result<Self> {
        let (jobs, deputy) = deputy::start()?;
        let sentry = Sentry::start(events.clone())?;
        let seats = BTreeMap::new();
        Ok(Self { orders, wake, part, leases, events, jobs, deputy, sentry, seats })
    }

    /// Drives the machines until it is told to stop.
    pub(super) fn run(mut self) {
        schedule_first();
        // Without the deputy there is nobody to hold addresses: another host shall.
        while self.follow_orders() && !self.deputy.is_finished() {
            let now = Instant::now();
            self.look_at_leases(now);
            self.each(|seat, leases, out| seat.turn(leases, now, out));
            self.sleep();
        }
        let now = Instant::now();
        self.each(|seat, _, out| seat.input(Input::Stop, now, out));
        // All that was asked for is done before the thread ends.
        drop(self.jobs);
        let _ = self.deputy.join();
    }

    /// Returns whether to go on.
    fn follow_orders(&mut self) -> bool {
        self.wake.hush();
        loop {
            let now = Instant::now();
            match self.orders.try_recv() {
                Ok(Order::Command(Command::Stop)) | Err(mpsc::TryRecvError::Disconnected) => {
                    return false;
                }
                Ok(Order::Command(Command::Configure(groups))) => self.configure(groups, now),
                Ok(Order::Command(Command::Standing { group, standing })) => {
                    self.with(&group, |seat, leases, out| seat.stand(standing, leases, now, out));
                }
                Ok(Order::Command(Command::Failover { group })) => {
                    self.with(&group, |seat, _, out| seat.input(Input::Failover, now, out));
                }
                Ok(Order::View(reply)) => {
                    let view = |(name, seat): (&String, &Seat)| (name.clone(), seat.view());
                    let groups = self.seats.iter().map(view).collect();
                    // Whoever asked may have lost patience.
                    let _ = reply.try_send(Elections { groups });
                }
                Ok(Order::Masteries(reply)) => {
                    let _ = reply.try_send(self.masteries());
                }
                Err(mpsc::TryRecvError::Empty) => return true,
            }
        }
    }

    fn masteries(&self) -> Vec<Mastery> {
        let mastery = |(name, seat): (&String, &Seat)| {
            (seat.role() == Role::Master).then(|| Mastery {
                name: name.clone(),
                number: seat.number,
                standing: seat.standing.clone().unwrap_or_default(),
                counter: seat.counter(),
            })
        };
        self.seats.iter().filter_map(mastery).collect()
    }

    fn configure(&mut self, groups: Vec<Numbered>, now: Instant) {
        let mut before = std::mem::take(&mut self.seats);
        let mut kept = Vec::new();
        let addresses = groups.iter().flat_map(|group| &group.config.addresses);
        let shared: Arc<BTreeSet<IpAddr>> = Arc::new(addresses.map(|one| one.ip).collect());
        for Numbered { number, config } in groups {
            match before.remove(&config.name) {
                Some(seat) if seat.number == number && seat.is_same_election(&config) => {
                    kept.push((seat, config));
                }
                old => {
                    let standing = old.and_then(|mut old| {
                        let standing = old.standing.take();
                        self.give_up(old, now);
                        standing
                    });
                    let seat = Seat::new(number, config, Arc::clone(&shared), standing, now);
                    let seat = match &self.part {
                        Part::Daemon => seat,
                        Part::StandIn(counters) => seat.stand_in(counters),
                    };
                    let name = seat.config.name.clone();
                    if !self.leases.is_running(number, identity(&seat.config)) {
                        // An earlier daemon may have left the addresses behind.
                        let _ = self.leases.end(number);
                        let addresses = seat.config.addresses.clone();
                        let _ = self.jobs.send(Job::Release(name.clone(), addresses));
                    }
                    self.seats.insert(name, seat);
                }
            }
        }
        // Before others take an address over that these had.
        for (_, seat) in before {
            self.give_up(seat, now);
        }
        for (mut seat, config) in kept {
            let mut out = Vec::new();
            seat.shared = Arc::clone(&shared);
            seat.reconfigure(config, &mut *self.leases, now, &mut out);
            self.carry_out(&mut seat, out, now);
            self.keep(seat.config.name.clone(), seat);
        }
        if self.part == Part::Daemon {
            // Nobody shall go on with a group that is no more.
            let seats = self.seats.values();
            let ours: Vec<_> = seats.map(|seat| (seat.number, identity(&seat.config))).collect();
            self.leases.end_others(&ours);
        }
    }

    fn give_up(&mut self, mut seat: Seat, now: Instant) {
        let mut out = Vec::new();
        seat.input(Input::Stop, now, &mut out);
        self.carry_out(&mut seat, out, now);
    }

    fn with(
        &mut self,
        group: &str,
        act: impl FnOnce(&mut Seat, &mut dyn Leases, &mut Vec<Output>),
    ) {
        // A group that was just removed may still have been thought of.
        if let Some((name, mut seat)) = self.seats.remove_entry(group) {
            let mut out = Vec::new();
            act(&mut seat, &mut *self.leases, &mut out);
            self.carry_out(&mut seat, out, Instant::now());
            self.keep(name, seat);
        }
    }

    fn each(&mut self, act: impl Fn(&mut Seat, &mut dyn Leases, &mut Vec<Output>)) {
        for (name, mut seat) in std::mem::take(&mut self.seats) {
            let mut out = Vec::new();
            act(&mut seat, &mut *self.leases, &mut out);
            self.carry_out(&mut seat, out, Instant::now());
            self.keep(name, seat);
        }
    }

    /// Keeps a seat for as long as this process takes part in its election.
    fn keep(&mut self, name: String, seat: Seat) {
        if !seat.is_over() {
            self.seats.insert(name, seat);
        }
    }

    /// Gives way to another process of this host that has claimed a group, or has ended its lease.
    fn look_at_leases(&mut self, now: Instant) {
        for (name, mut seat) in std::mem::take(&mut self.seats) {
            if seat.role() == Role::Master
                && let Err(lost) = self.leases.check(seat.number)
            {
                self.lose(&mut seat, lost, now);
            }
            self.keep(name, seat);
        }
    }

    /// Ends this process's part in an election. Who has claimed the group is the master now, in the
    /// name of this host: it is not for this process to say anything, or to touch the addresses. If
    /// nobody shall serve the group here, it is given up.
    fn lose(&mut self, seat: &mut Seat, lost: Lost, now: Instant) {
        seat.leave();
        let name = seat.config.name.clone();
        match lost {
            Lost::Claimed => {
                self.sentry.guard(name.clone(), Vec::new());
                let _ = self.jobs.send(Job::Forget(name));
            }
            Lost::Ended => {
                let mut out = Vec::new();
                seat.input(Input::Stop, now, &mut out);
                out.retain(|output| !matches!(output, Output::Lease(_)));
                self.carry_out(seat, out, now);
            }
        }
    }

    fn carry_out(&mut self, seat: &mut Seat, outputs: Vec<Output>, now: Instant) {
        for output in outputs {
            let name = || seat.config.name.clone();
            let addresses = || seat.config.addresses.clone();
            match output {
                Output::Lease(until) => {
                    let election = identity(&seat.config);
                    let written = match until {
                        Some(until) => self.leases.renew(seat.number, election, until),
                        None => self.leases.end(seat.number),
                    };
                    if let Err(lost) = written {
                        self.lose(seat, lost, now);
                        return;
                    }
                }
                Output::Send(advert) => seat.send(&advert, now),
                // The deputy ends after this thread, the daemon's loop may end before.
                Output::Hold(true) => {
                    self.sentry.guard(name(), addresses());
                    let _ = self.jobs.send(Job::Hold(name(), addresses()));
                }
                Output::Hold(false) => {
                    self.sentry.guard(name(), Vec::new());
                    let _ = self.jobs.send(Job::Release(name(), addresses()));
                }
                Output::Announce { times } => {
                    let _ = self.jobs.send(Job::Announce(addresses(), times));
                }
                Output::Changed(transition) => {
                    let _ = self.events.send(Event::Group { name: name(), transition });
                }
            }
        }
    }

    /// Waits for an order, an advert or a deadline.
    fn sleep(&self) {
        let due = self.seats.values().map(Seat::deadline).min();
        let due = match self.part {
            Part::Daemon => due,
            // Others end or claim the leases at any time.
            Part::StandIn(_) => {
                let soon = Instant::now() + LOOK;
                Some(due.map_or(soon, |due| due.min(soon)))
            }
        };
        let timeout = due.map(|due| {
            // Rounded up by one, lest it be woken just before the time.
            let left = due.saturating_duration_since(Instant::now());
            TimeSpec::from_duration(left + Duration::from_nanos(1))
        });
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![readable(self.wake.as_fd())];
        fds.extend(self.seats.values().filter_map(Seat::channel).map(|c| readable(c.as_fd())));
        // An interrupted wait is only a short one.
        let _ = ppoll(&mut fds, timeout, None);
    }
}
