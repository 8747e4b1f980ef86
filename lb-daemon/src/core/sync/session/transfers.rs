//! What of the tables is still to be told as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Connection, Cursor, Message, Scope, Tables},
    limits::Limits,
};

/// Transfers that are owed, and the one that is under way.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// Groups that all is to be told of.
    full: BTreeSet<String>,
    /// Groups that these buckets are to be told of.
    parts: BTreeMap<String, BTreeSet<u8>>,
    /// Groups that the peer has to tell all of before it is told: it forgets what it is not told of,
    /// and may know what nobody else does.
    held: BTreeSet<String>,
    /// Groups that all was told of in this conversation, or is being told.
    told: BTreeSet<String>,
    active: Option<Active>,
    last: u32,
}

#[derive(Debug)]
struct Active {
    id: u32,
    scope: Scope,
    progress: Progress,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    Owed,
    At(Cursor),
    /// All is told; the peer has not said yet that it has it.
    Told,
}

impl Transfers {
    /// All of these groups is to be told. What is under way is of no use any more.
    pub(super) fn start_over(&mut self, groups: BTreeSet<String>) {
        if let Some(active) = self.active.take() {
            self.want(active.scope);
        }
        self.want(Scope { groups, buckets: BTreeSet::new() });
    }

    /// This is to be told, after what is to be told already.
    pub(super) fn want(&mut self, scope: Scope) {
        if scope.buckets.is_empty() {
            self.parts.retain(|group, _| !scope.groups.contains(group));
            self.full.extend(scope.groups);
        } else {
            for group in scope.groups {
                if !self.full.contains(&group) {
                    self.parts.entry(group).or_default().extend(&scope.buckets);
                }
            }
        }
    }

    /// All of these groups is to be told once the peer has told all it has.
    pub(super) fn want_after_the_peer(&mut self, groups: BTreeSet<String>) {
        self.held.extend(groups.iter().cloned());
        self.want(Scope { groups, buckets: BTreeSet::new() });
    }

    /// The peer has told all it has of these groups.
    pub(super) fn release(&mut self, groups: &BTreeSet<String>) {
        self.held.retain(|group| !groups.contains(group));
    }

    /// Waits for the peer with no other groups than these.
    pub(super) fn hold_only(&mut self, groups: &BTreeSet<String>) {
        self.held.retain(|group| groups.contains(group));
    }

    /// The peer asks for all of these groups, and waits for them. What it was told of already it is
    /// not told again: its question was on its way meanwhile. Returns what is owed.
    pub(super) fn ask(&mut self, mut groups: BTreeSet<String>) -> BTreeSet<String> {
        groups.retain(|group| !self.told.contains(group));
        // Else each would wait for the other.
        self.release(&groups);
        self.want(Scope { groups: groups.clone(), buckets: BTreeSet::new() });
        groups
    }

    /// Whether there is anything that the peer has not said it has.
    pub(super) fn is_idle(&self) -> bool {
        self.active.is_none() && !self.is_owing()
    }

    /// Whether there is anything to be told now.
    pub(super) fn has_work(&self) -> bool {
        match &self.active {
            Some(active) => !matches!(active.progress, Progress::Told),
            None => !self.parts.is_empty() || !self.full.is_subset(&self.held),
        }
    }

    fn is_owing(&self) -> bool {
        !self.full.is_empty() || !self.parts.is_empty()
    }

    /// Whether the telling of all of a group has not begun yet.
    pub(super) fn waits_with(&self, group: &str) -> bool {
        self.full.contains(group)
    }

    /// Whether no transfer is under way.
    pub(super) const fn is_free(&self) -> bool {
        self.active.is_none()
    }

    /// Whether all of a group is still to be told.
    pub(super) fn owes_all_of(&self, group: &str) -> bool {
        let active = self.active.as_ref().map(|active| &active.scope);
        self.full.contains(group)
            || active.is_some_and(|scope| scope.buckets.is_empty() && scope.groups.contains(group))
    }

    /// The next message, if there is one now. Connections are read from the tables at this moment: the
    /// message has to be sent before any change that is read from now on. This host has `served` these
    /// groups, or may have, since the peer last had everything.
    pub(super) fn next(
        &mut self,
        served: &BTreeSet<String>,
        limits: Limits,
        tables: &mut dyn Tables,
    ) -> Option<Message> {
        if self.active.is_none() {
            self.begin()?;
        }
        let active = self.active.as_mut()?;
        let cursor = match active.progress {
            Progress::Owed => {
                active.progress = Progress::At(Cursor::default());
                let scope = active.scope.clone();
                let served = scope.groups.intersection(served).cloned().collect();
                return Some(Message::TransferBegins { id: active.id, scope, served });
            }
            Progress::At(cursor) => cursor,
            Progress::Told => return None,
        };
        let (connections, next) = read(&active.scope, cursor, limits, tables);
        match next {
            _ if !connections.is_empty() => {
                // An end without connections is for the next time.
                active.progress = Progress::At(next.unwrap_or(END));
                Some(Message::Transfer(connections))
            }
            Some(next) => {
                active.progress = Progress::At(next);
                None
            }
            None => {
                active.progress = Progress::Told;
                Some(Message::TransferEnds { id: active.id })
            }
        }
    }

    fn begin(&mut self) -> Option<()> {
        let (held, groups): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.full).into_iter().partition(|group| self.held.contains(group));
        self.full = held;
        let scope = if groups.is_empty() {
            let (group, buckets) = self.parts.pop_first()?;
            Scope { groups: BTreeSet::from([group]), buckets }
        } else {
            self.told.extend(groups.iter().cloned());
            Scope { groups, buckets: BTreeSet::new() }
        };
        self.last = self.last.wrapping_add(1);
        self.active = Some(Active { id: self.last, scope, progress: Progress::Owed });
        Some(())
    }

    /// The peer has all of a transfer: what it covered. Nothing if it is another one.
    pub(super) fn done(&mut self, id: u32) -> Option<Scope> {
        let active = self
            .active
            .take_if(|active| active.id == id && matches!(active.progress, Progress::Told))?;
        Some(active.scope)
    }

    /// Whether a transfer of this number was ever begun.
    pub(super) const fn has_begun(&self, id: u32) -> bool {
        id != 0 && id <= self.last
    }
}

/// Stands for the end of the tables.
const END: Cursor = Cursor { position: u64::MAX };

/// One message's connections, and where to go on.
fn read(
    scope: &Scope,
    mut cursor: Cursor,
    limits: Limits,
    tables: &mut dyn Tables,
) -> (Vec<Connection>, Option<Cursor>) {
    let mut connections = Vec::new();
    let mut places = limits.places;
    while cursor != END {
        // A place has one connection at most.
        let step = (limits.batch - connections.len()).min(places);
        if step == 0 {
            return (connections, Some(cursor));
        }
        places -= step;
        match tables.scan(scope, cursor, step, &mut connections) {
            Some(next) => cursor = next,
            None => return (connections, None),
        }
    }
    (connections, None)
}
