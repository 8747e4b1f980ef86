//! A client of MySQL and `MariaDB` that asks whether a server is fit: it hears the greeting, logs in,
//! asks one question, and leaves.
//!
//! ```text
//! connection ──► greeting ──► login ──► question ──► quit
//!                    └─ Error: who is to blame, and the server's own words
//! ```
//!
//! The protocol is spoken right here rather than by a client library. A check wants to know at which
//! step a server failed, and to stop after any of them; it reads a few short packets and believes
//! none of their lengths. And the libraries that there are cost several dozen crates.
//!
//! Nothing here has a deadline or a limit of its own but that on the length of a packet: who calls
//! puts a limit on each step's time.

mod error;
mod fields;
mod greeting;
mod login;
mod method;
mod packets;
mod question;
mod replica;
mod result;
#[cfg(test)]
pub(crate) mod tests;

pub use error::Error;
use greeting::Greeting;
use packets::Packets;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{MysqlLogin, MysqlQuestion};

const QUIT: u8 = 0x01;

/// Who may listen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nobody: a Unix socket.
    Private,
    /// Whoever is on the way.
    Public,
}

/// A conversation with a server that has greeted.
#[derive(Debug)]
pub struct Session<S> {
    packets: Packets<S>,
    greeting: Greeting,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Hears the greeting on a new connection.
    pub async fn greet(stream: S) -> Result<Self, Error> {
        let mut packets = Packets::new(stream);
        let greeting = Greeting::parse(&packets.read("a greeting").await?)?;
        Ok(Self { packets, greeting })
    }

    /// The server's version, in its own words: `10.11.6-MariaDB`.
    pub fn version(&self) -> &str {
        &self.greeting.version
    }

    /// Logs in.
    pub async fn login(&mut self, login: &MysqlLogin, transport: Transport) -> Result<(), Error> {
        login::login(&mut self.packets, &self.greeting, login, transport).await
    }

    /// Asks a question after the login, and says what the answer was if it is good.
    ///
    /// # Errors
    ///
    /// [`Error::Unfit`] if the answer is another one.
    pub async fn ask(&mut self, question: &MysqlQuestion) -> Result<String, Error> {
        question::ask(&mut self.packets, &self.greeting.version, question).await
    }

    /// Takes leave after the login, lest the server count a connection that was cut.
    pub async fn quit(mut self) {
        // If the server is gone already, so much the better.
        let _ = self.packets.command(QUIT, &[]).await;
    }
}
