//! Sending adverts from the virtual MAC address (RFC 9568, 7.2: a master MUST), by which switches
//! learn where that is.
//!
//! The interface itself has another address, so the whole frame is written here.

use std::{io, net::IpAddr};

use super::{PROTOCOL, checksum, format::HOP_LIMIT, frames::Frames, socket::TOS};

/// Sends IP packets from another Ethernet address than the interface's.
#[derive(Debug)]
pub(super) struct VirtualMac {
    frames: Frames,
    mac: [u8; 6],
}

impl VirtualMac {
    pub(super) fn open(mac: [u8; 6]) -> io::Result<Self> {
        let frames = Frames::open()?;
        frames.come_first()?;
        Ok(Self { frames, mac })
    }

    /// Sends a message to a multicast address by an interface.
    pub(super) fn send(
        &self,
        ifindex: u32,
        message: &[u8],
        from: IpAddr,
        to: IpAddr,
    ) -> io::Result<()> {
        let frame = frame(self.mac, message, from, to).ok_or(io::ErrorKind::InvalidInput)?;
        self.frames.send(ifindex, &frame)
    }
}

/// The whole frame; none if it cannot be.
fn frame(mac: [u8; 6], message: &[u8], from: IpAddr, to: IpAddr) -> Option<Vec<u8>> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (from, to) = (from.octets(), to.octets());
            let length = u16::try_from(20 + message.len()).ok()?.to_be_bytes();
            // An advert fits in a frame, so it is never to be taken apart and needs no number.
            let dont_fragment = [0x40, 0];
            let mut header = [
                &[0x45, TOS][..],
                &length,
                &[0, 0],
                &dont_fragment,
                &[HOP_LIMIT, PROTOCOL, 0, 0],
                &from,
                &to,
            ]
            .concat();
            let sum = checksum::of(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            // RFC 1112, 6.4.
            let group = [0x01, 0x00, 0x5e, to[1] & 0x7f, to[2], to[3]];
            Some([&group[..], &mac, &[0x08, 0x00], &header, message].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (from, to) = (from.octets(), to.octets());
            let length = u16::try_from(message.len()).ok()?.to_be_bytes();
            let class = [0x60 | TOS >> 4, TOS << 4, 0, 0];
            let header = [&class[..], &length, &[PROTOCOL, HOP_LIMIT], &from, &to].concat();
            // RFC 2464, 7.
            let group = [0x33, 0x33, to[12], to[13], to[14], to[15]];
            Some([&group[..], &mac, &[0x86, 0xdd], &header, message].concat())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp_io::open_v4;

    const MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];

    #[test]
    fn a_frame_of_ipv4_goes_to_its_groups_address_with_a_header_that_is_right() {
        let (from, to) = ([10, 1, 0, 1].into(), [224, 0, 0, 18].into());
        let frame = frame(MAC, b"advert", from, to).expect("a frame");
        assert_eq!(frame[..6], [0x01, 0x00, 0x5e, 0, 0, 18]);
        assert_eq!(frame[6..14], [&MAC[..], &[8, 0]].concat());
        assert_eq!(checksum::of(&frame[14..34]), 0);
        let (envelope, message) = open_v4(&frame[14..]).expect("a packet");
        assert_eq!((envelope.source, envelope.destination, envelope.hop_limit), (from, to, 255));
        assert_eq!(message, b"advert");
    }

    #[test]
    fn a_frame_of_ipv6_goes_to_its_groups_address() {
        let (from, to) = ("fe80::1".parse().unwrap(), "ff02::12".parse().unwrap());
        let frame = frame(MAC, b"advert", from, to).expect("a frame");
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 0x12]);
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x6c, 0, 0, 0, 0, 6, 112, 255]);
        assert_eq!(frame[54..], *b"advert");
    }

    #[test]
    fn a_packet_is_of_one_family() {
        let (from, to) = ([10, 1, 0, 1].into(), "ff02::12".parse().unwrap());
        assert_eq!(frame(MAC, b"advert", from, to), None);
    }
}
