//! What came to its end here while the peer was not told, or did not heed it.
//!
//! A peer that comes back has connections open that were ended meanwhile by the host that serves them.
//! It is asked for all it has, for some of that may be known to nobody else; without this, what is over
//! would come back with it, and stay until it has been silent for long enough.
//!
//! What was only silent here may come back, if it is established and the peer has served since. If the two
//! were parted for longer than that takes, its packets may have gone to the other host, which alone knows
//! then that it lives.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use lb_common::flow::{CLIENT_FIN, SERVER_FIN, is_closed};

use super::super::{Change, Connection, Reported, Tuple};

/// A connection, for as little memory as possible: there may be a million. Two of the same name are so
/// unlikely that nobody will ever miss the one that was taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name(u64);

/// What came to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    name: Name,
    /// See [`Reported`].
    is_silence: bool,
}

/// Connections that ended since both hosts last had the same, among those that the peer may have.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Those that opened without a link, and are open: the peer does not know them.
    opened: HashSet<Name>,
    /// Those that were closed, or ended by the daemon.
    over: HashSet<Name>,
    /// Those that were only silent.
    silent: HashSet<Name>,
}

impl Name {
    fn of(tuple: &Tuple) -> Self {
        let mut hasher = DefaultHasher::new();
        tuple.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl End {
    /// What a change has ended, if it has.
    pub(super) fn of(reported: &Reported) -> Option<Self> {
        let Reported { change, is_silence, .. } = *reported;
        match change {
            Change::Is(connection) | Change::Answered(connection)
                if !is_closed(connection.state) =>
            {
                None
            }
            change => Some(Self { name: Name::of(change.tuple()), is_silence }),
        }
    }
}

impl Ended {
    /// Takes changes into account that the peer is not told of. At most `limit` connections of a kind are
    /// remembered.
    pub(super) fn note_untold(&mut self, changes: &[Reported], limit: usize) {
        for reported in changes {
            match &reported.change {
                Change::Is(connection) | Change::Answered(connection) if is_new(connection) => {
                    // One that was answered before is new to the peer only if that was noted here, too.
                    if !reported.was_answered {
                        self.open(Name::of(&connection.tuple), limit);
                    }
                }
                _ => self.note(std::slice::from_ref(reported), limit),
            }
        }
    }

    /// Takes changes into account that the peer is told of, but may not heed, or not in time. Of what opens
    /// it may hear at any moment: there is nothing to be noted before its end.
    pub(super) fn note(&mut self, changes: &[Reported], limit: usize) {
        for end in changes.iter().filter_map(End::of) {
            self.end(end, limit);
        }
    }

    /// A link stands: from now on the peer may know all that is open here.
    pub(super) fn link(&mut self) {
        self.opened = HashSet::new();
    }

    fn open(&mut self, name: Name, limit: usize) {
        let is_known = self.over.contains(&name) || self.silent.contains(&name);
        if self.opened.len() < limit && !is_known {
            self.opened.insert(name);
        }
    }

    /// This has ended.
    pub(super) fn end(&mut self, end: End, limit: usize) {
        let ended = if end.is_silence { &mut self.silent } else { &mut self.over };
        if !self.opened.remove(&end.name) && ended.len() < limit {
            ended.insert(end.name);
        }
    }

    /// Whether it is over, although the peer has it. What is established there may have gone on there while
    /// it was silent here, if the peer `has_served` it; what is not has not.
    pub(super) fn contains(&self, connection: &Connection, has_served: bool) -> bool {
        let name = Name::of(&connection.tuple);
        let is_answered = matches!(connection.as_change(), Change::Answered(_));
        self.over.contains(&name) || (is_answered || !has_served) && self.silent.contains(&name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.over.is_empty() && self.silent.is_empty()
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
