//! Bytes whose place in a stream can be told from their value.

/// Bytes of a block.
pub(super) const BLOCK: usize = 64 * 1024;

/// A prime, so that no two blocks within many gigabytes look alike after a shift.
const PERIOD: usize = 1_048_573;

/// A stream of pseudo-random bytes, the same every time.
///
/// Lost, repeated, swapped and shifted bytes are all noticed: the bytes repeat only after a prime
/// number of them, and every block begins with its number.
pub(super) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    pub(super) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        let mut bytes: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
        bytes.extend_from_within(..BLOCK);
        Self { bytes }
    }

    /// Writes the block of this number, which is [`BLOCK`] bytes.
    pub(super) fn fill(&self, number: u64, block: &mut [u8]) {
        let period = u64::try_from(PERIOD).expect("it is small");
        let block_length = u64::try_from(BLOCK).expect("it is small");
        let start = (number % period) * block_length % period;
        let start = usize::try_from(start).expect("it is less than the period");
        block.copy_from_slice(&self.bytes[start..start + BLOCK]);
        block[..8].copy_from_slice(&number.to_be_bytes());
    }
}

/// A checksum of a stream, fed with its pieces; all but the last have a multiple of 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checksum(pub(super) u64);

impl Checksum {
    pub(super) fn add(&mut self, piece: &[u8]) {
        for chunk in piece.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(7) ^ u64::from_le_bytes(word);
            self.0 = self.0.wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_differ_and_are_the_same_every_time() {
        let (one, other) = (Pattern::new(), Pattern::new());
        let (mut a, mut b) = (vec![0; BLOCK], vec![0; BLOCK]);
        one.fill(7, &mut a);
        other.fill(7, &mut b);
        assert_eq!(a, b);
        other.fill(8, &mut b);
        assert_ne!(a[8..], b[8..]);
    }

    #[test]
    fn a_checksum_sees_swapped_words() {
        let (mut one, mut other) = (Checksum::default(), Checksum::default());
        one.add(b"abcdefghABCDEFGH");
        other.add(b"ABCDEFGHabcdefgh");
        assert_ne!(one, other);
    }
}
