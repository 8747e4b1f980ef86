//! Two namespaces for each test, and an adapter in the first of them.
//!
//! ```text
//! our namespace                                   their namespace
//! ours0   10.1.0.1/16  fd01::1/64 ─── veth ─── theirs0   10.1.0.2/16  fd01::2/64
//! ```

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write as _,
    net::IpAddr,
    os::fd::{AsRawFd as _, RawFd},
    panic::resume_unwind,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lb_common::{addr::Mac, maps::Tags};
use lb_daemon::{
    core::{Event, Exit, Route},
    netlink::Netlink,
};
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::gettid,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, timeout, timeout_at},
};

pub(crate) const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(crate) const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Runs a test on a thread of its own, in namespaces of its own.
pub(crate) fn lab(test: impl AsyncFnOnce(&mut Lab) + Send + 'static) {
    let thread = thread::spawn(move || {
        let links = Links::set_up();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(&mut Lab::open(links).await).await });
    });
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// What a test works with.
pub(crate) struct Lab {
    netlink: Option<Netlink>,
    /// What the adapter tells.
    pub(crate) events: UnboundedReceiver<Event>,
    /// Number of `ours0`.
    pub(crate) ifindex: u32,
    links: Links,
}

impl Lab {
    async fn open(links: Links) -> Self {
        let (send, events) = unbounded_channel();
        let netlink = Netlink::open(send).unwrap();
        Self {
            ifindex: netlink.interface("ours0").await.unwrap().ifindex,
            netlink: Some(netlink),
            events,
            links,
        }
    }

    pub(crate) fn netlink(&self) -> &Netlink {
        self.netlink.as_ref().expect("not closed")
    }

    pub(crate) fn within_theirs<T>(&self, act: impl FnOnce() -> T) -> T {
        self.links.within_theirs(act)
    }

    /// The route that leaves by `ours0`.
    pub(crate) fn route(&self, via: &str, source: &str) -> Route {
        let exit = Exit { name: "ours0".into(), ifindex: self.ifindex, tags: Tags::default() };
        Route {
            ifindex: self.ifindex,
            mac: OURS,
            via: address(via),
            source: address(source),
            exits: vec![exit],
        }
    }

    /// Asks for the way to `target` and waits for the answer.
    pub(crate) async fn resolve(&mut self, target: &str) -> Option<Route> {
        let asked = address(target);
        self.netlink().resolve(asked);
        self.wait(target, |event| match event {
            Event::Routed { target, route } if *target == asked => Some(route.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the next news of a neighbour.
    pub(crate) async fn neighbour(&mut self, of: &str) -> Option<Mac> {
        let wanted = (self.ifindex, address(of));
        self.wait(of, |event| match event {
            Event::Neighbour { ifindex, address, mac } if (*ifindex, *address) == wanted => {
                Some(*mac)
            }
            _ => None,
        })
        .await
    }

    /// Waits for an event that `pick` takes, and passes over the others.
    pub(crate) async fn wait<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut others = Vec::new();
        loop {
            let Ok(event) = timeout_at(deadline, self.events.recv()).await else {
                panic!("{what}: nothing in 5 s but {others:?}");
            };
            let Some(event) = event else {
                panic!("{what}: {}", self.netlink().failed().await);
            };
            if let Some(picked) = pick(&event) {
                return picked;
            }
            others.push(event);
        }
    }

    /// Waits until nothing happens any more, and forgets what did.
    pub(crate) async fn quiet(&mut self) {
        while let Ok(Some(_)) = timeout(Duration::from_millis(200), self.events.recv()).await {}
    }

    /// Closes the adapter and waits for its end.
    pub(crate) async fn close(&mut self) {
        self.netlink = None;
        while self.events.recv().await.is_some() {}
    }
}

/// The two namespaces; they go with the last file or thread that refers to them.
struct Links {
    ours: File,
    theirs: File,
}

impl Links {
    fn set_up() -> Self {
        let theirs = fresh_namespace();
        let links = Self { ours: fresh_namespace(), theirs };
        // Else a new IPv6 address is mute for a second or two.
        let no_dad = || write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
        no_dad();
        links.within_theirs(no_dad);

        let (process, thread) = (std::process::id(), gettid());
        let theirs = links.theirs.as_raw_fd();
        ip("link set lo up");
        ip(&format!(
            "link add ours0 address {OURS} type veth peer name theirs0 address {THEIRS} \
             netns /proc/{process}/task/{thread}/fd/{theirs}"
        ));
        bring_up("ours0", 1);
        links.within_theirs(|| bring_up("theirs0", 2));
        links
    }

    fn within_theirs<T>(&self, act: impl FnOnce() -> T) -> T {
        setns(&self.theirs, CloneFlags::CLONE_NEWNET).unwrap();
        let done = act();
        setns(&self.ours, CloneFlags::CLONE_NEWNET).unwrap();
        done
    }
}

/// Moves this thread to a new network namespace, and returns what keeps that alive.
fn fresh_namespace() -> File {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        panic!("this test makes network namespaces and needs root: {error}");
    }
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn bring_up(interface: &str, host: u8) {
    ip(&format!("address add 10.1.0.{host}/16 brd + dev {interface}"));
    ip(&format!("address add fd01::{host}/64 dev {interface} nodad"));
    ip(&format!("link set {interface} up"));
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn write(path: &str, value: &str) {
    fs::write(path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Runs `ip` in the namespace this thread is in.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("iproute2 is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs many commands of `ip`, one a line.
pub(crate) fn ip_batch(commands: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(commands.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// Descriptors of the process' netlink sockets in this thread's network namespace.
pub(crate) fn netlink_sockets() -> Vec<RawFd> {
    let table = fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let inodes: HashSet<&str> =
        table.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let is_one = |fd: &RawFd| {
        // An error is a descriptor that another test has closed meanwhile.
        fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|target| {
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(inode))
        })
    };
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .filter(is_one)
        .collect()
}
