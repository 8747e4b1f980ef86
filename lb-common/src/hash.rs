//! The flow hash and the Maglev table, shared so that a test or the CLI can tell where the kernel
//! sends a client.

use crate::addr::{Address, Port};

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
