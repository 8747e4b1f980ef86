//! Opening a connection: a place among the half-open ones, a translation, and both entries.
//!
//! What is being built lies in per-CPU memory: together with the keys of the hot path it would
//! not fit on the stack.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_ktime_get_ns, generated::bpf_loop},
};
use lb_common::{
    addr::{Address, Port},
    flow::{
        CHANGE_GONE, DEAD, ESTABLISHED, FORWARD, FlowKey, REVERSE, Translation, born, created,
        is_closed, is_half_open, renewal, state,
    },
    maps::{HalfOpen, MAX_SOURCES, Service, Settings},
    verdict::Verdict,
};

use crate::{
    atomic::Word,
    flow::end,
    maps::{self, Family},
    table::{self, Entry, Found, Key, Refused, entry, free, life_of},
};

/// How many translation ports are tried for a new connection.
const PORT_ATTEMPTS: u32 = 16;

/// A connection that is being opened, or adopted.
#[repr(C)]
pub struct Opening<A> {
    /// Its time of birth.
    pub life: u64,
    /// The client's key.
    pub key: FlowKey<A>,
    /// The key of the reverse entry.
    pub reverse: FlowKey<A>,
    /// The place of the forward entry.
    pub entry: u32,
    /// The place of the reverse entry.
    pub pair: u32,
    /// See [`Flow::renew`](lb_common::flow::Flow::renew).
    pub renew: u32,
    /// What is added to the client's TCP timestamps.
    pub timestamp: u32,
    pub client_hop: u16,
    pub backend: u16,
    pub service: u16,
    /// Of the forward entry, beside its direction.
    pub flags: u16,
    /// State bits that it is born with.
    pub state: u8,
    /// What is to become of it, if it is being adopted.
    pub order: u8,
}

/// Where in the per-CPU memory a connection is put together that is being opened, ...
const OPENING: u32 = 0;
/// ... where one that is being adopted, ...
pub const ADOPTING: u32 = 1;
/// ... and where one that is being opened by a frame that was held back: packets may interrupt both.
const INJECTING: u32 = 2;
/// How many connections that makes.
pub const OPENINGS: u32 = 3;

/// Where that is. `INJECTED` says whether the frame that opens it was held back.
pub const fn opening<const INJECTED: bool>() -> u32 {
    if INJECTED { INJECTING } else { OPENING }
}

/// The forward entry of the connection that was opened last.
#[inline(always)]
pub fn opened<F: Family, const INJECTED: bool>() -> Option<Found<F>> {
    let opening = F::opening().get_ptr_mut(const { opening::<INJECTED>() })?;
    // SAFETY: as in `open`.
    let Opening { entry: number, life, .. } = unsafe { &*opening };
    Some(Found { entry: entry::<F>(*number)?, life: *life })
}

/// Opens a connection to the backend that it was [admitted](crate::admission::admit) to, which adds
/// `timestamp` to the client's TCP timestamps.
#[inline(never)]
pub fn open<F: Family, const INJECTED: bool>(
    key: &Key<F>,
    service: &Service,
    client_hop: u32,
    timestamp: u32,
) -> Result<(), Verdict> {
    let settings = maps::SETTINGS.get(0).ok_or(Verdict::DropInternal)?;
    let opening =
        F::opening().get_ptr_mut(const { opening::<INJECTED>() }).ok_or(Verdict::DropInternal)?;
    // SAFETY: this processor's own copy, and programs that open a connection by the same one do not
    // interrupt each other.
    let opening = unsafe { &mut *opening };
    // SAFETY: a helper without preconditions.
    opening.life = born(unsafe { bpf_ktime_get_ns() });
    opening.key = *key;
    opening.renew = maps::TERMS.get(service.id).map_or(0, renewal);
    opening.timestamp = timestamp;
    opening.client_hop = client_hop as u16;
    opening.service = service.id as u16;
    opening.flags = 0;
    opening.state = 0;

    let number = opening.backend;
    let place = make_room::<F>(settings).ok_or(Verdict::DropInternal)?;
    // Before the connection can be found: whoever ends it lowers the counts.
    if count::<F>(0, 1) >= u64::from(settings.connections) {
        count::<F>(0, u64::MAX);
        return Err(Verdict::DropTableFull);
    }
    let code = match allocate::<F, INJECTED>() {
        FOUND => insert_forward::<F>(const { self::opening::<INJECTED>() }),
        code => code,
    };
    if code != FOUND {
        count::<F>(0, u64::MAX);
        // Another processor was faster with the same SYN, and has sent that on.
        return Err(if code == EXISTS { Verdict::DropBusy } else { Verdict::from_index(code) });
    }
    if let Some(stats) = maps::BACKEND_STATS.get_ptr_mut(number.into()) {
        // SAFETY: this processor's own copy.
        unsafe { (*stats).connections += 1 };
    }
    *place = HalfOpen { born: opening.life, entry: opening.entry, zero: 0 };
    Ok(())
}

