use super::*;

/// What ucarp 1.5.2 sends for vhid 42, the password "mypassword" and 10.0.0.100, with advbase 1
/// and advskew 10.
const UCARP: [[u8; LENGTH]; 2] = [
    [
        0x21, 0x2a, 0x0a, 0x07, 0x00, 0x01, 0xdf, 0x4b, 0xb9, 0x57, 0x37, 0xa0, 0x47, 0x25, 0xbf,
        0x80, 0xae, 0x9e, 0x10, 0xbc, 0x49, 0xd4, 0x43, 0xd3, 0x2b, 0x81, 0x8e, 0x84, 0x61, 0xb3,
        0x28, 0xfe, 0xc9, 0x81, 0xa2, 0xa8,
    ],
    [
        0x21, 0x2a, 0x0a, 0x07, 0x00, 0x01, 0xb2, 0xd1, 0x5b, 0x61, 0x22, 0x54, 0xfd, 0xac, 0x85,
        0x4b, 0x8c, 0xfe, 0x6c, 0x04, 0xa6, 0x96, 0x9b, 0x63, 0x35, 0x2c, 0x5c, 0xda, 0x6f, 0x38,
        0x55, 0x47, 0xe7, 0x5c, 0xa8, 0x6d,
    ],
];

fn config() -> Carp {
    let pass = "mypassword".to_owned();
    Carp { vhid: 42, pass, pass_file: None, advbase: 1, advskew: 10 }
}

fn format_for(config: &Carp, addresses: &[&str]) -> Format {
    let address = |ip: &&str| {
        let ip: IpAddr = ip.parse().unwrap();
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        GroupAddress { ip, prefix, interface: "eth0".to_owned(), advertised: true }
    };
    Format::new(config, &addresses.iter().map(address).collect::<Vec<_>>())
}

fn format() -> Format {
    format_for(&config(), &["10.0.0.100"])
}

/// The message with a byte changed and its checksum made right again.
fn with(message: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] = value;
    message[6..8].fill(0);
    let sum = checksum::of(&message);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

#[test]
fn adverts_of_ucarp_are_read_and_written_byte_for_byte() {
    for (bytes, counter) in UCARP.iter().zip([0xb957_37a0_4725_bf80, 0x5b61_2254_fdac_854b]) {
        let advert = CarpAdvert { vhid: 42, advbase: 1, advskew: 10, demotion: 0, counter };
        assert_eq!(format().read(bytes), Ok(advert.clone()));
        assert_eq!(format().write(&advert), bytes);
    }
}

#[test]
fn another_password_vhid_or_address_makes_another_hmac() {
    let wrong = Carp { pass: "mypasswore".to_owned(), ..config() };
    assert_eq!(format_for(&wrong, &["10.0.0.100"]).read(&UCARP[0]), Err(Discard::Hmac));
    for addresses in [&["10.0.0.101"][..], &[], &["10.0.0.100", "fd00::64"]] {
        assert_eq!(format_for(&config(), addresses).read(&UCARP[0]), Err(Discard::Hmac));
    }
    let other = Carp { vhid: 43, ..config() };
    assert_eq!(format_for(&other, &["10.0.0.100"]).read(&UCARP[0]), Err(Discard::Vrid));
    let disguised = with(&UCARP[0], 1, 43);
    assert_eq!(format_for(&other, &["10.0.0.100"]).read(&disguised), Err(Discard::Hmac));
}

/// The password is a field of 20 bytes in the kernels of OpenBSD and FreeBSD.
#[test]
fn only_twenty_bytes_of_a_password_count() {
    let format =
        |pass: &str| format_for(&Carp { pass: pass.to_owned(), ..config() }, &["10.0.0.100"]);
    let advert = CarpAdvert { vhid: 42, advbase: 1, advskew: 0, demotion: 0, counter: 1 };
    let message = format("12345678901234567890").write(&advert);
    assert!(format("123456789012345678901").read(&message).is_ok());
    assert_eq!(format("1234567890123456789").read(&message), Err(Discard::Hmac));
}

#[test]
fn the_order_of_the_addresses_does_not_matter() {
    let advert = CarpAdvert { vhid: 42, advbase: 1, advskew: 0, demotion: 0, counter: 7 };
    let sorted = ["9.0.0.1", "10.0.0.100", "200.0.0.1", "fd00::1", "fd00::2"];
    let message = format_for(&config(), &sorted).write(&advert);
    let shuffled = ["fd00::2", "200.0.0.1", "fd00::1", "10.0.0.100", "9.0.0.1", "10.0.0.100"];
    assert_eq!(format_for(&config(), &shuffled).read(&message), Ok(advert));
}

