//! Who may write the maps: one daemon at a time.

use std::{
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// The lock on the directory of the pins. The kernel drops it with the process, however that ends.
///
/// The control socket has a lock of its own, but two daemons can have a socket each and meet here.
#[derive(Debug)]
pub struct Lock {
    _directory: Flock<File>,
}

/// How long to wait for somebody who is just about to let it go: a daemon that has ended, or who
/// looks whether there is one.
const PATIENCE: Duration = Duration::from_secs(1);

impl Lock {
    /// The same as [`take`](Self::take), but waits a moment for somebody who has it.
    pub(super) fn wait(bpffs: &Path) -> Result<Option<Self>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lock = Self::take(bpffs)?;
            if lock.is_some() || Instant::now() >= deadline {
                return Ok(lock);
            }
            thread::sleep(PATIENCE / 50);
        }
    }

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
