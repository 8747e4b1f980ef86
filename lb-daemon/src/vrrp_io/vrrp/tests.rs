use proptest::prelude::*;

use super::*;

/// What keepalived 2.2.7 sends from 10.0.0.2 with the password "secret12".
const KEEPALIVED_V2: [u8; 24] = [
    0x21, 51, 103, 2, 1, 1, 0xf4, 0x81, 10, 0, 0, 100, 10, 0, 0, 101, b's', b'e', b'c', b'r', b'e',
    b't', b'1', b'2',
];
/// What it sends from 10.0.0.2 in version 3, with a pseudo-header.
const KEEPALIVED_V3: [u8; 12] = [0x31, 52, 200, 1, 0, 10, 0x11, 0xcb, 10, 0, 0, 100];
/// What it sends from `fe80::2` in version 3, for `fe80::53` and `fd00::64`.
const KEEPALIVED_V6: [u8; 40] = [
    0x31, 53, 150, 2, 0, 10, 0x3e, 0x55, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53,
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x64,
];

fn envelope(family: Family) -> Envelope {
    let (source, destination) = match family {
        Family::V4 => ("10.0.0.2", "224.0.0.18"),
        Family::V6 => ("fe80::2", "ff02::12"),
    };
    let [source, destination] = [source, destination].map(|ip| ip.parse().unwrap());
    Envelope { source, destination, hop_limit: 255 }
}

fn config(version: VrrpVersion, id: u8) -> Vrrp {
    Vrrp {
        version,
        virtual_router_id: id,
        priority: 100,
        advert_int: std::time::Duration::from_secs(1),
        family: Family::V4,
        source: None,
        unicast_peers: Vec::new(),
        auth_pass: None,
        auth_pass_file: None,
        pseudo_header: true,
        vmac: None,
    }
}

fn v2() -> Vrrp {
    Vrrp { auth_pass: Some("secret12".to_owned()), ..config(VrrpVersion::V2, 51) }
}

fn v3() -> Vrrp {
    config(VrrpVersion::V3, 52)
}

fn v6() -> Vrrp {
    Vrrp { family: Family::V6, ..config(VrrpVersion::V3, 53) }
}

fn read(config: &Vrrp, message: &[u8]) -> Result<VrrpAdvert, Discard> {
    Format::new(config).read(&envelope(config.family), message)
}

fn write(config: &Vrrp, advert: &VrrpAdvert) -> Vec<u8> {
    let Envelope { source, destination, .. } = envelope(config.family);
    Format::new(config).write(advert, source, destination)
}

/// The message with a byte changed and its checksum made right again, as version 2 computes it.
fn with(message: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] = value;
    message[6..8].fill(0);
    let sum = checksum::of(&message);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

fn advert(config: &Vrrp, priority: u8, interval: u16, addresses: &[&str]) -> VrrpAdvert {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let (version, virtual_router_id) = (config.version, config.virtual_router_id);
    VrrpAdvert { version, virtual_router_id, priority, interval, addresses }
}

/// RFC 3768, 5.3.8: the checksum is of the whole message, from the version on. 7.2: all fields are
/// filled in, and the checksum is computed, before it is sent.
#[test]
fn adverts_of_keepalived_are_read_and_written_byte_for_byte() {
    let cases: [(_, &[u8], _); 3] = [
        (v2(), &KEEPALIVED_V2, advert(&v2(), 103, 100, &["10.0.0.100", "10.0.0.101"])),
        (v3(), &KEEPALIVED_V3, advert(&v3(), 200, 10, &["10.0.0.100"])),
        (v6(), &KEEPALIVED_V6, advert(&v6(), 150, 10, &["fe80::53", "fd00::64"])),
    ];
    for (config, bytes, advert) in cases {
        assert_eq!(read(&config, bytes), Ok(advert.clone()));
        assert_eq!(write(&config, &advert), bytes);
    }
}

/// RFC 9568, 5.2.8: over IPv4 the checksum is of the VRRP message alone.
#[test]
fn the_checksum_of_rfc_9568_is_sent_if_configured_and_accepted_anyway() {
    let plain = Vrrp { pseudo_header: false, ..v3() };
    let advert = advert(&plain, 200, 10, &["10.0.0.100"]);
    let bytes = write(&plain, &advert);
    assert_eq!(checksum::of(&bytes), 0);
    for config in [plain, v3()] {
        assert_eq!(read(&config, &bytes), Ok(advert.clone()));
        assert_eq!(read(&config, &KEEPALIVED_V3), Ok(advert.clone()));
    }
}

