//! Connections in great number, which end in every way there is.
//!
//! A connection is a talk: the client says how it is to end and its number, 64 bytes in all; the
//! server echoes them; then the one whose part that is ends it.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    Namespace,
    socket::{acknowledge, close_by_reset, dial, retransmitted, vanish},
};

/// Who ends a connection, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// The client closes first. Its kernel keeps the port in `TIME_WAIT`.
    ClientCloses,
    /// The server closes first. Its kernel keeps the port in `TIME_WAIT`.
    ServerCloses,
    /// The client sends an RST.
    ClientResets,
    /// The server sends an RST.
    ServerResets,
    /// The client is gone without a word, as in a power cut, and the server waits for it.
    ClientVanishes,
}

/// Has connections to [`ChurnServer`]s, each ended as its turn in a mix says.
#[derive(Clone, Debug)]
pub struct Churn {
    to: SocketAddr,
    times: usize,
    at_once: usize,
    limit: Duration,
    sources: Vec<IpAddr>,
    mix: Vec<Ending>,
}

/// What became of the connections.
#[derive(Clone, Debug, Default)]
pub struct Churned {
    /// Those that were echoed and ended as they should, by how they ended.
    pub ended: BTreeMap<Ending, usize>,
    /// Those that failed, by what happened.
    pub failures: BTreeMap<String, usize>,
    /// Those of the successful whose SYN had to be sent more than once.
    pub late: usize,
    /// How many SYNs of theirs were sent again.
    pub resent: u64,
    /// How long it took.
    pub took: Duration,
}

impl Churn {
    /// One connection that the client closes; 20 seconds for the connect and each read.
    pub fn at(to: SocketAddr) -> Self {
        let limit = Duration::from_secs(20);
        Self { to, times: 1, at_once: 1, limit, sources: vec![], mix: vec![Ending::ClientCloses] }
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

    /// How they end: so many of each, again and again.
    #[must_use]
    pub fn mix(self, mix: &[(Ending, usize)]) -> Self {
        let mix = mix.iter().flat_map(|(ending, count)| [*ending].repeat(*count)).collect();
        Self { mix, ..self }
    }

    /// Makes the connections from a host.
    pub fn from(&self, client: &Namespace) -> Churned {
        let start = Instant::now();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut churned = Churned::default();
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= self.times {
                    return churned;
                }
                churned.add(self.once(number));
            }
        };
        client.enter(|| {
            // Threads start in the namespace of the thread that starts them.
            thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..self.at_once.min(self.times)).map(|_| scope.spawn(work)).collect();
                let mut all = Churned::default();
                for thread in threads {
                    all.merge(thread.join().expect("no client panics"));
                }
                Churned { took: start.elapsed(), ..all }
            })
        })
    }

    /// Returns how it ended and how many SYNs were sent again.
    fn once(&self, number: usize) -> io::Result<(Ending, u32)> {
        let ending = self.mix[number % self.mix.len()];
        let source = self.sources.get(number % self.sources.len().max(1)).copied();
        let mut stream = dial(self.to, source, self.limit)?;
        let resent = retransmitted(&stream)?;
        let message = ending.message(number);
        stream.write_all(&message)?;
        let mut echo = [0; LENGTH];
        stream.read_exact(&mut echo)?;
        if echo != message {
            return Err(io::Error::new(ErrorKind::InvalidData, "the echo differs"));
        }
        match ending {
            Ending::ClientCloses => {}
            Ending::ClientResets => close_by_reset(&stream)?,
            Ending::ServerCloses => hears_the_end(&mut stream)?,
            Ending::ServerResets => {
                // The server waits for this: its RST could overtake an echo that was lost.
                stream.write_all(&[0])?;
                hears_a_reset(&mut stream)?;
            }
            Ending::ClientVanishes => {
                // The server would send again what is not acknowledged, and be answered by an RST.
                acknowledge(&stream)?;
                vanish(stream)?;
            }
        }
        Ok((ending, resent))
    }
}

impl Churned {
    /// How many were echoed and ended as they should.
    pub fn succeeded(&self) -> usize {
        self.ended.values().sum()
    }

    /// How many there were in all.
    pub fn tried(&self) -> usize {
        self.succeeded() + self.failures.values().sum::<usize>()
    }

    /// Fails if one of them failed.
    pub fn all_succeeded(&self) -> Result<()> {
        ensure!(self.failures.is_empty(), "some connections failed: {self:?}");
        Ok(())
    }

