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
    Leases, Order,
    deputy::{self, Job},
    schedule_first,
    seat::Seat,
    sentry::Sentry,
    wake::Wake,
};
use crate::core::{
    Elections, Event,
    group::{Command, Input, Numbered, Output},
};

use std::os::fd::AsFd as _;

/// What the thread has.
pub(super) struct Driver {
    orders: mpsc::Receiver<Order>,
    wake: Arc<Wake>,
    leases: Leases,
    events: UnboundedSender<Event>,
    jobs: mpsc::Sender<Job>,
    deputy: JoinHandle<()>,
    sentry: Sentry,
    /// By name of the group.
    seats: BTreeMap<String, Seat>,
}

impl Driver {
    pub(super) fn new(
        orders: mpsc::Receiver<Order>,
        wake: Arc<Wake>,
        leases: Leases,
        events: UnboundedSender<Event>,
    ) -> Result<Self> {
        let (jobs, deputy) = deputy::start()?;
        let sentry = Sentry::start(events.clone())?;
        Ok(Self { orders, wake, leases, events, jobs, deputy, sentry, seats: BTreeMap::new() })
    }

    /// Drives the machines until it is told to stop.
    pub(super) fn run(mut self) {
        schedule_first();
        // Without the deputy there is nobody to hold addresses: another host shall.
        while self.follow_orders() && !self.deputy.is_finished() {
            let now = Instant::now();
            self.each(|seat, out| seat.turn(now, out));
            self.sleep();
        }
        let now = Instant::now();
        self.each(|seat, out| seat.input(Input::Stop, now, out));
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
                    self.with(&group, |seat, out| seat.stand(standing, now, out));
                }
                Ok(Order::Command(Command::Failover { group })) => {
                    self.with(&group, |seat, out| seat.input(Input::Failover, now, out));
                }
                Ok(Order::View(reply)) => {
                    let view = |(name, seat): (&String, &Seat)| (name.clone(), seat.view());
                    let groups = self.seats.iter().map(view).collect();
                    // Whoever asked may have lost patience.
                    let _ = reply.try_send(Elections { groups });
                }
                Err(mpsc::TryRecvError::Empty) => return true,
            }
        }
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
                    // An earlier daemon may have left the addresses behind.
                    (self.leases)(number, None);
                    let (name, addresses) = (seat.config.name.clone(), &seat.config.addresses);
                    let _ = self.jobs.send(Job::Release(name.clone(), addresses.clone()));
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
            seat.reconfigure(config, now, &mut out);
            self.carry_out(&mut seat, out, now);
            self.seats.insert(seat.config.name.clone(), seat);
        }
    }

    fn give_up(&mut self, mut seat: Seat, now: Instant) {
        let mut out = Vec::new();
        seat.input(Input::Stop, now, &mut out);
        self.carry_out(&mut seat, out, now);
    }

    fn with(&mut self, group: &str, act: impl FnOnce(&mut Seat, &mut Vec<Output>)) {
        // A group that was just removed may still have been thought of.
        if let Some((name, mut seat)) = self.seats.remove_entry(group) {
            let mut out = Vec::new();
            act(&mut seat, &mut out);
            self.carry_out(&mut seat, out, Instant::now());
            self.seats.insert(name, seat);
        }
    }

    fn each(&mut self, act: impl Fn(&mut Seat, &mut Vec<Output>)) {
        let mut seats = std::mem::take(&mut self.seats);
        for seat in seats.values_mut() {
            let mut out = Vec::new();
            act(seat, &mut out);
            self.carry_out(seat, out, Instant::now());
        }
        self.seats = seats;
    }

    fn carry_out(&mut self, seat: &mut Seat, outputs: Vec<Output>, now: Instant) {
        for output in outputs {
            let name = || seat.config.name.clone();
            let addresses = || seat.config.addresses.clone();
            match output {
                Output::Lease(until) => (self.leases)(seat.number, until),
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
