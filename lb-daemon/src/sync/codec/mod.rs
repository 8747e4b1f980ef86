//! Messages to bytes, and back: version 1 of the protocol.
//!
//! All integers are big endian. A message is a *frame*, of at most [`FRAME`] bytes:
//!
//! ```text
//! length u32    of all that follows: 1 to FRAME - 4
//! kind   u8     see below
//! body          what the kind says, to the end of the frame
//! ```
//!
//! | kind | message          | body                                                                |
//! |------|------------------|---------------------------------------------------------------------|
//! |  1   | `Hello`          | first version u16, last version u16, fields to the end              |
//! |  2   | `Changes`        | changes to the end                                                  |
//! |  3   | `TransferBegins` | id u32, scope, names of groups that the sender may have served      |
//! |  4   | `Transfer`       | changes to the end, with neither bit 1 nor bit 2                    |
//! |  5   | `TransferEnds`   | id u32                                                              |
//! |  6   | `TransferDone`   | id u32                                                              |
//! |  7   | `Want`           | scope                                                               |
//! |  8   | `Digest`         | name, 256 sums u64                                                  |
//! |  9   | `Serving`        | names                                                               |
//! | 10   | `Ack`            | number u64, how many answered ones were not entered u32             |
//! | 11   | `Alive`          | nothing                                                             |
//! | 12   | `Bye`            | UTF-8 to the end                                                    |
//!
//! **Hello** keeps this form in all later versions, so that any two programs can tell each other why
//! they do not understand each other. Each of its fields is
//!
//! ```text
//! tag    u8
//! length u16    of the value
//! value
//! ```
//!
//! and those of unknown tags are skipped. No tag comes twice. One that is left out is empty, but for
//! the ports, which are always there.
//!
//! | tag | field          | value                     |
//! |-----|----------------|---------------------------|
//! |  1  | program        | UTF-8                     |
//! |  2  | node           | UTF-8                     |
//! |  3  | `source_ports` | first u16, last u16       |
//! |  4  | groups         | names                     |
//!
//! A **change** is
//!
//! ```text
//! what      u8        bit 0: IPv6; bit 1: the connection is gone; bit 2: its backend has
//!                     answered, and its client is told after the peer
//! client    address, port u16
//! bind      address, port u16
//! source    address, port u16
//! backend   address, port u16
//! state     u8        these two only if it is not gone: state bits,
//! timestamp u32       and what is added to the client's TCP timestamps
//! ```
//!
//! In a transfer, a state without the bit of an established connection says that the connection is
//! answered.
//!
//! An address is 4 or 16 bytes: 30 or 78 bytes for a connection, 25 or 73 for one that is gone.
//!
//! A **name** is its length u16 and UTF-8. **Names** are their count u16 and each name, in ascending
//! order. A **scope** is the names of its groups and 32 bytes, in which bit `n % 8` (the lowest is
//! zero) of byte `n / 8` stands for bucket `n`.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use self::{read::decode, write::encode};

/// Most bytes of a frame, its length included.
pub const FRAME: usize = 64 << 10;

/// Most connections that one message has room for, of either family.
pub const CONNECTIONS: usize = (FRAME - LENGTH - 1) / LONGEST_CHANGE;

/// Bytes of a frame's length.
const LENGTH: usize = 4;

/// Bytes of an IPv6 connection.
const LONGEST_CHANGE: usize = 1 + 4 * (16 + 2) + 1 + 4;

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const CHANGES: u8 = 2;
    pub(super) const TRANSFER_BEGINS: u8 = 3;
    pub(super) const TRANSFER: u8 = 4;
    pub(super) const TRANSFER_ENDS: u8 = 5;
    pub(super) const TRANSFER_DONE: u8 = 6;
    pub(super) const WANT: u8 = 7;
    pub(super) const DIGEST: u8 = 8;
    pub(super) const SERVING: u8 = 9;
    pub(super) const ACK: u8 = 10;
    pub(super) const ALIVE: u8 = 11;
    pub(super) const BYE: u8 = 12;
}

mod field {
    pub(super) const PROGRAM: u8 = 1;
    pub(super) const NODE: u8 = 2;
    pub(super) const SOURCE_PORTS: u8 = 3;
    pub(super) const GROUPS: u8 = 4;
}

/// In a change's first byte: its addresses are of IPv6.
const V6: u8 = 1 << 0;
/// In a change's first byte: the connection is gone.
const GONE: u8 = 1 << 1;
/// In a change: the backend has answered, and the client has not been told yet.
const ANSWERED: u8 = 1 << 2;

/// A message that cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is longer than a frame.
    #[error("a message is longer than {FRAME} bytes")]
    TooLong,
    /// A connection's addresses are not all of one family.
    #[error("a connection has addresses of both families")]
    Families,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A frame that is empty, or longer than any.
    #[error("a frame of {0} bytes")]
    Frame(u32),
    /// A kind of message that there is not.
    #[error("a message of the unknown kind {0}")]
    Kind(u8),
    /// A message that ends too early.
    #[error("a message of the kind {0} is cut short")]
    Short(u8),
    /// A message with something behind its end.
    #[error("a message of the kind {0} is too long")]
    Long(u8),
    /// A message that says what cannot be.
    #[error("a message of the kind {0} has a bad {1}")]
    Value(u8, &'static str),
}
