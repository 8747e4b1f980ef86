//! A group's adverts as packets: its protocol, and whom it hears.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Discard, carp, packet::Envelope, vrrp};
use crate::{
    config::{Family, Group, Protocol},
    core::group::{Advert, Received},
};

/// Where VRRP's and CARP's adverts go over IPv4 (RFC 9568, 5.1.1.2).
const MULTICAST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
/// Where VRRP's go over IPv6 (RFC 9568, 5.1.2.2).
const MULTICAST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12));
/// TTL or hop limit of every advert (RFC 9568, 5.1.1.3 and 5.1.2.3).
pub(super) const HOP_LIMIT: u8 = 255;

/// How a group's adverts look, where they go and where they come from.
#[derive(Clone)]
pub(super) struct Format {
    message: Message,
    /// Family of the packets.
    pub(super) family: Family,
    /// VRID or vhid.
    pub(super) id: u8,
    /// Hosts to send to one by one and to hear; multicast if empty.
    peers: Vec<IpAddr>,
}

#[derive(Clone)]
enum Message {
    Vrrp(vrrp::Format),
    Carp(Box<carp::Format>),
}

impl Format {
    pub(super) fn new(group: &Group) -> Self {
        match &group.protocol {
            Protocol::Vrrp(config) => Self {
                message: Message::Vrrp(vrrp::Format::new(config)),
                family: config.family,
                id: config.virtual_router_id,
                peers: config.unicast_peers.clone(),
            },
            Protocol::Carp(config) => Self {
                message: Message::Carp(Box::new(carp::Format::new(config, &group.addresses))),
                family: Family::V4,
                id: config.vhid,
                peers: Vec::new(),
            },
        }
    }

    /// The multicast group that adverts go to, unless there are peers.
    pub(super) fn multicast(&self) -> Option<IpAddr> {
        self.peers.is_empty().then_some(match self.family {
            Family::V4 => MULTICAST_V4,
            Family::V6 => MULTICAST_V6,
        })
    }

    /// Where adverts go.
    pub(super) fn destinations(&self) -> Vec<IpAddr> {
        self.multicast().map_or_else(|| self.peers.clone(), |group| vec![group])
    }

    /// An advert's bytes, without the IP header. None if it is not of the group's protocol.
    pub(super) fn write(
        &self,
        advert: &Advert,
        source: IpAddr,
        destination: IpAddr,
    ) -> Option<Vec<u8>> {
        match (&self.message, advert) {
            (Message::Vrrp(format), Advert::Vrrp(advert)) => {
                Some(format.write(advert, source, destination))
            }
            (Message::Carp(format), Advert::Carp(advert)) => Some(format.write(advert)),
            _ => None,
        }
    }

    /// What a packet says to a host with this source address.
    pub(super) fn read(
        &self,
        envelope: &Envelope,
        message: &[u8],
        own: IpAddr,
    ) -> Result<Received, Discard> {
        let source = envelope.source;
        if source == own {
            return Err(Discard::OwnPacket);
        }
        match self.multicast() {
            Some(group) if envelope.destination != group => return Err(Discard::Destination),
            Some(_) if envelope.hop_limit != HOP_LIMIT => return Err(Discard::Ttl),
            // The RFCs know no peers. A peer may be behind a router, and keepalived takes any TTL.
            None if !self.peers.contains(&source) => return Err(Discard::UnknownPeer),
            _ => {}
        }
        let advert = match &self.message {
            Message::Vrrp(format) => Advert::Vrrp(format.read(envelope, message)?),
            Message::Carp(format) => Advert::Carp(format.read(message)?),
        };
        Ok(Received { source, advert })
    }
}

#[cfg(test)]
mod tests;
