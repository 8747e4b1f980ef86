//! Sending frames on that the program has held back.
//!
//! The program itself decides once more what becomes of such a frame, and translates it; what comes out
//! is sent by a packet socket. The kernel could send it in the same go (`BPF_F_TEST_XDP_LIVE_FRAMES`),
//! but only by drivers that take frames from XDP: not by those for which the program is attached in
//! generic mode.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, maps::Map, programs::Xdp};
use lb_common::admission::{ANY, NO_PLACE};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{
    mapped::{Access, Mapped},
    simulate::run_on_frame,
};

/// What became of a frame that was held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// It is on its way, or an answer to it is.
    Sent,
    /// There is no place for the connection that it would open, and this is the only backend that it may go
    /// to; none if that may be any.
    NoPlace(Option<u16>),
    /// It goes nowhere: its connection is over, for one.
    Dropped,
}

/// The programs that decide, and the socket. For use in the network namespace that it was opened in.
pub struct Injector {
    ebpf: Ebpf,
    /// The backend that a SYN goes to, whatever its service's balance says; [`ANY`] if that decides.
    redispatch: Mapped<u32>,
    socket: OwnedFd,
}

impl Injector {
    const INJECT: &'static str = "inject";
    const REFUSE: &'static str = "refuse";
    /// What sends a frame on.
    pub const ONE: [&'static str; 1] = [Self::INJECT];
    /// What sends a frame on, or a RST back.
    pub const BOTH: [&'static str; 2] = [Self::INJECT, Self::REFUSE];

    /// `ebpf` has the programs, each of which is loaded when it is first [wanted](Self::load): the kernel takes its
    /// time over that, and many need none.
    pub(super) fn open(ebpf: Ebpf) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // No protocol: it hears nothing.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .context("cannot open a packet socket")?;
        let Some(Map::Array(map)) = ebpf.map("REDISPATCH") else {
            bail!("the program has no map REDISPATCH");
        };
        let redispatch = Mapped::of(map, Access::Change)?;
        let this = Self { ebpf, redispatch, socket };
        this.redispatch_to(ANY);
        Ok(this)
    }

    /// Loads these programs.
    ///
    /// # Errors
    ///
    /// If the kernel does not take one.
    pub fn load(&mut self, programs: &[&'static str]) -> Result<()> {
        programs.iter().try_for_each(|program| super::load(&mut self.ebpf, program))
    }

    /// Has a frame that came in by this interface go on, if it may.
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
    ) -> Result<Injected> {
        self.run(Self::INJECT, frame, ifindex, is_served)
    }

    /// The same for a SYN that is to open a connection to this backend, which is one of its service's.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn inject_to(
        &self,
        backend: u16,
        frame: &[u8],
        ifindex: u32,
        is_served: impl FnOnce() -> bool,
    ) -> Result<Injected> {
        self.redispatch_to(backend.into());
        let injected = self.run(Self::INJECT, frame, ifindex, is_served);
        self.redispatch_to(ANY);
        injected
    }

    fn redispatch_to(&self, backend: u32) {
        if let Some(word) = self.redispatch.element(0) {
            // SAFETY: an aligned word of a mapping that lives as long as this, which the program only reads.
            unsafe { AtomicU32::from_ptr(word.as_ptr()) }.store(backend, Ordering::SeqCst);
        }
    }

    /// Answers a SYN that came in by this interface by a RST, if this host serves what it is for, and if its
    /// client has no connection by another one meanwhile.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn refuse(
        &self,
        frame: &[u8],
        ifindex: u32,
        is_served: impl FnOnce() -> bool,
    ) -> Result<Injected> {
        self.run(Self::REFUSE, frame, ifindex, is_served)
    }

    fn run(
        &self,
        program: &'static str,
        frame: &[u8],
        ifindex: u32,
        is_served: impl FnOnce() -> bool,
    ) -> Result<Injected> {
        let program: &Xdp = self.ebpf.program(program).context("no such program")?.try_into()?;
        let (out, frame) = run_on_frame(program, frame, ifindex)?;
        if out & NO_PLACE != 0 {
            let bound = out & !NO_PLACE;
            return Ok(Injected::NoPlace(
                (bound != ANY).then(|| u16::try_from(bound)).transpose()?,
            ));
        }
        if out == 0 || !is_served() {
            return Ok(Injected::Dropped);
        }
        self.send(&frame, out).context("cannot send a frame that was held back")?;
        Ok(Injected::Sent)
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