/// The digest itself, worked out by hand, so that both sides cannot be wrong alike.
#[test]
fn the_hmac_covers_version_type_vhid_addresses_and_counter() {
    let mut hmac = Hmac::<Sha1>::new_from_slice(b"mypassword\0\0\0\0\0\0\0\0\0\0").unwrap();
    hmac.update(&[2, 1, 42, 9, 0, 0, 1, 10, 0, 0, 100]);
    hmac.update(&"fe80::1".parse::<Ipv6Addr>().unwrap().octets());
    hmac.update(&[0, 0, 0, 0, 0, 0, 1, 2]);
    let digest = hmac.finalize().into_bytes();
    let advert = CarpAdvert { vhid: 42, advbase: 1, advskew: 0, demotion: 0, counter: 258 };
    let format = format_for(&config(), &["10.0.0.100", "fe80::1", "9.0.0.1"]);
    assert_eq!(format.write(&advert)[16..], digest[..]);
}

/// OpenBSD leaves link-local addresses out of the HMAC it sends.
#[test]
fn both_of_openbsds_hmacs_are_accepted() {
    let advert = CarpAdvert { vhid: 42, advbase: 1, advskew: 0, demotion: 0, counter: 9 };
    let without = format().write(&advert);
    let ours = format_for(&config(), &["10.0.0.100", "fe80::64"]);
    assert_eq!(ours.read(&without), Ok(advert.clone()));
    assert_ne!(ours.write(&advert), without);
    assert_eq!(ours.read(&ours.write(&advert)), Ok(advert));
}

#[test]
fn addresses_that_are_not_advertised_are_not_in_the_hmac() {
    let unlisted = GroupAddress {
        ip: "10.9.9.9".parse().unwrap(),
        prefix: 24,
        interface: "eth1".to_owned(),
        advertised: false,
    };
    let listed = GroupAddress {
        ip: "10.0.0.100".parse().unwrap(),
        prefix: 24,
        interface: "eth0".to_owned(),
        advertised: true,
    };
    assert!(Format::new(&config(), &[unlisted, listed]).read(&UCARP[0]).is_ok());
}

#[test]
fn a_message_cut_or_grown_is_discarded() {
    for length in 0..LENGTH {
        assert_eq!(format().read(&UCARP[0][..length]), Err(Discard::Length), "{length} bytes");
    }
    let longer = [&UCARP[0][..], &[0, 0]].concat();
    assert_eq!(format().read(&longer), Err(Discard::Length));
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    for bit in 0..LENGTH * 8 {
        let mut message = UCARP[0];
        message[bit / 8] ^= 1 << (bit % 8);
        let why = format().read(&message).expect_err("a flipped bit");
        let expected = match bit / 8 {
            0 => &[Discard::Version, Discard::Type, Discard::Protocol][..],
            3 => &[Discard::Protocol],
            _ => &[Discard::Checksum],
        };
        assert!(expected.contains(&why), "bit {bit}: {why}");
    }
}

/// With the checksum made right, a forger can change what the HMAC does not cover, and nothing
/// else.
#[test]
fn a_forged_counter_or_digest_is_discarded() {
    for (at, byte) in UCARP[0].iter().enumerate().skip(8) {
        let forged = with(&UCARP[0], at, byte ^ 1);
        assert_eq!(format().read(&forged), Err(Discard::Hmac), "byte {at}");
    }
}

#[test]
fn another_version_or_type_is_discarded() {
    for version in [0, 1, 4, 15] {
        let message = with(&UCARP[0], 0, version << 4 | 1);
        assert_eq!(format().read(&message), Err(Discard::Version));
    }
    for kind in [0, 2, 15] {
        assert_eq!(format().read(&with(&UCARP[0], 0, 0x20 | kind)), Err(Discard::Type));
    }
}

#[test]
fn an_advert_of_vrrp_is_of_another_protocol() {
    let v2 = [0x21, 42, 100, 1, 0, 1, 0, 0, 10, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0];
    let v3 = [0x31, 42, 100, 1, 0, 1, 0, 0, 10, 0, 0, 100];
    assert_eq!(format().read(&v2), Err(Discard::Protocol));
    assert_eq!(format().read(&v3), Err(Discard::Protocol));
}
