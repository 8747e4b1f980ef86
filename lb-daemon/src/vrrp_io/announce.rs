//! Telling the neighbours that an address is here now.
//!
//! As keepalived does it: for IPv4 a gratuitous ARP request (RFC 5227, 3: an announcement), for
//! IPv6 an unsolicited neighbour advertisement with the override flag (RFC 4861, 7.2.6). Switches
//! learn from the frame's source where the address' owner is.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::addr::Mac;
use nix::net::if_::if_indextoname;

use super::{checksum, frames::Frames};

const BROADCAST: [u8; 6] = [0xff; 6];
/// The Ethernet address of all nodes (RFC 2464, 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;

/// Sends announcements, by any interface of the network namespace it was opened in.
#[derive(Debug)]
pub struct Announcer(Frames);

impl Announcer {
    /// Opens a socket.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one.
    pub fn open() -> io::Result<Self> {
        Frames::open().map(Self)
    }

    /// Announces once, by an interface, that `ip` has the Ethernet address `mac`.
    ///
    /// # Errors
    ///
    /// If the interface is down or gone, or its queue full. Does not block.
    pub fn announce(&self, ifindex: u32, mac: Mac, ip: IpAddr) -> io::Result<()> {
        let frame = match ip {
            IpAddr::V4(ip) => gratuitous_arp(mac, ip),
            IpAddr::V6(ip) => unsolicited_advertisement(mac, ip, forwards(ifindex)),
        };
        self.0.send(ifindex, &frame)
    }
}

/// Whether this host is a router on an interface, which its advertisements must tell (RFC 4861,
/// 4.4): a host that hears otherwise takes its routes away.
fn forwards(ifindex: u32) -> bool {
    let forwarding =
        |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/forwarding")).ok();
    let name = if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
    name.and_then(|name| forwarding(&name)).is_some_and(|text| text.trim() != "0")
}

/// The whole frame. The target's hardware address has no meaning; keepalived fills it with ones.
fn gratuitous_arp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let ip = ip.octets();
    let arp_request_over_ethernet = [0, 1, 8, 0, 6, 4, 0, 1];
    [
        &BROADCAST[..],
        &mac.0,
        &[0x08, 0x06],
        &arp_request_over_ethernet,
        &mac.0,
        &ip,
        &BROADCAST,
        &ip,
    ]
    .concat()
}

/// The whole frame.
fn unsolicited_advertisement(mac: Mac, ip: Ipv6Addr, router: bool) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let flags = if router { 0x80 | OVERRIDE } else { OVERRIDE };
    let target = ip.octets();
    let target_address_option = [2, 1];
    let mut message =
        [&[136, 0, 0, 0, flags, 0, 0, 0][..], &target, &target_address_option, &mac.0].concat();
    let sum = checksum::pseudo_header(&message, ip.into(), ALL_NODES.into(), ICMPV6);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = u8::try_from(message.len()).expect("32 bytes");
    [
        &ALL_NODES_MAC[..],
        &mac.0,
        &[0x86, 0xdd],
        &[0x60, 0, 0, 0, 0, length, ICMPV6, 255],
        &target,
        &ALL_NODES.octets(),
        &message,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 0xa]);

    #[test]
    fn a_gratuitous_arp_is_a_request_for_its_own_address() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(10, 0, 0, 100));
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xa, 0x08, 0x06, // Ethernet
            0, 1, 0x08, 0x00, 6, 4, 0, 1, // a request over Ethernet for IPv4
            2, 0, 0, 0, 0, 0xa, 10, 0, 0, 100, // sender
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 10, 0, 0, 100, // target
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn an_unsolicited_advertisement_overrides_and_tells_of_a_router() {
        let ip: Ipv6Addr = "fd00::64".parse().unwrap();
        let host = unsolicited_advertisement(MAC, ip, false);
        let router = unsolicited_advertisement(MAC, ip, true);
        assert_eq!((host[58], router[58]), (0x20, 0xa0));
        for frame in [host, router] {
            let (header, message) = frame.split_at(54);
            assert_eq!(header[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xa, 0x86, 0xdd]);
            // RFC 4861, 4.4: hop limit 255; and the payload's length.
            assert_eq!(header[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
            assert_eq!(header[22..38], ip.octets());
            assert_eq!(header[38..], ALL_NODES.octets());
            assert_eq!(message[..2], [136, 0]);
            assert_eq!(message[8..24], ip.octets());
            assert_eq!(message[24..], [2, 1, 2, 0, 0, 0, 0, 0xa]);
            let sum = checksum::pseudo_header(message, ip.into(), ALL_NODES.into(), ICMPV6);
            assert_eq!(sum, 0);
        }
    }
}
