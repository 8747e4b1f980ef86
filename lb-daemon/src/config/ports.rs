//! Which translation ports a host uses.

use std::ops::RangeInclusive;

use super::Peer;

/// The part of `ports` that this host translates clients to: all of them, or if it has a peer, one
/// half. Of two peers, the one that listens at the lower address has the lower half, and also the one
/// in the middle of an odd number. So what one of them chooses is never taken by a connection that it
/// was told of by the other, and needs no agreement.
///
/// A single port cannot be divided; two hosts that both have it tell each other so and part.
#[must_use]
pub fn own_ports(ports: &RangeInclusive<u16>, peer: Option<&Peer>) -> RangeInclusive<u16> {
    let (first, last) = (*ports.start(), *ports.end());
    let Some(peer) = peer.filter(|_| first < last) else { return ports.clone() };
    // Cannot overflow, and is below `last`.
    let middle = first + (last - first) / 2;
    if peer.listen < peer.peer { first..=middle } else { middle + 1..=last }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(listen: &str, peer: &str) -> Peer {
        Peer {
            listen: listen.parse().unwrap(),
            peer: peer.parse().unwrap(),
            key: String::new(),
            key_file: None,
            preempt_wait: Duration::ZERO,
            grace: Duration::ZERO,
        }
    }

    #[test]
    fn a_host_without_a_peer_has_all_ports() {
        assert_eq!(own_ports(&(1024..=32_767), None), 1024..=32_767);
    }

    #[test]
    fn two_hosts_share_the_ports_without_a_gap_and_without_one_of_both() {
        let hosts = [
            ["10.9.0.1:7000", "10.9.0.2:7000"],
            // By number, not by letter; the port does not matter unless the address is the same.
            ["10.9.0.9:7001", "10.9.0.10:7000"],
            ["[fd00::1]:7000", "[fd00::1:0]:7000"],
            ["127.0.0.1:7000", "127.0.0.1:7001"],
        ];
        let ranges = [1024..=32_767, 1024..=1025, 2000..=2002, 1024..=u16::MAX, 65_534..=65_535];
        for ([low, high], ports) in hosts.iter().flat_map(|h| ranges.iter().map(move |r| (h, r))) {
            let lower = own_ports(ports, Some(&peer(low, high)));
            let upper = own_ports(ports, Some(&peer(high, low)));
            assert_eq!(lower.start(), ports.start(), "{low} {ports:?}");
            assert_eq!(lower.end() + 1, *upper.start(), "{low} {ports:?}");
            assert_eq!(upper.end(), ports.end(), "{low} {ports:?}");
            let more = lower.len() - upper.len();
            assert_eq!(more, ports.len() % 2, "{low} {ports:?}");
        }
    }

    #[test]
    fn a_single_port_stays_whole() {
        assert_eq!(own_ports(&(5000..=5000), Some(&peer("10.0.0.1:1", "10.0.0.2:1"))), 5000..=5000);
    }
}
