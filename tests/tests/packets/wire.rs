//! What is sent, not by the program itself but by the daemon after it.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
};

use crate::frame::Frame;

/// All that is sent in the namespace.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    pub(crate) fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::EthAll;
        Ok(Self(socket(AddressFamily::Packet, SockType::Raw, flags, protocol)?))
    }

    /// Waits until this frame is sent by the interface that it belongs to.
    pub(crate) fn wait_for(&self, expected: &Frame) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut bytes = [0; 2048];
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut bytes) {
                Ok((length, from)) => {
                    let is_by = from.is_some_and(|it| it.ifindex() == expected.ifindex as usize);
                    if is_by && bytes[..length] == expected.bytes {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(error.into()),
            }
            ensure!(Instant::now() < deadline, "it was not sent");
        }
    }
}
