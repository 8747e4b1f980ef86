//! The connections of a flow table, time and again: each time those that were not told of yet, or have
//! come further since.

use std::time::Duration;

use anyhow::Result;
use lb_common::{
    addr::Address,
    flow::{
        DEAD, ESTABLISHED, Flow, NO_HOP, RESET, SYN_ACK, age, born, created, is_closed, state,
        ticks,
    },
};

use super::account::Carried;
use crate::{
    core::sync::Connection,
    dataplane::{
        family::Family, leases::monotonic_now, pins::Pins, replica::connection, table::FlowTable,
    },
};

/// How long something may be on its way that was sent through the old program, and is answered through
/// the new one: a backend's answer to a SYN, or what is left of a connection that both sides have closed.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// A family's table, and what was told of it.
pub(super) struct Walk<A: Family> {
    table: FlowTable<A>,
    /// The life word that a connection had when it was told of, by the place of its forward entry.
    told: Vec<u64>,
}

impl<A: Family> Walk<A> {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self { table: FlowTable::open(pins, A::FLOWS)?, told: Vec::new() })
    }

    /// Tells everything the next time.
    pub(super) fn begin(&mut self) {
        self.told = vec![0; self.table.places() as usize];
    }

    /// Tells of each connection that is to be told of now.
    pub(super) fn pass(
        &mut self,
        is_last: bool,
        mut tell: impl FnMut(Carried) -> Result<()>,
    ) -> Result<()> {
        for (place, told) in (0..).zip(&mut self.told) {
            let life = self.table.life(place);
            if born(life) == 0 || life == *told {
                continue;
            }
            let Some(flow) = self.table.entry(place) else { continue };
            if !flow.is_forward() || state(flow.life) & DEAD != 0 {
                *told = life;
                continue;
            }
            let is_known = born(flow.life) == born(*told);
            let pair = self.table.entry(flow.pair).filter(|it| born(it.life) == born(flow.life));
            if is_known || is_worth_telling(&flow, pair.as_ref(), is_last) {
                *told = flow.life;
                let way = pair.map(|pair| pair.hop).filter(|hop| *hop != NO_HOP);
                // Unlike a peer, this host knows what it made of a RST.
                let state = state(flow.life) & !DEAD;
                let connection = Connection { state, ..connection(&flow) };
                tell(Carried::new(&connection, flow.service, flow.backend, way))?;
            }
        }
        Ok(())
    }
}

/// Whether a connection that nothing was told of is to be carried over, given both of its entries.
fn is_worth_telling<A: Address>(flow: &Flow<A>, pair: Option<&Flow<A>>, is_last: bool) -> bool {
    let state = state(flow.life);
    let now = ticks(monotonic_now());
    let is_recent =
        |then| age(now, then) <= ticks(u64::try_from(ON_ITS_WAY.as_nanos()).unwrap_or(u64::MAX));
    if state & (RESET | ESTABLISHED) == RESET {
        false
    } else if is_closed(state) {
        is_recent(flow.last_seen) || pair.is_some_and(|pair| is_recent(pair.last_seen))
    } else if state & ESTABLISHED != 0 {
        true
    } else {
        // Whose client may have the answer goes on with it, and else sends its SYN again. Most of what
        // is older belongs to a flood.
        is_last && state & SYN_ACK != 0 && is_recent(created(flow.life))
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        addr::V4,
        flow::{CLIENT_FIN, SERVER_FIN},
    };

    use super::*;

    const OPEN: u8 = SYN_ACK | ESTABLISHED;

    /// The entry of a connection of such an age, whose last packet came as long ago.
    fn flow(age: Duration, state: u8) -> Flow<V4> {
        let then = monotonic_now() - u64::try_from(age.as_nanos()).unwrap();
        // SAFETY: plain words, of which every bit pattern is valid.
        let zero: Flow<V4> = unsafe { std::mem::zeroed() };
        Flow { life: born(then) | u64::from(state), last_seen: ticks(then), ..zero }
    }

    fn is_told(age: Duration, state: u8, is_last: bool) -> bool {
        is_worth_telling(&flow(age, state), None, is_last)
    }

    #[test]
    fn what_is_established_is_told_however_old() {
        for fin in [0, CLIENT_FIN, SERVER_FIN] {
            assert!(is_told(ON_ITS_WAY * 1000, OPEN | fin, false));
        }
    }

    #[test]
    fn what_is_closed_is_told_only_while_something_may_be_on_its_way() {
        let closed = OPEN | CLIENT_FIN | SERVER_FIN;
        let (old, young) = (ON_ITS_WAY * 2, ON_ITS_WAY / 2);
        assert!(is_told(young, closed, false));
        assert!(!is_told(old, closed, true));
        let pair = flow(young, 0);
        assert!(is_worth_telling(&flow(old, closed), Some(&pair), false), "the backend's side");
        assert!(is_told(young, OPEN | RESET, true), "nobody may have believed it");
        assert!(!is_told(old, OPEN | RESET, true));
    }

    #[test]
    fn of_half_open_ones_only_those_are_told_whose_client_may_have_the_answer() {
        let (old, young) = (ON_ITS_WAY * 2, ON_ITS_WAY / 2);
        assert!(is_told(young, SYN_ACK, true));
        assert!(!is_told(young, SYN_ACK, false), "it may yet be established");
        assert!(!is_told(young, 0, true), "its client sends the SYN again");
        assert!(!is_told(young, SYN_ACK | RESET, true));
        assert!(!is_told(old, SYN_ACK, true));
    }
}
