//! A client that asks again and again whether a service is there.

use std::{
    collections::HashMap,
    io::Read,
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};

use super::{
    Namespace,
    socket::{begin, close_by_reset},
    wait::until,
};

/// A new connection to an address every few milliseconds, each given up before its SYN would be
/// sent again, so that each tells whether the service is there at its time. Whoever answers must
/// send something, as an [`IdentServer`](super::IdentServer) does. Dropping it ends it.
#[derive(Debug)]
pub struct Knocks {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    answered: Mutex<Vec<Instant>>,
    ending: AtomicBool,
}

impl Knocks {
    /// Begins to knock from a host.
    pub fn start(from: &Namespace, to: SocketAddr, period: Duration) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        timer.set(Expiration::Interval(period.into()), TimerSetTimeFlags::empty())?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let knocking = Knocking { to, epoll, timer, shared: shared.clone(), open: HashMap::new() };
        let thread = from.thread(move || knocking.go_on());
        Ok(Self { shared, thread: Some(thread) })
    }

    /// When there were answers, in order.
    pub fn answered(&self) -> Vec<Instant> {
        self.shared.answered.lock().expect("nobody panics here").clone()
    }

    /// Waits until so many more were answered.
    pub fn wait_for(&self, more: usize, timeout: Duration) -> Result<()> {
        let (start, at_start) = (Instant::now(), self.answered().len());
        until("answers to new connections", timeout, || {
            let count = self.answered().len() - at_start;
            ensure!(count >= more, "{count} within {:?}", start.elapsed());
            Ok(())
        })
    }

    /// The longest time without an answer since `start`, when there was one or had just been.
    pub fn longest_gap(&self, start: Instant) -> Result<Duration> {
        let answered = self.answered();
        let before = answered.iter().rposition(|at| *at <= start).context("no answer before")?;
        let gaps = answered[before..].windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().context("no answer after")
    }
}

impl Drop for Knocks {
    fn drop(&mut self) {
        self.shared.ending.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's.
struct Knocking {
    to: SocketAddr,
    epoll: Epoll,
    timer: TimerFd,
    shared: Arc<Shared>,
    /// By descriptor, with the time of the SYN.
    open: HashMap<u64, (TcpStream, Instant)>,
}

const TIMER: u64 = u64::MAX;
/// Shorter than the first retransmission of a SYN, after a second.
const PATIENCE: Duration = Duration::from_millis(500);

impl Knocking {
    fn go_on(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        while !self.shared.ending.load(Relaxed) {
            let ready = self.epoll.wait(&mut events, 100_u8).unwrap_or(0);
            for event in &events[..ready] {
                match event.data() {
                    TIMER => self.knock(),
                    number => self.look(number),
                }
            }
        }
    }

    fn knock(&mut self) {
        // One for all expirations that were missed: a machine out of breath needs no burst.
        let _ = self.timer.wait();
        let now = Instant::now();
        self.open.retain(|_, (_, since)| now - *since < PATIENCE);
        // What fails at once, for want of a route say, is no answer.
        if let Ok(stream) = begin(self.to) {
            let number = u64::try_from(stream.as_raw_fd()).expect("descriptors are positive");
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
            if self.epoll.add(&stream, event).is_ok() {
                self.open.insert(number, (stream, now));
            }
        }
    }

    fn look(&mut self, number: u64) {
        let Some((mut stream, _)) = self.open.remove(&number) else { return };
        if stream.read(&mut [0]).is_ok_and(|length| length > 0) {
            self.shared.answered.lock().expect("nobody panics here").push(Instant::now());
        }
        // Leaves no TIME_WAIT, of which there would be thousands.
        let _ = close_by_reset(&stream);
    }
}
