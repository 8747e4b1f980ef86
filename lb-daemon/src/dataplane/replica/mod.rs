//! Keeping the flow tables equal to the peer's: the [`Tables`] of this host.
//!
//! ```text
//!  program ─ CHANGES (ring buffer) ─► reports ─► changes()
//!  FLOWS_* (mapped, read only) ─────► scan(), digest(), ...
//!  adopt() ─► orders ─► BPF_PROG_TEST_RUN of adopt_* ─► FLOWS_*, counts
//!  program ─ CHANGES ─► reports ─► held ─ release() ─► BPF_PROG_TEST_RUN of inject ─► packet socket
//! ```
//!
//! All that changes a connection is done by the program, by the same rules as for a packet. What is
//! here turns names into numbers and back: [`names`] knows those that the daemon's loop has written
//! last, and [`ways`] those of the next hops to clients.

mod digest;
mod held;
mod names;
mod orders;
mod places;
mod reports;
mod scope;
mod side;
mod tuple;
mod ways;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::{Ebpf, maps::Array};
use lb_common::{
    addr::{V4, V6},
    maps::{MAX_GROUPS, Settings},
};

pub use self::ways::FindWay;
use self::{
    held::HeldFrames,
    reports::Reports,
    scope::Within,
    side::{Desk, Side},
};
pub(super) use self::{
    names::{Names, SharedNames},
    orders::{ANSWERED, Numbers, carry_out, enter, established},
    tuple::{Keys, connection},
    ways::Ways,
};
use super::{client_hops::Turn, family::Family, inject::Injector, leases::Held, pins::Pins};
use crate::core::sync::{
    Adopted, Change, Conflict, Connection, Cursor, Digest, Reported, Scope, Tables,
};

/// How long digests are good for: so one walk is enough for all groups.
const DIGESTED_FOR: Duration = Duration::from_millis(100);

/// This host's tables, for the thread that talks to the peer.
pub struct Replica {
    programs: Ebpf,
    reports: Reports,
    held: HeldFrames,
    leases: Held,
    names: SharedNames,
    ways: Ways,
    /// Where the table's hash is from; that part of them never changes.
    settings: Settings,
    v4: Side<V4>,
    v6: Side<V6>,
    /// The digests of all groups, by number, and when the tables were walked for them.
    digests: Option<(Instant, Vec<Digest>)>,
}

