//! Hearing others claim our addresses: an address that is on two hosts.
//!
//! A host that answers or announces by ARP or by a neighbour advertisement for an address we hold
//! is in the wrong, or we are. Nothing is done about it here; it is told.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use lb_common::addr::Mac;

use super::{filter, frames::Frames};
use crate::config::Family;

/// Ethernet types.
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Bytes of a frame that matter: an advertisement with an option or two.
const LONGEST: usize = 256;

/// Listens on an interface for claims by one family's protocol: ARP, or neighbour
/// advertisements. Poll its file descriptor for input.
#[derive(Debug)]
pub struct Claims {
    frames: Frames,
    family: Family,
}

/// A host says that an address is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub ip: IpAddr,
    /// The Ethernet address that shall have it.
    pub mac: Mac,
}

impl Claims {
    /// Starts to listen on an interface. What this host sends itself is not heard.
    ///
    /// # Errors
    ///
    /// If the kernel refuses: there is no such interface.
    pub fn open(ifindex: u32, family: Family) -> io::Result<Self> {
        let frames = match family {
            Family::V4 => Frames::hear(ifindex, ARP, None),
            Family::V6 => Frames::hear(ifindex, IPV6, Some(&filter::neighbour_advertisements())),
        }?;
        Ok(Self { frames, family })
    }

    /// The next claim to one of the addresses in `held` by another Ethernet address than `own`.
    /// None if there is none so far.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` when the interface went down or away; after it came up again the socket goes on.
    pub fn next(&self, held: &BTreeSet<IpAddr>, own: Mac) -> io::Result<Option<Claim>> {
        let mut frame = [0; LONGEST];
        while let Some(length) = self.frames.receive(&mut frame)? {
            if let Some(claim) = Claim::read(self.family, &frame[..length])
                && claim.mac != own
                && held.contains(&claim.ip)
            {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }
}

impl Claim {
    /// What a frame of ARP or with a neighbour advertisement claims. Of an IPv6 frame it has to be
    /// known that it is the latter.
    pub fn read(family: Family, frame: &[u8]) -> Option<Self> {
        match family {
            Family::V4 => arp(frame),
            Family::V6 => advertisement(frame),
        }
    }
}

impl AsFd for Claims {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.frames.as_fd()
    }
}

impl AsRawFd for Claims {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The sender of an ARP packet, request or reply, which holds its address by sending it. A probe
/// (RFC 5227, 2.1.1) has no sender's address yet.
fn arp(frame: &[u8]) -> Option<Claim> {
    let packet = frame.get(14..42)?;
    let over_ethernet_for_ipv4 = packet[..6] == [0, 1, 8, 0, 6, 4];
    let mac = Mac(packet[8..14].try_into().ok()?);
    let ip = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[14..18]).ok()?);
    over_ethernet_for_ipv4.then_some(Claim { ip: ip.into(), mac })
}

/// The target of a neighbour advertisement, and the Ethernet address it says or comes from.
fn advertisement(frame: &[u8]) -> Option<Claim> {
    const TARGET_ADDRESS: u8 = 2;
    let message = frame.get(14 + 40..)?;
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let mut options = &message[24..];
    let mut mac: [u8; 6] = frame[6..12].try_into().ok()?;
    while let [kind, words, ..] = *options {
        let length = usize::from(words) * 8;
        let option = options.get(..length).filter(|option| !option.is_empty())?;
        if kind == TARGET_ADDRESS {
            mac = option[2..8].try_into().ok()?;
        }
        options = &options[length..];
    }
    Some(Claim { ip: Ipv6Addr::from(target).into(), mac: Mac(mac) })
}

#[cfg(test)]
mod tests;