/// RFC 9568, 5.2.8: over IPv6 it covers the pseudo-header, whatever is configured.
#[test]
fn over_ipv6_only_the_checksum_with_a_pseudo_header_is_right() {
    let config = Vrrp { pseudo_header: false, ..v6() };
    let advert = read(&config, &KEEPALIVED_V6).unwrap();
    assert_eq!(write(&config, &advert), KEEPALIVED_V6);
    let plain = with(&KEEPALIVED_V6, 0, 0x31);
    assert_eq!(read(&config, &plain), Err(Discard::Checksum));
}

/// RFC 3768, 7.1: MUST verify the VRRP version is 2; RFC 9568, 7.1: 3.
#[test]
fn another_version_is_discarded() {
    for version in (0..=15).filter(|version| *version != 2) {
        let message = with(&KEEPALIVED_V2, 0, version << 4 | 1);
        assert_eq!(read(&v2(), &message), Err(Discard::Version));
    }
    for version in (0..=15).filter(|version| *version != 3) {
        let message = with(&KEEPALIVED_V3, 0, version << 4 | 1);
        assert_eq!(read(&v3(), &message), Err(Discard::Version));
    }
}

/// RFC 3768, 5.3.2, and RFC 9568, 5.2.2: a packet with unknown type MUST be discarded.
#[test]
fn another_type_is_discarded() {
    for kind in (0..=15).filter(|kind| *kind != 1) {
        assert_eq!(read(&v2(), &with(&KEEPALIVED_V2, 0, 0x20 | kind)), Err(Discard::Type));
        assert_eq!(read(&v3(), &with(&KEEPALIVED_V3, 0, 0x30 | kind)), Err(Discard::Type));
    }
}

/// RFC 3768, 7.1: MUST verify that the packet contains the complete VRRP packet, authentication
/// data included; RFC 9568, 7.1, likewise.
#[test]
fn a_message_cut_anywhere_is_discarded() {
    let all: [(_, &[u8]); 3] =
        [(v2(), &KEEPALIVED_V2), (v3(), &KEEPALIVED_V3), (v6(), &KEEPALIVED_V6)];
    for (config, whole) in all {
        for length in 0..whole.len() {
            let result = read(&config, &whole[..length]);
            assert_eq!(result, Err(Discard::Length), "{length} bytes");
        }
    }
}

/// RFC 3768, 7.1, and RFC 9568, 7.1: MUST verify the checksum.
#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let all: [(_, &[u8]); 3] =
        [(v2(), &KEEPALIVED_V2), (v3(), &KEEPALIVED_V3), (v6(), &KEEPALIVED_V6)];
    for (config, whole) in all {
        for bit in 0..whole.len() * 8 {
            let mut message = whole.to_vec();
            message[bit / 8] ^= 1 << (bit % 8);
            let why = read(&config, &message).expect_err("a flipped bit");
            let expected = match bit / 8 {
                0 => [Discard::Version, Discard::Type],
                3 => [Discard::Length, Discard::Checksum],
                _ => [Discard::Checksum; 2],
            };
            assert!(expected.contains(&why), "bit {bit}: {why}");
        }
    }
}

/// RFC 9568, 7.1: the pseudo-header has the addresses of the packet, so those count as well.
#[test]
fn an_ipv6_advert_with_another_source_is_discarded() {
    let forged = Envelope { source: "fe80::3".parse().unwrap(), ..envelope(Family::V6) };
    let result = Format::new(&v6()).read(&forged, &KEEPALIVED_V6);
    assert_eq!(result, Err(Discard::Checksum));
}

/// RFC 3768, 7.1, and RFC 9568, 7.1: MUST verify that the VRID is configured.
#[test]
fn another_virtual_router_is_not_ours() {
    for id in (0..=255).filter(|id| *id != 51) {
        assert_eq!(read(&v2(), &with(&KEEPALIVED_V2, 1, id)), Err(Discard::Vrid));
    }
    for id in (0..=255).filter(|id| *id != 52) {
        assert_eq!(read(&v3(), &with(&KEEPALIVED_V3, 1, id)), Err(Discard::Vrid));
    }
}

/// RFC 3768, 7.1: MUST verify that the authentication type matches the configured one, and perform
/// that authentication.
#[test]
fn only_the_configured_authentication_is_accepted() {
    let none = config(VrrpVersion::V2, 51);
    for kind in 0..=255 {
        let message = with(&KEEPALIVED_V2, 4, kind);
        let expected = if kind == 1 { None } else { Some(Discard::AuthType) };
        assert_eq!(read(&v2(), &message).err(), expected, "type {kind}");
        let expected = if kind == 0 { None } else { Some(Discard::AuthType) };
        assert_eq!(read(&none, &message).err(), expected, "type {kind}");
    }
    for at in 16..24 {
        assert_eq!(read(&v2(), &with(&KEEPALIVED_V2, at, b'x')), Err(Discard::Auth));
    }
    let shorter = Vrrp { auth_pass: Some("secret1".to_owned()), ..v2() };
    assert_eq!(read(&shorter, &KEEPALIVED_V2), Err(Discard::Auth));
    assert!(read(&shorter, &with(&KEEPALIVED_V2, 23, 0)).is_ok(), "filled up with zeros");
}

