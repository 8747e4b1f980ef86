//! Who may write the maps: one daemon at a time.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// The lock on the directory of the pins. The kernel drops it with the process, however that ends.
///
/// The control socket has a lock of its own, but two daemons can have a socket each and meet here.
pub(super) struct Lock {
    _directory: Flock<File>,
}

impl Lock {
    /// Locks the directory; nothing if a daemon has it.
    pub(super) fn take(bpffs: &Path) -> Result<Option<Self>> {
        let directory =
            File::open(bpffs).with_context(|| format!("cannot open {}", bpffs.display()))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(directory) => Ok(Some(Self { _directory: directory })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => {
                Err(errno).with_context(|| format!("cannot lock {}", bpffs.display()))
            }
        }
    }
}
