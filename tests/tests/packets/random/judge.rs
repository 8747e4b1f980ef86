//! What may come out for what came in, whatever the state of the connections.

use anyhow::{Context as _, Result, bail, ensure};
use lb_daemon::dataplane::{Simulated, XdpAction};

use crate::{
    frame::{ACK, FIN, RST, SYN},
    row::keeps_sums,
    verify::{self, Found},
};

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
    let ((came_from, came_to), (left_from, left_to)) = (addresses(packet), addresses(out));
    if came_from == left_to && came_to == left_from {
        ensure!(packet[..6] == out[6..12] && packet[6..12] == out[..6], "sent to someone else");
        return answered(&came, out, &left);
    }
    forwarded(packet, &came, out, &left)
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
    ensure!(out.len() == packet.len(), "{} bytes have become {}", packet.len(), out.len());
    ensure!(came.at == left.at, "the IP header has another length");
    // Ports and checksum may differ; the words between them, and everything after, may not.
    let kept = |tcp: &[u8]| [&tcp[4..16], &tcp[18..]].concat();
    ensure!(kept(came.body) == kept(left.body), "the segment has changed");
    let end = came.at + came.body.len();
    ensure!(packet[end..] == out[end..], "the padding has changed");
    let v4 = out[12] == 0x08;
    let before_hops = if v4 { 14..22 } else { 14..21 };
    ensure!(packet[before_hops.clone()] == out[before_hops], "the IP header has changed");
    ensure!(!v4 || packet[23] == out[23], "the protocol has changed");
    Ok(())
}

/// Source and destination of an IP packet.
fn addresses(frame: &[u8]) -> (&[u8], &[u8]) {
    if frame[12] == 0x08 {
        (&frame[26..30], &frame[30..34])
    } else {
        (&frame[22..38], &frame[38..54])
    }
}

fn number(tcp: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]])
}
