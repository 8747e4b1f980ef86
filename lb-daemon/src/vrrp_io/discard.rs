//! Why a packet that came in is not an advert for us, and how often that was so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a packet was discarded. The sections are those that demand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discard {
    /// Its TTL or hop limit is not 255: it may have come from another network (RFC 3768 and
    /// RFC 9568, 7.1).
    Ttl,
    /// It was sent to another address than the group's adverts are.
    Destination,
    /// It has our own source address.
    OwnPacket,
    /// Its sender is none of the configured peers.
    UnknownPeer,
    /// It is an advert of the other protocol: CARP instead of VRRP, or VRRP instead of CARP.
    Protocol,
    /// It has another version (RFC 3768 and RFC 9568, 7.1).
    Version,
    /// It is no advert (RFC 3768, 5.3.2; RFC 9568, 5.2.2).
    Type,
    /// It is too short for what it says it has (RFC 3768 and RFC 9568, 7.1).
    Length,
    /// Its checksum is wrong (RFC 3768 and RFC 9568, 7.1).
    Checksum,
    /// It is of another virtual router (RFC 3768 and RFC 9568, 7.1).
    Vrid,
    /// It lists no address (RFC 9568, 5.2.5).
    NoAddress,
    /// It says that its sender takes no time between adverts.
    Interval,
    /// It is authenticated by another method (RFC 3768, 7.1).
    AuthType,
    /// Its password is wrong (RFC 3768, 7.1).
    Auth,
    /// Its HMAC is wrong: another password, or other addresses.
    Hmac,
}

impl Discard {
    /// All reasons.
    pub const ALL: [Self; 15] = [
        Self::Ttl,
        Self::Destination,
        Self::OwnPacket,
        Self::UnknownPeer,
        Self::Protocol,
        Self::Version,
        Self::Type,
        Self::Length,
        Self::Checksum,
        Self::Vrid,
        Self::NoAddress,
        Self::Interval,
        Self::AuthType,
        Self::Auth,
        Self::Hmac,
    ];

    /// Its name in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::Destination => "destination",
            Self::OwnPacket => "own_packet",
            Self::UnknownPeer => "unknown_peer",
            Self::Protocol => "protocol",
            Self::Version => "version",
            Self::Type => "type",
            Self::Length => "length",
            Self::Checksum => "checksum",
            Self::Vrid => "vrid",
            Self::NoAddress => "no_address",
            Self::Interval => "interval",
            Self::AuthType => "auth_type",
            Self::Auth => "auth",
            Self::Hmac => "hmac",
        }
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttl => "its TTL or hop limit is not 255",
            Self::Destination => "it was sent to another address than adverts are",
            Self::OwnPacket => "it has this host's own address",
            Self::UnknownPeer => "its sender is none of the peers",
            Self::Protocol => "it is of the other protocol, VRRP or CARP",
            Self::Version => "it has another version",
            Self::Type => "it is no advert",
            Self::Length => "it is cut short",
            Self::Checksum => "its checksum is wrong",
            Self::Vrid => "it is of another virtual router",
            Self::NoAddress => "it lists no address",
            Self::Interval => "its interval is zero",
            Self::AuthType => "it is authenticated by another method",
            Self::Auth => "its password is wrong",
            Self::Hmac => "its HMAC is wrong: another password, or other addresses",
        })
    }
}

/// What went over the wire for a group, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Adverts sent; one to several peers counts once.
    pub sent: u64,
    /// Adverts that could not be sent to all who should have them.
    pub failed: u64,
    /// Adverts handed on.
    pub received: u64,
    discarded: [u64; Discard::ALL.len()],
}

impl Counts {
    /// Packets discarded for this reason.
    pub const fn discarded(&self, why: Discard) -> u64 {
        self.discarded[why as usize]
    }

    /// Adds what was counted elsewhere: by an earlier channel of the same group.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.received += other.received;
        for (count, other) in self.discarded.iter_mut().zip(other.discarded) {
            *count += other;
        }
    }

    pub(super) const fn discard(&mut self, why: Discard) {
        self.discarded[why as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        let mut counts = Counts::default();
        for (nth, why) in (1..).zip(Discard::ALL) {
            (0..nth).for_each(|_| counts.discard(why));
        }
        let all: Vec<u64> = Discard::ALL.map(|why| counts.discarded(why)).to_vec();
        assert_eq!(all, (1..=15).collect::<Vec<_>>());
    }

    #[test]
    fn a_name_is_that_of_the_status() {
        for why in Discard::ALL {
            assert_eq!(serde_json::to_value(why).unwrap(), why.name());
        }
    }
}
