//! Whole Ethernet frames: a packet socket.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{MsgFlags, recv};

use super::{
    filter,
    options::{check, open, set},
    socket::PRIORITY,
};

/// A packet socket. Neither sending nor receiving blocks.
#[derive(Debug)]
pub(super) struct Frames(OwnedFd);

impl Frames {
    /// Opens a socket that hears nothing.
    pub(super) fn open() -> io::Result<Self> {
        open(libc::AF_PACKET, 0).map(Self)
    }

    /// Opens a socket that hears what comes in by an interface with an Ethernet type (in host byte
    /// order), as far as `filter` lets it pass, if there is one.
    pub(super) fn hear(
        ifindex: u32,
        ethertype: u16,
        filter: Option<&[libc::sock_filter]>,
    ) -> io::Result<Self> {
        let Self(fd) = Self::open()?;
        if let Some(filter) = filter {
            filter::attach(&fd, filter)?;
        }
        let (address, length) = address(ifindex, ethertype, [0; 6]);
        // SAFETY: the address lives as long as the call, and is as long as it is told.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(Self(fd))
    }

    /// Has frames go ahead of everything else in this host's queues.
    pub(super) fn come_first(&self) -> io::Result<()> {
        set(&self.0, libc::SOL_SOCKET, libc::SO_PRIORITY, PRIORITY)
    }

    /// Sends a frame, its Ethernet header included, by an interface.
    pub(super) fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let [to @ .., _, _, _, _, _, _, high, low] =
            *frame.first_chunk::<14>().ok_or(io::ErrorKind::InvalidInput)?;
        let (address, length) = address(ifindex, u16::from_be_bytes([high, low]), to);
        let (bytes, size) = (frame.as_ptr().cast(), frame.len());
        // SAFETY: frame and address live as long as the call, and are as long as it is told.
        let sent = unsafe {
            libc::sendto(self.0.as_raw_fd(), bytes, size, 0, (&raw const address).cast(), length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The length of the next frame that waits, as far as the buffer takes it. None if none waits.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(Some(length)),
            Err(nix::Error::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Frames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn address(ifindex: u32, ethertype: u16, to: [u8; 6]) -> (libc::sockaddr_ll, libc::socklen_t) {
    let mut sll_addr = [0; 8];
    sll_addr[..6].copy_from_slice(&to);
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("a small number"),
        sll_protocol: ethertype.to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr,
    };
    (address, libc::socklen_t::try_from(size_of_val(&address)).expect("a small number"))
}
