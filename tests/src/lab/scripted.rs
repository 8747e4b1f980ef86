//! A server that follows a script.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

use super::{Namespace, socket::cut};

/// A step of a [`ScriptedServer`] on a connection. After its last step it hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends this, in a segment of its own.
    Say(&'static str),
    /// Reads until exactly this has come; hangs up at anything else.
    Hear(&'static str),
    /// Pauses.
    Rest(Duration),
    /// Says nothing more, and waits until the other side has had enough.
    Hang,
    /// Ends the connection by a RST.
    Cut,
}

/// A TCP server that plays scripts, one a connection, in turn. Dropping it cuts its connections
/// and closes the port, which refuses from then on.
#[derive(Debug)]
pub struct ScriptedServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    streams: Mutex<Vec<TcpStream>>,
    scripts: Mutex<Scripts>,
    accepted: AtomicUsize,
    played: AtomicUsize,
}

#[derive(Debug, Default)]
struct Scripts {
    all: Vec<Vec<Step>>,
    turn: usize,
    /// Whether the first follows the last; else the last is played again and again.
    is_endless: bool,
}

impl ScriptedServer {
    /// Listens on a port of all addresses of a host, IPv4 and IPv6.
    pub fn start(host: &Namespace, port: u16, scripts: &[&[Step]]) -> Result<Self> {
        let shared = Arc::new(Shared {
            listener: host.listen(port)?,
            streams: Mutex::default(),
            scripts: Mutex::new(Scripts::new(scripts)),
            accepted: AtomicUsize::new(0),
            played: AtomicUsize::new(0),
        });
        let stage = shared.clone();
        let thread = thread::spawn(move || stage.serve());
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Plays other scripts from the next connection on, beginning with the first.
    pub fn play(&self, scripts: &[&[Step]]) {
        *self.shared.scripts.lock().expect("no server thread panics") = Scripts::new(scripts);
    }

    /// Plays each of other scripts once, from the next connection on, and goes on with the last.
    pub fn play_once(&self, scripts: &[&[Step]]) {
        let scripts = Scripts { is_endless: false, ..Scripts::new(scripts) };
        *self.shared.scripts.lock().expect("no server thread panics") = scripts;
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Relaxed)
    }

    /// Scripts played to their end since the start: everything was sent, and heard as expected.
    pub fn played(&self) -> usize {
        self.shared.played.load(Relaxed)
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        // On Linux this wakes the accept, which then fails.
        let listener = self.shared.listener.as_raw_fd();
        let _ = nix::sys::socket::shutdown(listener, nix::sys::socket::Shutdown::Both);
        for stream in self.shared.streams.lock().expect("no server thread panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Scripts {
    fn new(scripts: &[&[Step]]) -> Self {
        assert!(!scripts.is_empty(), "a server without a script does not know what to do");
        let all = scripts.iter().map(|script| script.to_vec()).collect();
        Self { all, turn: 0, is_endless: true }
    }

    fn next(&mut self) -> Vec<Step> {
        let script = self.all[self.turn].clone();
        self.turn += 1;
        if self.turn == self.all.len() {
            self.turn = if self.is_endless { 0 } else { self.turn - 1 };
        }
        script
    }
}

impl Shared {
    fn serve(&self) {
        thread::scope(|scope| {
            while let Ok((stream, _)) = self.listener.accept() {
                let Ok(handle) = stream.try_clone() else {
                    continue;
                };
                let script = {
                    let mut streams = self.streams.lock().expect("no server thread panics");
                    // Those of connections that are over would add up.
                    streams.retain(|stream| stream.peer_addr().is_ok());
                    streams.push(handle);
                    self.accepted.fetch_add(1, Relaxed);
                    self.scripts.lock().expect("no server thread panics").next()
                };
                scope.spawn(move || {
                    // The other side may hang up at any step; that is its right.
                    if play(&stream, &script).is_ok() {
                        self.played.fetch_add(1, Relaxed);
                    }
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
    }
}

fn play(mut stream: &TcpStream, script: &[Step]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for step in script {
        match step {
            Step::Say(text) => stream.write_all(text.as_bytes())?,
            Step::Hear(text) => {
                let mut heard = vec![0; text.len()];
                stream.read_exact(&mut heard)?;
                if heard != text.as_bytes() {
                    return Err(ErrorKind::InvalidData.into());
                }
            }
            Step::Rest(pause) => thread::sleep(*pause),
            Step::Hang => drop(io::copy(&mut stream, &mut io::sink())?),
            Step::Cut => cut(stream)?,
        }
    }
    Ok(())
}
