//! Short connections, a long one, and one that goes to and fro.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    bench::{machine::processor_time, report::median},
    lab::{Namespace, dial},
};

/// The server's ports: one byte for one byte, an echo, and bytes without end.
pub(super) const PORTS: [u16; 3] = [SHORT, ECHO, BULK];
const SHORT: u16 = 7001;
const ECHO: u16 = 7002;
const BULK: u16 = 7003;
/// How long short connections are made, and how long bytes flow.
const SPAN: Duration = Duration::from_secs(1);
/// Round trips of a measurement.
const TRIPS: usize = 10_000;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one carrier did in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Microseconds per short connection.
    pub(super) short: Taken,
    /// Microseconds per megabyte.
    pub(super) bulk: Taken,
    /// Microseconds of a round trip, the median.
    pub(super) p50: f64,
    /// The same, below which 99 of 100 are.
    pub(super) p99: f64,
}

/// What something took, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// By the clock.
    pub(super) clock: f64,
    /// Of the processor, for all hosts together.
    pub(super) processor: f64,
}

impl Sample {
    /// Measures what a client gets from the server at `target`; for short connections it comes
    /// from all addresses of `network`, a /16, in turn. `others` are the processes that work for
    /// it besides this one.
    pub(super) fn take(
        client: &Namespace,
        (target, network): (Ipv4Addr, Ipv4Addr),
        others: &[u32],
    ) -> Result<Self> {
        let processes = [&[std::process::id()], others].concat();
        client.enter(|| {
            let to = |port| SocketAddr::from((target, port));
            let first = u32::from(network) + 1;
            let short = timed(&processes, || short(to(SHORT), first));
            let short = short.context("short connections")?;
            let bulk = timed(&processes, || bulk(to(BULK))).context("a long connection")?;
            let (p50, p99) = trips(to(ECHO)).context("round trips")?;
            Ok(Self { short, bulk, p50, p99 })
        })
    }
}

/// Does something, and divides the time it takes by the number of units that it returns.
fn timed(processes: &[u32], work: impl FnOnce() -> io::Result<f64>) -> Result<Taken> {
    let processor = || -> Result<Duration> { processes.iter().map(|p| processor_time(*p)).sum() };
    let (started, before) = (Instant::now(), processor()?);
    let units = work()?;
    let (clock, processor) = (started.elapsed(), processor()?.saturating_sub(before));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / units;
    Ok(Taken { clock: each(clock), processor: each(processor) })
}

/// How many connections there were.
fn short(to: SocketAddr, first: u32) -> io::Result<f64> {
    const ADDRESSES: u32 = 60_000;

    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < SPAN {
        let from = Ipv4Addr::from(first + count % ADDRESSES);
        let mut stream = dial(to, Some(from.into()), PATIENCE)?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])?;
        count += 1;
    }
    Ok(count.into())
}

/// How many megabytes came.
fn bulk(from: SocketAddr) -> io::Result<f64> {
    let mut stream = dial(from, None, PATIENCE)?;
    let mut buffer = vec![0; 1 << 16];
    let started = Instant::now();
    let mut bytes = 0;
    while started.elapsed() < SPAN {
        bytes += stream.read(&mut buffer)?;
    }
    Ok(bytes as f64 / 1e6)
}

fn trips(to: SocketAddr) -> io::Result<(f64, f64)> {
    let mut stream = dial(to, None, PATIENCE)?;
    stream.set_nodelay(true)?;
    let mut message = [0x55; 64];
    let mut times = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let started = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok((median(&times), times[TRIPS * 99 / 100]))
}

/// The server of all that. Dropping it ends it once its clients are gone.
pub(super) struct Server {
    listeners: Vec<Arc<TcpListener>>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(host: &Namespace) -> Result<Self> {
        let mut server = Self { listeners: Vec::new(), threads: Vec::new() };
        let answers: [fn(TcpStream) -> io::Result<()>; 3] = [answer_once, echo, send];
        for (port, answer) in PORTS.into_iter().zip(answers) {
            let listener = Arc::new(host.listen(port)?);
            server.listeners.push(listener.clone());
            server.threads.push(thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    // A client that went away is the client's affair.
                    let _ = answer(stream);
                }
            }));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd as _;

        use nix::sys::socket::{Shutdown, shutdown};

        for listener in &self.listeners {
            // On Linux this wakes the accept, which then fails.
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer_once(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    // The client closes first, and has the TIME_WAIT.
    match stream.read(&mut byte)? {
        0 => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

fn send(mut stream: TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let block = vec![0x55; 1 << 16];
    loop {
        stream.write_all(&block)?;
    }
}
