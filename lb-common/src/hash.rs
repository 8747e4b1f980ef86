//! The hashes of the balancing and of the flow table, shared so that both sides, and tests, can
//! tell where the kernel sends a client, and where it keeps a connection.

use crate::{
    addr::{Address, Port},
    flow::{FlowKey, GROUP},
};

/// Entries of a service's Maglev table: a prime (Maglev, NSDI 2016, section 3.4), large enough to
/// keep the shares of 80 backends of equal weight within about one percent of each other.
pub const MAGLEV_SIZE: u32 = 8191;

/// Hashes a client for `balance source` (address only).
#[inline(always)]
pub fn client<A: Address>(address: A) -> u32 {
    finish(address.fold() ^ 0x9e37_79b9)
}

/// Hashes a connection for `balance hash` (client address and port).
#[inline(always)]
pub fn connection<A: Address>(address: A, port: Port) -> u32 {
    finish(finish(address.fold() ^ 0x9e37_79b9) ^ port.0 as u32)
}

/// Murmur3's finaliser: every input bit changes every output bit with a chance of a half.
#[inline(always)]
pub const fn finish(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// What makes the flow table's hash another one on each host: somebody who could tell which tuples
/// share a group would fill it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Seed {
    /// Where a hash begins.
    pub start: u64,
    /// What each word of a tuple is multiplied by; odd.
    pub by: u64,
}

/// Odd, and without a pattern in their bits: from the golden ratio, and from `SplitMix64` (Steele,
/// Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const FINISH: u64 = 0xbf58_476d_1ce4_e5b9;

/// The hash of a tuple in the flow table.
///
/// A multiplication carries upwards only: the highest bits of a product depend on all bits of the
/// factors, its lowest on next to none. So the high half is folded onto the low one before the next
/// multiplication, and only high bits of the last product choose a place.
#[inline(always)]
pub fn flow<A: Address>(seed: &Seed, key: &FlowKey<A>) -> u64 {
    let ports = key.sport.0 as u64 | (key.dport.0 as u64) << 16;
    let hash = A::absorb(seed.start, seed.by, key.src, key.dst);
    absorb(hash, seed.by, ports).wrapping_mul(FINISH)
}

/// Adds a word to a hash. What is added has been multiplied by a secret, so that nobody can choose
/// two words that make up for each other.
#[inline(always)]
pub(crate) const fn absorb(hash: u64, by: u64, word: u64) -> u64 {
    let sum = hash.wrapping_mul(MIX).wrapping_add(word.wrapping_mul(by));
    sum ^ sum >> 32
}

/// The hash for the next level: that of the group to look in when the last one has overflowed.
#[inline(always)]
pub const fn next_level(hash: u64) -> u64 {
    (hash ^ hash >> 32).wrapping_mul(FINISH)
}

/// Which of `groups` groups a hash stands for. Any number of groups has equal shares.
#[inline(always)]
pub const fn group(hash: u64, groups: u32) -> u32 {
    (((hash >> 32) * groups as u64) >> 32) as u32
}

