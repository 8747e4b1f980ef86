//! What the kernel hands to a socket at all: programs of the classic packet filter.

use std::{io, os::fd::OwnedFd};

use libc::sock_filter;

use super::options::set;
use crate::config::Family;

/// Bytes of a packet that is let through: all.
const WHOLE: u32 = u32::MAX;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_BYTE_AT_X: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
/// X becomes the length of an IPv4 header.
const HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// The next header of `ICMPv6`, and the type of a neighbour advertisement.
const ICMPV6: u32 = 58;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;

/// Has a socket hear only what this lets pass.
pub(super) fn attach(fd: &OwnedFd, filter: &[sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
}

/// On a raw socket: adverts with this VRID or vhid, the second byte of both protocols. The kernel
/// shows a filter the IPv4 header, but not the IPv6 one.
pub(super) fn identifier(family: Family, id: u8) -> Vec<sock_filter> {
    let load = match family {
        Family::V4 => vec![step(HEADER_LENGTH, 0), step(LOAD_BYTE_AT_X, 1)],
        Family::V6 => vec![step(LOAD_BYTE, 1)],
    };
    [load, if_equal(id.into())].concat()
}

/// On a packet socket for IPv6: neighbour advertisements.
pub(super) fn neighbour_advertisements() -> Vec<sock_filter> {
    const NEXT_HEADER: u32 = 14 + 6;
    const TYPE: u32 = 14 + 40;
    let next_header = [step(LOAD_BYTE, NEXT_HEADER), branch(ICMPV6, 1), step(RETURN, 0)];
    let kind = vec![step(LOAD_BYTE, TYPE)];
    [next_header.to_vec(), kind, if_equal(NEIGHBOUR_ADVERTISEMENT)].concat()
}

/// Lets the packet pass if what was loaded is this.
fn if_equal(value: u32) -> Vec<sock_filter> {
    vec![branch(value, 1), step(RETURN, 0), step(RETURN, WHOLE)]
}

fn step(code: u32, k: u32) -> sock_filter {
    instruction(code, 0, k)
}

/// Skips so many instructions if what was loaded is this.
fn branch(value: u32, skip: u8) -> sock_filter {
    instruction(JUMP_IF_EQUAL, skip, value)
}

fn instruction(code: u32, jt: u8, k: u32) -> sock_filter {
    let code = u16::try_from(code).expect("codes are of one byte");
    sock_filter { code, jt, jf: 0, k }
}
