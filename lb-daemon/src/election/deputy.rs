//! Does in order what takes the kernel's time: addresses, announcements, and the opening and closing
//! of sockets. The kernel keeps whoever asks for such a thing waiting while it changes interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_common::addr::Mac;
use nix::net::if_::{if_indextoname, if_nametoindex};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

use super::schedule_first;
use crate::{
    config::{self, GroupAddress},
    core::Event,
    netlink::Addresses,
    vrrp_io::{Announcer, Channel},
    wake::Wake,
};

/// How often to look whether the addresses are where they shall be: half of the second in which one is
/// to be back that somebody has taken off.
const LOOK: Duration = Duration::from_millis(500);

/// Something to do for the group with a name.
#[derive(Debug)]
pub(super) enum Job {
    /// The addresses of this group shall be on their interfaces, and none that it had before.
    Hold(Arc<config::Group>),
    /// None of the group's addresses, nor any that it had before, shall be on an interface.
    Release(Arc<config::Group>),
    /// Another process looks after the addresses of the group from now on.
    Forget(String),
    /// Of what an earlier daemon has put onto interfaces, none but these shall stay there.
    Tidy(Vec<GroupAddress>),
    /// Announce each of these so many times.
    Announce(Vec<GroupAddress>, u32),
    /// Open a group's way to the peers.
    Open(Opening),
    /// Close one that nobody needs any more: leaving a multicast group takes time as joining does.
    Close(Box<Channel>),
}

/// A way to the peers that is to be opened.
#[derive(Debug)]
pub(super) struct Opening {
    /// What the answer will be known by.
    pub(super) ticket: u64,
    pub(super) group: Arc<config::Group>,
    /// The addresses of all groups.
    pub(super) shared: Arc<BTreeSet<IpAddr>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Opened {
    /// Name of the group.
    pub(super) group: String,
    pub(super) ticket: u64,
    /// The way, or why there is none.
    pub(super) result: Result<Channel, String>,
}

/// What the election has of the thread.
pub(super) struct Line {
    /// The thread ends when this is dropped, after all that was asked for.
    pub(super) jobs: mpsc::Sender<Job>,
    /// The ways that it has opened.
    pub(super) opened: mpsc::Receiver<Opened>,
    pub(super) thread: JoinHandle<()>,
}

/// Starts the thread, which rings when it has opened something.
pub(super) fn start(wake: Arc<Wake>, events: UnboundedSender<Event>) -> Result<Line> {
    let (answers, opened) = mpsc::channel();
    let mut deputy = Deputy {
        addresses: Addresses::open()?,
        announcer: Announcer::open().context("cannot open a socket for announcements")?,
        held: Held::default(),
        groups: BTreeMap::new(),
        missing: BTreeSet::new(),
        look_at: None,
        answers,
        wake,
        events,
    };
    let (jobs, asked) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("addresses".to_owned())
        .spawn(move || {
            schedule_first();
            deputy.run(&asked);
        })
        .context("cannot start the address thread")?;
    Ok(Line { jobs, opened, thread })
}

struct Deputy {
    addresses: Addresses,
    announcer: Announcer,
    held: Held,
    /// The groups that are held, by name.
    groups: BTreeMap<String, Arc<config::Group>>,
    /// What could not be put onto its interface yet.
    missing: BTreeSet<Place>,
    /// When to look after the addresses; none while none are held.
    look_at: Option<Instant>,
    answers: mpsc::Sender<Opened>,
    wake: Arc<Wake>,
    events: UnboundedSender<Event>,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    interface: String,
    ip: IpAddr,
    prefix: u8,
}

impl From<&GroupAddress> for Place {
    fn from(address: &GroupAddress) -> Self {
        Self { interface: address.interface.clone(), ip: address.ip, prefix: address.prefix }
    }
}

/// What shall be on the interfaces, by group.
#[derive(Debug, Default)]
struct Held(BTreeMap<String, BTreeSet<Place>>);

impl Held {
    /// Notes what a group holds from now on, and says what is to be taken off for that.
    fn hold(&mut self, group: String, wanted: BTreeSet<Place>) -> Vec<Place> {
        let before = self.0.insert(group, wanted).unwrap_or_default();
        self.free(before)
    }

