//! Giving the numbers of client-side next hops back that no connection uses any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use aya::maps::{HashMap, MapData, MapError, Queue};
use lb_common::maps::{HopKey, MAX_BACKENDS, MAX_HOPS};

use super::{pins::Pins, reap::Marks};

/// Whose turn it is, of those of this process who take numbers and give them back: one that is in
/// somebody's hands is neither free nor in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<Mutex<()>>);

impl Turn {
    /// Waits for it.
    pub(super) fn take(&self) -> MutexGuard<'_, ()> {
        // Nothing is left half done that the next one could not bear.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client-side next hops, and which of them are free.
pub(super) struct ClientHops {
    turn: Turn,
    known: HashMap<MapData, HopKey, u32>,
    free: Queue<MapData, u32>,
    /// Hops that were unused at the last walk.
    idle: BTreeSet<u32>,
    /// Hops that no new connection can find; free once a walk has found no old one either.
    limbo: BTreeSet<u32>,
    /// Whether the free ones have been counted by this daemon.
    counted: bool,
}

impl ClientHops {
    pub(super) fn open(pins: &Pins, turn: Turn) -> Result<Self> {
        Ok(Self {
            turn,
            known: pins.open("CLIENT_HOPS")?,
            free: pins.open("FREE_HOPS")?,
            idle: BTreeSet::new(),
            limbo: BTreeSet::new(),
            counted: false,
        })
    }

    /// A walk of the flow tables ended that found connections by the hops in `used`.
    pub(super) fn walked(&mut self, used: &Marks) -> Result<()> {
        let turn = self.turn.clone();
        let _ours = turn.take();
        let known: BTreeMap<u32, HopKey> = self
            .known
            .iter()
            .map(|entry| entry.map(|(key, hop)| (hop, key)))
            .collect::<Result<_, _>>()?;
        if !std::mem::replace(&mut self.counted, true) {
            self.recount(used, &known)?;
        }
        for hop in std::mem::take(&mut self.limbo) {
            if known.contains_key(&hop) {
                // It only seemed to be gone while its neighbour moved.
            } else if used.has(hop) {
                self.limbo.insert(hop);
            } else {
                self.free.push(hop, 0)?;
            }
        }
        // In use, but not to be found: another hop took its place when its neighbour moved.
        let lost = (MAX_BACKENDS..MAX_HOPS).filter(|hop| used.has(*hop));
        self.limbo.extend(lost.filter(|hop| !known.contains_key(hop)));

        let unused: BTreeSet<u32> = known.keys().copied().filter(|hop| !used.has(*hop)).collect();
        for hop in unused.intersection(&self.idle) {
            self.known.remove(&known[hop])?;
            self.limbo.insert(*hop);
        }
        self.idle = unused;
        Ok(())
    }

    /// Finds the free hops anew: a daemon before us may have died with some in its hands. A new
    /// neighbour's first connection waits for its next SYN if it comes in these microseconds.
    fn recount(&mut self, used: &Marks, known: &BTreeMap<u32, HopKey>) -> Result<()> {
        loop {
            match self.free.pop(0) {
                Ok(_) => {}
                Err(MapError::ElementNotFound) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Some may have been taken since `known` was read.
        let taken: BTreeSet<u32> =
            self.known.iter().map(|entry| entry.map(|(_, hop)| hop)).collect::<Result<_, _>>()?;
        for hop in MAX_BACKENDS..MAX_HOPS {
            if !used.has(hop) && !known.contains_key(&hop) && !taken.contains(&hop) {
                self.free.push(hop, 0)?;
            }
        }
        Ok(())
    }
}
