//! Incremental Internet checksums (RFC 1071, RFC 1624).
//!
//! Sums are taken over 16-bit words as they stand in memory; one's complement addition does not
//! care about byte order as long as all words are read alike (RFC 1071, section 2(B)).

use crate::addr::{Address, Port};

/// What lowering the hop limit by one adds to the IPv4 header checksum: `!m + m'` for
/// `m' = m - 0x0100`, in memory order.
pub const TTL_DECREMENT: u16 = 0xfeff_u16.to_be();

/// Folds a sum of 16-bit words to 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The change of a sum when the address `old` becomes `new`: `!m + m'` of RFC 1624, eqn. 3.
#[inline(always)]
pub fn address_delta<A: Address>(old: A, new: A) -> u16 {
    // `!` of a folded sum is the folded sum of the complements.
    fold(u32::from(!fold(old.sum())) + u32::from(fold(new.sum())))
}

/// The change of a sum when the port `old` becomes `new`.
#[inline(always)]
pub const fn port_delta(old: Port, new: Port) -> u16 {
    fold(!old.0 as u32 + new.0 as u32)
}

/// The change of a sum when the four bytes `old`, at an even place in the data, become `new`.
#[inline(always)]
pub const fn word_delta(old: u32, new: u32) -> u16 {
    fold((!old & 0xffff) + (!old >> 16) + (new & 0xffff) + (new >> 16))
}

/// Adds two changes.
#[inline(always)]
pub const fn combine(a: u16, b: u16) -> u16 {
    fold(a as u32 + b as u32)
}

/// The checksum `checksum` after its data changed by `delta`: `!(!HC + !m + m')`.
#[inline(always)]
pub const fn apply(checksum: u16, delta: u16) -> u16 {
    !fold(!checksum as u32 + delta as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{V4, V6};
    use proptest::prelude::*;

    /// The checksum of the whole data, the slow and obvious way.
    fn full(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|w| u32::from(*w)).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn words(bytes: &[u8]) -> Vec<u16> {
        bytes.chunks(2).map(|c| u16::from_ne_bytes([c[0], c[1]])).collect()
    }

    /// +0 and -0 are the same number in one's complement; a receiver accepts both.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    proptest! {
        #[test]
        fn a_delta_equals_a_full_recomputation(
            mut data in proptest::collection::vec(any::<u8>(), 40),
            new_v4 in any::<[u8; 4]>(), new_v6 in any::<[u8; 16]>(), new_port in any::<u16>(),
        ) {
            // A data of zeroes has no unique checksum; real headers are never all zero.
            data[39] |= 1;
            let before = full(&words(&data));

            let old_v4 = V4(u32::from_ne_bytes(data[0..4].try_into().unwrap()));
            let old_v6 = V6::from_ip(<[u8; 16]>::try_from(&data[4..20]).unwrap().into()).unwrap();
            let old_port = Port(u16::from_ne_bytes(data[20..22].try_into().unwrap()));
            let delta = combine(
                combine(
                    address_delta(old_v4, V4(u32::from_ne_bytes(new_v4))),
                    address_delta(old_v6, V6::from_ip(new_v6.into()).unwrap()),
                ),
                port_delta(old_port, Port(new_port)),
            );
            data[0..4].copy_from_slice(&new_v4);
            data[4..20].copy_from_slice(&new_v6);
            data[20..22].copy_from_slice(&new_port.to_ne_bytes());
            prop_assert!(same(apply(before, delta), full(&words(&data))));
        }

        #[test]
        fn a_word_at_an_odd_place_changes_the_other_halves(
            mut data in proptest::collection::vec(any::<u8>(), 20), at in 0usize..16,
            new in any::<u32>(),
        ) {
            data[19] |= 1;
            let before = full(&words(&data));
            let old = u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
            let delta = word_delta(old, new);
            let delta = if at % 2 == 0 { delta } else { delta.swap_bytes() };
            data[at..at + 4].copy_from_slice(&new.to_ne_bytes());
            prop_assert!(same(apply(before, delta), full(&words(&data))));
        }

        #[test]
        fn the_hop_limit_constant_equals_a_full_recomputation(
            mut data in proptest::collection::vec(any::<u8>(), 20), ttl in 1u8..,
        ) {
            data[8] = ttl;
            let before = full(&words(&data));
            data[8] -= 1;
            prop_assert!(same(apply(before, TTL_DECREMENT), full(&words(&data))));
        }
    }
}
