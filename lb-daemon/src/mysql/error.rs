//! What can go wrong in a conversation with a server, in words for an operator.

use std::io;

use super::fields::Fields;

/// Most characters of what a server says that are passed on: its longest usual message (a blocked
/// host, and how to unblock it) fits.
const LONGEST_TEXT: usize = 200;

/// Why a server did not answer as wanted. Nothing of it has a password in it, or a character that a
/// terminal would take for a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed.
    #[error("{0}")]
    Broken(io::Error),
    /// The server closed the connection instead of saying what was waited for.
    #[error("the connection was closed instead of {0}")]
    Closed(&'static str),
    /// What came is not MySQL's protocol.
    #[error("{0}")]
    Malformed(String),
    /// The server understood, and said no: an error packet.
    #[error("error {code}: {message}")]
    Refused {
        /// MySQL's number of it.
        code: u16,
        /// The server's own words.
        message: String,
    },
    /// The server asks for something that this client does not do.
    #[error("{0}")]
    Unsupported(String),
    /// The server answered, but it is not in the state that was asked for.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    /// `what` is not to be found in a packet.
    pub(super) fn malformed(what: &str) -> Self {
        Self::Malformed(format!("this is not MySQL: {what}"))
    }

    /// Reads an error packet, without its first byte.
    pub(super) fn from_packet(packet: &[u8]) -> Self {
        let mut fields = Fields::new(packet);
        let Ok(code) = fields.u16() else {
            return Self::malformed("an error packet without a number");
        };
        let text = fields.rest();
        // Since MySQL 4.1, there is a state of five characters before the message; not in a greeting.
        let message = text.strip_prefix(b"#").and_then(|text| text.get(5..)).unwrap_or(text);
        Self::Refused { code, message: readable(message) }
    }
}

/// The beginning of a server's text, safe for a terminal, a log and a line of the status.
pub(super) fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (count, character) in String::from_utf8_lossy(bytes).chars().enumerate() {
        if count == LONGEST_TEXT {
            text.push('…');
            break;
        }
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}
