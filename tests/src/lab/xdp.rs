//! XDP programs of a few instructions, which do the same with every frame.
//!
//! They need no compiler, so the lab does not depend on the build of the product's program.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

use super::Interface;

/// What happens to every frame that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EveryFrame<'a> {
    /// It goes on to the kernel.
    Passes,
    /// It is sent back out of the interface that it came in by (`XDP_TX`).
    GoesBack,
    /// It is sent out of another interface of the namespace (`XDP_REDIRECT`).
    GoesTo(&'a str),
}

/// A program on an interface, in native mode. Dropping it takes the program off.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

impl Attached {
    /// Puts a program on an interface.
    pub fn new(interface: &Interface, fate: EveryFrame<'_>) -> Result<Self> {
        let attach = || {
            let program = load(BPF_PROG_TYPE_XDP, BPF_F_XDP_HAS_FRAGS, &program(fate)?)?;
            link(&program, interface, BPF_XDP, XDP_FLAGS_DRV_MODE)
        };
        let link = interface.namespace().enter(attach).with_context(|| {
            let name = interface.namespace().name();
            format!("cannot put an XDP program on {} of {name}", interface.name())
        })?;
        Ok(Self { _link: link })
    }
}

fn program(fate: EveryFrame<'_>) -> io::Result<Vec<Instruction>> {
    Ok(match fate {
        EveryFrame::Passes => vec![Instruction::load(0, XDP_PASS), Instruction::EXIT],
        EveryFrame::GoesBack => vec![Instruction::load(0, XDP_TX), Instruction::EXIT],
        EveryFrame::GoesTo(interface) => {
            let index = if_nametoindex(interface)?.cast_signed();
            let arguments = [Instruction::load(1, index), Instruction::load(2, 0)];
            [&arguments[..], &[Instruction::CALL_REDIRECT, Instruction::EXIT]].concat()
        }
    })
}

pub(super) fn load(kind: u32, flags: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    bpf(
        BPF_PROG_LOAD,
        &mut Load {
            kind,
            count: u32::try_from(program.len()).expect("it is short"),
            instructions: program.as_ptr() as u64,
            license: c"MIT".as_ptr() as u64,
            log: [0; 2],
            kernel: 0,
            flags,
            rest: [0; 9],
        },
    )
}

/// Attaches a program to an interface of the namespace that this thread is in.
pub(super) fn link(
    program: &OwnedFd,
    interface: &Interface,
    kind: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let ifindex = if_nametoindex(interface.name())?;
    let program = program.as_raw_fd().cast_unsigned();
    bpf(BPF_LINK_CREATE, &mut Link { program, ifindex, kind, flags })
}

/// Makes one of the `bpf` system calls that return a descriptor.
fn bpf<T>(command: libc::c_int, argument: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the argument is the beginning of the kernel's `union bpf_attr` for this command and
    // as long as said; what it points to lives as long as the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, argument, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).expect("descriptors are small");
    // SAFETY: the descriptor is new and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// The names and numbers of linux/bpf.h and linux/if_link.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// Without this, an interface with the program takes no frame larger than a page.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;

/// `struct bpf_insn`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    /// Returns what is in register 0.
    pub(super) const EXIT: Self = Self { code: 0x95, registers: 0, offset: 0, value: 0 };
    /// Calls `bpf_redirect` with registers 1 and 2; the answer is in register 0.
    const CALL_REDIRECT: Self = Self { code: 0x85, registers: 0, offset: 0, value: 23 };

    /// Calls a helper of the kernel; the answer is in register 0.
    pub(super) const fn call(helper: i32) -> Self {
        Self { code: 0x85, registers: 0, offset: 0, value: helper }
    }

    /// Copies a register.
    pub(super) const fn copy(to: u8, from: u8) -> Self {
        Self { code: 0xbf, registers: from << 4 | to, offset: 0, value: 0 }
    }

    /// Puts a value into a register.
    pub(super) const fn load(register: u8, value: i32) -> Self {
        Self { code: 0xb7, registers: register, offset: 0, value }
    }
}

/// `union bpf_attr` of `BPF_PROG_LOAD`
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    kernel: u32,
    flags: u32,
    rest: [u64; 9],
}

/// `union bpf_attr` of `BPF_LINK_CREATE`
#[repr(C)]
struct Link {
    program: u32,
    ifindex: u32,
    kind: u32,
    flags: u32,
}
