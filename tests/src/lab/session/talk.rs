//! One session, as its client has it.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{RECORD, greeting::Greeting, stream::Stream};

/// Records that may be on their way; no more are sent then.
const UNDERWAY: usize = 16;

/// One session.
pub(super) struct Talk {
    pub(super) stream: TcpStream,
    sends: Stream,
    expects: Stream,
    /// Whether it is the server who sends.
    pushed: bool,
    /// What the socket did not take yet.
    owed: Vec<u8>,
    /// Where each record ends of which the echo has not come yet, and when it was sent.
    waits: VecDeque<(u64, Instant)>,
    /// How far the echo must have come for the session to be verified.
    mark: u64,
    pub(super) longest: Duration,
    pub(super) corrupted: u64,
    /// Why it ended, if it did.
    pub(super) lost: Option<String>,
}

impl Talk {
    /// Greets the server. The socket blocks until then.
    pub(super) fn begin(
        mut stream: TcpStream,
        seed: u64,
        push: Option<Duration>,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.write_all(&Greeting { push, seed }.bytes())?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            sends: Stream::new(seed),
            expects: Stream::new(seed),
            pushed: push.is_some(),
            owed: Vec::new(),
            waits: VecDeque::new(),
            mark: 0,
            longest: Duration::ZERO,
            corrupted: 0,
            lost: None,
        })
    }

    /// Sends a record of so many bytes, unless too much is under way already.
    pub(super) fn send(&mut self, length: usize, buffer: &mut Vec<u8>) {
        if self.lost.is_some() || self.waits.len() >= UNDERWAY {
            return;
        }
        buffer.resize(length, 0);
        self.sends.fill(buffer);
        self.waits.push_back((self.sends.position(), Instant::now()));
        let taken = if self.owed.is_empty() { self.write(buffer) } else { 0 };
        self.owed.extend_from_slice(&buffer[taken..]);
    }

    /// Goes on after the socket has become ready.
    pub(super) fn go_on(&mut self, buffer: &mut [u8]) {
        if !self.owed.is_empty() {
            let owed = std::mem::take(&mut self.owed);
            let taken = self.write(&owed);
            self.owed.extend_from_slice(&owed[taken..]);
        }
        while self.lost.is_none() {
            match self.stream.read(buffer) {
                Ok(0) => self.lost = Some(format!("{:?}", ErrorKind::UnexpectedEof)),
                Ok(length) => {
                    self.heard(&buffer[..length]);
                    // A short read has emptied the socket; whatever comes then is an event again.
                    if length < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => self.lost = Some(format!("{:?}", error.kind())),
            }
        }
    }

    /// From now on it is [verified](Self::is_verified) if one more record comes, or two of those that
    /// the server sends: the second one only if the first was acknowledged and nobody minded.
    pub(super) fn ask_to_verify(&mut self, buffer: &mut Vec<u8>) {
        if self.pushed {
            self.mark = self.expects.position() + 2 * RECORD as u64;
        } else {
            self.send(RECORD, buffer);
            self.mark = self.sends.position();
        }
    }

    /// Whether everything has come that was to come when that was asked for.
    pub(super) fn is_verified(&self) -> bool {
        self.expects.position() >= self.mark
    }

    fn heard(&mut self, bytes: &[u8]) {
        self.corrupted += self.expects.count_wrong(bytes);
        let now = Instant::now();
        while let Some((end, sent)) = self.waits.front()
            && *end <= self.expects.position()
        {
            self.longest = self.longest.max(now - *sent);
            self.waits.pop_front();
        }
    }

    /// Writes what the socket takes, and tells how much that was.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && self.lost.is_none() {
            match self.stream.write(&bytes[taken..]) {
                Ok(length) => taken += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.lost = Some(format!("{:?}", error.kind())),
            }
        }
        taken
    }
}
