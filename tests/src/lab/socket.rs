//! What the standard library does not offer of TCP sockets.

use std::{
    io, mem,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
        sockopt,
    },
    time::TimeVal,
};

use super::wait::stretched;

/// Connects, from a given address if there is one. `limit`, [`stretched`] for this machine, holds
/// for the connect and then for every read and write.
pub(crate) fn dial(to: SocketAddr, from: Option<IpAddr>, limit: Duration) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(from) = from {
        // The port is chosen at the connect, so that one is good for many destinations.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    }
    // On Linux the send timeout limits the connect too.
    let limit = stretched(limit);
    let whole = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let time = TimeVal::new(whole, limit.subsec_micros().into());
    setsockopt(&socket, sockopt::SendTimeout, &time)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &time)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => Ok(TcpStream::from(socket)),
        Err(nix::Error::EINPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

/// Sends a SYN without waiting for what comes of it. The socket does not block.
pub(crate) fn begin(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// Makes closing the socket send an RST instead of a FIN, at once and without `TIME_WAIT`.
pub(crate) fn close_by_reset(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(setsockopt(stream, sockopt::Linger, &linger)?)
}

/// Has everything that was received acknowledged now.
pub(super) fn acknowledge(stream: &TcpStream) -> io::Result<()> {
    set_of_tcp(stream, libc::TCP_QUICKACK)
}

/// Closes a socket without a segment, as when its host loses power. The host's kernel answers
/// what still comes with an RST.
pub(super) fn vanish(stream: TcpStream) -> io::Result<()> {
    set_of_tcp(&stream, libc::TCP_REPAIR)?;
    drop(stream);
    Ok(())
}

/// Ends a connection by a RST now, whoever else has a descriptor of its socket.
pub(super) fn cut(stream: &TcpStream) -> io::Result<()> {
    // A connect to an address of no family undoes the connection that there is.
    // SAFETY: all bits zero are a valid value of this structure of integers.
    let nowhere: libc::sockaddr = unsafe { mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere)).expect("it is small");
    // SAFETY: the kernel reads `length` bytes of a structure as long as that.
    let result = unsafe { libc::connect(stream.as_raw_fd(), &raw const nowhere, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many segments were sent again so far; right after the connect, how many SYNs.
pub(super) fn retransmitted(stream: &TcpStream) -> io::Result<u32> {
    // SAFETY: all bits zero are a valid value of this structure of integers.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("it is small");
    // SAFETY: the kernel writes at most `length` bytes, to a structure as long as that.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info.tcpi_total_retrans) }
}

/// Sets an option of TCP that is an integer to 1.
fn set_of_tcp(stream: &TcpStream, option: libc::c_int) -> io::Result<()> {
    let one: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&one)).expect("it is small");
    // SAFETY: the kernel reads `length` bytes of an integer as long as that.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const one).cast(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
