//! One family's flow table, as it is kept equal to the peer's.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::Ebpf;
use lb_common::{
    flow::{
        ADOPT, ADOPT_ABSENT, ADOPT_CONFLICT, ADOPT_ENDED, ADOPT_KNOWN, ADOPT_NEW, ADOPT_OVER,
        ADOPTED, Adoption, Flow, NO_HOP, born, is_closed, state,
    },
    maps::Settings,
};

use super::{
    digest,
    names::Names,
    orders::{self, Numbers},
    places::Places,
    scope::Within,
    tuple::{Keys, kept},
    ways::Ways,
};
use crate::{
    core::sync::{Adopted, Change, Conflict, Connection, Digest},
    dataplane::{family::Family, leases::monotonic_now, pins::Pins, table::FlowTable},
};

/// How long ways to clients are looked for in one go: what the peer tells waits meanwhile.
const PATIENCE: Duration = Duration::from_millis(5);
/// Connections that are looked at in between two looks at the clock.
const REPAIRS: usize = 512;

/// A family's table, and what is to be known of its places.
pub(super) struct Side<A: Family> {
    pub(super) flows: FlowTable<A>,
    /// What was adopted since a transfer began.
    marked: Option<Marked>,
    /// Places of forward entries whose way back to the client was not known when they were adopted;
    /// nothing until the table has been searched for such that an earlier daemon has left.
    astray: Option<BTreeSet<u32>>,
    /// Where in these to go on.
    next: u32,
}

/// What need not be forgotten at the end of a transfer: what was adopted since it began, and what
/// was born since.
struct Marked {
    places: Places,
    since: u64,
}

/// What an order depends on beside the change that it is about.
pub(super) struct Desk<'a> {
    pub(super) names: &'a Names,
    pub(super) settings: &'a Settings,
    pub(super) ways: &'a mut Ways,
    pub(super) programs: &'a Ebpf,
    pub(super) done: &'a mut Adopted,
}

