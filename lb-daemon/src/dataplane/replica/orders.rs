//! Having the program enter and end connections.

use anyhow::{Context as _, Result};
use aya::{Ebpf, programs::Xdp};
use lb_common::{
    flow::{
        ADOPT_FAILED, Adoption, CLIENT_FIN, ESTABLISHED, FORGET, LEAD_BACK, NO_HOP, RELEASED,
        RESET, SERVER_FIN, SYN_ACK,
    },
    maps::{ADOPT_BATCH, ADOPT_HEADER},
};

use super::tuple::Keys;
use crate::{
    core::sync::Connection,
    dataplane::{family::Family, simulate::run_on},
};

/// The state bits that a connection can have.
const STATES: u8 = SYN_ACK | ESTABLISHED | CLIENT_FIN | SERVER_FIN | RESET;

/// The numbers of a connection's owners here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Numbers {
    pub(in crate::dataplane) service: u16,
    pub(in crate::dataplane) backend: u16,
}

/// The state bits of a connection that is established at the peer, or closed: only those are told of
/// that came so far.
pub(in crate::dataplane) const fn established(state: u8) -> u8 {
    state & STATES | SYN_ACK | ESTABLISHED
}

/// The state bits of a connection whose SYN-ACK the peer holds back.
pub(in crate::dataplane) const ANSWERED: u8 = SYN_ACK | RELEASED;

/// An order to enter a connection with these state bits: `order` is one of the kinds of [`lb_common::flow`].
pub(in crate::dataplane) fn enter<A: Family>(
    keys: &Keys<A>,
    connection: &Connection,
    state: u8,
    numbers: Numbers,
    hop: Option<u16>,
    order: u8,
) -> Adoption<A> {
    Adoption {
        key: keys.forward,
        reverse: keys.reverse,
        timestamp: connection.timestamp,
        place: 0,
        backend: numbers.backend,
        service: numbers.service,
        hop: hop.unwrap_or(NO_HOP),
        state,
        order,
    }
}

/// An order to end a connection.
pub(super) fn forget<A: Family>(keys: &Keys<A>) -> Adoption<A> {
    of_known(keys, NO_HOP, FORGET)
}

/// An order to lead what comes from a connection's backend to its client by this hop.
pub(super) fn lead_back<A: Family>(keys: &Keys<A>, hop: u16) -> Adoption<A> {
    of_known(keys, hop, LEAD_BACK)
}

/// An order that says nothing of a connection's owners and state.
fn of_known<A: Family>(keys: &Keys<A>, hop: u16, order: u8) -> Adoption<A> {
    Adoption {
        key: keys.forward,
        reverse: keys.reverse,
        timestamp: 0,
        place: 0,
        backend: 0,
        service: 0,
        hop,
        state: 0,
        order,
    }
}

/// Has the program carry out orders one after the other, and write into each what came of it. What
/// failed is tried once more: another processor may have been in the way.
///
/// # Errors
///
/// If the program cannot be run. Some of the orders may have been carried out.
pub(in crate::dataplane) fn carry_out<A: Family>(
    programs: &Ebpf,
    orders: &mut [Adoption<A>],
) -> Result<()> {
    let program: &Xdp = programs.program(A::ADOPT).context("no adopt program")?.try_into()?;
    for batch in orders.chunks_mut(ADOPT_BATCH) {
        let asked: Vec<u8> = batch.iter().map(|order| order.order).collect();
        run(program, batch)?;
        for (order, asked) in batch.iter_mut().zip(asked) {
            if order.order == ADOPT_FAILED {
                order.order = asked;
                run(program, std::slice::from_mut(order))?;
            }
        }
    }
    Ok(())
}

fn run<A: Family>(program: &Xdp, batch: &mut [Adoption<A>]) -> Result<()> {
    // SAFETY: plain words without padding, asserted where they are defined, of which every bit
    // pattern is valid.
    let bytes = unsafe {
        std::slice::from_raw_parts_mut(batch.as_mut_ptr().cast::<u8>(), size_of_val(batch))
    };
    let mut data = vec![0; ADOPT_HEADER];
    data.extend_from_slice(bytes);
    run_on(program, &mut data)?;
    bytes.copy_from_slice(&data[ADOPT_HEADER..]);
    Ok(())
}
