//! Bytes of which each tells its session and its place.

/// An endless stream of bytes, another one for each seed. Lost, repeated, swapped and foreign bytes
/// are all noticed: each eight are a hash of the seed and of their place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    seed: u64,
    /// Place of the next byte.
    at: u64,
}

/// Bytes that are hashed together.
const WORD: usize = 8;

impl Stream {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, at: 0 }
    }

    /// How many bytes went by.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Writes the next bytes.
    pub(super) fn fill(&mut self, out: &mut [u8]) {
        let mut rest = out;
        while !rest.is_empty() {
            let (word, from) = self.word();
            let length = rest.len().min(WORD - from);
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&word[from..from + length]);
            self.at += length as u64;
            rest = later;
        }
    }

    /// Compares what came with the next bytes: how many of them are others.
    pub(super) fn count_wrong(&mut self, came: &[u8]) -> u64 {
        let (mut rest, mut wrong) = (came, 0);
        while !rest.is_empty() {
            let (word, from) = self.word();
            let length = rest.len().min(WORD - from);
            let (now, later) = rest.split_at(length);
            let expected = &word[from..from + length];
            if now != expected {
                wrong += now.iter().zip(expected).filter(|(a, b)| a != b).count() as u64;
            }
            self.at += length as u64;
            rest = later;
        }
        wrong
    }

    /// The word that the next byte is in, and where in it.
    fn word(&self) -> ([u8; WORD], usize) {
        let number = self.at / WORD as u64;
        // splitmix64
        let mut mixed = self.seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let from = usize::try_from(self.at % WORD as u64).expect("it is less than eight");
        ((mixed ^ (mixed >> 31)).to_le_bytes(), from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_right_in_pieces_of_any_size() {
        let mut bytes = vec![0; 1000];
        Stream::new(7).fill(&mut bytes);
        for size in [1, 3, 8, 13, 64, 999] {
            let mut stream = Stream::new(7);
            let wrong: u64 = bytes.chunks(size).map(|piece| stream.count_wrong(piece)).sum();
            assert_eq!((wrong, stream.position()), (0, 1000));
        }
    }

    #[test]
    fn a_flipped_bit_a_lost_byte_and_another_session_are_noticed() {
        let mut bytes = vec![0; 256];
        Stream::new(7).fill(&mut bytes);
        let mut flipped = bytes.clone();
        flipped[100] ^= 1;
        assert_eq!(Stream::new(7).count_wrong(&flipped), 1);
        assert!(Stream::new(7).count_wrong(&bytes[1..]) > 200);
        assert!(Stream::new(8).count_wrong(&bytes) > 200);
    }
}
