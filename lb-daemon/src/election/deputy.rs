//! Does in order what takes the kernel's time: addresses and announcements.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use tracing::{debug, warn};

use super::schedule_first;
use crate::{config::GroupAddress, netlink::Addresses, vrrp_io::Announcer};

/// How long to wait before an address is asked for again that the kernel did not take.
const AGAIN: Duration = Duration::from_secs(1);

/// Something to do for the group with a name.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// These addresses shall be on their interfaces, and no others of the group.
    Hold(String, Vec<GroupAddress>),
    /// None of these, nor any other of the group, shall be on an interface.
    Release(String, Vec<GroupAddress>),
    /// Another process looks after the group's addresses from now on.
    Forget(String),
    /// Announce each of these so many times.
    Announce(Vec<GroupAddress>, u32),
}

/// The thread's sending end. It ends when that is dropped, after all that was asked for.
pub(super) fn start() -> Result<(mpsc::Sender<Job>, JoinHandle<()>)> {
    let mut deputy = Deputy {
        addresses: Addresses::open()?,
        announcer: Announcer::open().context("cannot open a socket for announcements")?,
        held: Held::default(),
        again: None,
    };
    let (jobs, asked) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("addresses".to_owned())
        .spawn(move || {
            schedule_first();
            deputy.run(&asked);
        })
        .context("cannot start the address thread")?;
    Ok((jobs, thread))
}

struct Deputy {
    addresses: Addresses,
    announcer: Announcer,
    held: Held,
    /// When to look for addresses that are missing.
    again: Option<Instant>,
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
        places.into_iter().filter(|place| !self.0.values().any(|all| all.contains(place))).collect()
    }
}

impl Deputy {
    fn run(&mut self, asked: &mpsc::Receiver<Job>) {
        loop {
            let job = match self.again {
                None => asked.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(due) => asked.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(Job::Hold(group, addresses)) => self.hold(group, &addresses),
                Ok(Job::Release(group, addresses)) => self.release(&group, &addresses),
                Ok(Job::Forget(group)) => _ = self.held.0.remove(&group),
                Ok(Job::Announce(addresses, times)) => self.announce(&addresses, times),
                Err(mpsc::RecvTimeoutError::Timeout) => self.put_all(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn hold(&mut self, group: String, addresses: &[GroupAddress]) {
        let wanted: BTreeSet<Place> = addresses.iter().map(Place::from).collect();
        for place in self.held.hold(group, wanted.clone()) {
            self.take_off(&place);
        }
        self.put(&wanted);
    }

    fn release(&mut self, group: &str, addresses: &[GroupAddress]) {
        for place in self.held.release(group, addresses.iter().map(Place::from).collect()) {
            self.take_off(&place);
        }
    }

    fn put_all(&mut self) {
        self.again = None;
        let all = self.held.0.values().flatten().cloned().collect();
        self.put(&all);
    }

    /// Puts addresses on their interfaces; tries again later if the kernel refuses.
    fn put(&mut self, places: &BTreeSet<Place>) {
        for place in places {
            let Place { interface, ip, prefix } = place;
            let added = self
                .addresses
                .interface(interface)
                .and_then(|interface| self.addresses.add(interface.ifindex, *ip, *prefix));
            if let Err(error) = added {
                warn!("cannot put {ip}/{prefix} on {interface}, trying again: {error:#}");
                self.again = Some(Instant::now() + AGAIN);
            }
        }
    }

    fn take_off(&mut self, place: &Place) {
        let Place { interface, ip, prefix } = place;
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
