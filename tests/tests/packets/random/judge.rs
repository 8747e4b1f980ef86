//! What may come out for what came in, whatever the state of the connections.

use anyhow::{Context as _, Result, bail, ensure};
use lb_daemon::dataplane::{Simulated, XdpAction};

use crate::{
    frame::{ACK, FIN, RST, SYN},
    net::BACKEND,
    row::keeps_sums,
    verify::{self, Found, ICMP, TCP},
};

/// Of every link.
const MTU: u32 = 1500;

pub(super) fn judge(packet: &[u8], done: &Simulated) -> Result<()> {
    match done.action {
        XdpAction::Drop => Ok(()),
        XdpAction::Pass => {
            ensure!(done.frame == packet, "it passed, but was changed");
            Ok(())
        }
        XdpAction::Tx | XdpAction::Redirect => sent(packet, &done.frame),
        action => bail!("{action:?} is no decision"),
    }
}

fn sent(packet: &[u8], out: &[u8]) -> Result<()> {
    let came = verify::find(packet).context("something malformed was sent on")?;
    let left = verify::find(out).context("something malformed was made")?;
    let (ip, ip_out) = (&packet[came.ip_at..], &out[left.ip_at..]);
    let ((came_from, came_to), (left_from, left_to)) = (addresses(ip), addresses(ip_out));
    let back = came_from == left_to && came_to == left_from;
    if back && came.protocol == TCP {
        ensure!(packet[..6] == out[6..12] && packet[6..12] == out[..6], "sent to someone else");
        ensure!(vlans(packet, &came) == vlans(out, &left), "sent to another VLAN");
        if left.protocol == TCP {
            return answered(&came, out, &left);
        }
        return told(packet, &came, out, &left);
    }
    forwarded(packet, &came, out, &left)
}

/// The tags of a frame with their protocols, without priorities.
fn vlans(frame: &[u8], found: &Found<'_>) -> Vec<u8> {
    let mut tags = frame[12..found.ip_at - 2].to_vec();
    tags.chunks_exact_mut(4).for_each(|tag| tag[2] &= 0x0f);
    tags
}

/// The sender of a packet that is really too large learns the MTU and what its packet was.
fn told(packet: &[u8], came: &Found<'_>, out: &[u8], left: &Found<'_>) -> Result<()> {
    // The packet may have been wrong in itself; it is quoted as it came.
    verify::check_own(left)?;
    let header = came.at - came.ip_at;
    let kind = if left.protocol == ICMP { [3, 4] } else { [2, 0] };
    ensure!(left.body[..2] == kind && number(left.body, 4) == MTU, "a wrong error");
    ensure!(header + came.body.len() > MTU as usize, "the packet was not too large");
    ensure!(left.protocol != ICMP || packet[came.ip_at + 6] & 0x40 != 0, "without DF");
    ensure!(left.body[8..] == packet[came.ip_at..came.at + 20], "a wrong quotation");
    ensure!(out.len() == left.at + left.body.len(), "something follows the error");
    Ok(())
}

/// The answer is a bare RST with the right numbers.
fn answered(came: &Found<'_>, out: &[u8], left: &Found<'_>) -> Result<()> {
    verify::check(out)?;
    ensure!(out.len() == left.at + 20, "the RST is not bare");
    let flags = came.body[13];
    ensure!(flags & RST == 0, "a RST was answered");
    ensure!(came.body[..2] == left.body[2..4] && came.body[2..4] == left.body[..2], "wrong ports");
    let (seq, ack) = (number(left.body, 4), number(left.body, 8));
    if flags & ACK != 0 {
        ensure!(left.body[13] == RST && seq == number(came.body, 8) && ack == 0, "a wrong RST");
        return Ok(());
    }
    let data = came.body.len() - usize::from(came.body[12] >> 4) * 4;
    let length = u32::try_from(data)? + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let right = left.body[13] == RST | ACK && seq == 0;
    ensure!(right && ack == number(came.body, 4).wrapping_add(length), "a wrong RST with ACK");
    Ok(())
}

/// Only what full NAT changes has changed.
fn forwarded(packet: &[u8], came: &Found<'_>, out: &[u8], left: &Found<'_>) -> Result<()> {
    keeps_sums(packet, out)?;
    ensure!(came.hops > 1 && left.hops == came.hops - 1, "hop limit {}: {}", came.hops, left.hops);
    ensure!(came.protocol == left.protocol, "the protocol has changed");
    let (ip, ip_out) = (&packet[came.ip_at..came.at], &out[left.ip_at..left.at]);
    ensure!(ip.len() == ip_out.len(), "the IP header has another length");
    ensure!(kept_of_ip(ip) == kept_of_ip(ip_out), "the IP header has changed");
    ensure!(came.body.len() == left.body.len(), "the packet has another length");
    if came.protocol == TCP {
        ensure!(ip.len() + came.body.len() <= MTU as usize, "too large for the next link");
        // To the backend the value of the timestamps may be another, from it their echo.
        let field = if out[..6] == BACKEND { 2 } else { 6 };
        let kept = |tcp| kept_of_tcp(&without_timestamp(tcp, field));
        ensure!(kept(came.body) == kept(left.body), "the segment has changed");
    } else {
        quotes_alike(came, left)?;
    }
    let end = |found: &Found<'_>| found.at + found.body.len();
    ensure!(packet[end(came)..] == out[end(left)..], "the padding has changed");
    Ok(())
}

/// Nothing of the error itself has changed, and of what it quotes only what full NAT changes.
fn quotes_alike(came: &Found<'_>, left: &Found<'_>) -> Result<()> {
    let (before, after) = (verify::quote(came)?, verify::quote(left)?);
    ensure!(came.body[..2] == left.body[..2], "the error is another");
    ensure!(came.body[4..8] == left.body[4..8], "what comes with the error has changed");
    let header = |found: &Found<'_>, tcp: &[u8]| {
        let ip = &found.body[8..found.body.len() - tcp.len()];
        let hops = if found.protocol == ICMP { ip[8] } else { ip[7] };
        (kept_of_ip(ip), hops)
    };
    let same = header(came, before.tcp) == header(left, after.tcp);
    ensure!(same, "the quoted IP header has changed");
    ensure!(kept_of_tcp(before.tcp) == kept_of_tcp(after.tcp), "the quoted segment has changed");
    Ok(())
}

/// What stays of an IP header: all but addresses, hop limit and checksum.
fn kept_of_ip(ip: &[u8]) -> Vec<u8> {
    if ip[0] >> 4 == 4 { [&ip[..8], &ip[9..10], &ip[20..]].concat() } else { ip[..7].to_vec() }
}

/// What stays of a segment, which may be cut off behind its ports: all but these and the checksum.
fn kept_of_tcp(tcp: &[u8]) -> Vec<u8> {
    let stays = |at: usize| at >= 4 && !(16..18).contains(&at);
    tcp.iter().enumerate().filter(|(at, _)| stays(*at)).map(|(_, byte)| *byte).collect()
}

/// A segment with zeros at a place in its timestamps option, if it has one.
fn without_timestamp(tcp: &[u8], field: usize) -> Vec<u8> {
    let mut tcp = tcp.to_vec();
    if let Some(at) = verify::timestamps(&tcp) {
        tcp[at + field..][..4].fill(0);
    }
    tcp
}

/// Source and destination of an IP packet.
fn addresses(ip: &[u8]) -> (&[u8], &[u8]) {
    if ip[0] >> 4 == 4 { (&ip[12..16], &ip[16..20]) } else { (&ip[8..24], &ip[24..40]) }
}

fn number(tcp: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]])
}
