//! How long a way is broken, as those who use it see it.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Namespace, ask::read_name, socket::dial};

/// Bytes that an [`IdentServer`](super::IdentServer) echoes at a steady beat.
///
/// Each goes over a connection on which nothing is under way, so a way that works again carries the
/// next of them at once: no byte waits for the retransmission of one that was lost. Dropping it
/// closes the connections.
#[derive(Debug)]
pub struct Pulse {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    heard: Mutex<Heard>,
    ending: AtomicBool,
}

#[derive(Debug)]
struct Heard {
    last: Instant,
    longest: Duration,
}

impl Pulse {
    /// Opens so many connections and begins. A silence of as many `beat`s takes them all.
    pub fn start(
        client: &Namespace,
        to: SocketAddr,
        connections: usize,
        beat: Duration,
    ) -> Result<Self> {
        let open = || -> io::Result<TcpStream> {
            let mut stream = dial(to, None, Duration::from_secs(5))?;
            read_name(&mut stream)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let idle = client.enter(|| (0..connections).map(|_| open()).collect::<io::Result<_>>())?;
        let heard = Mutex::new(Heard { last: Instant::now(), longest: Duration::ZERO });
        let shared = Arc::new(Shared { heard, ending: AtomicBool::new(false) });
        let beating = shared.clone();
        let thread = Some(thread::spawn(move || beating.beat(idle, beat)));
        Ok(Self { shared, thread })
    }

    /// The longest time between two echoes since this was last asked, or since the last echo if
    /// that is longer.
    ///
    /// Fails if no connection is left to send anything by: all wait, or have ended.
    pub fn silence(&self) -> Result<Duration> {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        ensure!(!ended, "there was no connection left for the next byte");
        let mut heard = self.shared.heard();
        let longest = std::mem::take(&mut heard.longest);
        Ok(longest.max(heard.last.elapsed()))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.shared.ending.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn beat(&self, mut idle: VecDeque<TcpStream>, beat: Duration) {
        let mut waiting: Vec<TcpStream> = Vec::new();
        while !self.ending.load(Relaxed) {
            let next = Instant::now() + beat;
            let Some(mut stream) = idle.pop_front() else { return };
            // A connection that has ended is not used again.
            if stream.write_all(&[0]).is_ok() {
                waiting.push(stream);
            }
            while Instant::now() < next {
                waiting = self.listen(waiting, &mut idle, next);
            }
        }
    }

    /// Waits until `limit` for echoes; whose connection had one is idle again.
    fn listen(
        &self,
        waiting: Vec<TcpStream>,
        idle: &mut VecDeque<TcpStream>,
        limit: Instant,
    ) -> Vec<TcpStream> {
        let patience = limit.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let patience = PollTimeout::try_from(patience).expect("a beat is short");
        let mut fds: Vec<_> =
            waiting.iter().map(|one| PollFd::new(one.as_fd(), PollFlags::POLLIN)).collect();
        if poll(&mut fds, patience).is_err() {
            return waiting;
        }
        let mut still = Vec::new();
        for mut stream in waiting {
            match stream.read(&mut [0]) {
                Ok(1) => {
                    self.heard().hears();
                    idle.push_back(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => still.push(stream),
                // It has ended.
                Ok(_) | Err(_) => {}
            }
        }
        still
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().expect("nobody panics with it")
    }
}

impl Heard {
    fn hears(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}