impl Replica {
    pub(super) const PROGRAMS: [&'static str; 2] = [V4::ADOPT, V6::ADOPT];

    pub(super) fn open(
        pins: &Pins,
        programs: Ebpf,
        injector: Injector,
        names: SharedNames,
        find: FindWay,
        turn: Turn,
    ) -> Result<Self> {
        let settings: Array<_, Settings> = pins.open("SETTINGS")?;
        Ok(Self {
            programs,
            reports: Reports::open(pins)?,
            held: HeldFrames::open(pins, injector)?,
            leases: Held::open(pins)?,
            names,
            ways: Ways::open(pins, find, turn)?,
            settings: settings.get(&0, 0)?,
            v4: Side::open(pins)?,
            v6: Side::open(pins)?,
            digests: None,
        })
    }

    /// A file that is readable when there are changes to take, for a poll.
    ///
    /// # Errors
    ///
    /// If the process may not open any more files.
    pub fn wake(&self) -> Result<OwnedFd> {
        self.reports.wake()
    }

    /// Has both families' tables do something, and says what came of it.
    fn order(
        &mut self,
        mut v4: impl FnMut(&mut Side<V4>, &mut Desk<'_>) -> Result<()>,
        mut v6: impl FnMut(&mut Side<V6>, &mut Desk<'_>) -> Result<()>,
    ) -> Result<Adopted> {
        self.digests = None;
        self.ways.begin();
        let (names, mut done) = (self.names.get(), Adopted::default());
        let mut desk = Desk {
            names: &names,
            settings: &self.settings,
            ways: &mut self.ways,
            programs: &self.programs,
            done: &mut done,
        };
        v4(&mut self.v4, &mut desk)?;
        v6(&mut self.v6, &mut desk)?;
        Ok(done)
    }
}

impl Tables for Replica {
    fn changes(&mut self, limit: usize, into: &mut Vec<Reported>) -> Result<()> {
        let before = into.len();
        let result = self.reports.take(limit, &self.v4.flows, &self.v6.flows, &mut self.held, into);
        if into.len() != before {
            self.digests = None;
        }
        result
    }

    fn has_lost_changes(&mut self) -> bool {
        self.reports.has_lost()
    }

    fn hold(&mut self, is_on: bool) {
        self.held.hold(is_on && self.names.get().is_synchronous());
    }

    fn release(&mut self, count: usize) {
        let (names, leases) = (self.names.get(), &self.leases);
        // What is no group's is served whatever happens.
        let is_served = |service| names.group_of(service).is_none_or(|group| leases.is_held(group));
        self.held.release(count, &self.v4.flows, &self.v6.flows, is_served);
    }

    fn scan(
        &mut self,
        scope: &Scope,
        cursor: Cursor,
        places: usize,
        into: &mut Vec<Connection>,
    ) -> Option<Cursor> {
        let names = self.names.get();
        let within = Within::new(scope, &names);
        let (v4, v6) = (self.v4.flows.places(), self.v6.flows.places());
        // The places of IPv4, and then those of IPv6.
        let all = u64::from(v4) + u64::from(v6);
        let first = cursor.position.min(all);
        let end = first.saturating_add(u64::try_from(places.max(1)).unwrap_or(u64::MAX)).min(all);
        let middle = u64::from(v4);
        let place = |position: u64| u32::try_from(position).unwrap_or(u32::MAX);
        self.v4.scan(place(first.min(middle))..place(end.min(middle)), &within, into);
        let [first, last] = [first, end].map(|position| place(position.saturating_sub(middle)));
        self.v6.scan(first..last, &within, into);
        (end < all).then_some(Cursor { position: end })
    }

    fn digest(&mut self, group: &str) -> Digest {
        let names = self.names.get();
        let digests = match self.digests.take() {
            Some((walked, digests)) if walked.elapsed() < DIGESTED_FOR => (walked, digests),
            _ => {
                let mut digests = vec![Digest([0; 256]); MAX_GROUPS as usize];
                self.v4.digest(&names, &mut digests);
                self.v6.digest(&names, &mut digests);
                (Instant::now(), digests)
            }
        };
        let number = names.group(group).map(usize::from);
        let digest = number.and_then(|number| digests.1.get(number).cloned());
        self.digests = Some(digests);
        digest.unwrap_or(Digest([0; 256]))
    }

    fn adopt(&mut self, changes: &[Change], conflict: Conflict) -> Result<Adopted> {
        self.order(
            |v4, desk| v4.adopt(changes, conflict, desk),
            |v6, desk| v6.adopt(changes, conflict, desk),
        )
    }

    fn mark(&mut self) {
        self.v4.mark();
        self.v6.mark();
    }

    fn forget_unmarked(&mut self, scope: &Scope) -> Result<u64> {
        let names = self.names.get();
        let within = Within::new(scope, &names);
        let done = self.order(
            |v4, desk| v4.forget_unmarked(&within, desk),
            |v6, desk| v6.forget_unmarked(&within, desk),
        )?;
        Ok(done.ended)
    }

    fn repair(&mut self) -> Result<()> {
        self.order(Side::repair, Side::repair).map(drop)
    }

    fn serving(&self) -> BTreeSet<String> {
        let names = self.names.get();
        let served = names.groups().filter(|(_, number)| self.leases.is_held(*number));
        served.map(|(name, _)| name.clone()).collect()
    }

    fn peer_has(&mut self, groups: &BTreeSet<String>) {
        for (name, number) in self.names.get().groups() {
            self.leases.set_alone(number, !groups.contains(name));
        }
    }

    fn end_grace(&mut self, group: &str) {
        if let Some(number) = self.names.get().group(group) {
            self.leases.end_grace(number);
        }
    }

    fn group(&self, bind: SocketAddr) -> Option<String> {
        let names = self.names.get();
        let number = names.service(bind).and_then(|service| names.group_of(service))?;
        names.groups().find(|(_, other)| *other == number).map(|(name, _)| name.clone())
    }
}

impl AsFd for Replica {
    /// Readable when there are changes to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}
