//! Asks one host, by its MAC, for addresses that should be the other's.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::{
    Capture, Family, Frame, Pair, Twin,
    capture::{ARP, IPV4, IPV6},
    half_open::{checksum, syn},
};

/// Sends so many rounds of an ARP request, a neighbour solicitation and a SYN of either family for
/// the virtual addresses to one of the hosts alone, and counts what it does about them within half
/// a second after the last: replies, advertisements, segments to the client, and SYNs forwarded to
/// a server.
pub fn answers_of(pair: &Pair, twin: &Twin, port: u16, rounds: u16) -> Result<usize> {
    answers_to(twin.mac(), pair, twin, port, rounds)
}

/// The same for frames to another MAC address that the host may have: the virtual one, which the
/// switch would take to the master.
pub fn answers_to(mac: [u8; 6], pair: &Pair, twin: &Twin, port: u16, rounds: u16) -> Result<usize> {
    let capture = Capture::on(pair.switch())?;
    let (_, client) = pair.client().enter(|| open("eth0"))?;
    let client = client.addr().context("an interface without an address")?;
    // By the switch's port, whatever the switch has learned of who has that address.
    let cable = || open(twin.front.port.name());
    let (socket, cable) = pair.switch().enter(cable).context("cannot send frames")?;
    for round in 0..rounds {
        for frame in questions(pair, mac, client, (port, 40_000 + round))? {
            sendto(socket.as_raw_fd(), &frame, &cable, MsgFlags::empty())?;
        }
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(Duration::from_millis(500));
    let legs = [twin.front.port.name(), twin.back.port.name()];
    let ours = |address: IpAddr| Family::BOTH.into_iter().any(|of| pair.vip(of) == address);
    let answers = |frame: &&Frame| {
        let segment = frame.segment().is_some_and(|one| ours(one.from.ip()) || one.opens);
        legs.contains(&&*frame.port) && (segment || frame.claims().is_some_and(ours))
    };
    Ok(capture.frames().iter().filter(answers).count())
}

/// A socket that sends frames by an interface, and that interface as an address.
pub(super) fn open(interface: &str) -> Result<(OwnedFd, LinkAddr)> {
    // Without a protocol it receives nothing.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let addresses = nix::ifaddrs::getifaddrs()?.filter(|one| one.interface_name == interface);
    let link = addresses.filter_map(|one| one.address).find_map(|one| one.as_link_addr().copied());
    Ok((socket, link.with_context(|| format!("no link-layer address of {interface}"))?))
}

/// The frames of a round to a MAC address, from a port of the client to one of the service.
fn questions(
    pair: &Pair,
    mac: [u8; 6],
    client: [u8; 6],
    (to, from): (u16, u16),
) -> Result<Vec<Vec<u8>>> {
    let frame = |kind: u16, payload: Vec<u8>| -> Vec<u8> {
        [&mac[..], &client, &kind.to_be_bytes(), &payload].concat()
    };
    let own = |family| pair.client().address(family);
    let (IpAddr::V4(own4), IpAddr::V4(vip4)) = (own(Family::V4), pair.vip(Family::V4)) else {
        unreachable!("they are of IPv4")
    };
    let (IpAddr::V6(own6), IpAddr::V6(vip6)) = (own(Family::V6), pair.vip(Family::V6)) else {
        unreachable!("they are of IPv6")
    };
    Ok(vec![
        frame(ARP, arp_request(client, own4, vip4)),
        frame(IPV6, neighbour_solicitation(client, own6, vip6)),
        frame(IPV4, syn((own4, from).into(), (vip4, to).into())?),
        frame(IPV6, syn((own6, from).into(), (vip6, to).into())?),
    ])
}

/// RFC 826.
fn arp_request(mac: [u8; 6], from: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let ethernet_ipv4_request = [0, 1, 8, 0, 6, 4, 0, 1];
    [&ethernet_ipv4_request[..], &mac, &from.octets(), &[0; 6], &target.octets()].concat()
}

/// RFC 4861, section 4.3, as it is sent to verify a neighbour: to the address itself.
fn neighbour_solicitation(mac: [u8; 6], from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    const LENGTH: u8 = 32;
    const ICMPV6: u8 = 58;

    let source_link_layer_address = [&[1, 1][..], &mac].concat();
    let mut message =
        [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &source_link_layer_address].concat();
    let pseudo = [&from.octets()[..], &target.octets(), &[0, 0, 0, LENGTH, 0, 0, 0, ICMPV6]];
    let sum = checksum(&[&pseudo.concat()[..], &message].concat()).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let header = [0x60, 0, 0, 0, 0, LENGTH, ICMPV6, 255];
    [&header[..], &from.octets(), &target.octets(), &message].concat()
}
