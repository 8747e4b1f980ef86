//! A server that says its name.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::EventFd,
};

use super::Namespace;

/// A TCP server that greets every connection with its name in a line and then echoes.
///
/// One thread serves thousands of connections; those of all servers and clients of a process
/// share its limit of open files (20,000 at most on some machines). Dropping the server closes
/// its connections and the port, as when a process is killed: from then on the port refuses.
#[derive(Debug)]
pub struct IdentServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    answers: bool,
    wake: EventFd,
    ending: AtomicBool,
    frozen: AtomicBool,
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl IdentServer {
    /// Listens on a port of all addresses of a host, IPv4 and IPv6. Its name is the host's.
    pub fn start(host: &Namespace, port: u16) -> Result<Self> {
        Self::launch(host, port, true)
    }

    /// One that accepts connections, reads what comes and never says a word.
    pub fn mute(host: &Namespace, port: u16) -> Result<Self> {
        Self::launch(host, port, false)
    }

    fn launch(host: &Namespace, port: u16, answers: bool) -> Result<Self> {
        let listener = host.listen(port)?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            name: host.name().to_owned(),
            answers,
            wake: EventFd::new()?,
            ending: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        epoll.add(&shared.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let server = Serving { shared: shared.clone(), epoll, listener, talks: HashMap::new() };
        let thread = thread::spawn(move || server.serve());
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// Stops it in its tracks like a process that hangs: the kernel goes on accepting and
    /// acknowledging for it, but nothing is read and nothing answered.
    pub fn freeze(&self) {
        self.shared.frozen.store(true, Relaxed);
        let _ = self.shared.wake.write(1);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.shared.frozen.store(false, Relaxed);
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for IdentServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Relaxed);
        let _ = self.shared.wake.write(1);
        self.unpark();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// The server's thread.
struct Serving {
    shared: Arc<Shared>,
    epoll: Epoll,
    listener: TcpListener,
    talks: HashMap<u64, Talk>,
}

/// One connection, and what it has not taken yet.
struct Talk {
    stream: TcpStream,
    owed: Vec<u8>,
}

impl Serving {
    fn serve(mut self) {
        let mut events = [EpollEvent::empty(); 256];
        while !self.shared.ending.load(Relaxed) {
            if self.shared.frozen.load(Relaxed) {
                thread::park();
                continue;
            }
            let ready = self.epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
            for event in &events[..ready] {
                match event.data() {
                    LISTENER => self.accept(),
                    WAKE => drop(self.shared.wake.read()),
                    talk => self.go_on(talk),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let id = u64::try_from(stream.as_raw_fd()).expect("descriptors are positive");
            let greeting =
                if self.shared.answers { self.shared.name.clone() + "\n" } else { String::new() };
            let talk = Talk { stream, owed: greeting.into_bytes() };
            let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            let added = talk
                .stream
                .set_nonblocking(true)
                .and_then(|()| Ok(self.epoll.add(&talk.stream, EpollEvent::new(both, id))?));
            if added.is_ok() {
                self.shared.accepted.fetch_add(1, Relaxed);
                self.talks.insert(id, talk);
            }
        }
        self.shared.open.store(self.talks.len(), Relaxed);
    }

    fn go_on(&mut self, id: u64) {
        let answers = self.shared.answers;
        let goes_on = self.talks.get_mut(&id).is_some_and(|talk| talk.go_on(answers).is_ok());
        if !goes_on {
            // Closes the socket, which also takes it out of the epoll set.
            self.talks.remove(&id);
            self.shared.open.store(self.talks.len(), Relaxed);
        }
    }
}

impl Talk {
    /// Reads and echoes until the socket would block; an error if the connection is over.
    fn go_on(&mut self, answers: bool) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if !self.owed.is_empty() {
                match self.stream.write(&self.owed) {
                    Ok(written) => drop(self.owed.drain(..written)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
                continue;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) if answers => self.owed.extend_from_slice(&buffer[..length]),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
