//! The head of an HTTP answer.

use super::body::Framing;

/// Most header lines an answer may have.
const MOST_HEADERS: usize = 128;

/// Most characters that are shown of the name a server gives its status.
const LONGEST_NAME: usize = 40;

/// What is known of an answer's head by the bytes that came so far.
#[derive(Debug)]
pub(super) enum Progress {
    /// More is needed.
    Partial,
    /// This is no HTTP/1 answer, and why not.
    Garbage(httparse::Error),
    /// An interim answer, this many bytes long: the real one follows.
    Interim(usize),
    /// All of it.
    Complete(Head),
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// The status code.
    pub(super) code: u16,
    /// The server's name for it; may be empty.
    pub(super) name: String,
    /// How many bytes long it is, with the empty line at its end.
    pub(super) length: usize,
    /// Where the body ends.
    pub(super) framing: Framing,
}

/// Reads the beginning of an answer.
pub(super) fn parse(received: &[u8]) -> Progress {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(received) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Progress::Partial,
        Err(why) => return Progress::Garbage(why),
    };
    match answer.code {
        // 101 is a final answer: no other follows.
        Some(100 | 102..=199) => Progress::Interim(length),
        Some(code) => {
            let name = answer.reason.unwrap_or_default().chars().take(LONGEST_NAME).collect();
            let framing = Framing::new(code, answer.headers);
            Progress::Complete(Head { code, name, length, framing })
        }
        None => Progress::Garbage(httparse::Error::Status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Random;

    /// A million answers, half of them cut, grown or changed in a few bytes, and half noise.
    #[test]
    fn no_bytes_make_a_reader_panic() {
        let answers = [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"[..],
            b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/html\r\n\r\ndown",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        ];
        let mut random = Random::new();
        let mut complete = 0;
        for _ in 0..1_000_000 {
            let answer = random.pick(&answers);
            let answer = random.spoil(answer);
            match parse(&answer) {
                Progress::Complete(head) => {
                    complete += 1;
                    let body = head.framing.decode(&answer[head.length..]);
                    assert!(body.bytes.len() <= answer.len() - head.length);
                }
                Progress::Interim(length) => assert!((1..=answer.len()).contains(&length)),
                Progress::Partial | Progress::Garbage(_) => {}
            }
        }
        assert!(complete > 1000, "hardly any was an answer");
    }
}
