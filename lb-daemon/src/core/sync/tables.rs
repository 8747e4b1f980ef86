//! What a conversation with the peer needs of this host's tables.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::Result;

use super::{Change, Connection, Reported, Scope, Tuple};

/// How many connections were entered, and what became of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Entered.
    pub new: u64,
    /// Were there already.
    pub known: u64,
    /// Another connection is in the way.
    pub conflicts: u64,
    /// No room in the tables.
    pub full: u64,
    /// To a virtual address or a backend that the configuration of this host does not have.
    pub unknown: u64,
    /// Told to be over, and gone now.
    pub ended: u64,
    /// Those that were told as answered, and are not here and open now.
    pub refused: u64,
}

/// Who is right when two hosts have different connections with the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// This host, which serves them.
    KeepOurs,
    /// The peer.
    TakeTheirs,
}

/// A digest of a group's connections that both hosts are to have: the sum of hashes (wrapping)
/// of those in each of 256 buckets. Both hosts come to the same for equal tables, in whatever order
/// and places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(pub [u64; 256]);

/// Where a scan of the tables goes on; begins with the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Family and place, as the tables see fit.
    pub position: u64,
}

/// This host's tables.
pub trait Tables {
    /// Takes up to `limit` changes from what the program has reported, the oldest first. Only those
    /// of groups are reported.
    ///
    /// # Errors
    ///
    /// If the reports cannot be read.
    fn changes(&mut self, limit: usize, into: &mut Vec<Reported>) -> Result<()>;

    /// Has SYN-ACKs held back of services that wish it, or not: said anew at every poll. For each that is
    /// held, [`changes`](Self::changes) has a [`Change::Answered`].
    fn hold(&mut self, is_on: bool) {
        let _ = is_on;
    }

    /// Sends the oldest of the SYN-ACKs that are held on their way, so many as that: those that belong to
    /// the first changes of this kind that were taken and not released.
    fn release(&mut self, count: usize) {
        let _ = count;
    }

    /// Whether there were changes since this was last asked that are told by nobody: there was no
    /// room to report them.
    fn has_lost_changes(&mut self) -> bool;

    /// Connections of a scope that both hosts are to have, closed ones not among them: looks at up to `places` places
    /// from `cursor` on. Returns where to go on, or nothing at the end.
    fn scan(
        &mut self,
        scope: &Scope,
        cursor: Cursor,
        places: usize,
        into: &mut Vec<Connection>,
    ) -> Option<Cursor>;

    /// The digest of a group. Takes a walk of the whole table.
    fn digest(&mut self, group: &str) -> Digest;

    /// Does to the tables what the peer tells.
    ///
    /// # Errors
    ///
    /// If the program that does it cannot be run.
    fn adopt(&mut self, changes: &[Change], conflict: Conflict) -> Result<Adopted>;

    /// From now on notes what is adopted, ...
    fn mark(&mut self);

    /// ... and forgets whatever of the scope was there before that and has not been adopted since;
    /// returns how many connections that were.
    ///
    /// # Errors
    ///
    /// If the program that does it cannot be run.
    fn forget_unmarked(&mut self, scope: &Scope) -> Result<u64>;

    /// Looks once more for the way to clients of adopted connections that it was not known for. To be
    /// called a few times a second; takes some milliseconds, so that it goes round within some seconds
    /// where there are very many.
    ///
    /// # Errors
    ///
    /// If the program that does it cannot be run.
    fn repair(&mut self) -> Result<()> {
        Ok(())
    }

    /// Names of the groups that this host serves now: that it has a lease on.
    fn serving(&self) -> BTreeSet<String>;

    /// Name of the group that has the virtual address and port, if it is one that is known here. Called
    /// often: a lookup in memory.
    fn group(&self, bind: SocketAddr) -> Option<String>;

    /// The peer takes part in these groups, by its own account. What is silent in another one is over by
    /// the ordinary timeouts: nobody goes on with it while this host does not serve it. To be called a few
    /// times a second: the groups of this host change too.
    fn peer_has(&mut self, groups: &BTreeSet<String>) {
        let _ = groups;
    }

    /// The tables are whole: packets of this group without a flow need not be dropped any longer.
    fn end_grace(&mut self, group: &str);
}

impl Change {
    /// Whose change it is.
    pub const fn tuple(&self) -> &Tuple {
        match self {
            Self::Is(connection) | Self::Answered(connection) => &connection.tuple,
            Self::Gone(tuple) => tuple,
        }
    }
}
