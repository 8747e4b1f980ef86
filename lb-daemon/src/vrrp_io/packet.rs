//! What surrounds a message on the wire, and which of the two protocols it is of.

use std::net::{IpAddr, Ipv4Addr};

use super::Discard;

/// What the IP header says about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom to.
    pub destination: IpAddr,
    /// Its TTL or hop limit.
    pub hop_limit: u8,
}

/// A message and what surrounds it.
pub type Packet<'a> = (Envelope, &'a [u8]);

/// Takes an IPv4 packet apart, header first, as a raw socket hands it over.
///
/// # Errors
///
/// [`Discard::Length`] if it is no IPv4 packet, or shorter than it says.
pub fn open_v4(packet: &[u8]) -> Result<Packet<'_>, Discard> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(Discard::Length)?;
    let (version, header_length) = (header[0] >> 4, usize::from(header[0] & 0x0f) * 4);
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if version != 4 || header_length < header.len() {
        return Err(Discard::Length);
    }
    let message = packet.get(header_length..total).ok_or(Discard::Length)?;
    let address = |at: usize| {
        IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]))
    };
    let envelope = Envelope { source: address(12), destination: address(16), hop_limit: header[8] };
    Ok((envelope, message))
}

/// Whether a message is CARP's. VRRP has the same IP protocol and may begin with the same byte,
/// version 2 and type 1; but a VRRP advert with CARP's constant 7 in the fourth byte lists seven
/// addresses and is longer.
pub(super) fn is_carp(message: &[u8]) -> bool {
    message.len() == 36 && message[0] == 0x21 && message[3] == 7
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        let mut packet = vec![0x46, 0xc0, 0, 28, 0, 0, 0, 0, 254, 112, 0, 0];
        packet.extend([10, 0, 0, 2, 224, 0, 0, 18]);
        packet.extend([0x94, 4, 0, 0]);
        packet.extend([1, 2, 3, 4]);
        packet
    }

    #[test]
    fn options_of_ipv4_are_skipped() {
        let packet = packet();
        let (envelope, message) = open_v4(&packet).unwrap();
        let (source, destination) = ([10, 0, 0, 2].into(), [224, 0, 0, 18].into());
        assert_eq!(envelope, Envelope { source, destination, hop_limit: 254 });
        assert_eq!(message, [1, 2, 3, 4]);
    }

    #[test]
    fn a_packet_ends_where_its_header_says() {
        let mut longer = packet();
        longer.extend([0; 6]);
        assert_eq!(open_v4(&longer).unwrap().1, [1, 2, 3, 4]);
    }

    #[test]
    fn a_packet_shorter_than_its_header_says_is_discarded() {
        let whole = packet();
        for length in 0..whole.len() {
            assert_eq!(open_v4(&whole[..length]), Err(Discard::Length));
        }
        for (at, value) in [(0, 0x44), (0, 0x66), (3, 20)] {
            let mut wrong = packet();
            wrong[at] = value;
            assert_eq!(open_v4(&wrong), Err(Discard::Length), "byte {at} is {value:#x}");
        }
    }

    #[test]
    fn an_advert_of_seven_addresses_is_not_carp() {
        let mut advert = vec![0x21, 51, 100, 7];
        advert.resize(8 + 7 * 4 + 8, 0);
        assert!(!is_carp(&advert));
        advert.truncate(36);
        assert!(is_carp(&advert));
    }
}
