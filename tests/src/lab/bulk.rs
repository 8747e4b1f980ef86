//! Long transfers, verified byte for byte.
//!
//! A connection carries one transfer. The client sends a letter, `U` or `D`, and the number of
//! bytes; then one side sends the pattern and, after the last byte, its checksum; the other
//! compares every byte with the pattern and answers with the checksum of what it received.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Namespace,
    pattern::{BLOCK, Checksum, Pattern},
    socket::dial,
    wait::stretched,
};

/// How long either end waits for the other to go on.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of bulk transfers, one thread per connection. Dropping it cuts its connections.
#[derive(Debug)]
pub struct BulkServer {
    listener: Arc<TcpListener>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

/// A transfer that arrived as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Its length in bytes.
    pub bytes: u64,
    /// The checksum that both ends computed.
    pub checksum: u64,
    /// How long it took.
    pub took: Duration,
}

impl BulkServer {
    /// Listens on a port of all addresses of a host, IPv4 and IPv6.
    pub fn start(host: &Namespace, port: u16) -> Result<Self> {
        let listener = Arc::new(host.listen(port)?);
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (doors, guests) = (listener.clone(), streams.clone());
        let thread = thread::spawn(move || serve(&doors, &guests));
        Ok(Self { listener, streams, thread: Some(thread) })
    }
}

impl Drop for BulkServer {
    fn drop(&mut self) {
        // On Linux this wakes the accept, which then fails.
        let _ =
            nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        for stream in self.streams.lock().expect("no server thread panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Bulk {
    /// Sends so many bytes from a client to a [`BulkServer`], which verifies them.
    pub fn upload(client: &Namespace, to: SocketAddr, bytes: u64, limit: Duration) -> Result<Self> {
        Self::transfer(client, to, bytes, limit, b'U', send)
    }

    /// Has so many bytes sent from a [`BulkServer`], and verifies them.
    pub fn download(
        client: &Namespace,
        to: SocketAddr,
        bytes: u64,
        limit: Duration,
    ) -> Result<Self> {
        Self::transfer(client, to, bytes, limit, b'D', receive)
    }

    fn transfer(
        client: &Namespace,
        to: SocketAddr,
        bytes: u64,
        limit: Duration,
        letter: u8,
        part: fn(&mut TcpStream, u64, Instant) -> io::Result<u64>,
    ) -> Result<Self> {
        let start = Instant::now();
        let exchange = || {
            let mut stream = dial(to, None, PATIENCE)?;
            stream.write_all(&[letter])?;
            stream.write_all(&bytes.to_be_bytes())?;
            part(&mut stream, bytes, start + stretched(limit))
        };
        let checksum = client.enter(exchange).with_context(|| {
            format!("transfer of {bytes} bytes between {} and {to}", client.name())
        })?;
        Ok(Self { bytes, checksum, took: start.elapsed() })
    }
}

fn serve(listener: &TcpListener, streams: &Mutex<Vec<TcpStream>>) {
    thread::scope(|scope| {
        while let Ok((stream, _)) = listener.accept() {
            let Ok(handle) = stream.try_clone() else {
                continue;
            };
            streams.lock().expect("no server thread panics").push(handle);
            // The client hears of a failure: the connection ends without the checksum.
            scope.spawn(move || drop(answer(stream)));
        }
    });
}

fn answer(mut stream: TcpStream) -> io::Result<u64> {
    stream.set_read_timeout(Some(stretched(PATIENCE)))?;
    stream.set_write_timeout(Some(stretched(PATIENCE)))?;
    let (mut letter, mut length) = ([0], [0; 8]);
    stream.read_exact(&mut letter)?;
    stream.read_exact(&mut length)?;
    let bytes = u64::from_be_bytes(length);
    // The client keeps the time; this end only waits as long as the client goes on.
    let forever = Instant::now() + Duration::from_secs(24 * 60 * 60);
    let result = match letter[0] {
        b'U' => receive(&mut stream, bytes, forever),
        _ => send(&mut stream, bytes, forever),
    };
    stream.shutdown(Shutdown::Both)?;
    result
}

/// Sends the pattern and its checksum; expects the same checksum back.
fn send(stream: &mut TcpStream, bytes: u64, deadline: Instant) -> io::Result<u64> {
    let mut sum = Checksum::default();
    each_block(bytes, deadline, |_, piece| {
        sum.add(piece);
        stream.write_all(piece)
    })?;
    stream.write_all(&sum.0.to_be_bytes())?;
    let theirs = read_checksum(stream)?;
    same_checksum(sum, theirs)
}

/// Receives the pattern, compares every byte, and then the checksums.
fn receive(stream: &mut TcpStream, bytes: u64, deadline: Instant) -> io::Result<u64> {
    let mut sum = Checksum::default();
    let mut buffer = vec![0; BLOCK];
    each_block(bytes, deadline, |start, expected| {
        let received = &mut buffer[..expected.len()];
        stream.read_exact(received)?;
        sum.add(received);
        if *received == *expected {
            return Ok(());
        }
        let same = received.iter().zip(expected).take_while(|(a, b)| a == b).count();
        let what = format!("byte {} is not the one sent", start + same as u64);
        Err(io::Error::new(ErrorKind::InvalidData, what))
    })?;
    let theirs = read_checksum(stream)?;
    stream.write_all(&sum.0.to_be_bytes())?;
    same_checksum(sum, theirs)
}

/// Calls `work` with the place and the bytes of each block of the pattern.
fn each_block(
    bytes: u64,
    deadline: Instant,
    mut work: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let pattern = Pattern::new();
    let mut block = vec![0; BLOCK];
    for (number, start) in (0..bytes).step_by(BLOCK).enumerate() {
        if Instant::now() > deadline {
            let done = format!("the time was up after {start} bytes");
            return Err(io::Error::new(ErrorKind::TimedOut, done));
        }
        pattern.fill(number as u64, &mut block);
        let length = usize::try_from(bytes - start).map_or(BLOCK, |rest| rest.min(BLOCK));
        work(start, &block[..length])?;
    }
    Ok(())
}

fn read_checksum(stream: &mut TcpStream) -> io::Result<Checksum> {
    let mut sum = [0; 8];
    stream.read_exact(&mut sum)?;
    Ok(Checksum(u64::from_be_bytes(sum)))
}

fn same_checksum(ours: Checksum, theirs: Checksum) -> io::Result<u64> {
    if ours == theirs {
        return Ok(ours.0);
    }
    let both = format!("checksum {:016x} here, {:016x} at the other end", ours.0, theirs.0);
    Err(io::Error::new(ErrorKind::InvalidData, both))
}
