//! How handshakes with a backend end: the daemon is to know of one that refuses clients, or is silent.

use crate::{atomic::Word, maps};

/// A backend has answered a SYN: what failed before that is forgiven.
#[inline(always)]
pub fn answered(backend: u16) {
    let Some(handshakes) = maps::HANDSHAKES.get_ptr_mut(backend.into()) else { return };
    // SAFETY: a live element of an array map; only ever accessed atomically.
    let in_a_row = unsafe { Word::new(&raw mut (*handshakes).in_a_row) };
    let row = in_a_row.load();
    // Backends that are well share their memory among the processors, and are only read.
    if row != 0 {
        in_a_row.replace(row, 0);
    }
}

/// A backend has refused a connection, or has not answered it. A function of its own, to have a stack of
/// its own.
#[inline(never)]
pub fn failed(backend: u16) {
    let Some(handshakes) = maps::HANDSHAKES.get_ptr_mut(backend.into()) else { return };
    // SAFETY: a live element of an array map; only ever accessed atomically.
    let (failed, in_a_row, limit, alarms) = unsafe {
        (
            Word::new(&raw mut (*handshakes).failed),
            Word::new(&raw mut (*handshakes).in_a_row),
            Word::new(&raw mut (*handshakes).limit),
            Word::new(&raw mut (*handshakes).alarms),
        )
    };
    failed.add(1);
    let limit = limit.load();
    if limit == 0 {
        return;
    }
    let row = in_a_row.add(1) + 1;
    // If another processor has added to the row, it is that one's alarm.
    if row >= limit && in_a_row.replace(row, 0) {
        alarms.add(1);
    }
}
