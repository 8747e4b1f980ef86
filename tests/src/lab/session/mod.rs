//! Sessions that last: thousands of connections on which something is said now and then, and every
//! byte of which is checked.
//!
//! A session begins with a [greeting](greeting::Greeting) of the client. From then on one side sends
//! records of a [stream](stream::Stream) that only this session has, and the client compares what
//! comes to it, echoed or sent by the server, with what must come.

mod client;
mod greeting;
mod openings;
mod outcome;
mod server;
mod stream;
mod talk;

use std::time::Duration;

pub use self::{client::Sessions, openings::Openings, outcome::Outcome, server::SessionServer};

/// How many sessions of each kind, and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The client sends a record of 64 bytes every [`period`](Self::period), evenly spread over all
    /// of these sessions, and the server echoes it.
    pub active: usize,
    /// Nothing is said but when the sessions are [verified](Sessions::verify).
    pub idle: usize,
    /// The server sends a record of 64 bytes every [`period`](Self::period), and the client nothing.
    pub pushed: usize,
    /// The client sends 16 KiB ten times a second, which the server echoes.
    pub bulk: usize,
    /// Time between records.
    pub period: Duration,
}

impl Load {
    /// Sessions of all kinds.
    pub const fn total(&self) -> usize {
        self.active + self.idle + self.pushed + self.bulk
    }

    /// The kind of one of them: the active ones come first.
    fn kind(&self, nth: usize) -> &'static str {
        let counts = [self.active, self.bulk, self.idle, self.pushed];
        let mut left = nth;
        for (kind, count) in ["active", "bulk", "idle", "pushed"].into_iter().zip(counts) {
            if left < count {
                return kind;
            }
            left -= count;
        }
        "of no kind"
    }
}

/// Bytes of a record.
const RECORD: usize = 64;
/// Bytes of a record of a bulk session.
const BULK: usize = 16 * 1024;
/// Time between two of those.
const BULK_PERIOD: Duration = Duration::from_millis(100);
