//! Connections that stay open.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{
    Close, Namespace, Tally,
    ask::{check_echo, read_name},
    socket::{close_by_reset, dial},
};

/// Connections to [`IdentServer`](super::IdentServer)s, held open. Dropping them closes them.
///
/// Client and server ends both count against the open files of the process: 9,000 is a safe most.
#[derive(Debug)]
pub struct Held {
    streams: Vec<TcpStream>,
    tally: Tally,
}

impl Held {
    /// Opens so many connections one after the other, and reads each server's name.
    ///
    /// Those that fail within `limit` are in the tally and not held.
    pub fn open(client: &Namespace, to: SocketAddr, count: usize, limit: Duration) -> Self {
        client.enter(|| {
            let mut held = Self { streams: Vec::with_capacity(count), tally: Tally::default() };
            for _ in 0..count {
                let opened = dial(to, None, limit).and_then(|mut stream| {
                    let name = read_name(&mut stream)?;
                    held.streams.push(stream);
                    Ok(name)
                });
                held.tally.add(opened);
            }
            held
        })
    }

    /// Who answered when they were opened.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Has so many bytes echoed over each of them; returns how many still work.
    pub fn still_work(&mut self, bytes: usize) -> usize {
        self.streams.iter_mut().filter_map(|stream| check_echo(stream, bytes).ok()).count()
    }

    /// Closes them all.
    pub fn close(self, how: Close) -> io::Result<()> {
        if how == Close::Reset {
            self.streams.iter().try_for_each(close_by_reset)?;
        }
        Ok(())
    }
}
