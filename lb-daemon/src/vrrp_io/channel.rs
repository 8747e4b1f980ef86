//! A group's way to the other hosts that share it.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use anyhow::{Context as _, ensure};
use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::if_indextoname,
    sys::socket::SockaddrIn6,
};

use super::{
    Counts, Discard, format::Format, options::index_of, socket::Raw, virtual_mac::VirtualMac,
};
use crate::{
    config::{Family, Group, Protocol},
    core::group::{Advert, Received},
};

/// Bytes of the longest advert, 255 IPv6 addresses, with the longest IPv4 header.
const LONGEST: usize = 60 + 8 + 255 * 16;

/// Sends and receives a group's adverts by one interface. Nothing blocks: poll its file descriptor
/// for input.
///
/// It is of the interface that had the name when it was opened, and sends from the address found
/// then. If [`is_lost`](Self::is_lost), or if sending fails for want of the [source](is_of_source),
/// open it anew.
///
/// Opening and dropping it may wait for the kernel: it lists addresses, joins a multicast group and
/// leaves it, while nobody else changes interfaces.
pub struct Channel {
    socket: Raw,
    /// What adverts are sent by if their Ethernet address is not the interface's.
    virtual_mac: Option<VirtualMac>,
    interface: String,
    ifindex: u32,
    source: IpAddr,
    format: Format,
    counts: Counts,
    buffer: Box<[u8; LONGEST]>,
}

impl Channel {
    /// Opens a group's channel on an interface. `shared` are the addresses of all groups: those come
    /// and go.
    ///
    /// # Errors
    ///
    /// If there is no such interface, if it has no address to send from, or if the kernel refuses.
    pub fn open(interface: &str, group: &Group, shared: &BTreeSet<IpAddr>) -> anyhow::Result<Self> {
        let ifindex =
            index_of(interface).with_context(|| format!("interface {interface} does not exist"))?;
        let format = Format::new(group);
        let source = source(interface, group, shared, format.family)?;
        let socket = Raw::open(format.family, (interface, ifindex), format.id, format.multicast())
            .with_context(|| format!("cannot open a socket for adverts on {interface}"))?;
        let virtual_mac = group.vmac().map(|(_, mac)| VirtualMac::open(mac)).transpose();
        let virtual_mac =
            virtual_mac.context("cannot open a socket for the virtual MAC address")?;
        Ok(Self {
            socket,
            virtual_mac,
            interface: interface.to_owned(),
            ifindex,
            source,
            format,
            counts: Counts::default(),
            buffer: Box::new([0; LONGEST]),
        })
    }

    /// The address that adverts are sent from: this host's, never one of a group.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// Number of the interface.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// What went over it.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether the interface is gone, or its name is another's now. A socket is not told.
    pub fn is_lost(&self) -> bool {
        // By the number: for a name that it does not know, the kernel may look for a module.
        if_indextoname(self.ifindex).ok().is_none_or(|name| name.to_str() != Ok(&self.interface))
    }

    /// Sends an advert to all who should have it.
    ///
    /// # Errors
    ///
    /// The first one, after all were tried: the interface is down (`ENETDOWN`, `ENETUNREACH`) or
    /// gone (`ENODEV`, `ENXIO`), the source address is gone (see [`is_of_source`]), there is no
    /// room (`ENOBUFS`, `EAGAIN`); or the advert is of another protocol than the group.
    pub fn send(&mut self, advert: &Advert) -> io::Result<()> {
        let mut result = Ok(());
        for to in self.format.destinations() {
            let sent = match self.format.write(advert, self.source, to) {
                Some(message) => match &self.virtual_mac {
                    Some(face) => face.send(self.ifindex, &message, self.source, to),
                    None => self.socket.send(&message, self.source, to),
                },
                None => Err(io::ErrorKind::InvalidInput.into()),
            };
            result = result.and(sent);
        }
        match result {
            Ok(()) => self.counts.sent += 1,
            Err(_) => self.counts.failed += 1,
        }
        result
    }

    /// The next packet that waits: an advert for the group, or why it is none. None if no packet
    /// waits.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, as it does once (`ENETDOWN`) when the interface goes.
    pub fn receive(&mut self) -> io::Result<Option<Result<Received, Discard>>> {
        let Some(packet) = self.socket.receive(&mut self.buffer[..])? else {
            return Ok(None);
        };
        let result = packet
            .and_then(|(envelope, message)| self.format.read(&envelope, message, self.source));
        match &result {
            Ok(_) => self.counts.received += 1,
            Err(why) => self.counts.discard(*why),
        }
        Ok(Some(result))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_fd().as_raw_fd()
    }
}

// Without the format: it knows the password.
impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("interface", &self.interface)
            .field("source", &self.source)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Whether sending may have failed because there is no such source address: what the kernel says
/// then depends on the family and on its version.
pub fn is_of_source(error: &io::Error) -> bool {
    let reasons = [libc::EINVAL, libc::EADDRNOTAVAIL, libc::ENETUNREACH];
    error.raw_os_error().is_some_and(|error| reasons.contains(&error))
}

/// The address to send from: the configured one, or the interface's first that is not a
/// group's, which for IPv6 must be link-local (RFC 9568, 5.1.2.1).
fn source(
    interface: &str,
    group: &Group,
    shared: &BTreeSet<IpAddr>,
    family: Family,
) -> anyhow::Result<IpAddr> {
    if let Protocol::Vrrp(vrrp) = &group.protocol
        && let Some(source) = vrrp.source
    {
        ensure!(
            is_here(source, interface)?,
            "{source} is no address of this host, so no adverts can be sent from it"
        );
        return Ok(source);
    }
    let is_suitable = |ip: &IpAddr| {
        let is_of_family = match (family, ip) {
            (Family::V4, IpAddr::V4(_)) => true,
            (Family::V6, IpAddr::V6(ip)) => ip.is_unicast_link_local(),
            _ => false,
        };
        is_of_family && !shared.contains(ip)
    };
    addresses()?
        .filter(|one| one.interface_name == interface)
        .filter_map(|one| ip_of(&one))
        .find(is_suitable)
        .with_context(|| {
            let kind = match family {
                Family::V4 => "IPv4",
                Family::V6 => "IPv6 link-local",
            };
            format!("interface {interface} has no {kind} address of its own to send adverts from")
        })
}

/// Whether an address is this host's; a link-local one has to be of the interface.
fn is_here(ip: IpAddr, interface: &str) -> anyhow::Result<bool> {
    let reaches = |name: &str| ip.is_ipv4() || name == interface;
    Ok(addresses()?.any(|one| ip_of(&one) == Some(ip) && reaches(&one.interface_name)))
}

fn addresses() -> anyhow::Result<impl Iterator<Item = InterfaceAddress>> {
    getifaddrs().context("cannot list this host's addresses")
}

fn ip_of(one: &InterfaceAddress) -> Option<IpAddr> {
    let address = one.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(SockaddrIn6::ip).map(IpAddr::V6))
}