/// Which entry of its group a tuple is looked for first.
#[inline(always)]
pub const fn place(hash: u64) -> usize {
    (hash >> 29) as usize % GROUP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{V4, V6};

    const SEED: Seed = Seed { start: 0x0123_4567_89ab_cdef, by: 0xd1b5_4a32_d192_ed03 };
    const GROUPS: u32 = 10_007;

    fn v4(src: u32, sport: u16) -> FlowKey<V4> {
        let dst = V4(u32::from_ne_bytes([192, 0, 2, 1]));
        FlowKey { src: V4(src.to_be()), dst, sport: Port::new(sport), dport: Port::new(443) }
    }

    fn v6(low: u32, sport: u16) -> FlowKey<V6> {
        let address = |low: u32| V6([0x2001_0db8_u32.to_be(), 0, 0, low.to_be()]);
        let (src, dst) = (address(low), address(1));
        FlowKey { src, dst, sport: Port::new(sport), dport: Port::new(443) }
    }

    /// Every bit of a tuple, flipped: the tuples that differ from this one by that bit.
    fn flipped_v4(key: FlowKey<V4>) -> impl Iterator<Item = FlowKey<V4>> {
        let ports = |key: FlowKey<V4>, bit: u32| match bit {
            0..16 => FlowKey { sport: Port(key.sport.0 ^ 1 << bit), ..key },
            _ => FlowKey { dport: Port(key.dport.0 ^ 1 << (bit - 16)), ..key },
        };
        (0..96).map(move |bit| match bit {
            0..32 => FlowKey { src: V4(key.src.0 ^ 1 << bit), ..key },
            32..64 => FlowKey { dst: V4(key.dst.0 ^ 1 << (bit - 32)), ..key },
            _ => ports(key, bit - 64),
        })
    }

    fn flipped_v6(key: FlowKey<V6>) -> impl Iterator<Item = FlowKey<V6>> {
        let flip = |V6(mut words): V6, bit: usize| {
            words[bit / 32] ^= 1 << (bit % 32);
            V6(words)
        };
        (0..256).map(move |bit| match bit {
            0..128 => FlowKey { src: flip(key.src, bit), ..key },
            _ => FlowKey { dst: flip(key.dst, bit - 128), ..key },
        })
    }

    /// How often each of the 35 bits that choose a place changes with each bit of the tuple.
    fn avalanche<A: Address, I: Iterator<Item = FlowKey<A>>>(
        keys: impl Iterator<Item = FlowKey<A>>,
        flipped: fn(FlowKey<A>) -> I,
    ) {
        let mut changes: Vec<[u32; 35]> = Vec::new();
        let mut samples = 0;
        for key in keys {
            samples += 1;
            let hash = flow(&SEED, &key);
            for (i, other) in flipped(key).enumerate() {
                changes.resize(changes.len().max(i + 1), [0; 35]);
                let flips = (hash ^ flow(&SEED, &other)) >> 29;
                for (bit, count) in changes[i].iter_mut().enumerate() {
                    *count += (flips >> bit & 1) as u32;
                }
            }
        }
        for (i, counts) in changes.iter().enumerate() {
            for (bit, count) in counts.iter().enumerate() {
                let share = f64::from(*count) / f64::from(samples);
                assert!((0.4..0.6).contains(&share), "bit {i} changes bit {bit} in {share:.2}");
            }
        }
    }

    #[test]
    fn every_bit_of_a_tuple_changes_every_bit_of_the_place_half_the_time() {
        let numbers = || (0..4096_u32).map(|i| (i.wrapping_mul(0x9e37_79b1), (i * 7) as u16));
        avalanche(numbers().map(|(src, port)| v4(src, port)), flipped_v4);
        avalanche(numbers().map(|(src, port)| v6(src, port)), flipped_v6);
    }

    /// Fills groups with four tuples each on average, and compares how many hold how many with
    /// what chance alone would do (a Poisson distribution).
    fn fills_as_by_chance(hashes: impl Iterator<Item = u64>) {
        const MEAN: f64 = 4.0;

        let mut filled = vec![0_u32; GROUPS as usize];
        let mut tuples = 0;
        for hash in hashes.take(GROUPS as usize * 4) {
            filled[group(hash, GROUPS) as usize] += 1;
            tuples += 1;
        }
        assert_eq!(tuples, GROUPS * 4);
        let mut chance = (-MEAN).exp();
        for count in 0..12 {
            let groups = filled.iter().filter(|n| **n == count).map(|_| 1.0).sum::<f64>();
            let expected = f64::from(GROUPS) * chance;
            let slack = 5.0 * expected.sqrt() + 1.0;
            assert!(groups < expected + slack, "{groups} groups of {count}, not {expected:.0}");
            chance *= MEAN / f64::from(count + 1);
        }
    }

    #[test]
    fn clients_and_ports_in_sequence_fill_groups_as_by_chance() {
        let client = u32::from_be_bytes([10, 0, 0, 0]);
        let of_one = (1024..=u16::MAX).map(|port| flow(&SEED, &v4(client, port)));
        fills_as_by_chance(of_one);
        let of_many = (0..100_000).map(|i| flow(&SEED, &v4(client + i, 40_000)));
        fills_as_by_chance(of_many);
        let v6s = (0..100_000).map(|i| flow(&SEED, &v6(i, 40_000)));
        fills_as_by_chance(v6s);
        let ports = (1024..=u16::MAX).map(|port| flow(&SEED, &v6(1, port)));
        fills_as_by_chance(ports);
    }

    #[test]
    fn the_next_levels_group_has_nothing_to_do_with_this_ones() {
        let client = u32::from_be_bytes([10, 0, 0, 0]);
        let mut hashes: Vec<u64> =
            (0..GROUPS * 4).map(|i| flow(&SEED, &v4(client + i, 40_000))).collect();
        for _ in 1..crate::flow::LEVELS {
            let before = hashes.clone();
            for hash in &mut hashes {
                *hash = next_level(*hash);
            }
            fills_as_by_chance(hashes.iter().copied());
            let same = |(a, b): &(&u64, &u64)| group(**a, GROUPS) == group(**b, GROUPS);
            let stay = before.iter().zip(&hashes).filter(same).count();
            assert!(stay < 40, "{stay} tuples stay in their group");
        }
    }

    #[test]
    fn first_places_are_spread_over_a_group() {
        let mut places = [0; GROUP];
        for port in 0..8000 {
            places[place(flow(&SEED, &v4(0x0a00_0001, port)))] += 1;
        }
        assert!(places.iter().all(|count| (850..1150).contains(count)), "{places:?}");
    }

    #[test]
    fn the_last_group_is_the_last_one() {
        assert_eq!(group(u64::MAX, 5), 4);
        assert_eq!(group(0, 5), 0);
    }
}
