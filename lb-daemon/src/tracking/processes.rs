//! Counts the processes that groups depend on.
//!
//! `/proc` is read every second, which finds what started; a process that was found is held by a
//! pidfd, which tells at once when it ends. That costs a reading of two small files per process and
//! second, and needs neither a privilege nor a kernel option. (The kernel's process connector would
//! tell of starts at once, too, but of every one of the host, and is silent within a container.)

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::unix::AsyncFd,
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tracing::warn;

use crate::core::Event;

/// Time between two readings, ...
const PERIOD: Duration = Duration::from_secs(1);
/// ... and the least, when watched processes end.
const SHORTEST_PERIOD: Duration = Duration::from_millis(50);

/// Watches processes until it is dropped.
#[derive(Debug)]
pub struct ProcessWatcher {
    names: watch::Sender<BTreeSet<String>>,
    task: AbortHandle,
}

impl ProcessWatcher {
    /// Starts to watch nothing yet. What it counts goes to `events`, as [`Event::Processes`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(events: mpsc::UnboundedSender<Event>) -> Self {
        let (names, asked) = watch::channel(BTreeSet::new());
        let task = tokio::spawn(follow(asked, events)).abort_handle();
        Self { names, task }
    }

    /// Counts the processes of these names from now on: the base names of programs, or the names
    /// that processes give themselves (`comm`).
    pub fn watch(&self, names: BTreeSet<String>) {
        self.names.send_replace(names);
    }
}

impl Drop for ProcessWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Processes found, by number.
type Found = HashMap<i32, Process>;

/// A process that is watched.
struct Process {
    name: String,
    handle: OwnedFd,
}

async fn follow(
    mut asked: watch::Receiver<BTreeSet<String>>,
    events: mpsc::UnboundedSender<Event>,
) {
    let ended = Arc::new(Notify::new());
    let mut waiting: HashMap<i32, Waiting> = HashMap::new();
    let mut found = Found::new();
    let mut told = None;
    loop {
        let names = asked.borrow_and_update().clone();
        if names.is_empty() {
            (found, told) = (Found::new(), None);
            waiting.clear();
            if asked.changed().await.is_err() {
                return;
            }
            continue;
        }
        let started = Instant::now();
        let wanted = names.clone();
        let before = std::mem::take(&mut found);
        let reading = spawn_blocking(move || read(&wanted, before)).await;
        match reading.expect("reading /proc does not panic") {
            Ok(now) => {
                found = now;
                waiting.retain(|pid, _| found.contains_key(pid));
                for (pid, process) in &found {
                    waiting.entry(*pid).or_insert_with(|| Waiting::new(process, &ended));
                }
                let counts = count(&names, &found);
                if told.as_ref() != Some(&counts) {
                    told = Some(counts.clone());
                    // Refused only if nobody wants to know any more.
                    let _ = events.send(Event::Processes(counts));
                }
            }
            Err(error) => warn!("cannot count processes, trying again: {error:#}"),
        }
        tokio::select! {
            _ = timeout(PERIOD, ended.notified()) => {}
            changed = asked.changed() => match changed {
                // Whoever asks anew wants an answer, also if it is the same.
                Ok(()) => told = None,
                Err(_) => return,
            },
        }
        sleep_until(started + SHORTEST_PERIOD).await;
    }
}

/// Waits for a process to end.
struct Waiting(AbortHandle);

impl Waiting {
    fn new(process: &Process, ended: &Arc<Notify>) -> Self {
        let handle = process.handle.try_clone();
        let ended = ended.clone();
        let task = tokio::spawn(async move {
            // Without a handle to wait for, the next reading tells.
            let Ok(handle) = handle else { return };
            // SAFETY: an `OwnedFd` names the same descriptor for as long as it lives.
            if let Ok(handle) = unsafe { AsyncFd::register(handle) }
                && handle.readable().await.is_ok()
            {
                ended.notify_one();
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn count(names: &BTreeSet<String>, found: &Found) -> BTreeMap<String, u32> {
    let mut counts: BTreeMap<String, u32> = names.iter().map(|name| (name.clone(), 0)).collect();
    for process in found.values() {
        *counts.entry(process.name.clone()).or_default() += 1;
    }
    counts
}

/// All processes of these names. Those that `before` has and that still run keep their handles.
fn read(names: &BTreeSet<String>, mut before: Found) -> anyhow::Result<Found> {
    let mut found = Found::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let entry = entry.context("cannot list /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(name) = wanted(names, &entry.path()) else { continue };
        let handle = match before.remove(&pid) {
            Some(process) if !has_ended(&process.handle) => Some(process.handle),
            // The number may be another process's by now: its name is asked for once more.
            _ => open(pid).ok().filter(|handle| {
                wanted(names, &entry.path()).as_ref() == Some(&name) && !has_ended(handle)
            }),
        };
        found.extend(handle.map(|handle| (pid, Process { name, handle })));
    }
    Ok(found)
}

/// Which of the names a process has, if it has one and is still there.
fn wanted(names: &BTreeSet<String>, directory: &Path) -> Option<String> {
    let own = fs::read(directory.join("comm")).ok()?;
    let own = String::from_utf8_lossy(own.trim_ascii_end());
    if names.contains(&*own) {
        return Some(own.into_owned());
    }
    let line = fs::read(directory.join("cmdline")).ok()?;
    let program = String::from_utf8_lossy(line.split(|byte| *byte == 0).next()?);
    let base = program.rsplit('/').next()?;
    names.contains(base).then(|| base.to_owned())
}

/// A handle of a process, whose number is not used again for another one while it is open.
fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a process has ended, be it that nobody has waited for it yet.
fn has_ended(handle: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: handle.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel reads and writes one structure, which is ours.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}