/// What a function of its own, which can return no more than a register, returns instead of the
/// number of a verdict: all is well, ...
pub(crate) const FOUND: u32 = u32::MAX;
/// ... or there is an entry with that key.
pub(crate) const EXISTS: u32 = u32::MAX - 1;
const INTERNAL: u32 = Verdict::DropInternal as u32;

/// Frees a place in the ring of half-open connections for a new one, and ends the connection that
/// had it if that never was established: so a flood of SYNs evicts the oldest of its own kind and
/// nothing else.
#[inline(never)]
fn make_room<F: Family>(settings: &Settings) -> Option<&'static mut HalfOpen> {
    let table = maps::TABLES.get_ptr_mut(F::TABLE)?;
    // SAFETY: live elements of an array map; only ever accessed atomically.
    let (ring, evicted) =
        unsafe { (Word::new(&raw mut (*table).ring), Word::new(&raw mut (*table).evicted)) };
    let position = ring.add(1) as u32 & settings.half_open.wrapping_sub(1);
    let place = F::half_open().get_ptr_mut(position)?;
    // SAFETY: a live element of an array map; a position belongs to one processor until the ring
    // has gone round.
    let place = unsafe { &mut *place };
    let old = core::mem::take(place);
    if old.born != 0
        && let Some(entry) = entry::<F>(old.entry)
    {
        let life = life_of::<F>(entry).load();
        if born(life) == old.born
            // Also one that was reset before it came to anything: else a flood of SYNs, each
            // with a RST, would fill the table.
            && state(life) & (DEAD | ESTABLISHED) == 0
            && end::<F>(entry, life, CHANGE_GONE)
            && is_half_open(state(life))
        {
            evicted.add(1);
        }
    }
    Some(place)
}

/// Finds a free translation for the connection being opened and inserts its reverse entry. Ports
/// are taken in turn, the one unused for longest first, over all source addresses.
#[inline(always)]
fn allocate<F: Family, const INJECTED: bool>() -> u32 {
    let mut code = FOUND;
    // SAFETY: the callback has the signature that the kernel calls it by, and `code` outlives the
    // call.
    unsafe {
        let attempt = try_port::<F, INJECTED> as *mut c_void;
        bpf_loop(PORT_ATTEMPTS, attempt, (&raw mut code).cast::<c_void>(), 0);
    }
    if code == EXISTS { Verdict::DropNoPort as u32 } else { code }
}

/// Tries the next port, or the last one again if the connection that had it is gone. Returns 1 to end
/// the search.
extern "C" fn try_port<F: Family, const INJECTED: bool>(_step: u64, code: *mut c_void) -> i64 {
    // SAFETY: what `allocate` passed.
    let code = unsafe { &mut *code.cast::<u32>() };
    // A connection that only lingers gives its port up.
    if (*code != EXISTS || !evict_closed::<F, INJECTED>()) && !next_port::<F, INJECTED>() {
        *code = INTERNAL;
        return 1;
    }
    *code = insert_reverse::<F>(const { opening::<INJECTED>() });
    i64::from(*code != EXISTS)
}

/// Sets the next translation for the connection being opened; false if there is none.
#[inline(always)]
fn next_port<F: Family, const INJECTED: bool>() -> bool {
    let opening = F::opening().get_ptr_mut(const { opening::<INJECTED>() });
    let Some(opening) = opening else { return false };
    // SAFETY: as in `open`.
    let opening = unsafe { &mut *opening };
    let number = opening.backend.into();
    let (Some(settings), Some(backend), Some(state)) =
        (maps::SETTINGS.get(0), F::backends().get(number), maps::BACKEND_STATE.get_ptr_mut(number))
    else {
        return false;
    };
    // SAFETY: a live element of an array map; only ever accessed atomically.
    let turn = unsafe { Word::new(&raw mut (*state).cursor) }.add(1);
    let (ports, sources) = (u64::from(settings.port_count), u64::from(backend.source_count));
    if ports == 0 || sources == 0 {
        return false;
    }
    // The mask tells the verifier what the daemon guarantees.
    let source = (turn / ports % sources) as usize & (MAX_SOURCES - 1);
    let reverse = &mut opening.reverse;
    reverse.src = backend.address;
    reverse.sport = backend.port;
    reverse.dst = backend.sources[source];
    reverse.dport = Port::new((settings.port_first + (turn % ports) as u32) as u16);
    true
}

