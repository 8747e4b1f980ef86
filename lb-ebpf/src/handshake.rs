//! How handshakes with a backend end: the daemon is to know of one that refuses clients, or is silent.

use lb_common::flow::born;

use crate::{atomic::Word, flow::now_ns, lease, maps};

/// How often to end a row that grows meanwhile.
const RETRIES: usize = 4;

/// A backend has answered a SYN: what failed before that is forgiven.
#[inline(always)]
pub fn answered(backend: u16) {
    let Some(handshakes) = maps::HANDSHAKES.get_ptr_mut(backend.into()) else { return };
    // SAFETY: live elements of an array map; only ever accessed atomically.
    let (answered, in_a_row) = unsafe {
        (Word::new(&raw mut (*handshakes).answered), Word::new(&raw mut (*handshakes).in_a_row))
    };
    // Backends that are well share their memory among the processors: it is written once in a tick of
    // the timer, and else only read.
    let (last, now) = (answered.load(), now_ns());
    if last < now {
        answered.replace(last, now);
    }
    // What other processors add to the row meanwhile failed before this answer as well.
    for _ in 0..RETRIES {
        let row = in_a_row.load();
        if row == 0 || in_a_row.replace(row, 0) {
            break;
        }
    }
}

/// A backend has refused a connection of a service.
#[inline(always)]
pub fn refused(service: u16, backend: u16) {
    // Later than any answer before it.
    failed(service, backend, u64::MAX);
}

/// A connection of a service that began with this life word has come to its end, and the backend has
/// not answered it.
#[inline(always)]
pub fn unanswered(service: u16, backend: u16, life: u64) {
    failed(service, backend, born(life));
}

/// One more has failed, unless the other host of a pair may have had the answer. It is one in a row only
/// if it began, by `begun`, after the last answer: those that expire are removed many at a time, long
/// after that. A function of its own, to have a stack of its own.
#[inline(never)]
fn failed(service: u16, backend: u16, begun: u64) {
    if !lease::has_served(service.into(), begun) {
        return;
    }
    let Some(handshakes) = maps::HANDSHAKES.get_ptr_mut(backend.into()) else { return };
    // SAFETY: live elements of an array map; only ever accessed atomically.
    let (failed, in_a_row, limit, alarms, answered) = unsafe {
        (
            Word::new(&raw mut (*handshakes).failed),
            Word::new(&raw mut (*handshakes).in_a_row),
            Word::new(&raw mut (*handshakes).limit),
            Word::new(&raw mut (*handshakes).alarms),
            Word::new(&raw mut (*handshakes).answered),
        )
    };
    failed.add(1);
    let limit = limit.load();
    if limit == 0 || begun < answered.load() {
        return;
    }
    let row = in_a_row.add(1) + 1;
    // If another processor has added to the row, it is that one's alarm.
    if row >= limit && in_a_row.replace(row, 0) {
        alarms.add(1);
    }
}
