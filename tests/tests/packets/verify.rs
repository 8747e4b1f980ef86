//! Judging a frame, by the RFCs and by nothing that the program or the daemon is made of.

use anyhow::{Result, bail, ensure};

/// A TCP segment that was found in a frame.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Where the TCP header begins.
    pub(crate) tcp_at: usize,
    /// The segment, without the frame's padding.
    pub(crate) tcp: &'a [u8],
    /// What the IPv4 header's words sum up to: all ones if its checksum is right.
    pub(crate) ip_sum: u16,
    /// What the segment's words and its pseudo-header's sum up to: all ones if its checksum is
    /// right.
    pub(crate) tcp_sum: u16,
    /// Time to live or hop limit.
    pub(crate) hops: u8,
}

/// Finds the segment in a frame; fails if a length is wrong.
pub(crate) fn find(frame: &[u8]) -> Result<Found<'_>> {
    ensure!(frame.len() >= 14, "no Ethernet header");
    let packet = &frame[14..];
    match frame[12..14] {
        [0x08, 0x00] => find_v4(packet),
        [0x86, 0xdd] => find_v6(packet),
        _ => bail!("not IP"),
    }
}

/// Fails unless every length and every checksum is right.
pub(crate) fn check(frame: &[u8]) -> Result<()> {
    let found = find(frame)?;
    ensure!(found.ip_sum == 0xffff, "the IPv4 header's checksum is wrong");
    ensure!(found.tcp_sum == 0xffff, "the TCP checksum is wrong");
    ensure!(found.hops != 0, "the hop limit is 0");
    Ok(())
}

fn find_v4(packet: &[u8]) -> Result<Found<'_>> {
    ensure!(packet.len() >= 20, "no IPv4 header");
    ensure!(packet[0] >> 4 == 4, "not version 4");
    let header = usize::from(packet[0] & 0xf) * 4;
    let total = usize::from(word(packet, 2));
    ensure!((20..=total).contains(&header), "header of {header} bytes in a packet of {total}");
    ensure!(total <= packet.len(), "{total} bytes of which {} are there", packet.len());
    ensure!(packet[9] == 6, "not TCP");
    let tcp = segment(&packet[header..total])?;
    let length = u16::try_from(tcp.len())?.to_be_bytes();
    Ok(Found {
        tcp_at: 14 + header,
        tcp,
        ip_sum: ones_sum(&[&packet[..header]]),
        tcp_sum: ones_sum(&[&packet[12..20], &[0, 6], &length, tcp]),
        hops: packet[8],
    })
}

fn find_v6(packet: &[u8]) -> Result<Found<'_>> {
    ensure!(packet.len() >= 40, "no IPv6 header");
    ensure!(packet[0] >> 4 == 6, "not version 6");
    let end = 40 + usize::from(word(packet, 4));
    ensure!(end <= packet.len(), "{end} bytes of which {} are there", packet.len());
    ensure!(packet[6] == 6, "not TCP");
    let tcp = segment(&packet[40..end])?;
    let length = u32::try_from(tcp.len())?.to_be_bytes();
    Ok(Found {
        tcp_at: 14 + 40,
        tcp,
        ip_sum: 0xffff,
        tcp_sum: ones_sum(&[&packet[8..40], &length, &[0, 0, 0, 6], tcp]),
        hops: packet[7],
    })
}

fn segment(tcp: &[u8]) -> Result<&[u8]> {
    ensure!(tcp.len() >= 20, "no TCP header");
    let header = usize::from(tcp[12] >> 4) * 4;
    ensure!((20..=tcp.len()).contains(&header), "TCP header of {header} in {} bytes", tcp.len());
    Ok(tcp)
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
