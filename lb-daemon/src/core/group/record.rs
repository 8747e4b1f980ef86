//! What is remembered of an election, for people.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::Transition;

/// Changes of role that are remembered.
const TRANSITIONS: usize = 8;

/// Why an advert was not heeded, or that it was, though something is wrong about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discard {
    /// It has our own address: a loop, or a host with the same address.
    Own,
    /// It is of another protocol, version or identifier.
    Protocol,
    /// Its interval is not ours (VRRP version 2), or zero (version 3).
    Interval,
    /// It lists other addresses. If some of ours are among them, it is heeded all the same.
    Addresses,
    /// We own the addresses, so nobody else can. One that says so too is heeded all the same.
    Owner,
    /// It was sent before (CARP only).
    Replay,
    /// It is from a master that we are about to take over from.
    Weaker,
}

impl Discard {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Own,
        Self::Protocol,
        Self::Interval,
        Self::Addresses,
        Self::Owner,
        Self::Replay,
        Self::Weaker,
    ];

    /// Its name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Protocol => "protocol",
            Self::Interval => "interval",
            Self::Addresses => "addresses",
            Self::Owner => "owner",
            Self::Replay => "replay",
            Self::Weaker => "weaker",
        }
    }
}

/// How many adverts there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent, good-byes among them.
    pub sent: u64,
    /// Good-byes among those sent.
    pub farewells_sent: u64,
    /// Received, discarded ones among them.
    pub received: u64,
    /// Good-byes among those received.
    pub farewells_received: u64,
    /// Discarded, by reason.
    pub discarded: BTreeMap<Discard, u64>,
    /// How often this host became master.
    pub became_master: u64,
}

/// A change of role, and when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// When.
    pub at: Instant,
    /// What.
    pub transition: Transition,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) counts: Counts,
    transitions: VecDeque<Past>,
    /// What is wrong with what a peer sends.
    pub(super) problem: Option<String>,
}

impl Record {
    pub(super) fn note(&mut self, transition: Transition, now: Instant) {
        if self.transitions.len() == TRANSITIONS {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Past { at: now, transition });
    }

    pub(super) fn discard(&mut self, reason: Discard) {
        *self.counts.discarded.entry(reason).or_default() += 1;
    }

    /// The last changes, the oldest first.
    pub(super) fn transitions(&self) -> impl Iterator<Item = &Past> {
        self.transitions.iter()
    }
}
