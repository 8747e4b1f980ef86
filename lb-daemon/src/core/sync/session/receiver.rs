//! What the peer tells, and what this host does about it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{
    super::{Change, Conflict, Connection, Scope, Tables},
    Totals,
    contest::Contest,
    digests::Suspicions,
    ended::Ended,
};

/// The half of a conversation that the peer speaks.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// Messages received that are counted.
    pub(super) received: u64,
    /// How many of them were acknowledged.
    pub(super) acknowledged: u64,
    /// How many connections that were told as answered since then are not in the tables.
    pub(super) refused: u32,
    /// The groups that the peer serves, once it has said so.
    pub(super) serving: Option<BTreeSet<String>>,
    pub(super) contest: Contest,
    pub(super) suspicions: Suspicions,
    incoming: Option<Incoming>,
}

/// A transfer that is coming in.
#[derive(Debug)]
struct Incoming {
    id: u32,
    scope: Scope,
    /// Groups of it that the peer has served, or may have, while this host was not told.
    served: BTreeSet<String>,
    /// Groups of it that the peer alone has served since it began: what the peer does not have is no
    /// more.
    theirs: BTreeSet<String>,
}

impl Receiver {
    pub(super) fn is_served_by_peer(&self, group: &str) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.contains(group))
    }

    /// Whether all of a group is being transferred.
    pub(super) fn is_hearing_all_of(&self, group: &str) -> bool {
        let scope = self.incoming.as_ref().map(|incoming| &incoming.scope);
        scope.is_some_and(|scope| scope.buckets.is_empty() && scope.groups.contains(group))
    }

    /// Whether a part of a group is being transferred, or all of it.
    pub(super) fn is_hearing_of(&self, group: &str) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.scope.groups.contains(group))
    }

    /// Whether a transfer is coming in.
    pub(super) const fn is_hearing(&self) -> bool {
        self.incoming.is_some()
    }

    /// This host serves these groups now. Returns those that it does no longer, and that both have served.
    pub(super) fn serves(&mut self, serving: &BTreeSet<String>) -> BTreeSet<String> {
        if let Some(incoming) = &mut self.incoming {
            incoming.theirs.retain(|group| !serving.contains(group));
        }
        let is_theirs = |group: &&String| self.is_served_by_peer(group);
        let both = serving.iter().filter(is_theirs).cloned().collect();
        self.contest.look(serving, both)
    }

    /// The peer says what it serves.
    pub(super) fn peer_serves(&mut self, groups: BTreeSet<String>) {
        if let Some(incoming) = &mut self.incoming {
            incoming.theirs.retain(|group| groups.contains(group));
        }
        self.serving = Some(groups);
    }

    /// Groups that this host serves, or has served until now: it may know of connections that the peer has
    /// no longer.
    fn ours(&self, tables: &dyn Tables) -> BTreeSet<String> {
        let mut ours = tables.serving();
        ours.extend(self.contest.groups().cloned());
        ours
    }

    /// A transfer begins. The peer has `served` these groups of it, or may have. `owed` are groups that
    /// this host has connections of that the peer does not have yet: nothing of them is forgotten.
    pub(super) fn begin(
        &mut self,
        id: u32,
        scope: Scope,
        served: BTreeSet<String>,
        owed: &BTreeSet<String>,
        tables: &mut dyn Tables,
    ) {
        let ours = self.ours(tables);
        let is_theirs = |group: &&String| {
            !ours.contains(*group) && !owed.contains(*group) && self.is_served_by_peer(group)
        };
        let theirs = scope.groups.iter().filter(is_theirs).cloned().collect();
        for group in &scope.groups {
            self.suspicions.forget(group);
        }
        tables.mark();
        self.incoming = Some(Incoming { id, scope, served, theirs });
    }

    /// A part of a transfer. Returns whether there is one. Of what this host serves it knows better what
    /// has `ended`.
    pub(super) fn part(
        &mut self,
        mut connections: Vec<Connection>,
        ended: &Ended,
        tables: &mut dyn Tables,
        totals: &mut Totals,
    ) -> Result<bool> {
        let Some(incoming) = &self.incoming else { return Ok(false) };
        totals.connections_received += connections.len() as u64;
        if !ended.is_empty() {
            let ours = tables.serving();
            connections.retain(|connection| {
                let group = tables.group(connection.tuple.bind);
                let ours = group.filter(|group| ours.contains(group));
                !ours.is_some_and(|group| {
                    ended.contains(connection, incoming.served.contains(&group))
                })
            });
        }
        self.adopt(connections.into_iter().map(Connection::as_change), tables, totals)?;
        Ok(true)
    }

    /// A transfer ends. Returns what it covered, or nothing if there is no such transfer.
    pub(super) fn end(
        &mut self,
        id: u32,
        owed: &BTreeSet<String>,
        tables: &mut dyn Tables,
        totals: &mut Totals,
    ) -> Result<Option<Scope>> {
        let Some(incoming) = self.incoming.take_if(|incoming| incoming.id == id) else {
            return Ok(None);
        };
        let ours = self.ours(tables);
        let mut groups = incoming.theirs;
        groups.retain(|group| !ours.contains(group) && !owed.contains(group));
        if !groups.is_empty() {
            let scope = Scope { groups, buckets: incoming.scope.buckets.clone() };
            totals.forgotten += tables.forget_unmarked(&scope)?;
        }
        totals.transfers_received += 1;
        Ok(Some(incoming.scope))
    }

    /// Does to the tables what the peer tells.
    ///
    /// For a group that only the peer serves the peer is right. What this host serves it knows better:
    /// its own connections stay, and what has become silent at the peer has not become silent here.
    /// Returns how many of those that were told as answered are not in the tables.
    pub(super) fn adopt(
        &self,
        changes: impl Iterator<Item = Change>,
        tables: &mut dyn Tables,
        totals: &mut Totals,
    ) -> Result<u32> {
        let ours = self.ours(tables);
        let mut served = tables.serving();
        served.extend(self.contest.both().iter().cloned());
        let mut refused = 0;
        let mut owners = BTreeMap::new();
        let (mut take, mut keep) = (Vec::new(), Vec::new());
        for change in changes {
            let bind = change.tuple().bind;
            let (is_served, is_ours, is_theirs) = *owners.entry(bind).or_insert_with(|| {
                tables.group(bind).map_or_else(Default::default, |group| {
                    let is_theirs = self.is_served_by_peer(&group);
                    (served.contains(&group), ours.contains(&group), is_theirs)
                })
            });
            match change {
                // What this host serves it hears itself.
                Change::Gone(_) if is_ours => {}
                // Of a host that may still serve it, too, they could be ever more: their end is not
                // heeded. One that has served it before has few, and the client may have been told.
                Change::Answered(_) if is_served && (is_theirs || self.serving.is_none()) => {
                    refused += 1;
                }
                _ if is_theirs && !is_ours => take.push(change),
                _ => keep.push(change),
            }
        }
        for (changes, conflict) in [(take, Conflict::TakeTheirs), (keep, Conflict::KeepOurs)] {
            if changes.is_empty() {
                continue;
            }
            let adopted = tables.adopt(&changes, conflict)?;
            refused += adopted.refused;
            totals.adopted += adopted.new;
            totals.forgotten += adopted.ended;
            totals.conflicts += adopted.conflicts;
            totals.full += adopted.full;
            totals.unknown += adopted.unknown;
        }
        Ok(u32::try_from(refused).unwrap_or(u32::MAX))
    }
}