    fn add(&mut self, one: io::Result<(Ending, u32)>) {
        match one {
            Ok((ending, resent)) => {
                *self.ended.entry(ending).or_default() += 1;
                self.late += usize::from(resent > 0);
                self.resent += u64::from(resent);
            }
            Err(error) => *self.failures.entry(error.to_string()).or_default() += 1,
        }
    }

    /// Adds those of another time.
    pub fn merge(&mut self, other: Self) {
        for (ending, count) in other.ended {
            *self.ended.entry(ending).or_default() += count;
        }
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        self.late += other.late;
        self.resent += other.resent;
        self.took += other.took;
    }
}

/// The server of the talks. Dropping it cuts its connections and closes the port.
#[derive(Debug)]
pub struct ChurnServer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    talks: Mutex<BTreeMap<Ending, usize>>,
    /// Connections of clients that vanished.
    forsaken: Mutex<Vec<TcpStream>>,
}

impl ChurnServer {
    /// Listens on a port of all addresses of a host, IPv4 and IPv6.
    pub fn start(host: &Namespace, port: u16) -> Result<Self> {
        let shared = Arc::new(Shared {
            listener: host.listen(port)?,
            talks: Mutex::default(),
            forsaken: Mutex::default(),
        });
        let serve = |_| {
            let shared = shared.clone();
            thread::spawn(move || shared.serve())
        };
        Ok(Self { threads: (0..THREADS).map(serve).collect(), shared })
    }

    /// Talks that ended as agreed, by how. Of a client that vanished, the server knows nothing yet.
    pub fn ended(&self) -> BTreeMap<Ending, usize> {
        self.shared.talks.lock().expect("no server thread panics").clone()
    }

    /// Hangs up on the clients that have vanished: how many that were.
    pub fn forget(&self) -> usize {
        let forsaken = std::mem::take(&mut *self.shared.forsaken());
        forsaken.len()
    }
}

impl Drop for ChurnServer {
    fn drop(&mut self) {
        // On Linux this wakes the accepts, which then fail.
        let listener = self.shared.listener.as_raw_fd();
        let _ = nix::sys::socket::shutdown(listener, nix::sys::socket::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // The client hears of a failure, and counts it.
            if let Ok(ending) = self.talk(stream) {
                let mut talks = self.talks.lock().expect("no server thread panics");
                *talks.entry(ending).or_default() += 1;
            }
        }
    }

    fn talk(&self, mut stream: TcpStream) -> io::Result<Ending> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut message = [0; LENGTH];
        stream.read_exact(&mut message)?;
        let ending = Ending::ALL.into_iter().find(|one| one.letter() == message[0]);
        let ending = ending.ok_or(ErrorKind::InvalidData)?;
        stream.write_all(&message)?;
        match ending {
            Ending::ClientCloses => hears_the_end(&mut stream)?,
            Ending::ClientResets => hears_a_reset(&mut stream)?,
            Ending::ServerCloses => {}
            Ending::ServerResets => {
                stream.read_exact(&mut [0])?;
                close_by_reset(&stream)?;
            }
            Ending::ClientVanishes => self.forsaken().push(stream),
        }
        Ok(ending)
    }

    fn forsaken(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.forsaken.lock().expect("no server thread panics")
    }
}

/// Bytes of a message.
const LENGTH: usize = 64;
/// Of a server. More than that many connections wait to be accepted.
const THREADS: usize = 32;
/// How long a server waits for a client to go on.
const PATIENCE: Duration = Duration::from_secs(20);

impl Ending {
    const ALL: [Self; 5] = [
        Self::ClientCloses,
        Self::ServerCloses,
        Self::ClientResets,
        Self::ServerResets,
        Self::ClientVanishes,
    ];

    const fn letter(self) -> u8 {
        match self {
            Self::ClientCloses => b'c',
            Self::ServerCloses => b's',
            Self::ClientResets => b'C',
            Self::ServerResets => b'S',
            Self::ClientVanishes => b'v',
        }
    }

    /// The letter, and bytes that no other connection has.
    fn message(self, number: usize) -> [u8; LENGTH] {
        let number = (number as u64).to_be_bytes();
        let mut message = std::array::from_fn(|at| number[at % number.len()] ^ at.to_le_bytes()[0]);
        message[0] = self.letter();
        message
    }
}

fn hears_the_end(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "something came instead of the end")),
    }
}

fn hears_a_reset(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(ErrorKind::InvalidData, "something came instead of an RST")),
    }
}
