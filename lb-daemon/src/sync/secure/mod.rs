//! Encryption: what goes over the wire, and who is let in.
//!
//! `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s`: both hosts prove that they have the key, and each
//! connection has keys of its own, which the key does not give away later. The pre-shared key is
//! the SHA-256 of [`PREFIX`] and the text of `[sync] key`.
//!
//! ```text
//! caller ──► "tandem sync", form u8 (1), first version u16, last version u16      16 bytes
//!        ──► first message of the handshake                                       48 bytes
//!        ◄── answer u8: 0, or why not: 1 another key, 2 another form              1 byte
//!        ◄── second message of the handshake, if the answer is 0                  48 bytes
//!        ──► an empty message, which a recording of an earlier caller has not     16 bytes
//!        ◄─► length u16, encrypted bytes: 17 to 65535                             for ever
//! ```
//!
//! The first line is the prologue of the handshake: nobody can change it on the way. The versions in
//! it are those of the messages; which one is spoken is decided by the hellos. What is decrypted is
//! a stream of [frames](super::codec), whose ends are not those of encrypted messages.

mod handshake;
#[cfg(test)]
mod tests;

use std::fmt;

use sha2::{Digest as _, Sha256};
use snow::TransportState;

pub(super) use self::handshake::{answer, call};

/// What is put before the text of the key, so that the same text used elsewhere is another key.
const PREFIX: &str = "tandem sync 1 key:";

/// Bytes that encryption adds.
const TAG: usize = 16;
/// Longest encrypted message.
const LONGEST: usize = 65535;
/// Bytes of an encrypted message's length.
const LENGTH: usize = 2;

/// What both hosts must have.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// The key for this text.
    pub(super) fn new(text: &str) -> Self {
        Self(Sha256::new().chain_update(PREFIX).chain_update(text).finalize().into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is nobody's business.
        f.write_str("Key")
    }
}

/// What is wrong with a connection: what the peer does, for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It does not prove that it has our key, or says that we do not have its.
    #[error("has another key ([sync] key)")]
    Key,
    /// It speaks something else.
    #[error("does not speak the protocol of [sync]: is it Tandem?")]
    Stranger,
    /// It encrypts in another way.
    #[error("is of another version of Tandem, which encrypts in another way")]
    Form,
    /// It is connected, and does not do its part of the handshake.
    #[error("says nothing")]
    Silent,
    /// It closed the connection.
    #[error("closed the connection")]
    Closed,
    /// Somebody changed what it said, or it is broken.
    #[error("sends what cannot be decrypted")]
    Garbled,
    /// The connection broke.
    #[error("cannot be heard: {0}")]
    Io(std::io::Error),
    /// This host has no random numbers.
    #[error("was not called: {0}")]
    Local(snow::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// An encrypted connection's two directions.
#[derive(Debug)]
pub(super) struct Channel(TransportState);

impl Channel {
    /// Encrypts, and appends to `out` what goes over the wire.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        for part in plain.chunks(LONGEST - TAG) {
            let length = part.len() + TAG;
            let claim = u16::try_from(length).map_err(|_| Failure::Garbled)?;
            out.extend(claim.to_be_bytes());
            let start = out.len();
            out.resize(start + length, 0);
            self.0.write_message(part, &mut out[start..]).map_err(Failure::Local)?;
        }
        Ok(())
    }

    /// Decrypts what came over the wire, as far as it is complete, and appends it to `plain`. Returns
    /// how many bytes that were.
    pub(super) fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<usize, Failure> {
        let mut taken = 0;
        while let Some((length, rest)) = wire[taken..].split_first_chunk::<LENGTH>() {
            let length = usize::from(u16::from_be_bytes(*length));
            // An empty one would be work for nothing.
            if length <= TAG {
                return Err(Failure::Garbled);
            }
            let Some(message) = rest.get(..length) else { break };
            let start = plain.len();
            plain.resize(start + length - TAG, 0);
            if self.0.read_message(message, &mut plain[start..]).is_err() {
                plain.truncate(start);
                return Err(Failure::Garbled);
            }
            taken += LENGTH + length;
        }
        Ok(taken)
    }
}
