//! SYNs from clients that never answer.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

use super::Namespace;

/// SYNs to an address, each from an address and port of its own, over raw sockets.
///
/// With sources of [`Lab::nowhere`](super::Lab::nowhere) nobody answers the SYN-ACK, not even by
/// a reset, so each stays half open.
#[derive(Clone, Debug)]
pub struct HalfOpen {
    to: SocketAddr,
    count: usize,
    per_second: u32,
}

impl HalfOpen {
    /// One SYN.
    pub fn at(to: SocketAddr) -> Self {
        Self { to, count: 1, per_second: 20_000 }
    }

    /// How many SYNs.
    #[must_use]
    pub fn count(self, count: usize) -> Self {
        Self { count, ..self }
    }

    /// How many a second at most; 20,000 if not said.
    #[must_use]
    pub fn per_second(self, per_second: u32) -> Self {
        Self { per_second, ..self }
    }

    /// Sends them from a host; `source` gives the address and port of each by its number.
    pub fn send(&self, host: &Namespace, source: impl Fn(usize) -> SocketAddr) -> Result<()> {
        let family = if self.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        // A raw socket of this protocol sends whole IP packets as they are.
        let raw = host
            .enter(|| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw))
            .context("cannot open a raw socket")?;
        // The port of a raw socket's destination has no meaning, and IPv6 wants it to be 0.
        let destination = SockaddrStorage::from(SocketAddr::new(self.to.ip(), 0));
        let start = Instant::now();
        for number in 0..self.count {
            let packet = syn(source(number), self.to)?;
            sendto(raw.as_raw_fd(), &packet, &destination, MsgFlags::empty())
                .with_context(|| format!("SYN {number} to {}", self.to))?;
            let due = Duration::from_secs(1) * u32::try_from(number)? / self.per_second;
            // Sleeping for less than a millisecond takes longer than it should.
            if let Some(early) = due.checked_sub(start.elapsed())
                && early > Duration::from_millis(1)
            {
                thread::sleep(early);
            }
        }
        Ok(())
    }
}

/// An IP packet with a SYN, checksums included.
pub(super) fn syn(from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => Ok(syn4(from, to)),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => Ok(syn6(from, to)),
        _ => bail!("{from} and {to} are not of the same family"),
    }
}

fn syn4(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let tcp = tcp_syn(from.into(), to.into());
    let length = (20 + TCP_LENGTH).to_be_bytes();
    let mut ip = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, TCP, 0, 0];
    ip.extend(from.ip().octets());
    ip.extend(to.ip().octets());
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    ip.extend(tcp);
    ip
}

fn syn6(from: SocketAddrV6, to: SocketAddrV6) -> Vec<u8> {
    let length = TCP_LENGTH.to_be_bytes();
    let mut ip = vec![0x60, 0, 0, 0, length[0], length[1], TCP, 64];
    ip.extend(from.ip().octets());
    ip.extend(to.ip().octets());
    ip.extend(tcp_syn(from.into(), to.into()));
    ip
}

const TCP: u8 = 6;
const TCP_LENGTH: u16 = 24;

/// A TCP header with the SYN flag and an MSS, its checksum that of the addresses (RFC 9293, 3.1).
fn tcp_syn(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(TCP_LENGTH.into());
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend([0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0]);
    tcp.extend([6 << 4, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend([2, 4, 0x05, 0xb4]);

    let mut summed = octets(from.ip());
    summed.extend(octets(to.ip()));
    summed.extend([0, TCP]);
    summed.extend(TCP_LENGTH.to_be_bytes());
    summed.extend(&tcp);
    tcp[16..18].copy_from_slice(&checksum(&summed).to_be_bytes());
    tcp
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071), written plainly: it is what others are tested against.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("it was folded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_verify() {
        let packet = syn("10.9.0.1:1024".parse().unwrap(), "10.1.0.100:80".parse().unwrap());
        let packet = packet.unwrap();
        assert_eq!(checksum(&packet[..20]), 0);
        let pseudo = [&packet[12..20], &[0, TCP, 0, 24], &packet[20..]].concat();
        assert_eq!(checksum(&pseudo), 0);
    }

    #[test]
    fn families_do_not_mix() {
        assert!(syn("[::1]:1".parse().unwrap(), "10.1.0.100:80".parse().unwrap()).is_err());
    }
}
