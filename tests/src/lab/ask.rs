//! Many short connections.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{
    Namespace,
    socket::{close_by_reset, dial},
};

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// By a FIN, as usual; the client keeps the port in `TIME_WAIT`.
    Fin,
    /// By an RST.
    Reset,
}

/// Asks the servers behind an address for their names, each time over a new connection.
///
/// ```no_run
/// # fn story(lab: &tests::lab::Lab) -> anyhow::Result<()> {
/// use tests::lab::{Ask, Close};
/// let vip = (lab.vip4(), 80).into();
/// let tally = Ask::at(vip).times(1000).at_once(50).close(Close::Reset).from(lab.client());
/// tally.all_answered()?;
/// assert_eq!(tally.count("b1"), 500);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Ask {
    to: SocketAddr,
    times: usize,
    at_once: usize,
    limit: Duration,
    sources: Vec<IpAddr>,
    echo: usize,
    close: Close,
}

/// Who answered how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections answered, by the name of the server.
    pub answers: BTreeMap<String, usize>,
    /// Connections that failed, by the kind of the error.
    pub failures: BTreeMap<String, usize>,
}

impl Ask {
    /// Asks once, gives the connect and each read and write 5 seconds, closes by FIN.
    pub fn at(to: SocketAddr) -> Self {
        let limit = Duration::from_secs(5);
        Self { to, times: 1, at_once: 1, limit, sources: vec![], echo: 0, close: Close::Fin }
    }

    /// How many connections in all.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// How many connections at most at the same time; each is a thread.
    #[must_use]
    pub fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }

    /// Longest time for the connect and for each read and write.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Addresses to come from, in turn: see [`Lab::crowd`](super::Lab::crowd).
    #[must_use]
    pub fn sources(self, sources: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { sources: sources.into_iter().collect(), ..self }
    }

    /// Has so many bytes echoed too, and checks them.
    #[must_use]
    pub fn echo(self, bytes: usize) -> Self {
        Self { echo: bytes, ..self }
    }

    /// How to end the connections.
    #[must_use]
    pub fn close(self, close: Close) -> Self {
        Self { close, ..self }
    }

    /// Asks from a host.
    pub fn from(&self, client: &Namespace) -> Tally {
        let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
        let ask_on = || {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= self.times {
                    return;
                }
                let answer = self.once(number);
                tally.lock().expect("no asker panics").add(answer);
            }
        };
        client.enter(|| {
            // Threads start in the namespace of the thread that starts them.
            thread::scope(|scope| {
                for _ in 0..self.at_once.min(self.times) {
                    scope.spawn(ask_on);
                }
            });
        });
        tally.into_inner().expect("no asker panics")
    }

    fn once(&self, number: usize) -> io::Result<String> {
        let source = self.sources.get(number % self.sources.len().max(1)).copied();
        let mut stream = dial(self.to, source, self.limit)?;
        let name = read_name(&mut stream)?;
        check_echo(&mut stream, self.echo)?;
        if self.close == Close::Reset {
            close_by_reset(&stream)?;
        }
        Ok(name)
    }
}

impl Tally {
    /// How often the server of this name answered.
    pub fn count(&self, name: &str) -> usize {
        self.answers.get(name).copied().unwrap_or(0)
    }

    /// How many connections were answered.
    pub fn answered(&self) -> usize {
        self.answers.values().sum()
    }

    /// How many connections failed.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Fails if a connection failed.
    pub fn all_answered(&self) -> Result<()> {
        ensure!(self.failures.is_empty(), "{} connections failed: {self:?}", self.failed());
        Ok(())
    }

    pub(super) fn add(&mut self, answer: io::Result<String>) {
        match answer {
            Ok(name) => *self.answers.entry(name).or_default() += 1,
            Err(error) => *self.failures.entry(error.kind().to_string()).or_default() += 1,
        }
    }
}

/// Reads the line that an [`IdentServer`](super::IdentServer) greets with.
pub(super) fn read_name(stream: &mut TcpStream) -> io::Result<String> {
    let mut name = String::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        match byte[0] {
            b'\n' => return Ok(name),
            other => name.push(other.into()),
        }
    }
}

/// Sends so many bytes in pieces and expects each back.
pub(super) fn check_echo(stream: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let sent: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    let mut back = [0; 8192];
    for piece in sent.chunks(back.len()) {
        let back = &mut back[..piece.len()];
        stream.write_all(piece)?;
        stream.read_exact(back)?;
        if back != piece {
            return Err(io::Error::new(ErrorKind::InvalidData, "the echo differs"));
        }
    }
    Ok(())
}
