//! The flow table, read while the program changes it.

use std::{
    ops::Range,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use anyhow::Result;
use lb_common::{
    addr::Address,
    flow::{Flow, FlowKey, GROUP, Group, LEVELS, OVERFLOW, born},
    hash,
    maps::Settings,
};

use super::{
    mapped::{Access, Mapped},
    pins::Pins,
};

/// A family's flow table. It can be read only.
pub struct FlowTable<A> {
    groups: Mapped<Group<A>>,
}

impl<A: Address> FlowTable<A> {
    #[expect(clippy::cast_possible_truncation, reason = "a cache line or two have few places")]
    const GROUP: u32 = GROUP as u32;

    /// Opens the pinned table `name`.
    pub(super) fn open(pins: &Pins, name: &str) -> Result<Self> {
        Ok(Self { groups: Mapped::open(pins, name, Access::Read)? })
    }

    /// Every entry, with the number of its place. One that is inserted or removed meanwhile may or
    /// may not be among them; every other one is, once. Each is as it was at one moment, save that
    /// its time and its state may be of slightly different ones.
    pub fn entries(&self) -> impl Iterator<Item = (u32, Flow<A>)> {
        self.entries_in(0..self.places())
    }

    /// The same, but only those at these places.
    pub(super) fn entries_in(&self, places: Range<u32>) -> impl Iterator<Item = (u32, Flow<A>)> {
        places.filter_map(|number| Some((number, self.entry(number)?)))
    }

    /// The entry for packets with this key, and the number of its place. One that is inserted or
    /// removed meanwhile may or may not be found.
    pub(super) fn find(&self, key: &FlowKey<A>, settings: &Settings) -> Option<(u32, Flow<A>)> {
        let mut hash = hash::flow(&settings.seed, key);
        for _ in 0..LEVELS {
            let group = hash::group(hash, settings.groups);
            let places = group * Self::GROUP..(group + 1) * Self::GROUP;
            let mut entries = self.entries_in(places);
            if let Some(found) = entries.find(|(_, flow)| flow.key == *key) {
                return Some(found);
            }
            // SAFETY: an aligned word within the mapping, which the program too changes atomically.
            let overflow = unsafe {
                let group = self.groups.element(group as usize)?.as_ptr();
                let word = &raw mut (*group).0[OVERFLOW].group;
                AtomicU32::from_ptr(word).load(Ordering::Acquire)
            };
            if overflow == 0 {
                return None;
            }
            hash = hash::next_level(hash);
        }
        None
    }

    /// The entry at a place, if there is one.
    pub fn entry(&self, number: u32) -> Option<Flow<A>> {
        let place = self.place(number)?;
        let before = life(place);
        if born(before) == 0 {
            return None;
        }
        // SAFETY: within the mapping. The program may be writing it, hence volatile; what was read
        // of two connections is thrown away below, and every bit pattern is valid until then.
        let mut flow = unsafe { place.read_volatile() };
        fence(Ordering::Acquire);
        let after = life(place);
        // Removed, or another one already: as if it had been looked at later or earlier.
        flow.life = after;
        (born(before) == born(after)).then_some(flow)
    }

    /// The life word at a place, zero where no place is.
    pub(super) fn life(&self, number: u32) -> u64 {
        self.place(number).map_or(0, life)
    }

    /// How many places there are.
    pub(super) fn places(&self) -> u32 {
        u32::try_from(self.groups.len() * GROUP).unwrap_or(u32::MAX)
    }

    fn place(&self, number: u32) -> Option<*mut Flow<A>> {
        let number = number as usize;
        let group = self.groups.element(number / GROUP)?;
        // SAFETY: within the element.
        Some(unsafe { &raw mut (*group.as_ptr()).0[number % GROUP] })
    }
}

/// Reads a life word before what is read after it.
fn life<A>(place: *mut Flow<A>) -> u64 {
    // SAFETY: an aligned word within the mapping, which the program too changes atomically.
    unsafe { AtomicU64::from_ptr(&raw mut (*place).life) }.load(Ordering::Acquire)
}
