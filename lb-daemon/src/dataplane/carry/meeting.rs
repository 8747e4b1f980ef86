//! How the two sides meet: a symbolic link beside the pins says where whoever stands in is to be asked.
//!
//! The link is on the bpffs, where only those who may use the data plane can put something, and it goes
//! with the data plane. It names a socket of the network namespace, not a file. As long as it is there,
//! whoever stands in is wanted.

use std::{
    fs,
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::symlink,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};

use crate::dataplane::{pins::Pins, random};

/// A data plane of another layout, and where to ask for what it holds.
#[derive(Debug)]
pub(super) struct Offer {
    /// Its pins.
    pub(super) pins: Pins,
    name: String,
}

/// The link of whoever stands in. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Link {
    path: PathBuf,
    name: String,
}

impl Offer {
    /// Looks for one; there is nothing to carry over where the data plane of `ours` is in force.
    pub(super) fn find(ours: &Pins) -> Result<Option<Self>> {
        if ours.has_links() {
            return Ok(None);
        }
        let others = ours.others()?.into_iter().filter(Pins::has_links);
        Ok(others.into_iter().find_map(|pins| {
            let name = fs::read_link(pins.exporter()).ok()?.to_str()?.to_owned();
            Some(Self { pins, name })
        }))
    }

    /// Calls whoever made it.
    pub(super) fn accept(&self) -> Result<UnixStream> {
        let address = SocketAddr::from_abstract_name(&self.name)?;
        let stream = UnixStream::connect_addr(&address).context("nobody stands in")?;
        check(&stream)?;
        Ok(stream)
    }
}

impl Link {
    /// Listens, and says so beside the pins.
    pub(super) fn make(pins: &Pins) -> Result<(Self, UnixListener)> {
        let name = format!("tandem-{:016x}", random()?[0]);
        let address = SocketAddr::from_abstract_name(&name)?;
        let listener = UnixListener::bind_addr(&address).context("cannot open a socket")?;
        let path = pins.exporter();
        // What one has left that was killed.
        let _ = fs::remove_file(&path);
        symlink(&name, &path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok((Self { path, name }, listener))
    }

    /// Whether it is still there.
    pub(super) fn is_there(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|name| name == Path::new(&self.name))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.is_there() {
            // Gone with everything else in this moment, perhaps.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Tells whoever stands in for a data plane of this layout that nobody will ask.
pub(in crate::dataplane) fn decline(pins: &Pins) {
    // As a rule there is none.
    let _ = fs::remove_file(pins.exporter());
}

/// Fails unless the other side is of this side's user: everybody may call, or answer.
pub(super) fn check(stream: &impl AsFd) -> Result<()> {
    let theirs = getsockopt(stream, PeerCredentials).context("cannot tell who that is")?.uid();
    ensure!(theirs == geteuid().as_raw(), "the other side is of user {theirs}");
    Ok(())
}
