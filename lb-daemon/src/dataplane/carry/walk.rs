//! The connections of a flow table, time and again: each time those that were not told of yet, or have
//! come further since.

use std::time::Duration;

use anyhow::Result;
use lb_common::flow::{
    DEAD, ESTABLISHED, Flow, NO_HOP, RESET, SYN_ACK, age, born, created, is_closed, state, ticks,
};

use super::account::Carried;
use crate::dataplane::{
    family::Family, leases::monotonic_now, pins::Pins, replica::connection, table::FlowTable,
};

/// A backend has answered a client, but the client's next segment has not come yet: if it was opened no
/// longer ago than this, the client is taken for one that got the answer, and goes on with it. Else it is
/// one of a flood's, or sends its SYN again.
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
            if !flow.is_forward() {
                *told = life;
                continue;
            }
            let is_known = born(flow.life) == born(*told);
            if is_worth_telling(flow.life, is_known, is_last) {
                *told = flow.life;
                let way = way(&self.table, &flow);
                tell(Carried::new(&connection(&flow), flow.service, flow.backend, way))?;
            }
        }
        Ok(())
    }
}

/// The number of the next hop to a connection's client.
fn way<A: Family>(table: &FlowTable<A>, flow: &Flow<A>) -> Option<u16> {
    let pair = table.entry(flow.pair)?;
    (born(pair.life) == born(flow.life) && pair.hop != NO_HOP).then_some(pair.hop)
}

/// Whether a connection with this life word is to be carried over, or to be ended if it was.
fn is_worth_telling(life: u64, is_known: bool, is_last: bool) -> bool {
    let state = state(life);
    if state & DEAD != 0 {
        return false;
    }
    if is_known || state & ESTABLISHED != 0 {
        // One that ended by FINs may have something to send again.
        return is_known || state & RESET == 0;
    }
    let on_its_way = ticks(u64::try_from(ON_ITS_WAY.as_nanos()).unwrap_or(u64::MAX));
    is_last
        && state & SYN_ACK != 0
        && !is_closed(state)
        && age(ticks(monotonic_now()), created(life)) <= on_its_way
}

#[cfg(test)]
mod tests {
    use lb_common::flow::{CLIENT_FIN, SERVER_FIN};

    use super::*;

    /// A life word of a connection that is so old.
    fn life(age: Duration, state: u8) -> u64 {
        let age = u64::try_from(age.as_nanos()).unwrap();
        born(monotonic_now() - age) | u64::from(state)
    }

    #[test]
    fn what_is_established_is_told_and_its_end_only_if_it_was() {
        let old = |state| life(Duration::from_secs(1000), state);
        let open = SYN_ACK | ESTABLISHED;
        assert!(is_worth_telling(old(open), false, false));
        assert!(is_worth_telling(old(open | CLIENT_FIN | SERVER_FIN), false, false));
        assert!(!is_worth_telling(old(open | RESET), false, true));
        assert!(is_worth_telling(old(open | RESET), true, true));
        assert!(!is_worth_telling(old(open | DEAD), true, true));
    }

    #[test]
    fn of_half_open_ones_only_those_are_told_whose_client_may_have_the_answer() {
        let young = |state| life(ON_ITS_WAY / 2, state);
        assert!(is_worth_telling(young(SYN_ACK), false, true));
        assert!(!is_worth_telling(young(SYN_ACK), false, false), "it may yet be established");
        assert!(!is_worth_telling(young(0), false, true), "its client sends the SYN again");
        assert!(!is_worth_telling(young(SYN_ACK | RESET), false, true));
        assert!(!is_worth_telling(life(ON_ITS_WAY * 2, SYN_ACK), false, true));
    }
}
