//! The server of thousands of sessions, on one thread.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{
    RECORD,
    greeting::{self, Greeting},
    stream::Stream,
};
use crate::lab::{Namespace, Process, program::beside, wait::until};

/// A server of sessions, on a thread of its own. Dropping it closes its connections and the port.
///
/// Where client and server together have more files open than one process may, it can be a
/// [process](Self::process) of its own.
#[derive(Debug)]
pub struct SessionServer {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl SessionServer {
    /// Listens on a port of all addresses of a host, IPv4 and IPv6.
    pub fn start(host: &Namespace, port: u16) -> Result<Self> {
        let listener = host.listen(port)?;
        let ending = Arc::new(AtomicBool::new(false));
        let theirs = ending.clone();
        let thread = Some(thread::spawn(move || Serving::new(listener)?.go_on(&theirs)));
        Ok(Self { ending, thread })
    }

    /// Starts one that is a process of its own.
    pub fn process(host: &Namespace, port: u16) -> Result<Process> {
        let program =
            beside("sessions")?.context("there is no program `sessions` beside this one")?;
        let process = host.command(program).arg(port.to_string()).plain().spawn()?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let second = Duration::from_secs(1);
        until("the server of sessions", 5 * second, || host.connect(at, second))
            .map_err(|error| process.explain(&error))?;
        Ok(process)
    }

    /// Serves a port of the namespace that the calling thread is in, for ever.
    pub fn serve_here(port: u16) -> Result<()> {
        let listener = TcpListener::bind(("::", port))?;
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN)?;
        Ok(Serving::new(listener)?.go_on(&AtomicBool::new(false))?)
    }
}

impl Drop for SessionServer {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const LISTENER: u64 = u64::MAX;
/// How exactly records are sent at their time, if any are to be sent.
const TICK: Duration = Duration::from_millis(5);

struct Serving {
    epoll: Epoll,
    listener: TcpListener,
    guests: HashMap<u64, Guest>,
    /// Those to whom records are sent.
    pushed: Vec<u64>,
}

/// One connection.
struct Guest {
    stream: TcpStream,
    /// What came of the greeting as long as that is not complete.
    greeting: Vec<u8>,
    push: Option<Push>,
    /// What the socket did not take yet.
    owed: Vec<u8>,
}

/// Records that are to be sent.
struct Push {
    stream: Stream,
    period: Duration,
    next: Instant,
}

impl Serving {
    fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Self { epoll, listener, guests: HashMap::new(), pushed: Vec::new() })
    }

    fn go_on(mut self, ending: &AtomicBool) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); 512];
        let mut buffer = vec![0; 64 * 1024];
        while !ending.load(Relaxed) {
            let patience = if self.pushed.is_empty() { Duration::from_millis(100) } else { TICK };
            let patience = u8::try_from(patience.as_millis()).expect("it is short");
            let ready = match self.epoll.wait(&mut events, patience) {
                Ok(ready) => ready,
                Err(nix::Error::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..ready] {
                match event.data() {
                    LISTENER => self.accept(),
                    number => self.serve(number, &mut buffer),
                }
            }
            self.push();
        }
        Ok(())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let number = u64::try_from(stream.as_raw_fd()).expect("descriptors are positive");
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            let added =
                ready.is_ok() && self.epoll.add(&stream, EpollEvent::new(flags, number)).is_ok();
            if added {
                let guest = Guest { stream, greeting: vec![], push: None, owed: vec![] };
                self.guests.insert(number, guest);
            }
        }
    }

    fn serve(&mut self, number: u64, buffer: &mut [u8]) {
        let Some(guest) = self.guests.get_mut(&number) else { return };
        let greeted = guest.push.is_some();
        if guest.go_on(buffer).is_err() {
            self.leave(number);
        } else if !greeted && guest.push.is_some() {
            self.pushed.push(number);
        }
    }

    /// Sends the records whose time has come.
    fn push(&mut self) {
        let now = Instant::now();
        let mut gone = Vec::new();
        for number in &self.pushed {
            if let Some(guest) = self.guests.get_mut(number)
                && guest.push(now).is_err()
            {
                gone.push(*number);
            }
        }
        for number in gone {
            self.leave(number);
        }
    }

    /// Closes a connection, which takes it out of the epoll set, too.
    fn leave(&mut self, number: u64) {
        if self.guests.remove(&number).is_some_and(|guest| guest.push.is_some()) {
            self.pushed.retain(|one| *one != number);
        }
    }
}

impl Guest {
    /// Reads and echoes until the socket would block; an error if the connection is over.
    fn go_on(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            if !self.owed.is_empty() {
                let owed = std::mem::take(&mut self.owed);
                self.write(&owed)?;
                if !self.owed.is_empty() {
                    return Ok(());
                }
            }
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    let said = self.after_greeting(&buffer[..length]).to_vec();
                    if self.push.is_none() {
                        self.write(&said)?;
                    }
                    if length < buffer.len() && self.owed.is_empty() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// What is left when the greeting is taken off, by whose wishes we go from then on.
    fn after_greeting<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = greeting::LENGTH - self.greeting.len();
        let (first, rest) = bytes.split_at(missing.min(bytes.len()));
        self.greeting.extend_from_slice(first);
        if missing > 0
            && let Ok(bytes) = <[u8; greeting::LENGTH]>::try_from(&*self.greeting)
        {
            let Greeting { push, seed } = Greeting::read(bytes);
            let next = Instant::now();
            self.push = push.map(|period| Push { stream: Stream::new(seed), period, next });
        }
        rest
    }

    /// Sends a record if it is time, and the last one was taken.
    fn push(&mut self, now: Instant) -> io::Result<()> {
        let Some(push) = self.push.as_mut().filter(|push| push.next <= now) else { return Ok(()) };
        push.next = now + push.period;
        if !self.owed.is_empty() {
            return Ok(());
        }
        let mut record = [0; RECORD];
        push.stream.fill(&mut record);
        self.write(&record)
    }

    /// Writes what the socket takes; the rest is owed.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(length) => taken += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.owed.extend_from_slice(&bytes[taken..]);
        Ok(())
    }
}
