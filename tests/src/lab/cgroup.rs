//! Control groups of a lab.

use std::{
    fs, io, panic,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{Dir, wait::until};

/// What the names of all of them begin with. So do those of the labs' [directories](Dir).
const PREFIX: &str = "tandem-lab-";

/// A control group (of version 2) for a host of a lab. Dropping it removes it, with all groups inside,
/// for which their processes have to be gone.
///
/// Of a lab that was killed, the next one removes them.
#[derive(Debug)]
pub(super) struct Cgroup {
    name: String,
    mount: PathBuf,
}

impl Cgroup {
    /// Makes one for the host of this name. Fails where the kernel has none, or lets nobody make any.
    pub(super) fn new(host: &str, dir: &Dir) -> Result<Self> {
        let lab = dir.path().file_name().context("the lab's directory has a name")?;
        let name = format!("{}-{host}", lab.to_string_lossy());
        let mount = dir.join(format!("{host}-cgroups"));
        fs::create_dir(&mount)?;
        let cgroup = Self { name, mount };
        cgroup.among_all(|all| {
            sweep(all);
            let group = all.join(&cgroup.name);
            fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))
        })?;
        Ok(cgroup)
    }

    /// What it is called among all groups of the machine.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure with the directory of all groups, which is mounted for it alone.
    fn among_all(&self, story: impl FnOnce(&Path) -> Result<()> + Send) -> Result<()> {
        let inside = || {
            let none = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
            mount(Some("cgroup2"), &self.mount, Some("cgroup2"), MsFlags::empty(), none)
                .context("cannot mount control groups of version 2")?;
            story(&self.mount)
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let removed = self.among_all(|all| {
            // The last process may be about to leave it.
            let group = all.join(&self.name);
            until("the end of a control group", Duration::from_secs(5), || remove(&group))
        });
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}

/// Removes those of labs that were killed: in which no process is, but for those that are being made.
fn sweep(all: &Path) {
    let Ok(groups) = fs::read_dir(all) else { return };
    for group in groups.flatten() {
        let is_lab = group.file_name().to_string_lossy().starts_with(PREFIX);
        let events = fs::read_to_string(group.path().join("cgroup.events")).unwrap_or_default();
        let is_young = group
            .metadata()
            .and_then(|data| data.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < 5));
        if is_lab && events.contains("populated 0") && !is_young {
            let _ = remove(&group.path());
        }
    }
}

/// Removes a group and all inside.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
