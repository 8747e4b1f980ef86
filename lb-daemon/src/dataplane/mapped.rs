//! An array map in this process's memory, where the program's changes are seen as they happen.

use std::{num::NonZeroUsize, os::fd::AsFd as _, ptr::NonNull};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use nix::{
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    unistd::{SysconfVar, sysconf},
};

use super::pins::Pins;

/// What may be done with a mapped map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Change,
}

/// A map made with `BPF_F_MMAPABLE`. The kernel keeps it for as long as it is mapped.
pub(super) struct Mapped<T> {
    memory: NonNull<T>,
    count: usize,
    length: NonZeroUsize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl<T: Send> Send for Mapped<T> {}
// SAFETY: it hands out nothing but pointers, which are for atomic and volatile access.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps the pinned map `name`, whose elements are `T`.
    pub(super) fn open(pins: &Pins, name: &str, access: Access) -> Result<Self> {
        let map = pins.data(name)?;
        let size = map.info()?.value_size() as usize;
        ensure!(size == size_of::<T>(), "an element of the map {name} has {size} bytes");
        Self::of(&map, access).with_context(|| format!("cannot map {name} into memory"))
    }

    /// Maps a map whose elements are one or several `T`.
    pub(super) fn of(map: &MapData, access: Access) -> Result<Self> {
        let info = map.info()?;
        let size = size_of::<T>();
        let element = info.value_size() as usize;
        ensure!(element.is_multiple_of(size), "its elements are of another size");
        let count = info.max_entries() as usize * (element / size);
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| usize::try_from(size).ok());
        let length = (count * size).next_multiple_of(page.context("no page size")?);
        let length = NonZeroUsize::new(length).context("it is empty")?;
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Change => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: a new mapping, wherever the kernel finds room.
        let memory =
            unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }?;
        Ok(Self { memory: memory.cast(), count, length })
    }

    /// How many elements there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// An element, which the program may be changing: only for atomic and volatile access. It is
    /// valid for as long as this is.
    pub(super) fn element(&self, index: usize) -> Option<NonNull<T>> {
        // SAFETY: within the mapping.
        (index < self.count).then(|| unsafe { self.memory.add(index) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: what `open` mapped; nothing of it is in use any more. If it fails, it stays.
        let _ = unsafe { munmap(self.memory.cast(), self.length.get()) };
    }
}
