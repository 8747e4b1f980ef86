//! Listens for other hosts that claim the addresses this host holds, and tells of it.
//!
//! It has a thread of its own, without real-time scheduling: closing a packet socket waits for every
//! processor, and a storm of claims must not hold adverts up.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsFd as _,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_common::addr::Mac;
use nix::{
    ifaddrs::getifaddrs,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    config::{Family, GroupAddress},
    core::{Claimed, Event},
    vrrp_io::{Claim, Claims},
    wake::Wake,
};

/// A claimant of an address is told of once in this time.
const QUIET: Duration = Duration::from_secs(10);
/// Claimants that are remembered to be quiet about; while there are more, others are not told of.
const REMEMBERED: usize = 64;
/// Claims that are taken in by one interface, before others have their turn.
const VOLLEY: usize = 64;
/// How often to look whether interfaces are still there, or there again.
const LOOK: u16 = 1000;

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Sentry {
    orders: Option<mpsc::Sender<Order>>,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

/// These are the addresses that this host holds of the group with this name.
#[derive(Debug)]
struct Order(String, Vec<GroupAddress>);

impl Sentry {
    /// Starts the thread, in the network namespace of the calling one.
    pub(super) fn start(events: UnboundedSender<Event>) -> Result<Self> {
        let wake = Arc::new(Wake::new()?);
        let (orders, inbox) = mpsc::channel();
        let mut watch = Watch {
            posts: BTreeMap::new(),
            told: BTreeMap::new(),
            wake: Arc::clone(&wake),
            events,
        };
        let thread = std::thread::Builder::new()
            .name("claims".to_owned())
            .spawn(move || watch.run(&inbox))
            .context("cannot start the thread that hears claims")?;
        Ok(Self { orders: Some(orders), wake, thread: Some(thread) })
    }

    /// Listens for claims to these addresses of a group from now on, and to no others of it.
    pub(super) fn guard(&self, group: String, addresses: Vec<GroupAddress>) {
        if let Some(orders) = &self.orders {
            // It ends only by a panic, which is on the standard error output.
            let _ = orders.send(Order(group, addresses));
            self.wake.ring();
        }
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        self.orders = None;
        self.wake.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watch {
    /// By group.
    posts: BTreeMap<String, Vec<Post>>,
    /// When a claimant was told of.
    told: BTreeMap<(IpAddr, Mac), Instant>,
    wake: Arc<Wake>,
    events: UnboundedSender<Event>,
}

/// An interface with addresses of one family.
struct Post {
    interface: String,
    family: Family,
    held: BTreeSet<IpAddr>,
    /// None while there is no such interface.
    ear: Option<Ear>,
}

struct Ear {
    ifindex: u32,
    /// The interface's own address.
    mac: Mac,
    claims: Claims,
}

impl Watch {
    fn run(&mut self, inbox: &mpsc::Receiver<Order>) {
        loop {
            self.wake.hush();
            loop {
                match inbox.try_recv() {
                    Ok(Order(group, addresses)) => {
                        self.posts.insert(group, posts(&addresses));
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.posts.values_mut().flatten().for_each(Post::look);
            self.hear(Instant::now());
            self.sleep();
        }
    }

    fn hear(&mut self, now: Instant) {
        self.told.retain(|_, when| now.duration_since(*when) < QUIET);
        for (group, posts) in &self.posts {
            for post in posts {
                for Claim { ip, mac } in post.hear() {
                    if self.told.len() < REMEMBERED && !self.told.contains_key(&(ip, mac)) {
                        self.told.insert((ip, mac), now);
                        let interface = post.interface.clone();
                        let claimed = Claimed { address: ip, mac, interface };
                        let name = group.clone();
                        let _ = self.events.send(Event::Claimed { name, claimed });
                    }
                }
            }
        }
    }

    fn sleep(&self) {
        let ears = || self.posts.values().flatten().filter_map(|post| post.ear.as_ref());
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![readable(self.wake.as_fd())];
        fds.extend(ears().map(|ear| readable(ear.claims.as_fd())));
        let has_posts = self.posts.values().any(|posts| !posts.is_empty());
        let timeout = if has_posts { PollTimeout::from(LOOK) } else { PollTimeout::NONE };
        // An interrupted wait is only a short one.
        let _ = poll(&mut fds, timeout);
    }
}

/// A post for each interface and family.
fn posts(addresses: &[GroupAddress]) -> Vec<Post> {
    let mut places: BTreeMap<(&str, bool), BTreeSet<IpAddr>> = BTreeMap::new();
    for GroupAddress { ip, interface, .. } in addresses {
        places.entry((interface, ip.is_ipv4())).or_default().insert(*ip);
    }
    let post = |((interface, is_v4), held): ((&str, bool), BTreeSet<IpAddr>)| Post {
        interface: interface.to_owned(),
        family: if is_v4 { Family::V4 } else { Family::V6 },
        held,
        ear: None,
    };
    places.into_iter().map(post).collect()
}

impl Post {
    /// Has an ear on the interface, if there is one of the name.
    fn look(&mut self) {
        let ifindex = if_nametoindex(self.interface.as_str()).ok();
        if self.ear.as_ref().map(|ear| ear.ifindex) == ifindex {
            return;
        }
        self.ear = ifindex.and_then(|ifindex| {
            let mac = mac(&self.interface)?;
            let claims = Claims::open(ifindex, self.family).ok()?;
            Some(Ear { ifindex, mac, claims })
        });
    }

    fn hear(&self) -> impl Iterator<Item = Claim> {
        let next = |ear: &Ear| ear.claims.next(&self.held, ear.mac).ok().flatten();
        let ear = self.ear.as_ref();
        std::iter::from_fn(move || ear.and_then(next)).take(VOLLEY)
    }
}

/// The Ethernet address of an interface; none if it has none.
fn mac(interface: &str) -> Option<Mac> {
    let mut all = getifaddrs().ok()?.filter(|one| one.interface_name == interface);
    all.find_map(|one| one.address?.as_link_addr()?.addr()).map(Mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_post_for_each_interface_and_family() {
        let address = |ip: &str, interface: &str| GroupAddress {
            ip: ip.parse().unwrap(),
            prefix: 24,
            interface: interface.to_owned(),
            advertised: true,
        };
        let all = [
            address("10.0.0.1", "eth0"),
            address("10.0.0.2", "eth0"),
            address("fd00::1", "eth0"),
            address("10.1.0.1", "eth1"),
        ];
        let posts = posts(&all);
        let posts: Vec<_> =
            posts.iter().map(|p| (p.interface.as_str(), p.family, p.held.len())).collect();
        assert_eq!(
            posts,
            [("eth0", Family::V6, 1), ("eth0", Family::V4, 2), ("eth1", Family::V4, 1)]
        );
    }
}
