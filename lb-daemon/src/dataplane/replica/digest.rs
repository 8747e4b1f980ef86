//! What a connection is in a digest: the same on both hosts, whatever their tables' own hash is.

use std::net::{IpAddr, SocketAddr};

use crate::core::sync::Tuple;

/// Increments and multipliers of `SplitMix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom
/// Number Generators, 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

/// A connection's hash, which a digest adds up. It is a part of what two hosts of different versions
/// agree on, and never changes.
///
/// The tuple's four addresses, in the order of [`Tuple`], are nine words in network byte order: each
/// has sixteen bytes, IPv4 mapped to IPv6, and then its port in two.
pub(super) fn hash(tuple: &Tuple) -> u64 {
    let mut bytes = [[0; 18]; 4];
    let ends = [tuple.client, tuple.bind, tuple.source, tuple.backend];
    for (bytes, end) in bytes.iter_mut().zip(ends) {
        *bytes = canonical(end);
    }
    let (words, _) = bytes.as_flattened().as_chunks::<8>();
    words.iter().fold(0, |hash, word| mix(hash ^ u64::from_be_bytes(*word)))
}

/// In which part of a digest a hash is counted: by bits that the sum of few hashes does not hide.
pub(super) const fn bucket(hash: u64) -> u8 {
    (hash >> 56) as u8
}

fn canonical(end: SocketAddr) -> [u8; 18] {
    let ip = match end.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&end.port().to_be_bytes());
    bytes
}

const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(STEP);
    let word = (word ^ word >> 30).wrapping_mul(MIX[0]);
    let word = (word ^ word >> 27).wrapping_mul(MIX[1]);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(client: &str, bind: &str, source: &str, backend: &str) -> Tuple {
        let [client, bind, source, backend] =
            [client, bind, source, backend].map(|end| end.parse().unwrap());
        Tuple { client, bind, source, backend }
    }

    #[test]
    fn a_connection_has_the_same_hash_on_every_host_and_in_every_version() {
        let v4 = tuple("198.51.100.7:40000", "192.0.2.1:443", "10.2.0.9:1024", "10.2.0.1:8080");
        let v6 =
            tuple("[2001:db8::7]:40000", "[2001:db8:1::1]:443", "[fd00::9]:1024", "[fd00::1]:80");
        assert_eq!(hash(&v4), 0xa430_4b3d_0fb0_5d93);
        assert_eq!(hash(&v6), 0x2362_f605_b15f_04ad);
    }

    #[test]
    fn every_part_of_a_tuple_changes_its_hash() {
        let one = tuple("198.51.100.7:40000", "192.0.2.1:443", "10.2.0.9:1024", "10.2.0.1:8080");
        let other = tuple("198.51.100.8:40001", "192.0.2.2:444", "10.2.0.8:1025", "10.2.0.2:8081");
        let others = [
            Tuple { client: other.client, ..one },
            Tuple { bind: other.bind, ..one },
            Tuple { source: other.source, ..one },
            Tuple { backend: other.backend, ..one },
            // The client's and the source address swapped.
            Tuple { client: one.source, source: one.client, ..one },
        ];
        for other in others {
            assert_ne!(hash(&one), hash(&other), "{other:?}");
        }
    }

    #[test]
    fn buckets_are_filled_evenly() {
        let mut counts = [0_u32; 256];
        for port in 1024..=u16::MAX {
            let client = format!("10.1.2.3:{port}");
            let tuple = tuple(&client, "192.0.2.1:443", "10.2.0.9:1024", "10.2.0.1:8080");
            counts[usize::from(bucket(hash(&tuple)))] += 1;
        }
        // 252 each, give or take five times the deviation of chance.
        assert!(counts.iter().all(|count| (170..=335).contains(count)), "{counts:?}");
    }
}
