//! Telling the daemon what became of a connection, for the peer to know it too.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use lb_common::flow::{Change, born};

use crate::{
    atomic::{Word, fence},
    maps::{self, Family},
    table::{Entry, entry, life_of},
};

/// How the daemon is woken: by the kernel, if it has taken all there was before. Under load, when it
/// comes by by itself every millisecond, that is once for the many changes of a millisecond; and when
/// there is nothing to do, it can sleep.
pub(crate) const WAKE_IF_DRAINED: u64 = 0;

/// Reports that the connection with this forward entry has the life word `life` now, if it is shared
/// with a peer. A report that cannot be made is counted. A function of its own, to have a stack of its
/// own, and nothing is put together there: it is written where the daemon reads it.
#[inline(never)]
pub fn report<F: Family>(owner: Entry<F>, life: u64, what: u32) {
    // SAFETY: an element of an array map; its connection's own if it still is that in the end.
    let (service, pair) = unsafe { ((*owner).service, (*owner).pair) };
    let is_wanted = maps::SETTINGS.get(0).is_some_and(|settings| settings.report == 1)
        && maps::TERMS.get(service.into()).is_some_and(|terms| terms.group != 0);
    if !is_wanted {
        return;
    }
    let Some(pair) = entry::<F>(pair) else { return };
    if let Some(mut record) = maps::CHANGES.reserve::<Change<F::Address>>(0) {
        // SAFETY: the record is ours alone until it is submitted. The entries are looked at once more
        // below.
        unsafe { describe::<F>(record.as_mut_ptr(), owner, pair, life, what) };
        fence();
        let is_still = |entry| born(life_of::<F>(entry).load()) == born(life);
        if is_still(owner) && is_still(pair) {
            record.submit(WAKE_IF_DRAINED);
            return;
        }
        // Another processor has removed it meanwhile, and others may be where it was.
        record.discard(WAKE_IF_DRAINED);
    }
    if let Some(table) = maps::TABLES.get_ptr_mut(F::TABLE) {
        // SAFETY: a live element of an array map; only ever accessed atomically.
        unsafe { Word::new(&raw mut (*table).unreported) }.add(1);
    }
}

/// Writes all of a record of the connection with these entries, which may be another one's by now.
///
/// # Safety
///
/// The record may be written to; the entries are elements of an array map.
#[inline(always)]
pub(crate) unsafe fn describe<F: Family>(
    change: *mut Change<F::Address>,
    owner: Entry<F>,
    pair: Entry<F>,
    life: u64,
    what: u32,
) {
    // SAFETY: by this function's own contract.
    unsafe {
        (*change).life = life;
        (*change).at = bpf_ktime_get_ns();
        (*change).place = (*pair).pair;
        (*change).what = what;
        (*change).key = (*owner).key;
        let (to, reverse) = (addr_of!((*owner).to), addr_of_mut!((*change).reverse));
        (*reverse).src = (*to).dst;
        (*reverse).dst = (*to).src;
        (*reverse).sport = (*to).dport;
        (*reverse).dport = (*to).sport;
    }
}
