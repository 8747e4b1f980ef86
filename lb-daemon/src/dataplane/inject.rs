//! Sending frames on that the program has held back.
//!
//! The program itself decides once more what becomes of such a frame, and translates it; what comes out
//! is sent by a packet socket. The kernel could send it in the same go (`BPF_F_TEST_XDP_LIVE_FRAMES`),
//! but only by drivers that take frames from XDP: not by those for which the program is attached in
//! generic mode.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::{Ebpf, programs::Xdp};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::simulate::run_on_frame;

/// The program that decides, and the socket. For use in the network namespace that it was opened in.
pub struct Injector {
    ebpf: Ebpf,
    socket: OwnedFd,
}

impl Injector {
    const PROGRAM: &'static str = "inject";

    /// `ebpf` has the program, which is loaded when it is first [wanted](Self::load): the kernel takes its
    /// time over that, and many need none.
    pub(super) fn open(ebpf: Ebpf) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // No protocol: it hears nothing.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .context("cannot open a packet socket")?;
        Ok(Self { ebpf, socket })
    }

    /// Loads the program.
    ///
    /// # Errors
    ///
    /// If the kernel does not take it.
    pub fn load(&mut self) -> Result<()> {
        super::load(&mut self.ebpf, Self::PROGRAM)
    }

    /// Has a frame that came in by this interface go on. Returns whether it did: its connection may be
    /// over.
    ///
    /// Whether this host may serve it is the program's to ask, but this thread may be held up between its
    /// answer and the sending. So it `is_served` only if that says so at the last moment.
    ///
    /// # Errors
    ///
    /// If the program cannot be run, or the kernel does not take the frame.
    pub fn inject(
        &self,
        frame: &[u8],
        ifindex: u32,
        is_served: impl FnOnce() -> bool,
    ) -> Result<bool> {
        let program: &Xdp =
            self.ebpf.program(Self::PROGRAM).context("no inject program")?.try_into()?;
        let (out, frame) = run_on_frame(program, frame, ifindex)?;
        if out == 0 || !is_served() {
            return Ok(false);
        }
        self.send(&frame, out).context("cannot send a frame that was held back")?;
        Ok(true)
    }

    /// Sends a whole frame.
    fn send(&self, frame: &[u8], ifindex: u32) -> io::Result<()> {
        let [to @ .., _, _, _, _, _, _, high, low] =
            *frame.first_chunk::<14>().ok_or(io::ErrorKind::InvalidInput)?;
        let mut sll_addr = [0; 8];
        sll_addr[..6].copy_from_slice(&to);
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).expect("a small number"),
            sll_protocol: u16::from_ne_bytes([high, low]),
            sll_ifindex: ifindex.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr,
        };
        let length = libc::socklen_t::try_from(size_of_val(&address)).expect("a small number");
        let (bytes, size) = (frame.as_ptr().cast(), frame.len());
        // SAFETY: frame and address live as long as the call, and are as long as it is told.
        let sent = unsafe {
            let address = (&raw const address).cast();
            libc::sendto(self.socket.as_raw_fd(), bytes, size, 0, address, length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
