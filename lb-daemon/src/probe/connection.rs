//! The one TCP connection of a probe.

use std::{
    fmt,
    future::Future,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    finding::{Finding, NoMore, Trouble, words},
    tls,
};
use crate::{
    config::{Check, TcpConnect, Tls},
    core::Reason,
};

/// Most bytes of an answer that are looked at: HAProxy's default buffer.
pub(super) const LONGEST_ANSWER: usize = 16 * 1024;

/// When a probe has to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    started: Instant,
    timeout: Duration,
}

/// Where a probe connects to, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub(super) target: SocketAddr,
    /// The address to connect from; the kernel's choice if none.
    source: Option<IpAddr>,
    /// TLS, if it is spoken from the beginning.
    tls: Option<&'a Tls>,
    deadline: Deadline,
}

/// A connection to a backend, and what came over it since the last [`send`](Self::send).
#[derive(Debug)]
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    deadline: Deadline,
    received: Vec<u8>,
}

/// What bytes go over, in the clear or not.
pub trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for S {}

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
    pub(super) async fn limit<T>(
        self,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, Trouble> {
        match timeout(self.left(), work).await {
            Ok(result) => result.map_err(Trouble::Broken),
            Err(_) => Err(Trouble::Timeout(self.timeout)),
        }
    }
}

impl<'a> Way<'a> {
    /// The way of a check that begins now.
    pub(super) fn of(check: &'a Check) -> Self {
        Self {
            target: check.target,
            source: check.source,
            tls: check.tls.as_deref().filter(|_| check.ssl),
            deadline: Deadline::after(check.timeout),
        }
    }

    /// To whom the kernel leads in the clear, for what has to be over by `deadline`.
    pub(super) fn plain(target: SocketAddr, deadline: Deadline) -> Self {
        Self { target, source: None, tls: None, deadline }
    }

    /// The way of another connection of the same check.
    pub(super) fn anew(self, check: &'a Check, step: &TcpConnect) -> Self {
        let address = step.address.unwrap_or(check.target.ip());
        let port = step.port.unwrap_or(check.target.port());
        let ssl = step.ssl.unwrap_or(check.ssl);
        Self {
            target: SocketAddr::new(address, port),
            tls: check.tls.as_deref().filter(|_| ssl),
            ..self
        }
    }

    /// What was found if there is a connection, and that is all that was asked.
    pub(super) fn found_open(self) -> Finding {
        let target = self.target;
        match self.tls {
            None => Finding::new(Reason::L4Ok, format!("connected to {target}")),
            Some(_) => Finding::new(Reason::L6Ok, format!("TLS with {target}")),
        }
    }
}

impl Connection {
    /// Connects, or finds out what kept it from doing so.
    pub(super) async fn open(way: Way<'_>) -> Result<Self, Finding> {
        let Way { target, source, tls, deadline } = way;
        let socket = socket(target, source)?;
        let stream = deadline.limit(connect(socket, target)).await.map_err(|trouble| {
            let (reason, why) = match trouble {
                Trouble::Timeout(timeout) => {
                    (Reason::L4Timeout, format!("no answer within {timeout:?}"))
                }
                Trouble::Broken(error) => (blame(&error), words(&error)),
            };
            Finding::new(reason, format!("connect to {target}: {why}"))
        })?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls::handshake(stream, tls, target, deadline).await?),
        };
        Ok(Self { stream, deadline, received: Vec::new() })
    }

    /// A connection that is there already.
    pub(super) fn over(stream: impl Stream + 'static, deadline: Deadline) -> Self {
        Self { stream: Box::new(stream), deadline, received: Vec::new() }
    }

    /// Sends all of `bytes` and forgets what came before.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.received.clear();
        let stream = &mut self.stream;
        let sent = async {
            stream.write_all(bytes).await?;
            // TLS may have kept some of it back.
            stream.flush().await
        };
        self.deadline.limit(sent).await
    }

    /// Waits until more than what has been [`received`](Self::received) comes.
    pub(super) async fn receive(&mut self) -> Result<(), NoMore> {
        let room = LONGEST_ANSWER - self.received.len();
        if room == 0 {
            return Err(NoMore::Full(LONGEST_ANSWER));
        }
        let mut stream = (&mut self.stream).take(room as u64);
        match self.deadline.limit(stream.read_buf(&mut self.received)).await {
            Ok(0) => Err(NoMore::Closed),
            Ok(_) => Ok(()),
            // Few who speak TLS take leave properly before they close the connection.
            Err(Trouble::Broken(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(NoMore::Closed)
            }
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// The connection itself, for a protocol that has a reader of its own.
    pub(super) fn into_parts(self) -> (impl AsyncRead + AsyncWrite + Unpin, Deadline) {
        (self.stream, self.deadline)
    }

    /// What came since the last send, or since the connection was opened; at most
    /// [`LONGEST_ANSWER`].
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }
}

fn socket(target: SocketAddr, source: Option<IpAddr>) -> Result<TcpSocket, Finding> {
    let open = || {
        let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Closing sends RST.
        socket.set_zero_linger()?;
        // Closing by RST throws away what waits to be sent, so nothing must wait: the QUIT at the
        // end of a script shall arrive.
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    let fault = |what: String, error: &io::Error| {
        Finding::new(Reason::Socket, format!("{what}: {}", words(error)))
    };
    let socket =
        open().map_err(|error| fault(format!("no socket to check {target} with"), &error))?;
    if let Some(source) = source {
        socket
            .bind(SocketAddr::new(source, 0))
            .map_err(|error| fault(format!("cannot connect from {source}"), &error))?;
    }
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
