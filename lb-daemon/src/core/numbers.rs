//! Numbers of services and backends in the data plane.
//!
//! A number outlives its owner: connections refer to it. So it is given to someone else only after
//! a walk of the flow table, begun after its owner had left, found no connection with it.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers `0..limit` and their owners.
#[derive(Clone, Debug)]
pub(super) struct Numbers<K> {
    limit: u16,
    owners: BTreeMap<K, u16>,
    /// Numbers without an owner that connections may still have, and how many walks began and
    /// ended since.
    retired: BTreeMap<u16, u8>,
    next: u16,
}

/// A walk that ends may have begun before the owner left; the second one did not.
const WALKS: u8 = 2;

impl<K: Ord + Clone> Numbers<K> {
    /// Numbers below `limit`, of which `taken` are an earlier daemon's.
    pub(super) fn new(limit: u16, taken: impl IntoIterator<Item = (K, u16)>) -> Self {
        let mut owners = BTreeMap::new();
        let mut retired = BTreeMap::new();
        for (key, number) in taken {
            if let Some(double) = owners.insert(key, number) {
                retired.insert(double, 0);
            }
        }
        Self { limit, owners, retired, next: 0 }
    }

    /// The number of `key`, a new one if it has none; nothing if none is free.
    pub(super) fn give(&mut self, key: &K) -> Option<u16> {
        if let Some(number) = self.owners.get(key) {
            return Some(*number);
        }
        let taken: BTreeSet<u16> =
            self.owners.values().copied().chain(self.retired.keys().copied()).collect();
        let number = (0..self.limit)
            .map(|i| (self.next + i) % self.limit)
            .find(|number| !taken.contains(number))?;
        self.next = (number + 1) % self.limit;
        self.owners.insert(key.clone(), number);
        Some(number)
    }

    /// Takes the numbers of all owners away that are not in `keep`.
    pub(super) fn keep(&mut self, keep: &BTreeSet<K>) {
        let retired = &mut self.retired;
        self.owners.retain(|key, number| {
            let stays = keep.contains(key);
            if !stays {
                retired.insert(*number, 0);
            }
            stays
        });
    }

    /// A walk of the flow table ended that found connections with the numbers in `used`.
    pub(super) fn walked(&mut self, used: &BTreeSet<u16>) {
        self.retired.retain(|number, walks| {
            *walks = if used.contains(number) { 0 } else { *walks + 1 };
            *walks < WALKS
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_keeps_its_number() {
        let mut numbers = Numbers::new(4, [("b", 2)]);
        assert_eq!(numbers.give(&"a"), Some(0));
        assert_eq!(numbers.give(&"b"), Some(2));
        assert_eq!(numbers.give(&"a"), Some(0));
    }

    #[test]
    fn a_number_is_free_again_only_after_two_walks_without_its_connections() {
        let mut numbers = Numbers::new(1, []);
        assert_eq!(numbers.give(&"a"), Some(0));
        numbers.keep(&BTreeSet::new());
        assert_eq!(numbers.give(&"b"), None);
        numbers.walked(&BTreeSet::new());
        numbers.walked(&BTreeSet::from([0]));
        numbers.walked(&BTreeSet::new());
        assert_eq!(numbers.give(&"b"), None);
        numbers.walked(&BTreeSet::new());
        assert_eq!(numbers.give(&"b"), Some(0));
    }
}
