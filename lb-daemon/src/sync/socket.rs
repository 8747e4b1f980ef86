//! The sockets of the conversation.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

/// How long the kernel may try to connect.
const CONNECTING: Duration = Duration::from_secs(2);
/// How long what was sent may go without an acknowledgement before the connection is given up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// Callers that may wait to be accepted.
const BACKLOG: u32 = 16;

/// A socket for callers, at an address that this host may get only later.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address)?;
    socket.set_reuseaddr(true)?;
    // Also for IPv6.
    setsockopt(&socket.as_fd(), sockopt::IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Calls the peer, from an address of this host, whatever address the kernel would choose.
pub(super) async fn dial(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = open(to)?;
    socket.bind(SocketAddr::new(from, 0)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            let why = format!("this host has not the address {from} ([sync] listen)");
            io::Error::new(error.kind(), why)
        }
        _ => error,
    })?;
    timeout(CONNECTING, socket.connect(to)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Has a connection send at once what there is to send, and notice when the peer is gone.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&stream.as_fd(), sockopt::TcpUserTimeout, &millis)?;
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}
