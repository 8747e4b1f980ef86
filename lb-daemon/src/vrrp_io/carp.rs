//! CARP adverts as bytes, as OpenBSD's and FreeBSD's kernels and ucarp make them (`ip_carp.h`,
//! `ip_carp.c`).
//!
//! ```text
//! |version 2, type 1|vhid|advskew|7|demotion|advbase|checksum|counter, 8 bytes|HMAC, 20 bytes|
//! ```
//!
//! The 7 counts the words of counter and HMAC. The HMAC is HMAC-SHA1 with the password as key, over
//! version, type and vhid (a byte each), the addresses (IPv4 ones first, each family in ascending
//! order, none twice) and the counter. It protects neither interval nor demotion: they are only
//! as good as the counter.
//!
//! OpenBSD has two forms of it, with the IPv6 link-local addresses and without; it sends the one
//! without, and accepts both. FreeBSD knows only the one with them. So we send that one, which both
//! accept, and accept both.
//!
//! The counter is handed on as it is: nobody else refuses an old one. The kernels begin at random and
//! then count, adopting what they hear; ucarp draws a new number for each advert until it has heard
//! another host. So counters that go back are no sign of a forgery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use super::{Discard, checksum};
use crate::{
    config::{Carp, GroupAddress},
    core::group::CarpAdvert,
};

const VERSION: u8 = 2;
const ADVERT: u8 = 1;
/// The byte of both, with which VRRP's version 2 begins as well.
const FIRST: u8 = VERSION << 4 | ADVERT;
/// Four-byte words of counter and HMAC.
const AUTH_LENGTH: u8 = 7;
/// Bytes of a message.
const LENGTH: usize = 36;
/// Bytes of a password that count.
const KEY: usize = 20;

/// How a group's adverts look.
#[derive(Clone)]
pub(super) struct Format {
    vhid: u8,
    /// The HMAC up to the counter, over all addresses.
    whole: Hmac<Sha1>,
    /// The same without link-local addresses.
    without_link_local: Hmac<Sha1>,
}

impl Format {
    /// `addresses` are those of the group; the advertised ones are in the HMAC.
    pub(super) fn new(config: &Carp, addresses: &[GroupAddress]) -> Self {
        let mut ips: Vec<IpAddr> =
            addresses.iter().filter(|one| one.advertised).map(|one| one.ip).collect();
        // The order of the standard library is that of CARP: IPv4 first.
        ips.sort_unstable();
        ips.dedup();
        let whole = hmac(config, &ips);
        ips.retain(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        Self { vhid: config.vhid, whole, without_link_local: hmac(config, &ips) }
    }

    /// The message that says this.
    pub(super) fn write(&self, advert: &CarpAdvert) -> Vec<u8> {
        let CarpAdvert { vhid, advbase, advskew, demotion, counter } = *advert;
        let mut message = Vec::with_capacity(LENGTH);
        message.extend([FIRST, vhid, advskew, AUTH_LENGTH, demotion, advbase, 0, 0]);
        message.extend(counter.to_be_bytes());
        message
            .extend(self.whole.clone().chain_update(counter.to_be_bytes()).finalize().into_bytes());
        let sum = checksum::of(&message);
        message[6..8].copy_from_slice(&sum.to_be_bytes());
        message
    }

    /// What a message says, once it is found to be in order.
    pub(super) fn read(&self, message: &[u8]) -> Result<CarpAdvert, Discard> {
        let header: &[u8; 8] = message.first_chunk().ok_or(Discard::Length)?;
        let [first, vhid, advskew, auth_length, demotion, advbase, ..] = *header;
        if first >> 4 == 3 || first == FIRST && auth_length != AUTH_LENGTH {
            return Err(Discard::Protocol);
        }
        if first >> 4 != VERSION {
            return Err(Discard::Version);
        }
        if first & 0x0f != ADVERT {
            return Err(Discard::Type);
        }
        if message.len() != LENGTH {
            return Err(Discard::Length);
        }
        if checksum::of(message) != 0 {
            return Err(Discard::Checksum);
        }
        if vhid != self.vhid {
            return Err(Discard::Vrid);
        }
        let (counter, digest): (&[u8; 8], _) =
            message[8..].split_first_chunk().ok_or(Discard::Length)?;
        let is_right =
            |hmac: &Hmac<Sha1>| hmac.clone().chain_update(counter).verify_slice(digest).is_ok();
        if !is_right(&self.whole) && !is_right(&self.without_link_local) {
            return Err(Discard::Hmac);
        }
        let counter = u64::from_be_bytes(*counter);
        Ok(CarpAdvert { vhid, advbase, advskew, demotion, counter })
    }
}

/// The HMAC up to the counter. The key needs no filling up: HMAC does that itself, with zeros
/// (RFC 2104, 2).
fn hmac(config: &Carp, addresses: &[IpAddr]) -> Hmac<Sha1> {
    let key = config.pass.as_bytes();
    let mut hmac = Hmac::<Sha1>::new_from_slice(&key[..key.len().min(KEY)])
        .expect("HMAC takes keys of any length");
    hmac.update(&[VERSION, ADVERT, config.vhid]);
    for address in addresses {
        match address {
            IpAddr::V4(ip) => hmac.update(&Ipv4Addr::octets(ip)),
            IpAddr::V6(ip) => hmac.update(&Ipv6Addr::octets(ip)),
        }
    }
    hmac
}

#[cfg(test)]
mod tests;
