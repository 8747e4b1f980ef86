//! The body of an HTTP answer, as far as it has come (RFC 9112, section 6.3).

use std::borrow::Cow;

use httparse::{Header, InvalidChunkSize, Status};

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this many bytes.
    Length(usize),
    /// After the last chunk.
    Chunked,
    /// When the connection is closed.
    UntilClose,
}

/// What has come of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body<'a> {
    /// Its bytes, without those that frame them.
    pub(super) bytes: Cow<'a, [u8]>,
    /// Whether that is all of it.
    pub(super) is_whole: bool,
}

impl Framing {
    /// What the headers of an answer with this status say; not for an answer to `HEAD`, which has
    /// no body whatever they say.
    pub(super) fn new(code: u16, headers: &[Header<'_>]) -> Self {
        let value = |name: &str| {
            let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok()
        };
        let is_chunked = |value: &str| {
            value.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"))
        };
        if matches!(code, 100..=199 | 204 | 304) {
            Self::Length(0)
        } else if value("transfer-encoding").is_some_and(is_chunked) {
            Self::Chunked
        } else {
            // A length that is none is as good as none at all: what comes is looked at.
            let length = value("content-length").and_then(|value| value.trim().parse().ok());
            length.map_or(Self::UntilClose, Self::Length)
        }
    }

    /// The body in what came after the head.
    pub(super) fn decode(self, received: &[u8]) -> Body<'_> {
        match self {
            Self::Length(length) => {
                let bytes = &received[..length.min(received.len())];
                Body { bytes: bytes.into(), is_whole: bytes.len() == length }
            }
            Self::UntilClose => Body { bytes: received.into(), is_whole: false },
            Self::Chunked => chunked(received),
        }
    }
}

/// Takes chunks apart. What can't be a chunk ends the body: nothing that follows makes sense.
fn chunked(mut rest: &[u8]) -> Body<'_> {
    let mut bytes = Vec::new();
    let is_whole = loop {
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(Status::Complete((start, size))) => (start, usize::try_from(size)),
            Ok(Status::Partial) => break false,
            Err(InvalidChunkSize) => break true,
        };
        let Ok(size @ 1..) = size else { break true };
        let data = &rest[start..];
        bytes.extend_from_slice(&data[..size.min(data.len())]);
        // The line's end after the data belongs to the chunk.
        match data.get(size.saturating_add(2)..) {
            Some(next) => rest = next,
            None => break false,
        }
    };
    Body { bytes: bytes.into(), is_whole }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_ends_where_its_head_says() {
        let header = |name, value: &'static str| Header { name, value: value.as_bytes() };
        let length = header("Content-Length", "12");
        let chunks = header("transfer-encoding", "gzip, Chunked");
        #[rustfmt::skip]
        let table = [
            (200, vec![], Framing::UntilClose),
            (200, vec![length], Framing::Length(12)),
            (200, vec![chunks], Framing::Chunked),
            (200, vec![length, chunks], Framing::Chunked),
            (200, vec![header("Content-Length", "a dozen")], Framing::UntilClose),
            (204, vec![length], Framing::Length(0)),
            (304, vec![length], Framing::Length(0)),
        ];
        for (code, headers, framing) in table {
            assert_eq!(Framing::new(code, &headers), framing, "{code} {headers:?}");
        }
    }

    #[test]
    fn chunks_are_put_together() {
        let answer = b"3\r\nrun\r\n5;note=x\r\nning.\r\n0\r\n\r\n";
        let body = |bytes: &'static [u8], is_whole| Body { bytes: bytes.into(), is_whole };
        assert_eq!(Framing::Chunked.decode(answer), body(b"running.", true));
        assert_eq!(Framing::Chunked.decode(&answer[..7]), body(b"run", false));
        assert_eq!(Framing::Chunked.decode(&answer[..20]), body(b"runni", false));
        assert_eq!(Framing::Chunked.decode(b"no chunk"), body(b"", true));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd_for_any_framing(
            received in prop::collection::vec(prop_oneof![Just(b'f'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60),
            length in any::<usize>(),
        ) {
            for framing in [Framing::Length(length), Framing::Chunked, Framing::UntilClose] {
                prop_assert!(framing.decode(&received).bytes.len() <= received.len());
            }
        }
    }
}
