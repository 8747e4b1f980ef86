//! What came to its end here while the peer was not told.
//!
//! A peer that comes back has connections open that were ended meanwhile by the host that serves them.
//! It is asked for all it has, for some of that may be known to nobody else; without this, what is over
//! would come back with it, and stay until it has been silent for long enough.
//!
//! What was only silent here is not remembered. If the two were parted for longer than that takes, its
//! packets may have gone to the other host, which alone knows then that it lives.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use lb_common::flow::{CLIENT_FIN, SERVER_FIN, is_closed};

use super::super::{Change, Connection, Reported, Tuple};

/// A connection, for as little memory as possible: there may be a million. Two of the same name are so
/// unlikely that nobody will ever miss the one that was taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(u64);

/// Connections that ended since both hosts last had the same, among those that the peer may have.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Those that opened since then, and are open: the peer does not know them.
    opened: HashSet<Name>,
    ended: HashSet<Name>,
}

impl Name {
    fn of(tuple: &Tuple) -> Self {
        let mut hasher = DefaultHasher::new();
        tuple.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// What a change has ended for certain, if it has: what was silent here may go on by the peer.
    pub(super) fn ended_by(reported: &Reported) -> Option<Self> {
        if reported.is_silence { None } else { Self::closed_by(&reported.change) }
    }

    fn closed_by(change: &Change) -> Option<Self> {
        match change {
            Change::Is(connection) | Change::Answered(connection)
                if !is_closed(connection.state) =>
            {
                None
            }
            change => Some(Self::of(change.tuple())),
        }
    }
}

impl Ended {
    /// Takes changes into account that the peer is not told of in time. At most `limit` connections of
    /// a kind are remembered.
    pub(super) fn note(&mut self, changes: &[Reported], limit: usize) {
        for Reported { change, is_silence, .. } in changes {
            if *is_silence {
                self.opened.remove(&Name::of(change.tuple()));
            } else {
                self.note_one(change, limit);
            }
        }
    }

    fn note_one(&mut self, change: &Change, limit: usize) {
        match change {
            Change::Is(connection) | Change::Answered(connection) if is_new(connection) => {
                let name = Name::of(&connection.tuple);
                if self.opened.len() < limit && !self.ended.contains(&name) {
                    self.opened.insert(name);
                }
            }
            change => {
                if let Some(name) = Name::closed_by(change) {
                    self.end(name, limit);
                }
            }
        }
    }

    /// This has ended.
    pub(super) fn end(&mut self, name: Name, limit: usize) {
        if !self.opened.remove(&name) && self.ended.len() < limit {
            self.ended.insert(name);
        }
    }

    pub(super) fn contains(&self, tuple: &Tuple) -> bool {
        !self.ended.is_empty() && self.ended.contains(&Name::of(tuple))
    }

    /// Both hosts have the same now.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether a connection was not known before. What a side has closed its half of was, as a rule; and if
/// not, it does no harm to remember its end.
const fn is_new(connection: &Connection) -> bool {
    connection.state & (CLIENT_FIN | SERVER_FIN) == 0 && !is_closed(connection.state)
}
