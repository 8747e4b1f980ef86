//! Packets: three bytes of length, one that counts, and what is said.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::error::Error;

/// Longest packet that is read, in bytes. All that a check has to do with are far shorter, ...
const LONGEST: usize = 16 * 1024;
/// ... but for rows: a replica shows every table that it leaves out, and sets of GTIDs.
const LONGEST_ROW: usize = 1 << 20;

/// A packet of every server is read with so many bytes as there are, up to this many at once.
const BUFFER: usize = 2048;

/// A connection as packets.
#[derive(Debug)]
pub(super) struct Packets<S> {
    stream: BufReader<S>,
    /// What the next packet is counted as. The server's count is not checked: what a packet is shows
    /// by its content.
    count: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Packets<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(BUFFER, stream), count: 0 }
    }

    /// The next packet's content; `what` it is to be, for messages.
    pub(super) async fn read(&mut self, what: &'static str) -> Result<Vec<u8>, Error> {
        self.read_up_to(LONGEST, what).await
    }

    /// The next packet's content, where rows come.
    pub(super) async fn read_row(&mut self, what: &'static str) -> Result<Vec<u8>, Error> {
        self.read_up_to(LONGEST_ROW, what).await
    }

    async fn read_up_to(&mut self, longest: usize, what: &'static str) -> Result<Vec<u8>, Error> {
        let mut header = [0; 4];
        let heard = self.stream.read_exact(&mut header).await;
        heard.map_err(|error| broken(error, what))?;
        let [low, middle, high, count] = header;
        let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
        if length > longest {
            let message = format!("{what} has {length} bytes, and {longest} at most are read");
            return Err(Error::Malformed(message));
        }
        self.count = count.wrapping_add(1);
        // Takes memory as bytes come, not as they are promised.
        let mut content = Vec::new();
        let heard = (&mut self.stream).take(length as u64).read_to_end(&mut content).await;
        match heard.map_err(|error| broken(error, what))? {
            all if all == length => Ok(content),
            _ => Err(Error::Closed(what)),
        }
    }

    /// Sends a packet as an answer to the last one that was read.
    pub(super) async fn write(&mut self, content: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(content.len()).expect("what is sent is short").to_le_bytes();
        let mut packet = Vec::with_capacity(4 + content.len());
        packet.extend([length[0], length[1], length[2], self.count]);
        packet.extend(content);
        self.stream.write_all(&packet).await.map_err(Error::Broken)?;
        self.stream.flush().await.map_err(Error::Broken)
    }

    /// Sends a command, with which counting begins anew.
    pub(super) async fn command(&mut self, command: u8, argument: &[u8]) -> Result<(), Error> {
        self.count = 0;
        self.write(&[&[command], argument].concat()).await
    }
}

fn broken(error: io::Error, what: &'static str) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::Closed(what),
        _ => Error::Broken(error),
    }
}
