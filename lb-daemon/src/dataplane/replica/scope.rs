//! Which connections are meant.

use lb_common::addr::Address;

use super::{digest, names::Names, tuple::Keys};
use crate::core::sync::Scope;

/// A [`Scope`], by the numbers that are in force here.
pub(super) struct Within<'a> {
    names: &'a Names,
    /// A bit for each group.
    groups: u64,
    /// Whether each bucket is meant; nothing if all are.
    buckets: Option<Box<[bool; 256]>>,
}

impl<'a> Within<'a> {
    pub(super) fn new(scope: &Scope, names: &'a Names) -> Self {
        let numbers = scope.groups.iter().filter_map(|name| names.group(name));
        let groups = numbers.fold(0, |all, number| all | bit(number));
        let buckets = (!scope.buckets.is_empty()).then(|| {
            let mut meant = Box::new([false; 256]);
            scope.buckets.iter().for_each(|bucket| meant[usize::from(*bucket)] = true);
            meant
        });
        Self { names, groups, buckets }
    }

    /// Whether a connection to this service is in one of the groups. Cheap, and to be asked first.
    pub(super) fn has_service(&self, service: u16) -> bool {
        self.names.group_of(service).is_some_and(|group| self.groups & bit(group) != 0)
    }

    /// Whether a connection is in one of the buckets.
    pub(super) fn has_keys<A: Address>(&self, keys: &Keys<A>) -> bool {
        let Some(buckets) = &self.buckets else { return true };
        buckets[usize::from(digest::bucket(digest::hash(&keys.tuple())))]
    }
}

/// The bit of a group; none for a number that no group can have.
fn bit(group: u16) -> u64 {
    1_u64.checked_shl(group.into()).unwrap_or(0)
}
