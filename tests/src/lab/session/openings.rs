//! Connections that are opened all the time, to see which of them survive.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Range,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};

use super::{RECORD, greeting::Greeting, stream::Stream};
use crate::lab::{
    Namespace,
    socket::{begin, close_by_reset},
    wait::stretched,
};

/// A new connection every so often to a [`SessionServer`](super::SessionServer), on which nothing is
/// said until [`survivors`](Self::survivors) asks.
#[derive(Debug)]
pub struct Openings {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Opened>>>,
}

/// A connection, and when its handshake was complete for the client.
type Opened = (TcpStream, Instant);

const TIMER: u64 = u64::MAX;

impl Openings {
    /// Begins.
    pub fn start(from: &Namespace, to: SocketAddr, period: Duration) -> Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        timer.set(Expiration::Interval(period.into()), TimerSetTimeFlags::empty())?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let ending = Arc::new(AtomicBool::new(false));
        let theirs = ending.clone();
        let thread = Some(from.thread(move || open(to, &epoll, &timer, &theirs)));
        Ok(Self { ending, thread })
    }

    /// Ends, and asks each connection that had one of these ages at that time for the echo of a record:
    /// how many there were, and how many answered `within` this time.
    pub fn survivors(
        mut self,
        at: Instant,
        ages: Range<Duration>,
        within: Duration,
    ) -> Result<(usize, usize)> {
        self.ending.store(true, Relaxed);
        let thread = self.thread.take().expect("it is taken only here, once");
        let mut opened = thread.join().expect("opening does not panic");
        let age = |since: Instant| at.checked_duration_since(since);
        opened.retain(|(_, since)| age(*since).is_some_and(|age| ages.contains(&age)));
        ensure!(!opened.is_empty(), "no connection was opened in that time");
        let deadline = Instant::now() + stretched(within);
        let asked: Vec<_> = (0..).zip(&opened).map(|(seed, (one, _))| ask(one, seed)).collect();
        let answers = asked.into_iter().zip(&opened).filter(|(asked, (stream, _))| match asked {
            Ok(record) => answer(stream, deadline).is_ok_and(|came| came == *record),
            Err(_) => false,
        });
        let survivors = answers.count();
        for (stream, _) in &opened {
            let _ = close_by_reset(stream);
        }
        Ok((opened.len(), survivors))
    }
}

impl Drop for Openings {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens connections until this is to end.
fn open(to: SocketAddr, epoll: &Epoll, timer: &TimerFd, ending: &AtomicBool) -> Vec<Opened> {
    let mut opening: HashMap<u64, TcpStream> = HashMap::new();
    let mut opened = Vec::new();
    let mut events = [EpollEvent::empty(); 64];
    while !ending.load(Relaxed) {
        let ready = epoll.wait(&mut events, 100_u8).unwrap_or(0);
        for event in &events[..ready] {
            if event.data() == TIMER {
                let _ = timer.wait();
                let Ok(stream) = begin(to) else { continue };
                let number = u64::try_from(stream.as_raw_fd()).expect("descriptors are positive");
                let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
                if epoll.add(&stream, EpollEvent::new(flags, number)).is_ok() {
                    opening.insert(number, stream);
                }
            } else if let Some(stream) = opening.remove(&event.data()) {
                // What failed is ready, too, but has no peer.
                if stream.peer_addr().is_ok() {
                    opened.push((stream, Instant::now()));
                }
            }
        }
    }
    opened
}

/// Sends a greeting and a record, which is returned.
fn ask(mut stream: &TcpStream, seed: u64) -> io::Result<[u8; RECORD]> {
    let mut record = [0; RECORD];
    Stream::new(seed).fill(&mut record);
    stream.write_all(&[&Greeting { push: None, seed }.bytes()[..], &record].concat())?;
    Ok(record)
}

/// The record that comes back.
fn answer(mut stream: &TcpStream, deadline: Instant) -> io::Result<[u8; RECORD]> {
    let left = deadline.saturating_duration_since(Instant::now());
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    let mut record = [0; RECORD];
    stream.read_exact(&mut record)?;
    Ok(record)
}