impl<A: Family> Side<A> {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let flows = FlowTable::open(pins, A::FLOWS)?;
        Ok(Self { flows, marked: None, astray: None, next: 0 })
    }

    /// Does what the peer tells of this family.
    pub(super) fn adopt(
        &mut self,
        changes: &[Change],
        conflict: Conflict,
        desk: &mut Desk<'_>,
    ) -> Result<()> {
        let mut orders = Vec::new();
        for change in changes {
            if A::split(change.tuple().client).is_none() {
                // The other family's.
                continue;
            }
            let Some(keys) = Keys::<A>::split(change.tuple()) else {
                desk.done.unknown += 1;
                desk.done.refused += u64::from(matches!(change, Change::Answered(_)));
                continue;
            };
            match change {
                Change::Is(connection) => {
                    let state = orders::established(connection.state);
                    orders.extend(self.enter(&keys, connection, state, conflict, desk)?);
                }
                Change::Answered(connection) => {
                    let state = orders::ANSWERED;
                    let order = self.enter(&keys, connection, state, conflict, desk)?;
                    desk.done.refused += u64::from(order.is_none());
                    orders.extend(order);
                }
                Change::Gone(_) if conflict == Conflict::TakeTheirs => {
                    orders.push(orders::forget(&keys));
                }
                // The packets come by this host: the peer has not heard them.
                Change::Gone(_) => {}
            }
        }
        self.carry_out(&mut orders, desk)
    }

    fn enter(
        &self,
        keys: &Keys<A>,
        connection: &Connection,
        state: u8,
        conflict: Conflict,
        desk: &mut Desk<'_>,
    ) -> Result<Option<Adoption<A>>> {
        let Some(numbers) = self.numbers(keys, connection, desk) else {
            desk.done.unknown += 1;
            return Ok(None);
        };
        let order = match conflict {
            Conflict::KeepOurs => ADOPT,
            Conflict::TakeTheirs => ADOPT_OVER,
        };
        // Next to nothing is sent to a client that has closed.
        let is_closed = is_closed(connection.state);
        let hop = if is_closed { None } else { desk.ways.hop(connection.tuple.client.ip())? };
        Ok(Some(orders::enter(keys, connection, state, numbers, hop, order)))
    }

    /// Whose connection it is. One that is here has its owners, though they may have left the
    /// configuration.
    fn numbers(&self, keys: &Keys<A>, connection: &Connection, desk: &Desk<'_>) -> Option<Numbers> {
        let tuple = &connection.tuple;
        let known = desk.names.service(tuple.bind).and_then(|service| {
            let backend = desk.names.backend(service, tuple.backend)?;
            Some(Numbers { service, backend })
        });
        known.or_else(|| {
            let (_, flow) = self.flows.find(&keys.forward, desk.settings)?;
            let is_same = flow.is_forward() && Keys::of(&flow) == *keys;
            is_same.then_some(Numbers { service: flow.service, backend: flow.backend })
        })
    }

    fn carry_out(&mut self, orders: &mut [Adoption<A>], desk: &mut Desk<'_>) -> Result<()> {
        orders::carry_out(desk.programs, orders)?;
        for order in orders {
            let done = &mut *desk.done;
            let is_answered = order.state == orders::ANSWERED;
            done.refused += u64::from(is_answered && !self.is_open(order));
            match order.order {
                ADOPT_NEW => {
                    done.new += 1;
                    self.adopted(order.place);
                    if let Some(astray) = &mut self.astray
                        && order.hop == NO_HOP
                        && !is_closed(order.state)
                    {
                        astray.insert(order.place);
                    }
                }
                ADOPT_KNOWN => {
                    done.known += 1;
                    self.adopted(order.place);
                }
                ADOPT_CONFLICT => done.conflicts += 1,
                ADOPT_ENDED => done.ended += 1,
                ADOPT_ABSENT => {}
                // Also what failed twice: it could not be entered for now.
                _ => done.full += 1,
            }
        }
        Ok(())
    }

    /// Whether the connection of an order that was carried out is here, and not closed.
    fn is_open(&self, order: &Adoption<A>) -> bool {
        let flow = matches!(order.order, ADOPT_NEW | ADOPT_KNOWN)
            .then(|| self.flows.entry(order.place))
            .flatten();
        flow.is_some_and(|flow| !is_closed(state(flow.life)))
    }

    fn adopted(&mut self, place: u32) {
        if let Some(marked) = &mut self.marked {
            marked.places.insert(place);
        }
    }

    pub(super) fn mark(&mut self) {
        let places = Places::new(self.flows.places());
        self.marked = Some(Marked { places, since: monotonic_now() });
    }

    /// Ends what was there before the mark, and was not adopted since.
    pub(super) fn forget_unmarked(
        &mut self,
        within: &Within<'_>,
        desk: &mut Desk<'_>,
    ) -> Result<()> {
        let Some(marked) = self.marked.take() else { return Ok(()) };
        let mut orders: Vec<_> = self
            .flows
            .entries()
            .filter(|(place, flow)| {
                within.has_service(flow.service)
                    && !marked.places.contains(*place)
                    && born(flow.life) < marked.since
                    && kept(flow).is_some()
            })
            .map(|(_, flow)| Keys::of(&flow))
            .filter(|keys| within.has_keys(keys))
            .map(|keys| orders::forget(&keys))
            .collect();
        self.carry_out(&mut orders, desk)
    }

    /// The connections at these places, if they are meant.
    pub(super) fn scan(
        &self,
        places: std::ops::Range<u32>,
        within: &Within<'_>,
        into: &mut Vec<Connection>,
    ) {
        let meant = self.flows.entries_in(places).filter(|(_, flow)| {
            within.has_service(flow.service) && within.has_keys(&Keys::of(flow))
        });
        into.extend(meant.filter_map(|(_, flow)| kept(&flow)));
    }

    /// Adds this family's connections to the digests of the groups, by number.
    pub(super) fn digest(&self, names: &Names, digests: &mut [Digest]) {
        for (_, flow) in self.flows.entries() {
            let Some(connection) = kept(&flow) else { continue };
            let Some(group) = names.group_of(flow.service) else { continue };
            let Some(digest) = digests.get_mut(usize::from(group)) else { continue };
            let hash = digest::hash(&connection.tuple);
            let sum = &mut digest.0[usize::from(digest::bucket(hash))];
            *sum = sum.wrapping_add(hash);
        }
    }

    /// Looks once more for the way to some of the clients that it was not known for.
    pub(super) fn repair(&mut self, desk: &mut Desk<'_>) -> Result<()> {
        let mut astray = self.astray.take().unwrap_or_else(|| {
            self.flows
                .entries()
                .filter(|(_, flow)| self.is_astray(flow))
                .map(|(place, _)| place)
                .collect()
        });
        let until = Instant::now() + PATIENCE;
        let (mut left, mut result) = (astray.len(), Ok(()));
        while left > 0 && result.is_ok() && Instant::now() < until {
            let count = left.min(REPAIRS);
            left -= count;
            result = self.repair_some(&mut astray, count, desk);
        }
        self.astray = Some(astray);
        result
    }

    /// The same for the next so many of them.
    fn repair_some(
        &mut self,
        astray: &mut BTreeSet<u32>,
        count: usize,
        desk: &mut Desk<'_>,
    ) -> Result<()> {
        let behind = astray.range(self.next..).chain(astray.range(..self.next));
        let some: Vec<u32> = behind.take(count).copied().collect();
        self.next = some.last().map_or(0, |last| last.saturating_add(1));
        let mut orders = Vec::new();
        for place in some {
            let Some(flow) = self.flows.entry(place).filter(|flow| self.is_astray(flow)) else {
                astray.remove(&place);
                continue;
            };
            let keys = Keys::of(&flow);
            if let Some(hop) = desk.ways.hop(keys.tuple().client.ip())? {
                // It may end before that, and must not be entered anew.
                orders.push(orders::lead_back(&keys, hop));
            }
        }
        orders::carry_out(desk.programs, &mut orders)?;
        for order in orders.iter().filter(|order| order.order == ADOPT_KNOWN) {
            astray.remove(&order.place);
        }
        Ok(())
    }

    /// Whether the way to this forward entry's client is not known.
    fn is_astray(&self, flow: &Flow<A>) -> bool {
        flow.flags & ADOPTED != 0
            && !is_closed(state(flow.life))
            && kept(flow).is_some()
            && self
                .flows
                .entry(flow.pair)
                .is_some_and(|pair| born(pair.life) == born(flow.life) && pair.hop == NO_HOP)
    }
}