/// Inserts the reverse entry of the connection that is put together at `index`.
#[inline(never)]
pub(crate) fn insert_reverse<F: Family>(index: u32) -> u32 {
    let Some(opening) = F::opening().get_ptr_mut(index) else { return INTERNAL };
    // SAFETY: as in `open`.
    let opening = unsafe { &mut *opening };
    let inserted = table::insert::<F>(&opening.reverse, opening.life, REVERSE, |entry, _| {
        fill::<F>(entry, opening);
        // SAFETY: ours alone until it is published.
        unsafe {
            translate(&mut (*entry).to, &opening.reverse, &opening.key);
            (*entry).hop = opening.client_hop;
            (*entry).timestamp = opening.timestamp.wrapping_neg();
        }
    });
    match inserted {
        Ok(number) => opening.pair = number,
        Err(refused) => return refused.into(),
    }
    FOUND
}

/// Inserts the forward entry of the connection that is put together at `index`, or removes its reverse
/// entry again.
#[inline(never)]
pub(crate) fn insert_forward<F: Family>(index: u32) -> u32 {
    let Some(opening) = F::opening().get_ptr_mut(index) else { return INTERNAL };
    // SAFETY: as in `open`.
    let opening = unsafe { &mut *opening };
    let Some(pair) = entry::<F>(opening.pair) else { return INTERNAL };
    let (life, flags) = (opening.life | u64::from(opening.state), FORWARD | opening.flags);
    let inserted = table::insert::<F>(&opening.key, life, flags, |entry, number| {
        fill::<F>(entry, opening);
        // SAFETY: ours alone until it is published, and nobody else writes where `pair` is.
        unsafe {
            translate(&mut (*entry).to, &opening.key, &opening.reverse);
            // A backend's next hop has the backend's number.
            (*entry).hop = opening.backend;
            (*entry).timestamp = opening.timestamp;
            (*entry).pair = opening.pair;
            (*pair).pair = number;
        }
    });
    match inserted {
        Ok(number) => opening.entry = number,
        Err(refused) => {
            free::<F>(pair, opening.life);
            return refused.into();
        }
    }
    FOUND
}

impl From<Refused> for u32 {
    #[inline(always)]
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exists => EXISTS,
            Refused::Because(verdict) => verdict as Self,
        }
    }
}

/// What both entries have in common.
#[inline(always)]
fn fill<F: Family>(entry: Entry<F>, opening: &Opening<F::Address>) {
    // SAFETY: an element of an array map, which is the caller's alone until it is published.
    unsafe {
        (*entry).last_seen = created(opening.life);
        (*entry).renew = opening.renew;
        (*entry).backend = opening.backend;
        (*entry).service = opening.service;
    }
}

/// Makes `to` turn a packet with the key `from` into an answer to one with the key `answered`. A
/// function of its own, to have a stack of its own.
#[inline(never)]
fn translate<A: Address>(to: &mut Translation<A>, from: &FlowKey<A>, answered: &FlowKey<A>) {
    to.set(from, answered);
}

/// Removes the connection that has the reverse key of the one being opened, if it is closed; true
/// if the key is free now.
#[inline(always)]
fn evict_closed<F: Family, const INJECTED: bool>() -> bool {
    let opening = F::opening().get_ptr_mut(const { opening::<INJECTED>() });
    let Some(opening) = opening else { return false };
    // SAFETY: as in `open`.
    let Some(found) = table::find::<F>(unsafe { &(*opening).reverse }) else { return true };
    // SAFETY: an element of an array map; that the two belong together is asked next.
    let Some(owner) = entry::<F>(unsafe { (*found.entry).pair }) else { return false };
    let life = life_of::<F>(owner).load();
    born(life) == born(found.life)
        && state(life) & DEAD == 0
        && is_closed(state(life))
        && end::<F>(owner, life, CHANGE_GONE)
}

/// Adds to the counts of the table that a new connection enters with these state bits; all ones take one
/// away. Returns how many connections there were.
#[inline(always)]
pub(crate) fn count<F: Family>(state: u8, by: u64) -> u64 {
    let mut connections = u64::MAX;
    if let Some(table) = maps::TABLES.get_ptr_mut(F::TABLE) {
        // SAFETY: live elements of an array map; only ever accessed atomically.
        unsafe {
            connections = Word::new(&raw mut (*table).connections).add(by);
            if is_half_open(state) {
                Word::new(&raw mut (*table).half_open).add(by);
            }
        }
    }
    connections
}
