//! One who asks: by an HTTP request, or by nothing but a connection.
//!
//! mysqlchk behind xinetd said its answer to whoever connected, without reading a word, and checks
//! such as HAProxy's `tcp-check expect string` rely on that. So whoever says nothing for a moment is
//! answered too, and of a request nothing counts but whether it is a `HEAD`.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    join,
    time::timeout,
};

use super::{answer, source::Source};

/// How long the first word of a request is waited for. A request that comes later is read, but is
/// answered already.
const SILENCE: Duration = Duration::from_millis(50);
/// How long the rest of it is.
const REQUEST: Duration = Duration::from_secs(1);
/// How long the answer may wait to be taken, and the client to leave after it.
const FAREWELL: Duration = Duration::from_secs(1);

/// More of a request is not read before it is answered, and not more than as much again after it.
const LONGEST_REQUEST: usize = 8 * 1024;

/// Answers a client, and lets it go.
pub(super) async fn serve<S>(mut stream: S, source: &Source)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // MySQL is asked meanwhile.
    let (wants_body, verdict) = join!(request(&mut stream), source.verdict());
    let answer = answer::render(&verdict, wants_body);
    let _ = timeout(FAREWELL, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
    // A connection that is closed with something unread is reset, and the answer may be lost.
    let mut rest = stream.take(LONGEST_REQUEST as u64);
    let _ = timeout(FAREWELL, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

/// Reads a request, or waits in vain for one; whether its answer is to have a body.
pub async fn request<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    let mut head = Vec::new();
    let mut stream = stream.take(LONGEST_REQUEST as u64);
    if let Ok(Ok(1..)) = timeout(SILENCE, stream.read_buf(&mut head)).await {
        let _ = timeout(REQUEST, async {
            while !is_whole(&head) && stream.read_buf(&mut head).await? > 0 {}
            std::io::Result::Ok(())
        })
        .await;
    }
    !head.starts_with(b"HEAD ")
}

/// Whether the empty line that ends a request's head has come.
fn is_whole(head: &[u8]) -> bool {
    head.windows(2).any(|end| end == b"\n\n") || head.windows(4).any(|end| end == b"\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Random;

    /// A hundred thousand requests, half of them cut, grown or changed in a few bytes, and half noise.
    #[tokio::test]
    async fn no_bytes_make_the_reader_panic() {
        let whole = b"HEAD / HTTP/1.1\r\nHost: db1:9200\r\nUser-Agent: check\r\n\r\n";
        let mut random = Random::new();
        let mut heads = 0;
        for _ in 0..100_000 {
            let sent = random.spoil(whole);
            let wants_body = request(&mut &sent[..]).await;
            assert_eq!(wants_body, !sent.starts_with(b"HEAD "));
            heads += u32::from(!wants_body);
        }
        assert!(heads > 1000, "hardly any was a request");
    }
}
