//! A server of our own making, which says what a test wants it to.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The nonce of every greeting.
pub(crate) const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";

/// The server's end of a connection.
pub(crate) struct Fake<S> {
    stream: S,
    count: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Fake<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, count: 0 }
    }

    /// Sends a packet; a client that has left does not matter.
    pub(crate) async fn say(&mut self, content: &[u8]) {
        let _ = self.stream.write_all(&packet(self.count, content)).await;
        self.count = self.count.wrapping_add(1);
    }

    /// Reads a packet; an empty one if the client has left.
    pub(crate) async fn hear(&mut self) -> Vec<u8> {
        let mut header = [0; 4];
        if self.stream.read_exact(&mut header).await.is_err() {
            return Vec::new();
        }
        self.count = header[3].wrapping_add(1);
        let mut content = vec![0; usize::from(header[0]) + usize::from(header[1]) * 256];
        self.stream.read_exact(&mut content).await.unwrap();
        content
    }

    /// Greets as a `MariaDB`, and lets anybody in.
    pub(crate) async fn let_in(&mut self) {
        self.let_in_as(MARIADB).await;
    }

    /// Greets as a server of this version, and lets anybody in.
    pub(crate) async fn let_in_as(&mut self, version: &str) {
        self.say(&greeting_of(version, "mysql_native_password")).await;
        self.hear().await;
        self.say(&OK).await;
    }

    /// Answers the next query with a result of these columns and rows, and says what it was.
    pub(crate) async fn answer<V: AsRef<[u8]> + Copy>(
        &mut self,
        columns: &[&str],
        rows: &[&[Option<V>]],
    ) -> String {
        let query = self.hear().await;
        self.say(&[u8::try_from(columns.len()).unwrap()]).await;
        for name in columns {
            self.say(&column(name)).await;
        }
        self.say(&END).await;
        for row in rows {
            let values = row.iter().copied().map(|value| value.map_or(vec![0xfb], text));
            self.say(&values.flatten().collect::<Vec<_>>()).await;
        }
        self.say(&END).await;
        String::from_utf8(query).unwrap_or_default()
    }
}

pub(crate) const OK: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];
pub(crate) const END: [u8; 5] = [0xfe, 0, 0, 2, 0];

/// A packet with its header.
pub(crate) fn packet(count: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    [&[length[0], length[1], length[2], count], content].concat()
}

/// The version of a `MariaDB`, as it says it.
pub(crate) const MARIADB: &str = "5.5.5-10.11.6-MariaDB";

/// The greeting of a `MariaDB` that prefers this method.
pub(crate) fn greeting(method: &str) -> Vec<u8> {
    greeting_of(MARIADB, method)
}

/// The greeting of a server of this version.
fn greeting_of(version: &str, method: &str) -> Vec<u8> {
    let (first, second) = NONCE.split_at(8);
    let mut packet = [b"\x0a", version.as_bytes(), b"\0"].concat();
    packet.extend([1, 0, 0, 0]);
    packet.extend(first);
    packet.extend([0, 0xff, 0xff, 45, 2, 0, 0xff, 0xff, 21]);
    packet.extend([0; 10]);
    packet.extend(second);
    packet.push(0);
    packet.extend(method.bytes());
    packet.push(0);
    packet
}

/// An error, as it is said after a login.
pub(crate) fn error(code: u16, message: &str) -> Vec<u8> {
    [&[0xff], &code.to_le_bytes()[..], b"#HY000", message.as_bytes()].concat()
}

fn column(name: &str) -> Vec<u8> {
    let before = ["def", "", "t", "t"].map(text::<&str>).concat();
    let after = text(name);
    [before, text(name), after, [0x0c, 45, 0, 255, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0].to_vec()].concat()
}

/// Bytes after their number.
fn text<V: AsRef<[u8]>>(text: V) -> Vec<u8> {
    let text = text.as_ref();
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    let length = if text.len() <= 0xfa { &length[..1] } else { &[&[0xfd], &length[..3]].concat() };
    [length, text].concat()
}
