//! Raw sockets: what the standard library does not offer of them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};

use super::{
    Discard, PROTOCOL, filter,
    format::HOP_LIMIT,
    options::{open, set, set_bytes},
    packet,
    packet::{Envelope, Packet},
};
use crate::config::Family;

/// Type of service and traffic class: internetwork control, as keepalived's.
pub(super) const TOS: u8 = 0xc0;
/// `TC_PRIO_CONTROL`: ahead of everything else in this host's queues.
pub(super) const PRIORITY: i32 = 7;
/// Bytes of packets that may wait to be read: some hundred adverts. What is more is older news.
const BUFFER: i32 = 256 << 10;

/// A socket for IP protocol 112 on one interface. Neither sending nor receiving blocks.
#[derive(Debug)]
pub(super) struct Raw {
    fd: OwnedFd,
    family: Family,
    ifindex: u32,
}

impl Raw {
    /// Opens a socket that hears packets with this identifier only, and those to `multicast` if it
    /// is given.
    pub(super) fn open(
        family: Family,
        interface: (&str, u32),
        id: u8,
        multicast: Option<IpAddr>,
    ) -> io::Result<Self> {
        let (name, ifindex) = interface;
        let domain = match family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        let socket = Self { fd: open(domain, PROTOCOL.into())?, family, ifindex };
        filter::attach(&socket.fd, &filter::identifier(family, id))?;
        set_bytes(&socket.fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_bytes())?;
        set(&socket.fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
        match family {
            Family::V4 => socket.set_up_v4(multicast)?,
            Family::V6 => socket.set_up_v6(multicast)?,
        }
        // After the type of service, which changes it.
        set(&socket.fd, libc::SOL_SOCKET, libc::SO_PRIORITY, PRIORITY)?;
        socket.drain()?;
        Ok(socket)
    }

    fn set_up_v4(&self, multicast: Option<IpAddr>) -> io::Result<()> {
        let ip = |option, value| set(&self.fd, libc::IPPROTO_IP, option, value);
        ip(libc::IP_TTL, HOP_LIMIT.into())?;
        ip(libc::IP_MULTICAST_TTL, HOP_LIMIT.into())?;
        ip(libc::IP_MULTICAST_LOOP, 0)?;
        // Not what other programs have joined.
        ip(libc::IP_MULTICAST_ALL, 0)?;
        ip(libc::IP_TOS, TOS.into())?;
        // Never "don't fragment": an advert may list more addresses than a packet has room for.
        ip(libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
        let membership = |group: Ipv4Addr| libc::ip_mreqn {
            imr_multiaddr: libc::in_addr { s_addr: u32::from(group).to_be() },
            imr_address: libc::in_addr { s_addr: 0 },
            imr_ifindex: self.ifindex.cast_signed(),
        };
        if let Some(IpAddr::V4(group)) = multicast {
            set(&self.fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, membership(group))?;
        }
        let by_this_interface = membership(Ipv4Addr::UNSPECIFIED);
        set(&self.fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, by_this_interface)
    }

    fn set_up_v6(&self, multicast: Option<IpAddr>) -> io::Result<()> {
        let ip = |option, value| set(&self.fd, libc::IPPROTO_IPV6, option, value);
        ip(libc::IPV6_UNICAST_HOPS, HOP_LIMIT.into())?;
        ip(libc::IPV6_MULTICAST_HOPS, HOP_LIMIT.into())?;
        ip(libc::IPV6_MULTICAST_LOOP, 0)?;
        ip(libc::IPV6_MULTICAST_ALL, 0)?;
        ip(libc::IPV6_TCLASS, TOS.into())?;
        ip(libc::IPV6_RECVHOPLIMIT, 1)?;
        ip(libc::IPV6_RECVPKTINFO, 1)?;
        ip(libc::IPV6_MULTICAST_IF, self.ifindex.cast_signed())?;
        if let Some(IpAddr::V6(group)) = multicast {
            let membership = libc::ipv6_mreq {
                ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() },
                ipv6mr_interface: self.ifindex,
            };
            set(&self.fd, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, membership)?;
        }
        Ok(())
    }

    /// Throws away what came in before the socket was told what it shall hear.
    fn drain(&self) -> io::Result<()> {
        let mut byte = [0];
        while self.receive_raw(&mut byte)?.is_some() {}
        Ok(())
    }

    /// Sends a message from an address of ours.
    pub(super) fn send(&self, message: &[u8], from: IpAddr, to: IpAddr) -> io::Result<()> {
        let parts = [io::IoSlice::new(message)];
        match (from, to) {
            (IpAddr::V4(from), to @ IpAddr::V4(_)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: self.ifindex.cast_signed(),
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrStorage::from(SocketAddr::new(to, 0));
                self.send_with(&parts, &[ControlMessage::Ipv4PacketInfo(&info)], &to)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                    ipi6_ifindex: self.ifindex,
                };
                let to = SockaddrStorage::from(SocketAddrV6::new(to, 0, 0, self.ifindex));
                self.send_with(&parts, &[ControlMessage::Ipv6PacketInfo(&info)], &to)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn send_with(
        &self,
        parts: &[io::IoSlice<'_>],
        control: &[ControlMessage<'_>],
        to: &SockaddrStorage,
    ) -> io::Result<()> {
        sendmsg(self.fd.as_raw_fd(), parts, control, MsgFlags::empty(), Some(to))?;
        Ok(())
    }

    /// The next packet that waits: what surrounds it, and where in `buffer` its message is. None if
    /// there is none.
    pub(super) fn receive<'a>(
        &self,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<Result<Packet<'a>, Discard>>> {
        let Some((length, from, info)) = self.receive_raw(buffer)? else {
            return Ok(None);
        };
        let packet = &buffer[..length];
        Ok(Some(match self.family {
            Family::V4 => packet::open_v4(packet),
            Family::V6 => {
                // The kernel was told to hand all three over with each packet.
                let envelope = from.zip(info.destination).zip(info.hop_limit);
                envelope
                    .map(|((source, destination), hop_limit)| {
                        (Envelope { source, destination, hop_limit }, packet)
                    })
                    .ok_or(Discard::Length)
            }
        }))
    }

    fn receive_raw(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Option<IpAddr>, Info)>> {
        let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let mut parts = [io::IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        let answer =
            recvmsg::<SockaddrStorage>(self.fd.as_raw_fd(), &mut parts, Some(&mut control), flags);
        let answer = match answer {
            Ok(answer) => answer,
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut info = Info::default();
        for message in answer.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv6PacketInfo(one) => {
                    info.destination = Some(Ipv6Addr::from(one.ipi6_addr.s6_addr).into());
                }
                ControlMessageOwned::Ipv6HopLimit(limit) => {
                    info.hop_limit = u8::try_from(limit).ok();
                }
                _ => {}
            }
        }
        let from = answer.address.as_ref().and_then(SockaddrStorage::as_sockaddr_in6);
        Ok(Some((answer.bytes, from.map(|from| from.ip().into()), info)))
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the kernel says of a packet beside its bytes.
#[derive(Default)]
struct Info {
    destination: Option<IpAddr>,
    hop_limit: Option<u8>,
}
