//! A host that says what it should not: adverts in the name of others.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::sys::socket::{LinkAddr, MsgFlags, sendto};

use super::{Frame, Namespace, capture::IPV4, fence, half_open::checksum};

/// Sends packets of its own making to all who share addresses, by the interface `eth0` of a host.
#[derive(Debug)]
pub struct Forger {
    socket: OwnedFd,
    link: LinkAddr,
}

/// An IPv4 packet with an advert of VRRP or CARP, made from one that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forged {
    header: [u8; HEADER],
    advert: Vec<u8>,
}

impl Forger {
    /// Begins on a host.
    pub fn on(host: &Namespace) -> Result<Self> {
        let (socket, link) = host.enter(|| fence::open("eth0")).context("cannot send frames")?;
        Ok(Self { socket, link })
    }

    /// Sends a packet, from the Ethernet address of this host.
    pub fn send(&self, packet: &Forged) -> Result<()> {
        let mac = self.link.addr().context("an interface without an address")?;
        let frame = [&ALL_ROUTERS[..], &mac, &IPV4.to_be_bytes(), &packet.bytes()].concat();
        sendto(self.socket.as_raw_fd(), &frame, &self.link, MsgFlags::empty())?;
        Ok(())
    }
}

impl Forged {
    /// The packet of a frame, if it has an IPv4 header without options and something after it.
    pub fn like(frame: &Frame) -> Option<Self> {
        let (kind, packet) = frame.payload()?;
        let (header, rest) = packet.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        // What comes after the packet fills the frame.
        let advert = rest.get(..length.checked_sub(HEADER)?)?.to_vec();
        (kind == IPV4 && header[0] == 0x45).then_some(Self { header: *header, advert })
    }

    /// As if it came from this address.
    #[must_use]
    pub fn from(mut self, source: Ipv4Addr) -> Self {
        self.header[12..16].copy_from_slice(&source.octets());
        self
    }

    /// As if it had come over routers.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.header[8] = ttl;
        self
    }

    /// With another advert, whose checksum is left as it is.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.advert);
        self
    }

    /// With the checksum that the advert should have: without a pseudo-header.
    #[must_use]
    pub fn summed(self) -> Self {
        self.with(|advert| {
            advert[6..8].fill(0);
            let sum = checksum(advert).to_be_bytes();
            advert[6..8].copy_from_slice(&sum);
        })
    }

    /// Bytes of the advert.
    pub fn length(&self) -> usize {
        self.advert.len()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = self.header;
        let length = u16::try_from(HEADER + self.advert.len()).expect("adverts are short");
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        [&header[..], &self.advert].concat()
    }
}

const HEADER: usize = 20;
/// Ethernet address of 224.0.0.18, where both protocols send to.
const ALL_ROUTERS: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x12];
