//! Groups that both hosts have served at the same time, and could talk with each other.
//!
//! What is silent at one of them may go on by the other, so neither heeds what ends there, but for what both
//! sides have closed with their FINs. Whoever gives such a group up knows of connections that the other one has
//! no longer, and owes it all of the group.

use std::collections::BTreeSet;

/// Who gives way is not this conversation's to decide: it only sees what each serves.
#[derive(Debug, Default)]
pub(super) struct Contest {
    /// Groups that both hosts serve.
    both: BTreeSet<String>,
    /// Groups that both have served, and this host does no longer, until the peer has all of them.
    given_up: BTreeSet<String>,
}

impl Contest {
    /// This host serves `ours` now, and `both` are those of them that the peer serves, too. Returns what this
    /// host has given up since that was last said.
    pub(super) fn look(
        &mut self,
        ours: &BTreeSet<String>,
        both: BTreeSet<String>,
    ) -> BTreeSet<String> {
        let before = std::mem::replace(&mut self.both, both);
        let given_up: BTreeSet<_> = before.difference(ours).cloned().collect();
        self.given_up.retain(|group| !ours.contains(group));
        self.given_up.extend(given_up.iter().cloned());
        given_up
    }

    /// The peer has all but what is owed.
    pub(super) fn settle(&mut self, is_owed: impl Fn(&String) -> bool) {
        self.given_up.retain(is_owed);
    }

    /// Groups that both serve. This host may have given some up since it last looked.
    pub(super) const fn both(&self) -> &BTreeSet<String> {
        &self.both
    }

    /// Groups of which what has ended at the peer is not over here for that. This host may have given some
    /// up since it last looked.
    pub(super) fn groups(&self) -> impl Iterator<Item = &String> {
        self.both.union(&self.given_up)
    }

    /// Whether there is a group that both serve.
    pub(super) fn has_two_masters(&self) -> bool {
        !self.both.is_empty()
    }

    /// What was given up, and the peer does not have yet.
    pub(super) const fn given_up(&self) -> &BTreeSet<String> {
        &self.given_up
    }
}
