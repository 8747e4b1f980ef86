//! Which backend a new connection goes to.

use lb_common::{
    flow::FlowKey,
    hash,
    maps::{
        BALANCE_HASH, BALANCE_LEASTCONN, BALANCE_ROUNDROBIN, BALANCE_SOURCE, MAX_LEASTCONN, SLOTS,
        Service, SlotTable,
    },
    verdict::Verdict,
};

use crate::{
    atomic::Word,
    maps::{self, Family},
};

/// The number of the backend for the client of `key`.
#[inline(always)]
pub fn backend<F: Family>(service: &Service, key: &FlowKey<F::Address>) -> Result<u16, Verdict> {
    let slots = service.slots;
    if slots == 0 {
        return Err(Verdict::ResetNoBackend);
    }
    let table = maps::SLOTS
        .get(service.table)
        .ok_or(Verdict::DropInternal)?;
    let slot = match service.balance {
        BALANCE_ROUNDROBIN => turn(service.id, slots)?,
        BALANCE_SOURCE => hash::client(key.src) % slots,
        BALANCE_HASH => hash::connection(key.src, key.sport) % slots,
        BALANCE_LEASTCONN => return least_connections::<F>(service.id, slots, table),
        _ => return Err(Verdict::DropInternal),
    };
    Ok(at(table, slot))
}

/// A slot, each in turn.
#[inline(always)]
fn turn(service: u32, slots: u32) -> Result<u32, Verdict> {
    let turns = maps::TURNS
        .get_ptr_mut(service)
        .ok_or(Verdict::DropInternal)?;
    // SAFETY: a live element of an array map; only ever accessed atomically.
    let turn = unsafe { Word::new(turns) }.add(1);
    Ok((turn % u64::from(slots)) as u32)
}

/// The backend with the fewest connections by weight, counting the one to come. The search begins
/// one further each time, so that equals are taken in turn.
#[inline(always)]
fn least_connections<F: Family>(
    service: u32,
    slots: u32,
    table: &SlotTable,
) -> Result<u16, Verdict> {
    let mut slot = turn(service, slots)?;
    let mut best = at(table, slot);
    let (mut best_load, mut best_weight) = (u64::MAX, 1);

    for _ in 0..slots.min(MAX_LEASTCONN) {
        let candidate = at(table, slot);
        let (Some(state), Some(backend)) = (
            maps::BACKEND_STATE.get_ptr_mut(candidate.into()),
            F::backends().get(candidate.into()),
        ) else {
            return Err(Verdict::DropInternal);
        };
        // SAFETY: a live element of an array map; only ever accessed atomically.
        let active = unsafe { Word::new(&raw mut (*state).active) }.load();
        let (load, weight) = (active + 1, u64::from(backend.weight));
        // load / weight < best_load / best_weight, without dividing. Loads stay below 2^32.
        if best_load == u64::MAX || load * best_weight < best_load * weight {
            (best, best_load, best_weight) = (candidate, load, weight);
        }
        slot += 1;
        if slot >= slots {
            slot = 0;
        }
    }
    Ok(best)
}

#[inline(always)]
fn at(table: &SlotTable, slot: u32) -> u16 {
    // The mask tells the verifier what the daemon guarantees.
    table.0[slot as usize & (SLOTS - 1)]
}
