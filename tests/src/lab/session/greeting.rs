//! What a client says first.

use std::time::Duration;

/// Bytes of a [`Greeting`].
pub(super) const LENGTH: usize = 16;

/// What the client wants: eight bytes with the time between records in milliseconds, zero if the
/// server is to echo, then the seed of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// How often the server sends a record; it echoes if there is none.
    pub(super) push: Option<Duration>,
    /// Of the session's stream.
    pub(super) seed: u64,
}

impl Greeting {
    pub(super) fn bytes(self) -> [u8; LENGTH] {
        let period = self.push.map_or(0, |period| period.as_millis());
        let period = u64::try_from(period).unwrap_or(u64::MAX).to_be_bytes();
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&period);
        bytes[8..].copy_from_slice(&self.seed.to_be_bytes());
        bytes
    }

    pub(super) fn read(bytes: [u8; LENGTH]) -> Self {
        let number = |at: usize| {
            bytes[at..at + 8].iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte))
        };
        let period = Duration::from_millis(number(0));
        Self { push: (!period.is_zero()).then_some(period), seed: number(8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        for push in [None, Some(Duration::from_millis(250))] {
            let greeting = Greeting { push, seed: 0x0102_0304_0506_0708 };
            assert_eq!(Greeting::read(greeting.bytes()), greeting);
        }
    }
}
