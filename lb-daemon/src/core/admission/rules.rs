//! Who may wait, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use crate::core::{Desired, DesiredService};

/// The rules of one service's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a SYN waits at most.
    pub timeout: Duration,
    /// Numbers of the backends that get new connections.
    pub backends: Arc<[u16]>,
    /// Numbers of all backends, whether they get new connections or not.
    pub members: BTreeSet<u16>,
    /// How many may wait for whichever backend; none for no limit: as many as may for all of its backends
    /// together.
    pub room: Option<usize>,
    /// How many may wait for a certain backend, by its number; none for those that are not here.
    pub rooms: BTreeMap<u16, usize>,
    /// Number of the group that the service belongs to; zero if this host has it for itself.
    pub group: u16,
}

/// The rules of those services where somebody may have to wait, by number. One that has lost all its
/// backends is still there: who waited is counted since the daemon's start.
#[must_use]
pub fn rules(desired: &Desired) -> BTreeMap<u16, Rules> {
    let limited = desired.limited.iter();
    limited
        .filter_map(|number| Some((*number, of(*number, desired.services.get(number)?, desired))))
        .collect()
}

fn of(number: u16, service: &DesiredService, desired: &Desired) -> Rules {
    let members = desired.backends.iter().filter(|(_, backend)| backend.service == number);
    let mut serving: Vec<u16> = service.slots.0.to_vec();
    serving.sort_unstable();
    serving.dedup();
    let limits = serving.iter().filter_map(|number| {
        let backend = desired.backends.get(number)?;
        Some((*number, backend.limits))
    });
    let limits: Vec<_> = limits.collect();
    let room = |limit: NonZeroU32| usize::try_from(limit.get()).unwrap_or(usize::MAX);
    let rooms: BTreeMap<u16, usize> =
        limits.iter().filter_map(|(number, it)| Some((*number, room(it.maxqueue?)))).collect();
    let are_all = rooms.len() == limits.len() && !limits.is_empty();
    Rules {
        timeout: service.timeout.queue,
        backends: serving.into(),
        members: members.map(|(number, _)| *number).collect(),
        room: are_all.then(|| rooms.values().sum()),
        rooms,
        group: service.group,
    }
}
