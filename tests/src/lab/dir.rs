//! The directory that holds a lab's files: logs, configurations, data of its servers.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

const PREFIX: &str = "tandem-lab-";

/// A temporary directory that goes with its last handle.
///
/// A lab that was killed cannot remove its directory. The next lab does, and knows by a lock on
/// the directory that the owner is gone. With `TANDEM_LAB_KEEP` in the environment the directory
/// stays (until the next lab) for a look at the logs.
#[derive(Clone, Debug)]
pub struct Dir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    temp: TempDir,
    _owned: Flock<File>,
}

impl Dir {
    /// Makes a new directory and removes those of labs that were killed.
    pub fn new() -> Result<Self> {
        sweep();
        let mut temp = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .context("cannot make a directory for the lab")?;
        let owned = lock(temp.path()).context("cannot lock the directory of the lab")?;
        temp.disable_cleanup(std::env::var_os("TANDEM_LAB_KEEP").is_some());
        Ok(Self(Arc::new(Inner { temp, _owned: owned })))
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        self.0.temp.path()
    }

    /// The path of something in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }
}

fn lock(path: &Path) -> std::io::Result<Flock<File>> {
    Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e.into())
}

/// Removes what killed labs left, as well as it can: nobody depends on it.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let is_lab = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // A directory this young may be about to be locked by its owner.
        let is_old = entry
            .metadata()
            .and_then(|data| data.created())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() >= 5));
        if is_lab && is_old && lock(&entry.path()).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
