//! Opening sockets of any kind and setting any of their options.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Opens a raw socket that does not block and is not inherited.
pub(super) fn open(domain: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a system call with numbers only.
    let fd = check(unsafe { libc::socket(domain, kind, protocol) })?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of the interface with this name. Unlike `if_nametoindex`, it does not have the kernel
/// look for a module of a name that it does not know, which the caller would wait for.
pub(super) fn index_of(interface: &str) -> io::Result<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.into();
    set_bytes(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface.as_bytes())?;
    let mut index: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&index)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes as many bytes as there are, and how many those were.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            (&raw mut index).cast(),
            &raw mut length,
        )
    })?;
    Ok(index.cast_unsigned())
}

/// Sets an option to a value of the type that the kernel expects for it.
pub(super) fn set<T: Copy>(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: T,
) -> io::Result<()> {
    let length = size_of::<T>();
    // SAFETY: the value lives as long as the call.
    unsafe { set_raw(fd, level, option, (&raw const value).cast(), length) }
}

/// Sets an option to some bytes.
pub(super) fn set_bytes(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    bytes: &[u8],
) -> io::Result<()> {
    // SAFETY: the bytes live as long as the call.
    unsafe { set_raw(fd, level, option, bytes.as_ptr().cast(), bytes.len()) }
}

/// # Safety
///
/// There are `length` bytes at `value`.
unsafe fn set_raw(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: *const libc::c_void,
    length: usize,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(length).map_err(io::Error::other)?;
    // SAFETY: as promised; the kernel copies the value.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, length) })?;
    Ok(())
}

pub(super) fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
