//! Leases that come and go: nothing that asks for a group's address gets anywhere without one.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_daemon::dataplane::{Simulated, XdpAction};

use super::generate::Random;
use crate::{
    net::Net,
    verify::{self, ICMPV6},
    world::World,
};

/// Numbers of the groups that the addresses of IPv4 and IPv6 are in.
pub(super) const GROUPS: [u16; 2] = [1, 2];

/// The addresses of a network that are in its family's group.
pub(super) fn addresses(net: &Net) -> [IpAddr; 3] {
    [net.vip.ip(), net.source.ip(), net.elsewhere()]
}

/// The leases of both groups.
pub(super) struct Leases<'a> {
    world: &'a World,
    nets: &'a [Net; 2],
    held: [bool; 2],
    random: Random,
}

impl<'a> Leases<'a> {
    /// Held for longer than a test takes.
    pub(super) fn held(world: &'a World, nets: &'a [Net; 2], seed: u64) -> Result<Self> {
        for group in GROUPS {
            world.lease(group, Some(long()))?;
        }
        Ok(Self { world, nets, held: [true; 2], random: Random::new(seed) })
    }

    /// Now and then has another lease for one of the groups; most of the time, both are held.
    pub(super) fn turn(&mut self) -> Result<()> {
        if !self.random.chance(3) {
            return Ok(());
        }
        let which = self.random.below(GROUPS.len());
        self.held[which] = self.random.chance(80);
        let end = match (self.held[which], self.random.chance(50)) {
            (true, _) => Some(long()),
            (false, true) => Some(Instant::now()),
            (false, false) => None,
        };
        self.world.lease(GROUPS[which], end)
    }

    /// Fails if something was done about a packet that asks for an address without a lease.
    pub(super) fn judge(&self, packet: &[u8], done: &Simulated) -> Result<()> {
        for (net, held) in self.nets.iter().zip(self.held) {
            let asks = addresses(net).into_iter().any(|address| asks(packet, address));
            ensure!(held || !asks || done.action == XdpAction::Drop, "there is no lease for it");
        }
        Ok(())
    }
}

fn long() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Whether a frame is for an address, or asks who has it.
fn asks(frame: &[u8], address: IpAddr) -> bool {
    let Ok(at) = verify::ip_at(frame) else { return false };
    let (kind, packet) = (&frame[at - 2..at], &frame[at..]);
    match address {
        IpAddr::V4(ip) => {
            let is_at = |at: usize| packet.get(at..at + 4) == Some(&ip.octets()[..]);
            match kind {
                [0x08, 0x00] => packet.len() >= 20 && is_at(16),
                [0x08, 0x06] => {
                    packet.len() >= 28
                        && packet[2..8] == [8, 0, 6, 4, 0, 1]
                        && packet[14..18] != packet[24..28]
                        && is_at(24)
                }
                _ => false,
            }
        }
        IpAddr::V6(ip) => {
            let is_at = |at: usize| packet.get(at..at + 16) == Some(&ip.octets()[..]);
            let is_solicitation = packet.len() >= 64 && packet[6] == ICMPV6 && packet[40] == 135;
            kind == [0x86, 0xdd]
                && packet.len() >= 40
                && (is_at(24) || is_solicitation && is_at(48))
        }
    }
}
