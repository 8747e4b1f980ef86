//! Gets a thread out of its sleep in `ppoll`.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// An event counter of the kernel (`eventfd(2)`).
#[derive(Debug)]
pub(crate) struct Wake(EventFd);

impl Wake {
    pub(crate) fn new() -> Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        EventFd::from_flags(flags).map(Self).context("cannot create an eventfd")
    }

    /// Makes the descriptor readable.
    pub(crate) fn ring(&self) {
        // Fails only when the counter is at its end; then it is readable anyway.
        let _ = self.0.write(1);
    }

    /// Makes it unreadable again.
    pub(crate) fn hush(&self) {
        // Fails only if nobody rang.
        let _ = self.0.read();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
