use std::time::Duration;

use super::*;
use crate::vrrp_io::{checksum, packet};
use crate::{
    config::{Announce, Carp, GroupAddress, Hooks, Track, Vrrp, VrrpVersion},
    core::group::{CarpAdvert, VrrpAdvert},
    noise::Random,
};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

fn group(protocol: Protocol) -> Group {
    let ip = [10, 0, 0, 100].into();
    let hooks = Hooks {
        notify_master: None,
        notify_backup: None,
        notify_fault: None,
        notify_stop: None,
        notify: None,
        user: "nobody".to_owned(),
        timeout: Duration::from_secs(1),
    };
    Group {
        name: "web".to_owned(),
        interface: "eth0".to_owned(),
        protocol,
        addresses: vec![GroupAddress {
            ip,
            prefix: 32,
            interface: "eth0".to_owned(),
            advertised: true,
        }],
        preempt: true,
        preempt_delay: Duration::ZERO,
        track: Track::default(),
        hooks,
        announce: Announce {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::ZERO,
            refresh_repeat: 1,
        },
    }
}

/// A group's format, and an advert of it with where it comes from and goes.
struct Case {
    format: Format,
    advert: Advert,
    source: IpAddr,
    destination: IpAddr,
}

impl Case {
    fn message(&self) -> Vec<u8> {
        self.format
            .write(&self.advert, self.source, self.destination)
            .expect("an advert of its own")
    }

    fn read(&self, hop_limit: u8) -> Result<Received, Discard> {
        let Self { source, destination, .. } = *self;
        self.format.read(&Envelope { source, destination, hop_limit }, &self.message(), OWN)
    }
}

fn vrrp(version: VrrpVersion, family: Family, unicast_peers: Vec<IpAddr>) -> Case {
    let format = Format::new(&group(Protocol::Vrrp(Vrrp {
        version,
        virtual_router_id: 51,
        priority: 100,
        advert_int: Duration::from_secs(1),
        family,
        source: None,
        unicast_peers,
        auth_pass: (version == VrrpVersion::V2).then(|| "secret".to_owned()),
        auth_pass_file: None,
        pseudo_header: true,
        vmac: None,
    })));
    let (ip, source) = match family {
        Family::V4 => ("10.0.0.100", PEER),
        Family::V6 => ("fe80::64", "fe80::2".parse().unwrap()),
    };
    let advert = Advert::Vrrp(VrrpAdvert {
        version,
        virtual_router_id: 51,
        priority: 100,
        interval: 100,
        addresses: vec![ip.parse().unwrap()],
    });
    let destination = format.multicast().unwrap_or(OWN);
    Case { format, advert, source, destination }
}

fn carp() -> Case {
    let (vhid, advbase, advskew) = (51, 1, 0);
    let pass = "secret".to_owned();
    let format =
        Format::new(&group(Protocol::Carp(Carp { vhid, pass, pass_file: None, advbase, advskew })));
    let advert = Advert::Carp(CarpAdvert { vhid, advbase, advskew, demotion: 0, counter: 1 });
    Case { format, advert, source: PEER, destination: MULTICAST_V4 }
}

fn all() -> [Case; 5] {
    [
        vrrp(VrrpVersion::V2, Family::V4, Vec::new()),
        vrrp(VrrpVersion::V3, Family::V4, Vec::new()),
        vrrp(VrrpVersion::V2, Family::V4, vec![PEER]),
        vrrp(VrrpVersion::V3, Family::V6, Vec::new()),
        carp(),
    ]
}

#[test]
fn a_peer_may_be_behind_a_router() {
    let case = vrrp(VrrpVersion::V3, Family::V4, vec![PEER]);
    for hop_limit in 1..=255 {
        assert!(case.read(hop_limit).is_ok(), "{hop_limit}");
    }
}

/// RFC 3768, 7.1: MUST verify that the IP TTL is 255; RFC 9568, 7.1: that the TTL or hop limit is.
#[test]
fn only_a_hop_limit_of_255_is_accepted() {
    for case in all().into_iter().filter(|case| case.format.multicast().is_some()) {
        for hop_limit in 0..255 {
            assert_eq!(case.read(hop_limit), Err(Discard::Ttl));
        }
        let (source, advert) = (case.source, case.advert.clone());
        assert_eq!(case.read(255), Ok(Received { source, advert }));
    }
}

#[test]
fn our_own_packets_are_told_apart() {
    for case in all() {
        let Case { source, destination, .. } = case;
        let envelope = Envelope { source, destination, hop_limit: 255 };
        let result = case.format.read(&envelope, &case.message(), source);
        assert_eq!(result, Err(Discard::OwnPacket));
    }
}

#[test]
fn with_peers_others_are_not_heard() {
    let case = vrrp(VrrpVersion::V2, Family::V4, vec![PEER]);
    assert_eq!(case.format.destinations(), [PEER]);
    let stranger = Case { source: [10, 0, 0, 3].into(), ..case };
    assert_eq!(stranger.read(255), Err(Discard::UnknownPeer));
}

/// RFC 9568, 5.1.1.2 and 5.1.2.2: the address that adverts are sent to.
#[test]
fn without_peers_only_multicast_is_heard() {
    let groups = [MULTICAST_V4, MULTICAST_V6, MULTICAST_V4];
    let v3 = |family| vrrp(VrrpVersion::V3, family, Vec::new());
    for (case, group) in [v3(Family::V4), v3(Family::V6), carp()].into_iter().zip(groups) {
        assert_eq!(case.format.destinations(), [group]);
        let to_us = Case { destination: OWN, ..case };
        assert_eq!(to_us.read(255), Err(Discard::Destination));
    }
}

#[test]
fn an_advert_of_the_other_protocol_cannot_be_written() {
    let vrrp = vrrp(VrrpVersion::V3, Family::V4, Vec::new());
    assert!(carp().format.write(&vrrp.advert, PEER, MULTICAST_V4).is_none());
    assert!(vrrp.format.write(&carp().advert, PEER, MULTICAST_V4).is_none());
}

/// Every reader takes anything: a million packets, half of them adverts that were cut, grown or
/// changed in a few bytes, some with their checksum made right, and half noise.
#[test]
fn no_bytes_make_a_reader_panic() {
    let all = all();
    let whole = all.each_ref().map(Case::message);
    let mut random = Random::new();
    let mut accepted = 0;
    for _ in 0..1_000_000 {
        let nth = random.below(all.len());
        let message = random.pick(&whole);
        let mut packet = random.spoil(message);
        let Case { format, source, destination, .. } = &all[nth];
        let envelope = Envelope { source: *source, destination: *destination, hop_limit: 255 };
        if random.below(2) == 0 && packet.len() >= 8 {
            packet[6..8].fill(0);
            let sum = checksum::of(&packet);
            packet[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        accepted += u32::from(format.read(&envelope, &packet, OWN).is_ok());
        let _ = packet::open_v4(&packet);
    }
    assert!(accepted > 0, "nothing got past the first checks");
}
