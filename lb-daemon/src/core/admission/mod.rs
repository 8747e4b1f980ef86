//! SYNs that wait for a place, where connections are limited: in which order, for how long, and how many.
//!
//! ```text
//!  the program ─ arrivals ─► Queues ─ admit ─► the program: a place, or none yet
//!        └─ a place is free ───┘  └── refuse ─► a RST to the client
//! ```
//!
//! The program counts connections and decides who has a place; here is only decided whose turn it is. So a
//! limit holds whatever becomes of this. A service has one line of those that may go to any of its
//! backends, and one for each backend that a client is bound to by its address. Of all its lines, the SYN
//! that has waited for longest has its turn first. Who comes when the line of its own backend is full goes to
//! another one that has a place, if nobody waits for that.

mod line;
mod queue;
mod queues;
mod rules;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    os::fd::AsFd,
    time::Duration,
};

use anyhow::Result;

pub use self::{
    queues::Queues,
    rules::{Rules, rules},
};

/// Whose SYN it is: one that is sent again is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller {
    /// The client.
    pub client: SocketAddr,
    /// The virtual address and port.
    pub bind: SocketAddr,
}

/// A SYN for which there was no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whose it is.
    pub caller: Caller,
    /// Number of the service.
    pub service: u16,
    /// Number of the only backend that it may go to; none if that may be any.
    pub bound: Option<u16>,
    /// The SYN itself.
    pub frame: Frame,
}

/// A frame as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// All of it.
    pub bytes: Box<[u8]>,
    /// Interface that it came in by.
    pub ifindex: u32,
}

/// What became of a SYN whose turn it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has a place, and is on its way to the backend; or it was answered by a RST because no backend gets
    /// connections.
    Sent,
    /// There is no place, and this is the only backend that it may go to; none if that may be any.
    NoPlace(Option<u16>),
    /// It cannot be sent: this host does not serve the service any more, or its table is full.
    Lost,
}

/// The data plane, as far as SYNs that wait are concerned.
pub trait Gate {
    /// Whether there seems to be a place: in the service, and at the backend if it must be a certain one.
    fn has_place(&self, service: u16, bound: Option<u16>) -> bool;

    /// Has a SYN for a service of this group go on if there is a place for it.
    fn admit(&mut self, frame: &Frame, group: u16) -> Admission;

    /// The same for one that goes to this backend, which is one of its service's but not its own.
    fn redispatch(&mut self, frame: &Frame, group: u16, backend: u16) -> Admission;

    /// Answers a SYN for a service of this group by a RST, if this host serves that, and if no other SYN of
    /// its client has found a place meanwhile. Tells whether it did.
    fn refuse(&mut self, frame: &Frame, group: u16) -> bool;

    /// One that arrived waits no longer: neither for its service nor for the backend that it was bound to.
    fn left(&mut self, service: u16, bound: Option<u16>);

    /// One that waits is bound to another backend than before.
    fn moved(&mut self, from: Option<u16>, to: Option<u16>);

    /// Whether this host serves the group with this number now; zero is what it has for itself.
    fn serves(&self, group: u16) -> bool;
}

/// The same for the thread that has SYNs wait.
pub trait Door: Gate + AsFd {
    /// Takes up to `limit` records of the program: SYNs that found no place, and that a place has become free.
    /// Returns how many those were.
    ///
    /// # Errors
    ///
    /// If they make no sense.
    fn arrivals(&mut self, limit: usize, into: &mut Vec<Arrival>) -> Result<usize>;

    /// Gets ready to have SYNs wait, which takes its time. To be called once, before anything else.
    ///
    /// # Errors
    ///
    /// If they cannot wait.
    fn prepare(&mut self) -> Result<()>;

    /// Has SYNs for these services wait from now on, for a short while, and for no others.
    fn hold_open(&mut self, services: &BTreeSet<u16>);
}

/// What people see of a service's queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueView {
    /// How many wait.
    pub waiting: u64,
    /// Most that ever waited at once, since the daemon started, in all lines together.
    pub most: u64,
    /// How many of these wait for a certain backend, and most that ever did, by its number.
    pub bound: BTreeMap<u16, (u64, u64)>,
    /// Clients that had to wait, ...
    pub queued: u64,
    /// ... those that waited for too long, ...
    pub timed_out: u64,
    /// ... and those that found the queue full.
    pub refused: u64,
    /// Longest time that somebody waits by now.
    pub oldest: Duration,
}
