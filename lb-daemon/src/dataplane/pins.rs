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

use super::leases;

/// Every map of the program.
pub(super) const MAPS: &[&str] = &[
    "SETTINGS",
    "SLOTS",
    "TURNS",
    "TERMS",
    "LEASES",
    "BACKEND_STATE",
    "SERVICE_STATE",
    "BACKEND_STATS",
    "HANDSHAKES",
    "NEXT_HOPS",
    "CLIENT_HOPS",
    "FREE_HOPS",
    "TABLES",
    "CHANGES",
    "ARRIVALS",
    "HOLD",
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
    /// Makes the directories.
    pub(super) fn create(bpffs: &Path) -> Result<Self> {
        check_bpffs(bpffs)?;
        let this = Self::of(bpffs);
        this.make()?;
        Ok(this)
    }

    fn make(&self) -> Result<()> {
        for directory in ["maps", "links"] {
            let directory = self.root.join(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        Ok(())
    }

    /// Whether the directories are still there.
    pub(super) fn are_there(&self) -> bool {
        self.root.join("maps").is_dir() && self.links().is_dir()
    }

    /// Where they are, or would be.
    pub(super) fn of(bpffs: &Path) -> Self {
        Self { root: bpffs.join(format!("{LAYOUT:016x}")) }
    }

    /// Whether there is a data plane, of whatever layout.
    pub(super) fn exist(bpffs: &Path) -> bool {
        layouts(bpffs).is_ok_and(|layouts| !layouts.is_empty())
    }

    /// Those of other layouts.
    pub(super) fn others(&self) -> Result<Vec<Self>> {
        let all = self.root.parent().map(layouts).transpose()?.unwrap_or_default();
        Ok(all.into_iter().filter(|root| *root != self.root).map(|root| Self { root }).collect())
    }

    /// Removes the pins of other layouts: their programs cannot be continued by this daemon.
    pub(super) fn remove_others(&self) -> Result<()> {
        for other in self.others()? {
            warn!(
                path = %other.root.display(),
                "removing the data plane of another version; its connections end"
            );
            // Those that this one goes on with are not that one's any more.
            if leases::are_shared(&self.map("LEASES"), &other.map("LEASES")) {
                other.discard()?;
            } else {
                remove(&other.root)?;
            }
        }
        Ok(())
    }

    /// Removes these, whatever the leases are.
    pub(super) fn discard(&self) -> Result<()> {
        fs::remove_dir_all(&self.root)
            .with_context(|| format!("cannot remove {}", self.root.display()))
    }

    /// Has the directories be there, and empty.
    pub(super) fn clear(&self) -> Result<()> {
        self.discard()?;
        self.make()
    }

    /// Removes the pins of every layout; the kernel then detaches and frees what they held.
    /// Returns the number of links that were pinned.
    pub(super) fn remove_all(bpffs: &Path) -> Result<usize> {
        if !bpffs.exists() {
            return Ok(0);
        }
        check_bpffs(bpffs)?;
        let mut links = 0;
        for layout in layouts(bpffs)? {
            links += fs::read_dir(layout.join("links"))?.count();
            remove(&layout)?;
        }
        // It stays if others have pins there, or if it is where the bpffs is mounted.
        let _ = fs::remove_dir(bpffs);
        Ok(links)
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Whether the program of these maps is, or was, on an interface.
    pub(super) fn has_links(&self) -> bool {
        fs::read_dir(self.links()).is_ok_and(|mut links| links.next().is_some())
    }

    /// Says where whoever stands in for a daemon is to be asked.
    pub(super) fn exporter(&self) -> PathBuf {
        self.root.join("exporter")
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

/// Removes one data plane. Whoever stands in for a daemon of it learns that from the leases: nobody
/// serves any group by them.
fn remove(layout: &Path) -> Result<()> {
    let leases = layout.join("maps").join("LEASES");
    if leases.exists()
        && let Err(error) = leases::end_all(&leases)
    {
        warn!("cannot end the leases in {}: {error:#}", leases.display());
    }
    fs::remove_dir_all(layout).with_context(|| format!("cannot remove {}", layout.display()))
}

/// The directories of data planes. The operator may have named a directory that others use too,
/// so what does not look like one of ours is never touched.
fn layouts(bpffs: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(bpffs).with_context(|| format!("cannot list {}", bpffs.display()))?;
    let is_layout = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_digest = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
        is_digest && path.join("maps").is_dir() && path.join("links").is_dir()
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_layout).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_taken_for_ours() {
        let root = std::env::temp_dir().join(format!("tandem-pins-{}", std::process::id()));
        let ours = root.join("0123456789abcdef");
        for directory in [
            ours.join("maps"),
            ours.join("links"),
            root.join("cilium/maps"),
            root.join("cilium/links"),
            root.join("fedcba9876543210"),
        ] {
            fs::create_dir_all(directory).unwrap();
        }
        let found = layouts(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found.unwrap(), [ours]);
    }
}
