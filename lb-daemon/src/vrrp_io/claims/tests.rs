use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0xc]);

fn arp_frame(operation: u8, sender: [u8; 4]) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &OTHER.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    frame.extend(MAC.0);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, 7]);
    frame
}

fn advertisement_frame(options: &[u8]) -> Vec<u8> {
    let mut frame = [&[0x33, 0x33, 0, 0, 0, 1][..], &OTHER.0, &[0x86, 0xdd]].concat();
    frame.resize(14 + 40, 0);
    frame.extend([136, 0, 0, 0, 0x20, 0, 0, 0]);
    frame.extend("fd00::64".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend(options);
    frame
}

#[test]
fn an_arp_request_or_reply_claims_its_senders_address() {
    let claim = Claim { ip: [10, 0, 0, 100].into(), mac: MAC };
    for operation in [1, 2] {
        assert_eq!(arp(&arp_frame(operation, [10, 0, 0, 100])), Some(claim));
    }
}

#[test]
fn an_advertisement_claims_its_target_for_the_address_it_says_or_comes_from() {
    let ip = "fd00::64".parse().unwrap();
    let said = advertisement(&advertisement_frame(&[2, 1, 2, 0, 0, 0, 0, 0xb]));
    assert_eq!(said, Some(Claim { ip, mac: MAC }));
    let silent = advertisement(&advertisement_frame(&[]));
    assert_eq!(silent, Some(Claim { ip, mac: OTHER }));
    let after_another =
        advertisement(&advertisement_frame(&[14, 1, 0, 0, 0, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0xb]));
    assert_eq!(after_another, Some(Claim { ip, mac: MAC }));
}

/// RFC 4861, 4.6: an option of length zero makes the packet invalid.
#[test]
fn an_option_of_no_length_ends_the_search() {
    assert_eq!(advertisement(&advertisement_frame(&[2, 0, 0, 0, 0, 0, 0, 0])), None);
}

#[test]
fn a_frame_cut_anywhere_is_no_panic() {
    let whole = arp_frame(1, [10, 0, 0, 100]);
    for length in 0..whole.len() {
        assert_eq!(arp(&whole[..length]), None);
    }
    let whole = advertisement_frame(&[2, 1, 2, 0, 0, 0, 0, 0xb]);
    for length in 0..14 + 40 + 24 {
        assert_eq!(advertisement(&whole[..length]), None);
    }
    for length in 14 + 40 + 26..whole.len() {
        assert_eq!(advertisement(&whole[..length]), None);
    }
}
