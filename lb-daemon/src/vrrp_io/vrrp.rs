//! VRRP adverts as bytes: version 2 of RFC 3768, 5.1, and version 3 of RFC 9568, 5.1.
//!
//! ```text
//! v2 |version 2, type 1|VRID|priority|count|auth type|interval, s |checksum|addresses|auth data|
//! v3 |version 3, type 1|VRID|priority|count|0 and 12 bits of cs   |checksum|addresses|
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Discard, checksum, packet, packet::Envelope};
use crate::{
    config::{Family, Vrrp, VrrpVersion},
    core::group::VrrpAdvert,
};

const ADVERT: u8 = 1;
/// Bytes before the addresses.
const HEADER: usize = 8;
/// Bytes of authentication data in version 2, whatever the method.
const AUTH_DATA: usize = 8;
/// Authentication types of version 2: none, and a simple password (RFC 2338, 5.3.6).
const AUTH_NONE: u8 = 0;
const AUTH_SIMPLE: u8 = 1;
/// Centiseconds in a second.
const SECOND: u16 = 100;
/// Most of an interval of version 3, in centiseconds.
const MAX_INTERVAL_V3: u16 = 0x0fff;

/// How a group's adverts look.
#[derive(Clone)]
pub(super) struct Format {
    version: VrrpVersion,
    family: Family,
    virtual_router_id: u8,
    /// Version 2's password, filled up with zeros.
    password: Option<[u8; AUTH_DATA]>,
    pseudo_header: bool,
}

impl Format {
    pub(super) fn new(config: &Vrrp) -> Self {
        let password = config.auth_pass.as_ref().map(|text| {
            let mut password = [0; AUTH_DATA];
            password.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
            password
        });
        Self {
            version: config.version,
            family: config.family,
            virtual_router_id: config.virtual_router_id,
            password,
            pseudo_header: config.pseudo_header,
        }
    }

    /// The message that says this. What has no room is left out: addresses of the other family
    /// and after the 255th, intervals beyond the largest.
    pub(super) fn write(
        &self,
        advert: &VrrpAdvert,
        source: IpAddr,
        destination: IpAddr,
    ) -> Vec<u8> {
        let ours = |ip: &&IpAddr| ip.is_ipv4() == (self.family == Family::V4);
        let addresses: Vec<_> = advert.addresses.iter().filter(ours).take(255).collect();
        let count = u8::try_from(addresses.len()).unwrap_or(u8::MAX);
        let (version, [high, low]) = match advert.version {
            VrrpVersion::V2 => {
                let seconds = u8::try_from(advert.interval / SECOND).unwrap_or(u8::MAX);
                (2, [if self.password.is_some() { AUTH_SIMPLE } else { AUTH_NONE }, seconds])
            }
            VrrpVersion::V3 => (3, advert.interval.min(MAX_INTERVAL_V3).to_be_bytes()),
        };
        let (vrid, priority) = (advert.virtual_router_id, advert.priority);
        let mut message = vec![version << 4 | ADVERT, vrid, priority, count, high, low, 0, 0];
        for address in addresses {
            match address {
                IpAddr::V4(ip) => message.extend(ip.octets()),
                IpAddr::V6(ip) => message.extend(ip.octets()),
            }
        }
        // RFC 3768, 5.3.8, computes the checksum over the whole message, as all who send
        // passwords do.
        if advert.version == VrrpVersion::V2 {
            message.extend(self.password.unwrap_or_default());
        }
        let pseudo =
            advert.version == VrrpVersion::V3 && (self.pseudo_header || self.family == Family::V6);
        let sum = if pseudo {
            checksum::with_pseudo_header(&message, source, destination)
        } else {
            checksum::of(&message)
        };
        message[6..8].copy_from_slice(&sum.to_be_bytes());
        message
    }

    /// What a message says, once it is found to be in order.
    pub(super) fn read(&self, envelope: &Envelope, message: &[u8]) -> Result<VrrpAdvert, Discard> {
        if packet::is_carp(message) {
            return Err(Discard::Protocol);
        }
        let header: &[u8; HEADER] = message.first_chunk().ok_or(Discard::Length)?;
        let [first, virtual_router_id, priority, count, fifth, sixth, ..] = *header;
        let version = match self.version {
            VrrpVersion::V2 => 2,
            VrrpVersion::V3 => 3,
        };
        if first >> 4 != version {
            return Err(Discard::Version);
        }
        if first & 0x0f != ADVERT {
            return Err(Discard::Type);
        }
        let (addresses, rest) = self.addresses(count, &message[HEADER..])?;
        if self.version == VrrpVersion::V2 && rest.len() < AUTH_DATA {
            return Err(Discard::Length);
        }
        self.verify_checksum(envelope, message)?;
        if virtual_router_id != self.virtual_router_id {
            return Err(Discard::Vrid);
        }
        let interval = match self.version {
            VrrpVersion::V2 => {
                self.authenticate(fifth, &rest[..AUTH_DATA])?;
                u16::from(sixth) * SECOND
            }
            VrrpVersion::V3 => u16::from_be_bytes([fifth, sixth]) & MAX_INTERVAL_V3,
        };
        if interval == 0 {
            return Err(Discard::Interval);
        }
        if self.version == VrrpVersion::V3 && addresses.is_empty() {
            return Err(Discard::NoAddress);
        }
        let version = self.version;
        Ok(VrrpAdvert { version, virtual_router_id, priority, interval, addresses })
    }

    /// So many addresses, and what follows them.
    fn addresses<'a>(&self, count: u8, body: &'a [u8]) -> Result<(Vec<IpAddr>, &'a [u8]), Discard> {
        let size = match self.family {
            Family::V4 => 4,
            Family::V6 => 16,
        };
        let (list, rest) =
            body.split_at_checked(usize::from(count) * size).ok_or(Discard::Length)?;
        let address = |bytes: &[u8]| match *bytes {
            [a, b, c, d] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            _ => IpAddr::V6(Ipv6Addr::from(
                <[u8; 16]>::try_from(bytes).expect("a chunk of sixteen bytes"),
            )),
        };
        Ok((list.chunks_exact(size).map(address).collect(), rest))
    }

    fn verify_checksum(&self, envelope: &Envelope, message: &[u8]) -> Result<(), Discard> {
        let (v2, v6) = (self.version == VrrpVersion::V2, self.family == Family::V6);
        let right = !v6 && checksum::of(message) == 0
            || !v2
                && checksum::with_pseudo_header(message, envelope.source, envelope.destination)
                    == 0;
        if right { Ok(()) } else { Err(Discard::Checksum) }
    }

    fn authenticate(&self, kind: u8, data: &[u8]) -> Result<(), Discard> {
        match (self.password, kind) {
            (None, AUTH_NONE) => Ok(()),
            (Some(password), AUTH_SIMPLE) if data == password => Ok(()),
            (Some(_), AUTH_SIMPLE) => Err(Discard::Auth),
            _ => Err(Discard::AuthType),
        }
    }
}

#[cfg(test)]
mod tests;
