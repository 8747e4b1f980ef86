//! What two hosts tell each other.

use std::{collections::BTreeSet, net::SocketAddr, ops::RangeInclusive};

use super::{Change, Connection, Digest};

/// What each host says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Versions of the protocol that it speaks; the highest that both do is spoken.
    pub versions: RangeInclusive<u16>,
    /// Version of the program, for people.
    pub program: String,
    /// Name of the node, for people.
    pub node: String,
    /// Ports that it translates clients to: none of the other's may be among them.
    pub source_ports: RangeInclusive<u16>,
    /// Names of the groups that it takes part in.
    pub groups: BTreeSet<String>,
}

/// A part of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Those of these groups, ...
    pub groups: BTreeSet<String>,
    /// ... and in these buckets of a [`Digest`]; all if there are none.
    pub buckets: BTreeSet<u8>,
}

/// What one host tells the other. Every message but [`Hello`](Self::Hello) and
/// [`Ack`](Self::Ack) is counted, from one on, by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first one, and only that.
    Hello(Hello),
    /// These changed, in this order, on the host that serves them.
    Changes(Vec<Change>),
    /// What the sender has of this scope comes now.
    TransferBegins {
        /// Number of the transfer, for the answer.
        id: u32,
        /// What it covers. Whatever the receiver has of that, and is not told, is no more.
        scope: Scope,
        /// Groups of it that the sender has served, or may have, since the receiver last had everything of
        /// them: what was only silent at the receiver may have gone on at the sender.
        served: BTreeSet<String>,
    },
    /// A part of the transfer. Changes may come in between.
    Transfer(Vec<Connection>),
    /// That was all.
    TransferEnds {
        /// The number it began with.
        id: u32,
    },
    /// All of a transfer is in the receiver's tables.
    TransferDone {
        /// The number it began with.
        id: u32,
    },
    /// The sender asks for a transfer.
    Want(Scope),
    /// What the sender's tables come to, of a group that it serves.
    Digest {
        /// The group's name.
        group: String,
        /// The digest of its connections.
        digest: Box<Digest>,
    },
    /// The sender has these groups now, or no longer.
    Serving(BTreeSet<String>),
    /// Everything up to the message of this number was heard, and is in the receiver's tables but for what
    /// there is no room for.
    Ack {
        /// The message's number.
        number: u64,
        /// How many of the connections that were told as answered since the last of these are not there.
        refused: u32,
    },
    /// The sender is there. Said when there is nothing else to say.
    Alive,
    /// The sender ends the conversation, for this reason, for people.
    Bye(String),
}

/// Where the other host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Address and port of this host.
    pub listen: SocketAddr,
    /// Address and port of the other.
    pub peer: SocketAddr,
}
