//! Network namespaces without a name in the file system.
//!
//! A namespace lives as long as something refers to it. Here that is a file descriptor of this
//! process and the processes it started inside, which the kernel kills with it. So even after a
//! `kill -9` of a test nothing is left to clean up: no namespace, no veth, no mount, no pin.

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    panic,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::Uid,
};

use super::{Command, Dir};

/// A network namespace with a mount namespace of its own.
///
/// In it `/sys` shows the namespace's own interfaces, and an own bpffs is mounted at
/// `/sys/fs/bpf`. `lo` is up. A handle: clones are the same namespace, which goes with the last
/// of them and of the processes and threads inside.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    net: OwnedFd,
    mnt: OwnedFd,
    dir: Dir,
}

impl Namespace {
    /// Makes a namespace. The name is for people and for the names of log files in `dir`.
    pub fn new(name: &str, dir: &Dir) -> Result<Self> {
        ensure!(Uid::effective().is_root(), "the lab makes network namespaces and needs root");
        let (net, mnt) = thread::spawn(make)
            .join()
            .expect("making a namespace does not panic")
            .with_context(|| format!("cannot make the network namespace {name}"))?;
        let namespace = Self(Arc::new(Inner { name: name.to_owned(), net, mnt, dir: dir.clone() }));
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The directory of the lab it belongs to.
    pub fn dir(&self) -> &Dir {
        &self.0.dir
    }

    /// Runs a closure on a thread inside and hands back what it returns. A panic goes on here.
    ///
    /// A socket stays in the namespace it was made in, whoever uses it later.
    pub fn enter<R: Send>(&self, story: impl FnOnce() -> R + Send) -> R {
        let inside = || {
            self.move_this_thread().expect("a namespace that is held can be entered");
            story()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Starts a thread inside that may outlive the call.
    pub fn thread<R: Send + 'static>(
        &self,
        story: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let namespace = self.clone();
        thread::spawn(move || {
            namespace.move_this_thread().expect("a namespace that is held can be entered");
            story()
        })
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        Command::new(self, program.as_ref())
    }

    /// Runs `ip` with these arguments, split at spaces, and hands back what it prints.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.command("ip").args(arguments.split_whitespace()).plain().run()
    }

    /// Sets a sysctl of the namespace, such as `net.ipv4.ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        self.enter(|| fs::write(&path, value))
            .with_context(|| format!("cannot set {name} to {value} in {}", self.name()))
    }

    /// Shows another file in the place of one that is there, such as `/etc/hosts`, to all inside; hands
    /// back its own path, to write other things to it.
    pub fn cover(&self, file: &str, text: &str) -> Result<PathBuf> {
        let cover = self.dir().join(format!("{}{}", self.name(), file.replace('/', "-")));
        fs::write(&cover, text).with_context(|| format!("cannot write {}", cover.display()))?;
        let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
        self.enter(|| mount(Some(&cover), file, none, bind, none))
            .with_context(|| format!("cannot mount another {file} in {}", self.name()))?;
        Ok(cover)
    }

    /// Opens a TCP connection from inside.
    pub fn connect(&self, to: SocketAddr, timeout: Duration) -> Result<TcpStream> {
        self.enter(|| TcpStream::connect_timeout(&to, timeout))
            .with_context(|| format!("{} cannot connect to {to}", self.name()))
    }

    /// Listens on a TCP port of all addresses inside, IPv4 and IPv6 at once.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        let listener = self
            .enter(|| TcpListener::bind(("::", port)))
            .with_context(|| format!("{} cannot listen on port {port}", self.name()))?;
        // The standard library's backlog of 128 would drop SYNs of a burst.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN)?;
        Ok(listener)
    }

    /// Whether one ping is answered within a second.
    pub fn pings(&self, address: IpAddr) -> bool {
        let ping = self.command("ping").args(["-n", "-q", "-c1", "-W1"]).arg(address.to_string());
        ping.plain().run().is_ok()
    }

    /// A path to the network namespace, for `nsenter --net=` and `ip link ... netns`.
    pub fn net_path(&self) -> String {
        proc_path(&self.0.net)
    }

    /// A path to the mount namespace, for `nsenter --mount=`.
    pub fn mount_path(&self) -> String {
        proc_path(&self.0.mnt)
    }

    /// Moves the calling thread, or process if it has but one, inside.
    ///
    /// Only makes system calls, so it may run between fork and exec.
    pub(super) fn move_this_process(&self) -> nix::Result<()> {
        setns(self.0.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        setns(self.0.mnt.as_fd(), CloneFlags::CLONE_NEWNS)
    }

    fn move_this_thread(&self) -> nix::Result<()> {
        // A thread shares root and working directory with the others until it asks not to.
        unshare(CloneFlags::CLONE_FS)?;
        self.move_this_process()
    }
}

fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

/// Turns the calling thread into the first inhabitant of new namespaces; it ends right after.
fn make() -> Result<(OwnedFd, OwnedFd)> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    // Mounts made here must not spread to the rest of the machine.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .context("cannot make the mounts private")?;
    for (kind, at) in [("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} at {at}"))?;
    }
    for (name, value) in SYSCTLS {
        fs::write(format!("/proc/sys/net/{name}"), value)
            .with_context(|| format!("cannot set {name}"))?;
    }
    let open = |which| File::open(format!("/proc/thread-self/ns/{which}")).map(OwnedFd::from);
    Ok((open("net")?, open("mnt")?))
}

/// A quiet host: addresses usable at once, no packets of its own accord, routes as they were set.
const SYSCTLS: [(&str, &str); 11] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    // Without this a cable that is pulled takes the IPv6 addresses with it.
    ("ipv6/conf/all/keep_addr_on_down", "1"),
    ("ipv6/conf/default/keep_addr_on_down", "1"),
    ("ipv4/tcp_max_syn_backlog", "4096"),
];
