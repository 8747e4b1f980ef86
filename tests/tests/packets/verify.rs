//! Judging a frame, by the RFCs and by nothing that the program or the daemon is made of.

use anyhow::{Result, bail, ensure};

pub(crate) const TCP: u8 = 6;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// An IP packet with a TCP segment or an ICMP message that was found in a frame.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Where the IP header begins: behind the VLAN tags.
    pub(crate) ip_at: usize,
    /// Where the segment or message begins.
    pub(crate) at: usize,
    /// What it is, by its number.
    pub(crate) protocol: u8,
    /// The segment or message, without the frame's padding.
    pub(crate) body: &'a [u8],
    /// What the IPv4 header's words sum up to: all ones if its checksum is right.
    pub(crate) ip_sum: u16,
    /// What the body's words and its pseudo-header's sum up to: all ones if its checksum is right.
    pub(crate) sum: u16,
    /// Time to live or hop limit.
    pub(crate) hops: u8,
}

/// Finds the segment or message in a frame; fails if a length is wrong.
pub(crate) fn find(frame: &[u8]) -> Result<Found<'_>> {
    let ip_at = ip_at(frame)?;
    let packet = &frame[ip_at..];
    let mut found = match frame[ip_at - 2..ip_at] {
        [0x08, 0x00] => find_v4(packet),
        [0x86, 0xdd] => find_v6(packet),
        _ => bail!("not IP"),
    }?;
    let least = if found.protocol == TCP { 20 } else { 8 };
    ensure!(found.body.len() >= least, "no TCP or ICMP header");
    if found.protocol == TCP {
        let header = usize::from(found.body[12] >> 4) * 4;
        let length = found.body.len();
        ensure!((20..=length).contains(&header), "TCP header of {header} in {length} bytes");
    }
    (found.ip_at, found.at) = (ip_at, found.at + ip_at);
    Ok(found)
}

/// Where the IP header is, behind an Ethernet header and up to two VLAN tags.
pub(crate) fn ip_at(frame: &[u8]) -> Result<usize> {
    let mut at = 12;
    for _ in 0..=2 {
        ensure!(frame.len() >= at + 2, "no Ethernet header");
        if !matches!(word(frame, at), 0x8100 | 0x88a8) {
            return Ok(at + 2);
        }
        at += 4;
    }
    bail!("too many VLAN tags")
}

/// Fails unless every length and every checksum is right, those in a quoted packet included as far
/// as it is quoted.
pub(crate) fn check(frame: &[u8]) -> Result<()> {
    let found = find(frame)?;
    check_own(&found)?;
    if found.protocol != TCP {
        let quote = quote(&found)?;
        ensure!(quote.ip_sum == 0xffff, "the quoted IPv4 header's checksum is wrong");
        let sum = quote.tcp_sum.unwrap_or(0xffff);
        ensure!(sum == 0xffff, "the quoted TCP checksum is wrong");
    }
    Ok(())
}

/// The same without a look at what is quoted.
pub(crate) fn check_own(found: &Found<'_>) -> Result<()> {
    ensure!(found.ip_sum == 0xffff, "the IPv4 header's checksum is wrong");
    ensure!(found.sum == 0xffff, "the TCP or ICMP checksum is wrong");
    ensure!(found.hops != 0, "the hop limit is 0");
    Ok(())
}

/// The packet that an ICMP error quotes.
#[derive(Debug)]
pub(crate) struct Quote<'a> {
    /// What is quoted of the TCP segment.
    pub(crate) tcp: &'a [u8],
    /// What the quoted IPv4 header's words sum up to.
    pub(crate) ip_sum: u16,
    /// What the segment's words and its pseudo-header's sum up to, if it is quoted as a whole.
    pub(crate) tcp_sum: Option<u16>,
}

