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
    deputy::{self, Line, Opened},
    hands::Hands,
    schedule_first,
    seat::Seat,
    sentry::Sentry,
};
use crate::{
    config::GroupAddress,
    core::{
        Elections, Event,
        group::{Command, Input, Leases, Numbered, Role, identity},
    },
    wake::Wake,
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
    hands: Hands,
    opened: mpsc::Receiver<Opened>,
    deputy: JoinHandle<()>,
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
        let Line { jobs, opened, thread } = deputy::start(Arc::clone(&wake), events.clone())?;
        let sentry = Sentry::start(events.clone())?;
        let hands = Hands::new(leases, events, jobs, sentry);
        let seats = BTreeMap::new();
        Ok(Self { orders, wake, part, hands, opened, deputy: thread, seats })
    }

    /// Drives the machines until it is told to stop.
    pub(super) fn run(mut self) {
        schedule_first();
        // Without the deputy there is nobody to hold addresses: another host shall.
        while self.follow_orders() && !self.deputy.is_finished() {
            self.take_opened();
            let now = Instant::now();
            self.each(|seat, hands| seat.turn(now, hands));
            self.sleep();
        }
        let now = Instant::now();
        self.each(|seat, hands| seat.input(Input::Stop, now, hands));
        // All that was asked for is done before the thread ends.
        drop(self.hands);
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
                    self.with(&group, |seat, hands| seat.stand(standing, now, hands));
                }
                Ok(Order::Command(Command::Failover { group })) => {
                    self.with(&group, |seat, hands| seat.input(Input::Failover, now, hands));
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

    /// Hands out the ways to the peers that were opened.
    fn take_opened(&mut self) {
        while let Ok(Opened { group, ticket, result }) = self.opened.try_recv() {
            match self.seats.get_mut(&group) {
                Some(seat) => seat.opened(ticket, result, Instant::now(), &mut self.hands),
                None => self.hands.close(result),
            }
        }
        self.sort_out();
    }

    /// Keeps those seats whose election this process takes part in.
    fn sort_out(&mut self) {
        let hands = &self.hands;
        self.seats.retain(|_, seat| {
            if seat.is_over() {
                seat.leave(hands);
            }
            !seat.is_over()
        });
    }

    fn configure(&mut self, groups: Vec<Numbered>, now: Instant) {
        let mut before = std::mem::take(&mut self.seats);
        let mut kept = Vec::new();
        let addresses: Vec<GroupAddress> =
            groups.iter().flat_map(|group| group.config.places()).collect();
        let shared: Arc<BTreeSet<IpAddr>> = Arc::new(addresses.iter().map(|one| one.ip).collect());
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
                    // An earlier daemon may have left the addresses behind.
                    self.hands.clear(number, &seat.config);
                    self.seats.insert(seat.config.name.clone(), seat);
                }
            }
        }
        // Before others take an address over that these had.
        for (_, seat) in before {
            self.give_up(seat, now);
        }
        for (mut seat, config) in kept {
            seat.shared = Arc::clone(&shared);
            seat.reconfigure(config, now, &mut self.hands);
            self.seats.insert(seat.config.name.clone(), seat);
        }
        self.sort_out();
        if self.part == Part::Daemon {
            // Groups that a daemon before this one knew, and nobody does now.
            let seats = self.seats.values();
            let ours: Vec<_> = seats.map(|seat| (seat.number, identity(&seat.config))).collect();
            self.hands.leases().end_others(&ours);
            self.hands.tidy(addresses);
        }
    }

    fn give_up(&mut self, mut seat: Seat, now: Instant) {
        seat.input(Input::Stop, now, &mut self.hands);
        seat.leave(&self.hands);
    }

    fn with(&mut self, group: &str, act: impl FnOnce(&mut Seat, &mut Hands)) {
        // A group that was just removed may still have been thought of.
        if let Some(seat) = self.seats.get_mut(group) {
            act(seat, &mut self.hands);
        }
        self.sort_out();
    }

    fn each(&mut self, act: impl Fn(&mut Seat, &mut Hands)) {
        for seat in self.seats.values_mut() {
            act(seat, &mut self.hands);
        }
        self.sort_out();
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
