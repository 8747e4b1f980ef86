//! What the election needs of the data plane: to say until when a group is served.

use std::time::Instant;

/// Where the data plane reads until when it serves each group, by the group's number.
///
/// It outlives the process, and two processes of this host may look at it at a time: a daemon and
/// the one that carries on for it. So a lease passes from one to the other in one step: whoever
/// [claims](Self::claim) it has it, and whoever had it is told so when it wants to renew it.
/// `election` is always the group's [`identity`](super::identity).
pub trait Leases: Send {
    /// Whether another process has left a lease of this election that has not ended.
    fn is_running(&self, group: u16, election: u64) -> bool;

    /// Makes such a lease this process's own. Returns until when it runs.
    fn claim(&mut self, group: u16, election: u64) -> Option<Instant>;

    /// Has the data plane serve the group until then.
    ///
    /// # Errors
    ///
    /// If this process had a lease, and has it no longer. Then nothing is changed.
    fn renew(&mut self, group: u16, election: u64, until: Instant) -> Result<(), Lost>;

    /// Has the data plane serve the group no longer.
    ///
    /// # Errors
    ///
    /// If this process had a lease, and has it no longer. Then nothing is changed.
    fn end(&mut self, group: u16) -> Result<(), Lost>;

    /// Whether what this process has done to the group's lease last still stands.
    ///
    /// # Errors
    ///
    /// If it does not.
    fn check(&self, group: u16) -> Result<(), Lost>;

    /// Has packets that belong to no connection of the group dropped for a while, rather than
    /// answered: another host has served it too, and may have connections that this one does not
    /// know yet. As after every takeover.
    fn doubt(&mut self, group: u16);

    /// Ends all leases but those of these groups, each with its election.
    fn end_others(&mut self, groups: &[(u16, u64)]);
}

/// Why a process has a lease no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Another process of this host has claimed it, and is the master from then on.
    Claimed,
    /// Another process of this host has ended it: nobody shall serve the group here.
    Ended,
}