/// Takes apart what an ICMP error quotes; fails if that is no TCP segment.
pub(crate) fn quote<'a>(found: &Found<'a>) -> Result<Quote<'a>> {
    let quoted = &found.body[8..];
    let (header, total) = if found.protocol == ICMP {
        ensure!(matches!(found.body[0], 3 | 11 | 12), "ICMP type {} quotes nothing", found.body[0]);
        ensure!(quoted.len() >= 28 && quoted[0] == 0x45 && quoted[9] == TCP, "quotes no TCP");
        ensure!(word(quoted, 6).is_multiple_of(0x2000), "quotes a later fragment");
        (20, usize::from(word(quoted, 2)))
    } else {
        ensure!((1..=4).contains(&found.body[0]), "ICMPv6 type {} quotes nothing", found.body[0]);
        ensure!(quoted.len() >= 48 && quoted[0] >> 4 == 6 && quoted[6] == TCP, "quotes no TCP");
        (40, 40 + usize::from(word(quoted, 4)))
    };
    let addresses = if header == 20 { &quoted[12..20] } else { &quoted[8..40] };
    let whole = total >= header + 20 && total <= quoted.len();
    Ok(Quote {
        tcp: &quoted[header..],
        ip_sum: if header == 20 { ones_sum(&[&quoted[..20]]) } else { 0xffff },
        tcp_sum: whole.then(|| transport_sum(addresses, TCP, &quoted[header..total])),
    })
}

/// Where the timestamps option (RFC 7323, section 3.2) begins in a TCP segment.
pub(crate) fn timestamps(tcp: &[u8]) -> Option<usize> {
    let header = usize::from(tcp[12] >> 4) * 4;
    let mut at = 20;
    while at + 1 < header {
        match (tcp[at], usize::from(tcp[at + 1])) {
            (1, _) => at += 1,
            (8, 10) if at + 10 <= header => return Some(at),
            (2.., length @ 2..) => at += length,
            _ => return None,
        }
    }
    None
}

fn find_v4(packet: &[u8]) -> Result<Found<'_>> {
    ensure!(packet.len() >= 20, "no IPv4 header");
    ensure!(packet[0] >> 4 == 4, "not version 4");
    let header = usize::from(packet[0] & 0xf) * 4;
    let total = usize::from(word(packet, 2));
    ensure!((20..=total).contains(&header), "header of {header} bytes in a packet of {total}");
    ensure!(total <= packet.len(), "{total} bytes of which {} are there", packet.len());
    let (protocol, body) = (packet[9], &packet[header..total]);
    let sum = match protocol {
        TCP => transport_sum(&packet[12..20], TCP, body),
        // ICMP's checksum has no pseudo-header.
        ICMP => ones_sum(&[body]),
        _ => bail!("neither TCP nor ICMP"),
    };
    let ip_sum = ones_sum(&[&packet[..header]]);
    Ok(Found { ip_at: 0, at: header, protocol, body, ip_sum, sum, hops: packet[8] })
}

fn find_v6(packet: &[u8]) -> Result<Found<'_>> {
    ensure!(packet.len() >= 40, "no IPv6 header");
    ensure!(packet[0] >> 4 == 6, "not version 6");
    let end = 40 + usize::from(word(packet, 4));
    ensure!(end <= packet.len(), "{end} bytes of which {} are there", packet.len());
    let (protocol, body) = (packet[6], &packet[40..end]);
    ensure!(matches!(protocol, TCP | ICMPV6), "neither TCP nor ICMPv6");
    let sum = transport_sum(&packet[8..40], protocol, body);
    Ok(Found { ip_at: 0, at: 40, protocol, body, ip_sum: 0xffff, sum, hops: packet[7] })
}

/// The sum of a body and its pseudo-header, which is the same number for both versions of IP.
fn transport_sum(addresses: &[u8], protocol: u8, body: &[u8]) -> u16 {
    let length = u32::try_from(body.len()).expect("a length of a frame").to_be_bytes();
    ones_sum(&[addresses, &length, &[0, 0, 0, protocol], body])
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The one's complement sum of the words in these pieces, each filled up with a zero byte
/// (RFC 1071). It is all ones over data that holds its own right checksum.
pub(crate) fn ones_sum(pieces: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for piece in pieces {
        let words = piece.chunks_exact(2);
        if let [last] = words.remainder() {
            sum += u64::from(*last) << 8;
        }
        for word in words {
            sum += u64::from(word[0]) << 8 | u64::from(word[1]);
        }
    }
    // What is carried out at the top comes in again below.
    u16::try_from(sum % 0xffff).map_or(0, |rest| if rest == 0 && sum != 0 { 0xffff } else { rest })
}

/// Whether two sums are the same number: there are two zeros.
pub(crate) fn same_sum(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

#[test]
fn the_checksum_of_a_known_header_is_right() {
    // From RFC 1071, section 3.
    assert_eq!(ones_sum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), 0xddf2);
    assert_eq!(ones_sum(&[&[0xff, 0xff], &[0xff]]), 0xff00);
    assert_eq!(ones_sum(&[&[0, 0]]), 0);
}
