//! The files on a bpffs that keep the data plane alive without a daemon.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, MapError};
use lb_common::maps::LAYOUT;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tracing::warn;

/// Every map of the program.
pub(super) const MAPS: &[&str] = &[
    "SETTINGS",
    "SLOTS",
    "TURNS",
    "TIMEOUTS",
    "BACKEND_STATE",
    "BACKEND_STATS",
    "NEXT_HOPS",
    "CLIENT_HOPS",
    "FREE_HOPS",
    "TABLES",
    "VERDICTS",
    "FLOWS_V4",
    "FLOWS_V6",
    "HALF_OPEN_V4",
    "HALF_OPEN_V6",
    "SERVICES_V4",
    "SERVICES_V6",
    "VIRTUAL_ADDRESSES_V4",
    "VIRTUAL_ADDRESSES_V6",
    "BACKENDS_V4",
    "BACKENDS_V6",
];

/// The directory of this layout's pins.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Makes the directories, and removes those of other layouts: their programs cannot be
    /// continued by this daemon.
    pub(super) fn create(bpffs: &Path) -> Result<Self> {
        check_bpffs(bpffs)?;
        let root = bpffs.join(format!("{LAYOUT:016x}"));
        for directory in ["maps", "links"] {
            let directory = root.join(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        for entry in fs::read_dir(bpffs)?.flatten() {
            if entry.path() != root {
                warn!(
                    path = %entry.path().display(),
                    "removing the data plane of another version; its connections end"
                );
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { root })
    }

    /// Removes the pins of every layout; the kernel then detaches and frees what they held.
    /// Returns the number of links that were pinned.
    pub(super) fn remove_all(bpffs: &Path) -> Result<usize> {
        if !bpffs.exists() {
            return Ok(0);
        }
        check_bpffs(bpffs)?;
        let mut links = 0;
        for layout in fs::read_dir(bpffs)?.flatten() {
            if let Ok(entries) = fs::read_dir(layout.path().join("links")) {
                links += entries.count();
            }
        }
        fs::remove_dir_all(bpffs).with_context(|| format!("cannot remove {}", bpffs.display()))?;
        Ok(links)
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// A typed handle of a pinned map.
    pub(super) fn open<M>(&self, name: &str) -> Result<M>
    where
        M: TryFrom<Map, Error = MapError>,
    {
        M::try_from(Map::from_map_data(self.data(name)?)?)
            .with_context(|| format!("cannot use the map {name}"))
    }

    /// A pinned map as the kernel knows it: without the types of its keys and values.
    pub(super) fn data(&self, name: &str) -> Result<MapData> {
        MapData::from_pin(self.map(name)).with_context(|| format!("cannot open the map {name}"))
    }

    /// How many entries a map has room for.
    pub(super) fn capacity(&self, name: &str) -> Result<u32> {
        Ok(self.data(name)?.info()?.max_entries())
    }
}

/// Fails unless `path`, or the nearest of its parents that exists, is on a bpffs.
fn check_bpffs(path: &Path) -> Result<()> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let kind =
        statfs(existing).with_context(|| format!("cannot look at {}", existing.display()))?;
    if kind.filesystem_type() != BPF_FS_MAGIC {
        bail!(
            "{} is not on a BPF filesystem: mount one with \
             `mount -t bpf bpf /sys/fs/bpf` (or set [global] bpffs)",
            path.display()
        );
    }
    Ok(())
}
