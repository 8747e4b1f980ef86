//! Messages as nobody should send them, for tests of readers.

/// A linear congruential generator: quick, and the same bytes every time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x7461_6e64_656d)
    }

    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// A number that is less than this.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).expect("31 bits") % limit
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A message like this one that was cut, grown or changed in a few bytes; or, half of the time,
    /// noise.
    pub(crate) fn spoil(&mut self, message: &[u8]) -> Vec<u8> {
        let mut spoilt = message.to_vec();
        if self.below(2) == 0 {
            for byte in &mut spoilt {
                *byte = self.byte();
            }
        }
        for _ in 0..self.below(4) {
            let at = self.below(spoilt.len());
            spoilt[at] = self.byte();
        }
        spoilt.resize(self.below(spoilt.len() * 2), self.byte());
        spoilt
    }
}
