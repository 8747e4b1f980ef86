//! The fields of a packet, taken off its front one after the other.
//!
//! Integers are little-endian. A field that is longer than what is left is an error, whatever length
//! it claims to have.

use super::error::Error;

/// What of a packet has not been read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

/// Before a length of two, three or eight bytes; smaller values are a length themselves.
const TWO_BYTES: u8 = 0xfc;
const THREE_BYTES: u8 = 0xfd;
const EIGHT_BYTES: u8 = 0xfe;
/// In the place of a length, no value at all.
const NULL: u8 = 0xfb;

impl<'a> Fields<'a> {
    pub(super) fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.bytes(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Error> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// Bytes up to a zero, which is taken off too.
    pub(super) fn until_zero(&mut self) -> Result<&'a [u8], Error> {
        let length = self.0.iter().position(|&byte| byte == 0).ok_or_else(truncated)?;
        let bytes = self.bytes(length)?;
        self.bytes(1)?;
        Ok(bytes)
    }

    /// A number that says by its first byte how long it is.
    pub(super) fn number(&mut self) -> Result<u64, Error> {
        let length = match self.u8()? {
            TWO_BYTES => 2,
            THREE_BYTES => 3,
            EIGHT_BYTES => 8,
            NULL | 0xff => return Err(Error::malformed("no number where one must be")),
            small => return Ok(small.into()),
        };
        let bytes = self.bytes(length)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Bytes after their number.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Error> {
        let length = usize::try_from(self.number()?).map_err(|_| truncated())?;
        self.bytes(length)
    }

    /// The value of a column: bytes after their number, or nothing for `NULL`.
    pub(super) fn value(&mut self) -> Result<Option<&'a [u8]>, Error> {
        if self.0.first() == Some(&NULL) {
            self.bytes(1)?;
            return Ok(None);
        }
        self.text().map(Some)
    }
}

fn truncated() -> Error {
    Error::malformed("a packet ends too early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_their_first_byte_says() {
        for (bytes, number) in [
            (&[0][..], 0),
            (&[0xfa], 0xfa),
            (&[0xfc, 1, 2], 0x201),
            (&[0xfd, 1, 2, 3], 0x3_0201),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0, 0x80], 0x8000_0000_0000_0001),
        ] {
            assert_eq!(Fields::new(bytes).number().unwrap(), number, "{bytes:?}");
        }
    }

    #[test]
    fn a_field_that_claims_more_than_there_is_is_an_error() {
        for bytes in [&[][..], &[2, b'a'], &[0xfc, 1], &[0xfe, 255, 255, 255, 255, 255, 255, 255]] {
            assert!(Fields::new(bytes).text().is_err(), "{bytes:?}");
        }
        let huge = [0xfe, 255, 255, 255, 255, 255, 255, 255, 255, b'a'];
        assert!(Fields::new(&huge).text().is_err());
        assert!(Fields::new(b"no zero").until_zero().is_err());
    }

    #[test]
    fn null_is_no_value_and_the_empty_text_is_one() {
        assert_eq!(Fields::new(&[0xfb]).value().unwrap(), None);
        assert_eq!(Fields::new(&[0]).value().unwrap(), Some(&b""[..]));
    }
}
