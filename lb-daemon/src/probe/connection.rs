//! The one TCP connection of a probe.

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::finding::{Finding, NoMore, Trouble, words};
use crate::core::Reason;

/// Most bytes of an answer that are looked at: HAProxy's default buffer.
pub(super) const LONGEST_ANSWER: usize = 16 * 1024;

/// When a probe has to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    started: Instant,
    timeout: Duration,
}

/// A connection to a backend, and what came over it since the last [`send`](Self::send).
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    deadline: Deadline,
    received: Vec<u8>,
}

impl Deadline {
    pub(super) fn after(timeout: Duration) -> Self {
        Self { started: Instant::now(), timeout }
    }

    /// How long it takes in all.
    pub(super) fn timeout(self) -> Duration {
        self.timeout
    }

    /// What is left of that.
    pub(super) fn left(self) -> Duration {
        self.timeout.saturating_sub(self.started.elapsed())
    }

    /// The answer of `work` if it comes in time.
    async fn limit<T>(self, work: impl Future<Output = io::Result<T>>) -> Result<T, Trouble> {
        match timeout(self.left(), work).await {
            Ok(result) => result.map_err(Trouble::Broken),
            Err(_) => Err(Trouble::Timeout(self.timeout)),
        }
    }
}

impl Connection {
    /// Connects, or finds out what kept it from doing so.
    pub(super) async fn open(target: SocketAddr, deadline: Deadline) -> Result<Self, Finding> {
        let socket = socket(target).map_err(|error| {
            let why = words(&error);
            Finding::new(Reason::Socket, format!("no socket to check {target} with: {why}"))
        })?;
        let stream = deadline.limit(connect(socket, target)).await.map_err(|trouble| {
            let (reason, why) = match trouble {
                Trouble::Timeout(timeout) => {
                    (Reason::L4Timeout, format!("no answer within {timeout:?}"))
                }
                Trouble::Broken(error) => (blame(&error), words(&error)),
            };
            Finding::new(reason, format!("connect to {target}: {why}"))
        })?;
        Ok(Self { stream, deadline, received: Vec::new() })
    }

    /// Sends all of `bytes` and forgets what came before.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.received.clear();
        self.deadline.limit(self.stream.write_all(bytes)).await
    }

    /// Waits until more than what has been [`received`](Self::received) comes.
    pub(super) async fn receive(&mut self) -> Result<(), NoMore> {
        let room = LONGEST_ANSWER - self.received.len();
        if room == 0 {
            return Err(NoMore::Full(LONGEST_ANSWER));
        }
        let mut stream = (&mut self.stream).take(room as u64);
        match self.deadline.limit(stream.read_buf(&mut self.received)).await? {
            0 => Err(NoMore::Closed),
            _ => Ok(()),
        }
    }

    /// The connection itself, for a protocol that has a reader of its own.
    pub(super) fn into_parts(self) -> (TcpStream, Deadline) {
        (self.stream, self.deadline)
    }

    /// What came since the last send, or since the connection was opened; at most
    /// [`LONGEST_ANSWER`].
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }
}

fn socket(target: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Closing sends RST.
    socket.set_zero_linger()?;
    // Closing by RST throws away what waits to be sent, so nothing must wait: the QUIT at the end
    // of a script shall arrive.
    socket.set_nodelay(true)?;
    Ok(socket)
}

pub(super) async fn connect(socket: TcpSocket, target: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket.connect(target).await?;
    // On loopback, a client may be given the very port it connects to, and TCP then connects it to
    // itself: a backend that is not there would be up, and could not bind its port.
    if stream.local_addr()? == target {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Who is to blame that there is no connection: this host, the backend, or the way between them.
fn blame(error: &io::Error) -> Reason {
    use Errno::{
        EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM,
        ETIMEDOUT,
    };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(ETIMEDOUT) => Reason::L4Timeout,
        // EPERM is a local firewall's. EACCES is not here: it is also what an ICMPv6 error from a
        // remote firewall becomes.
        Some(
            EADDRINUSE | EADDRNOTAVAIL | EAFNOSUPPORT | EINVAL | EMFILE | ENFILE | ENOBUFS | ENOMEM
            | EPERM,
        ) => Reason::Socket,
        _ => Reason::L4Connection,
    }
}