/// RFC 2338, 5.3.6.1: the authentication data SHOULD be zero, and is ignored on reception.
#[test]
fn data_without_authentication_is_sent_as_zeros_and_not_looked_at() {
    let none = config(VrrpVersion::V2, 51);
    let advert = read(&none, &with(&KEEPALIVED_V2, 4, 0)).unwrap();
    let message = write(&none, &advert);
    assert_eq!((message[4], &message[16..]), (0, &[0; 8][..]));
    assert_eq!(read(&none, &message), Ok(advert));
}

/// RFC 9568, 5.2.5: if the received count is zero, the advertisement MUST be ignored.
#[test]
fn an_advert_without_addresses_is_ignored_in_version_3() {
    let message = with(&[0x31, 52, 200, 0, 0, 10, 0, 0], 0, 0x31);
    assert_eq!(read(&v3(), &message), Err(Discard::NoAddress));
}

/// RFC 9568, 5.2.6: the reserved bits MUST be zero when sent and ignored when received.
#[test]
fn reserved_bits_are_sent_as_zeros_and_ignored() {
    let message = with(&KEEPALIVED_V3, 4, 0xf0);
    assert_eq!(read(&v3(), &message).unwrap().interval, 10);
    let longest = VrrpAdvert { interval: u16::MAX, ..read(&v3(), &KEEPALIVED_V3).unwrap() };
    assert_eq!(write(&v3(), &longest)[4..6], [0x0f, 0xff]);
}

/// A backup that adopted it would take over at once.
#[test]
fn an_interval_of_zero_is_discarded() {
    assert_eq!(read(&v3(), &with(&KEEPALIVED_V3, 5, 0)), Err(Discard::Interval));
    assert_eq!(read(&v2(), &with(&KEEPALIVED_V2, 5, 0)), Err(Discard::Interval));
}

/// RFC 3768, 5.3.4, and RFC 9568, 5.2.4: 0 and 255 have a meaning of their own.
#[test]
fn every_priority_is_read() {
    for priority in 0..=255 {
        assert_eq!(read(&v2(), &with(&KEEPALIVED_V2, 2, priority)).unwrap().priority, priority);
        assert_eq!(read(&v3(), &with(&KEEPALIVED_V3, 2, priority)).unwrap().priority, priority);
    }
}

#[test]
fn an_advert_of_carp_is_of_another_protocol() {
    let mut carp = vec![0x21, 51, 0, 7, 0, 1];
    carp.resize(36, 0);
    assert_eq!(read(&v2(), &carp), Err(Discard::Protocol));
    assert_eq!(read(&v3(), &carp), Err(Discard::Protocol));
}

#[test]
fn the_most_addresses_a_message_has_room_for_are_255() {
    let many: Vec<IpAddr> = (0..300).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into()).collect();
    let advert = VrrpAdvert { addresses: many.clone(), ..read(&v3(), &KEEPALIVED_V3).unwrap() };
    let again = read(&v3(), &write(&v3(), &advert)).unwrap();
    assert_eq!(again.addresses, many[..255]);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        id in 1_u8.., priority: u8, seconds in 1_u16..=255, centiseconds in 1_u16..=0x0fff,
        v4 in proptest::collection::vec(any::<Ipv4Addr>().prop_map(IpAddr::V4), 1..20),
        v6 in proptest::collection::vec(any::<Ipv6Addr>().prop_map(IpAddr::V6), 1..20),
        password in proptest::option::of("[ -~]{1,8}"), pseudo_header: bool,
    ) {
        let v2 = Vrrp { auth_pass: password, ..config(VrrpVersion::V2, id) };
        let v3 = Vrrp { pseudo_header, ..config(VrrpVersion::V3, id) };
        let v6_config = Vrrp { family: Family::V6, ..v3.clone() };
        let cases = [(v2, seconds * 100, v4.clone()), (v3, centiseconds, v4), (v6_config, centiseconds, v6)];
        for (config, interval, addresses) in cases {
            let version = config.version;
            let advert = VrrpAdvert { version, virtual_router_id: id, priority, interval, addresses };
            prop_assert_eq!(read(&config, &write(&config, &advert)), Ok(advert));
        }
    }
}
