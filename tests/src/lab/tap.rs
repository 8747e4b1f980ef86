//! What TCP segments look like to a host.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt,
    },
};

use super::Namespace;

/// Takes down the TCP segments that a host sends and receives from now on.
///
/// It is for short talks: what a socket's buffer has no room for is lost.
#[derive(Debug)]
pub struct Tap(OwnedFd);

/// The headers of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it came from.
    pub from: SocketAddr,
    /// Where it went to.
    pub to: SocketAddr,
    /// IPv4's TTL, or IPv6's hop limit.
    pub hop_limit: u8,
    /// Whether it opens a connection: a SYN without an ACK.
    pub opens: bool,
    /// Whether its sender has no more to say: a FIN.
    pub closes: bool,
}

impl Tap {
    /// Listens in on a host.
    pub fn on(host: &Namespace) -> Result<Self> {
        let tap = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            // Of the kind datagram, it hands over packets without their Ethernet header.
            socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)
        };
        let tap =
            host.enter(tap).with_context(|| format!("cannot listen in on {}", host.name()))?;
        setsockopt(&tap, sockopt::RcvBufForce, &BUFFER)?;
        Ok(Self(tap))
    }

    /// The segments to an address, since this was last asked.
    pub fn seen(&self, to: impl Fn(SocketAddr) -> bool) -> Result<Vec<Seen>> {
        let (mut packet, mut seen) = ([0; LONGEST_HEADERS], Vec::new());
        loop {
            match recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_TRUNC) {
                Ok(length) => seen.extend(parse(&packet[..length.min(LONGEST_HEADERS)])),
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error).context("cannot listen in"),
            }
        }
        seen.retain(|one: &Seen| to(one.to));
        Ok(seen)
    }
}

/// Bytes, room for thousands of small packets.
const BUFFER: usize = 16 << 20;
const LONGEST_HEADERS: usize = 60 + 60;
const TCP: u8 = 6;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Takes apart a packet from its IP header on; nothing if it is not TCP, or too short.
pub(super) fn parse(packet: &[u8]) -> Option<Seen> {
    let (from, to, hop_limit, protocol, tcp): (IpAddr, IpAddr, _, _, _) = match packet.first()? >> 4
    {
        4 => {
            let length = usize::from(packet[0] & 0x0f) * 4;
            let address = |at| packet.get(at..at + 4)?.try_into().ok().map(|ip: [u8; 4]| ip.into());
            (address(12)?, address(16)?, packet[8], packet[9], packet.get(length..)?)
        }
        6 => {
            let address =
                |at| packet.get(at..at + 16)?.try_into().ok().map(|ip: [u8; 16]| ip.into());
            (address(8)?, address(24)?, packet[7], packet[6], packet.get(40..)?)
        }
        _ => return None,
    };
    let [s0, s1, d0, d1] = *tcp.first_chunk()?;
    let flags = *tcp.get(13)?;
    (protocol == TCP).then_some(Seen {
        from: (from, u16::from_be_bytes([s0, s1])).into(),
        to: (to, u16::from_be_bytes([d0, d1])).into(),
        hop_limit,
        opens: flags & (SYN | ACK) == SYN,
        closes: flags & FIN != 0,
    })
}
