//! The Internet checksum over whole messages (RFC 1071).

use std::net::IpAddr;

use super::PROTOCOL;

/// The checksum of a message whose checksum field is zero, or zero for a whole one that is right.
/// An odd last byte counts as if a zero followed.
pub(super) fn of(message: &[u8]) -> u16 {
    !fold(sum(message))
}

/// The same, over a pseudo-header as well: that of RFC 8200, 8.1, or, over IPv4, that of TCP.
pub(super) fn with_pseudo_header(message: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    pseudo_header(message, source, destination, PROTOCOL)
}

/// The same for any protocol.
pub(super) fn pseudo_header(
    message: &[u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
) -> u16 {
    // Both forms sum to this: the addresses, the length and the protocol; the rest are zeros.
    let length = u64::try_from(message.len()).unwrap_or(u64::MAX);
    !fold(sum(message) + address(source) + address(destination) + length + u64::from(protocol))
}

fn address(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u64) -> u16 {
    while u16::try_from(sum).is_err() {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("the loop ends with this")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_is_right() {
        let message = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&message), !0xddf2);
    }

    #[test]
    fn an_odd_byte_is_the_high_one() {
        assert_eq!(of(&[0x12, 0x34, 0x56]), !(0x1234 + 0x5600));
    }

    #[test]
    fn a_pseudo_header_is_addresses_protocol_and_length() {
        let (source, destination): (IpAddr, IpAddr) =
            ([10, 0, 0, 1].into(), [224, 0, 0, 18].into());
        let whole = [10, 0, 0, 1, 224, 0, 0, 18, 0, 112, 0, 2, 0xab, 0xcd];
        assert_eq!(with_pseudo_header(&[0xab, 0xcd], source, destination), of(&whole));

        let (source, destination): (IpAddr, IpAddr) =
            ("fe80::1".parse().unwrap(), "ff02::12".parse().unwrap());
        let mut whole = Vec::new();
        for ip in [source, destination] {
            let IpAddr::V6(ip) = ip else { unreachable!() };
            whole.extend(ip.octets());
        }
        whole.extend([0, 0, 0, 2, 0, 0, 0, 112, 0xab, 0xcd]);
        assert_eq!(with_pseudo_header(&[0xab, 0xcd], source, destination), of(&whole));
    }
}
