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
    /// Announce each of these so many times.
    Announce(Vec<GroupAddress>, u32),
}

/// The thread's sending end. It ends when that is dropped, after all that was asked for.
pub(super) fn start() -> Result<(mpsc::Sender<Job>, JoinHandle<()>)> {
    let mut deputy = Deputy {
        addresses: Addresses::open()?,
        announcer: Announcer::open().context("cannot open a socket for announcements")?,
        held: BTreeMap::new(),
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
    /// What shall be on the interfaces, by group.
    held: BTreeMap<String, BTreeSet<Place>>,
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
                Ok(Job::Announce(addresses, times)) => self.announce(&addresses, times),
                Err(mpsc::RecvTimeoutError::Timeout) => self.put_all(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn hold(&mut self, group: String, addresses: &[GroupAddress]) {
        let wanted: BTreeSet<Place> = addresses.iter().map(Place::from).collect();
        for place in self.held.insert(group, wanted.clone()).unwrap_or_default() {
            if !wanted.contains(&place) {
                self.take_off(&place);
            }
        }
        self.put(&wanted);
    }

    fn release(&mut self, group: &str, addresses: &[GroupAddress]) {
        let mut places = self.held.remove(group).unwrap_or_default();
        places.extend(addresses.iter().map(Place::from));
        for place in &places {
            self.take_off(place);
        }
    }

    fn put_all(&mut self) {
        self.again = None;
        let all = self.held.values().flatten().cloned().collect();
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
