//! An encrypted connection to the peer: messages in, messages out. Nothing here waits, and nothing
//! grows without a bound.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest, Ready},
    net::TcpStream,
};

use super::{
    codec::{self, FRAME, Malformed, Unfit},
    secure::{Channel, Failure},
};
use crate::core::sync::Message;

/// Bytes that may wait to be sent before the session is asked to say no more.
const QUEUE: usize = 16 * FRAME;
/// Bytes that may wait to be sent at all: answers come on top of the rest.
const MOST: usize = 64 * FRAME;
/// Bytes that are read at a time.
const READ: usize = 4 * FRAME;

/// The connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    channel: Box<Channel>,
    /// Came in and is not decrypted yet: less than one encrypted message.
    wire: Vec<u8>,
    /// Is decrypted and not taken yet: less than one message, after [`hear`](Self::hear).
    plain: Vec<u8>,
    /// Is to go out, ...
    queue: Vec<u8>,
    /// ... but for so many bytes that have.
    gone: usize,
}

/// Why a connection is of no use any more: what the peer does, for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The encryption, or the way.
    #[error(transparent)]
    Secure(#[from] Failure),
    /// It says what nobody understands.
    #[error("says what nobody understands: {0}")]
    Malformed(#[from] Malformed),
    /// It does not take what it is told.
    #[error("does not take what it is told")]
    Deaf,
    /// We do not know how to say it.
    #[error("cannot be told something: {0}")]
    Unfit(#[from] Unfit),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Secure(match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => error.into(),
        })
    }
}

impl Link {
    pub(super) fn new(stream: TcpStream, channel: Box<Channel>) -> Self {
        let (wire, plain, queue) = (Vec::new(), Vec::new(), Vec::new());
        Self { stream, channel, wire, plain, queue, gone: 0 }
    }

    /// How many more messages it takes without many having to wait.
    pub(super) fn room(&self) -> usize {
        (QUEUE / FRAME).saturating_sub(self.waiting().div_ceil(FRAME))
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() - self.gone
    }

    /// Waits until there is something to be heard, or, if something waits to be sent, until that can
    /// go on.
    pub(super) async fn ready(&self) -> io::Result<Ready> {
        let interest = match self.waiting() {
            0 => Interest::READABLE,
            _ => Interest::READABLE | Interest::WRITABLE,
        };
        self.stream.ready(interest).await
    }

    /// Takes in what has come, some of it if that is much. Returns whether there may be more.
    pub(super) fn hear(&mut self, into: &mut Vec<Message>) -> Result<bool, Broken> {
        self.wire.reserve(READ);
        let read = match self.stream.try_read_buf(&mut self.wire) {
            Ok(0) => return Err(Failure::Closed.into()),
            Ok(read) => read,
            Err(error) if is_passing(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let opened = self.channel.open(&self.wire, &mut self.plain)?;
        self.wire.drain(..opened);
        let mut taken = 0;
        while let Some((message, length)) = codec::decode(&self.plain[taken..])? {
            into.push(message);
            taken += length;
        }
        self.plain.drain(..taken);
        Ok(read >= READ)
    }

    /// Queues messages.
    pub(super) fn say(&mut self, messages: &[Message]) -> Result<(), Broken> {
        let mut plain = Vec::new();
        for message in messages {
            codec::encode(message, &mut plain)?;
        }
        self.channel.seal(&plain, &mut self.queue)?;
        if self.waiting() > MOST { Err(Broken::Deaf) } else { Ok(()) }
    }

    /// Sends what can be sent without waiting.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        while self.waiting() > 0 {
            match self.stream.try_write(&self.queue[self.gone..]) {
                Ok(sent) => self.gone += sent,
                Err(error) if is_passing(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // What has gone is moved out of the way when that is little work.
        if self.gone >= self.waiting() {
            self.queue.drain(..self.gone);
            self.gone = 0;
        }
        Ok(())
    }

    /// Sends what is queued, and waits until the peer has closed its side. To close before all that it
    /// said was read would have the kernel throw away what it has not read yet.
    pub(super) async fn close(mut self) {
        if self.stream.write_all(&self.queue[self.gone..]).await.is_err()
            || self.stream.shutdown().await.is_err()
        {
            return;
        }
        let mut unheard = [0; 4096];
        while self.stream.read(&mut unheard).await.is_ok_and(|read| read > 0) {}
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