    /// Notes that a group holds nothing from now on, and says what is to be taken off: what it
    /// held, and `others`, which may be there.
    fn release(&mut self, group: &str, others: BTreeSet<Place>) -> Vec<Place> {
        let mut places = others;
        places.extend(self.0.remove(group).unwrap_or_default());
        self.free(places)
    }

    /// Those that no group holds: an address may have moved to a group that took it over before
    /// this one lets it go.
    fn free(&self, places: BTreeSet<Place>) -> Vec<Place> {
        places.into_iter().filter(|place| self.is_free(place)).collect()
    }

    fn is_free(&self, place: &Place) -> bool {
        !self.0.values().any(|all| all.contains(place))
    }
}

impl Deputy {
    fn run(&mut self, asked: &mpsc::Receiver<Job>) {
        loop {
            let job = match self.look_at {
                None => asked.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(due) => asked.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(Job::Hold(group)) => self.hold(group),
                Ok(Job::Release(group)) => self.release(&group),
                Ok(Job::Forget(group)) => self.forget(&group),
                Ok(Job::Tidy(known)) => self.tidy(&known),
                Ok(Job::Announce(addresses, times)) => self.announce(&addresses, times),
                Ok(Job::Open(opening)) => self.open(opening),
                Ok(Job::Close(channel)) => drop(channel),
                Err(mpsc::RecvTimeoutError::Timeout) => self.look(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn hold(&mut self, group: Arc<config::Group>) {
        let wanted: BTreeSet<Place> = group.places().iter().map(Place::from).collect();
        for place in self.held.hold(group.name.clone(), wanted.clone()) {
            self.take_off(&place);
        }
        self.make_vmac(&group);
        for place in &wanted {
            self.put(place);
        }
        self.groups.insert(group.name.clone(), group);
        self.look_at.get_or_insert_with(|| Instant::now() + LOOK);
    }

    fn release(&mut self, group: &config::Group) {
        self.groups.remove(&group.name);
        let places = group.places().iter().map(Place::from).collect();
        for place in self.held.release(&group.name, places) {
            self.take_off(&place);
        }
        if let Some((name, mac)) = group.vmac()
            && let Err(error) = self.addresses.remove_macvlan(name, Mac(mac))
        {
            warn!("cannot remove the interface {name}: {error:#}");
        }
    }

    /// Makes the interface with the virtual MAC address, if the group has one that is not there.
    fn make_vmac(&self, group: &config::Group) {
        let Some((name, mac)) = group.vmac() else { return };
        if if_nametoindex(name).is_ok() {
            return;
        }
        if let Err(error) = self.addresses.add_macvlan(name, &group.interface, Mac(mac)) {
            warn!("cannot make the interface {name} above {}: {error:#}", group.interface);
        }
    }

    fn forget(&mut self, group: &str) {
        self.groups.remove(group);
        self.held.0.remove(group);
    }

    fn tidy(&mut self, known: &[GroupAddress]) {
        let known: BTreeSet<Place> = known.iter().map(Place::from).collect();
        let ours = self.addresses.ours().unwrap_or_else(|error| {
            warn!("cannot tell whether an earlier daemon has left addresses behind: {error:#}");
            Vec::new()
        });
        for (ifindex, ip, prefix) in ours {
            let name = if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
            let Some(interface) = name else { continue };
            let place = Place { interface, ip, prefix };
            if !known.contains(&place) && self.held.is_free(&place) {
                let Place { interface, .. } = &place;
                info!(
                    "taking {ip}/{prefix} off {interface}: it is left from a former configuration"
                );
                self.take_off(&place);
            }
        }
    }

    fn open(&self, Opening { ticket, group, shared }: Opening) {
        let result = Channel::open(&group.interface, &group, &shared);
        let result = result.map_err(|error| format!("{error:#}"));
        // Nobody is there to have it if the daemon has just been stopped.
        let _ = self.answers.send(Opened { group: group.name.clone(), ticket, result });
        self.wake.ring();
    }

    /// Puts back what somebody has taken off, and tries again what the kernel has refused. Neighbours
    /// may have forgotten such an address, or know it from another host.
    fn look(&mut self) {
        let groups: Vec<_> = self.groups.values().cloned().collect();
        for group in &groups {
            let mut put = Vec::new();
            self.make_vmac(group);
            for address in group.places() {
                let place = Place::from(&address);
                let was_missing = self.missing.contains(&place);
                if self.put(&place) {
                    put.push(address.clone());
                    let (name, address) = (group.name.clone(), address.clone());
                    // Nobody listens any more when the daemon is stopping.
                    let _ = self.events.send(Event::PutBack { name, address, was_missing });
                }
            }
            self.announce(&put, group.announce.repeat);
        }
        self.look_at = (!groups.is_empty()).then(|| Instant::now() + LOOK);
    }

    /// Puts an address on its interface, and says whether it was not there.
    fn put(&mut self, place: &Place) -> bool {
        let Place { interface, ip, prefix } = place;
        let added = if_nametoindex(interface.as_str())
            .with_context(|| format!("there is no interface {interface}"))
            .and_then(|ifindex| self.addresses.add(ifindex, *ip, *prefix));
        match added {
            Ok(was_put) => {
                self.missing.remove(place);
                was_put
            }
            Err(error) => {
                if self.missing.insert(place.clone()) {
                    warn!("cannot put {ip}/{prefix} on {interface}, trying on: {error:#}");
                }
                false
            }
        }
    }

    fn take_off(&mut self, place: &Place) {
        let Place { interface, ip, prefix } = place;
        self.missing.remove(place);
        // What is gone has no addresses.
        let Ok(ifindex) = if_nametoindex(interface.as_str()) else { return };
        if let Err(error) = self.addresses.remove(ifindex, *ip, *prefix) {
            // The data plane serves it no longer, and answers for it to nobody.
            warn!("cannot take {ip}/{prefix} off {interface}: {error:#}");
        }
    }

    fn announce(&self, addresses: &[GroupAddress], times: u32) {
        let ways: Vec<_> = addresses
            .iter()
            .filter_map(|address| {
                let interface = self.addresses.interface(&address.interface).ok()?;
                Some((interface.ifindex, interface.mac?, address.ip))
            })
            .collect();
        // Each address once before any a second time: the first counts most.
        for _ in 0..times {
            for (ifindex, mac, ip) in &ways {
                if let Err(error) = self.announcer.announce(*ifindex, *mac, *ip) {
                    debug!("cannot announce {ip}: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(last: &[u8]) -> BTreeSet<Place> {
        let place = |last: &u8| Place {
            interface: "eth0".to_owned(),
            ip: [10, 0, 0, *last].into(),
            prefix: 24,
        };
        last.iter().map(place).collect()
    }

    #[test]
    fn what_a_group_holds_no_longer_is_taken_off() {
        let mut held = Held::default();
        assert_eq!(held.hold("a".to_owned(), places(&[1, 2])), []);
        assert_eq!(held.hold("a".to_owned(), places(&[2])), Vec::from_iter(places(&[1])));
        assert_eq!(held.release("a", places(&[2, 3])), Vec::from_iter(places(&[2, 3])));
        assert_eq!(held.release("a", places(&[2])), Vec::from_iter(places(&[2])));
    }

    #[test]
    fn an_address_that_moved_to_another_group_stays() {
        let mut held = Held::default();
        held.hold("a".to_owned(), places(&[1]));
        held.hold("b".to_owned(), places(&[2, 3]));
        held.hold("a".to_owned(), places(&[1, 2]));
        assert_eq!(held.hold("b".to_owned(), places(&[3])), []);
        held.hold("a".to_owned(), places(&[1, 2, 3]));
        assert_eq!(held.release("b", places(&[3])), []);
        assert_eq!(held.release("a", places(&[])), Vec::from_iter(places(&[1, 2, 3])));
    }
}
