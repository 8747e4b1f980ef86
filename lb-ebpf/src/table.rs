//! The flow table: finding, inserting and freeing entries.
//!
//! The table is an array of groups of [`GROUP`] places, each a cache line for IPv4. A tuple's hash
//! says in which group its entry is and at which place it is looked for first, so that the packet of
//! a connection normally touches one line of the table and calls no helper. A group that is full
//! counts in its `OVERFLOW` word the entries that went on to the group of the next level; where that
//! is zero, a search ends. Nothing is left behind where an entry was removed.
//!
//! # Several processors at once
//!
//! A place is free as long as its life word is zero. Who takes it sets the word to [`BUSY`] by
//! compare-and-exchange, fills the place, and publishes it by setting the word to the time of birth;
//! who frees it sets the word to zero, by compare-and-exchange too. So a place has one writer at a
//! time, save for `last_seen` and `renew`: those any packet may store, and a late store of them does
//! no harm to whatever connection is there by then.
//!
//! A reader takes no lock, and the place may be freed and filled anew under its eyes. It reads the
//! life word, then the key and whatever it needs, and then the word again ([`Found::is_still`]): a
//! birth that is still the same was never gone, for no two connections that come to lie in one place
//! are born in the same 256 nanoseconds. What was read from another connection is thrown away with
//! the packet. That needs each of the reads, and each of the stores of the writer, to happen in the
//! order they are written in. The compiler is told by [`fence`] and by volatile access. x86 keeps
//! loads in order with loads and stores with stores. A processor that does not (arm64 among them)
//! would need a barrier in place of `fence`, which BPF has no instruction for; there, the writer's
//! compare-and-exchanges are full barriers, but a reader may see parts of two connections.
//!
//! No tuple is inserted twice: while one is searched for and inserted, the lock of its first group
//! is held. A program is never stopped for good in the middle, so the lock is always given back;
//! who waits for it for too long drops the SYN. User space never takes it, and freeing does not need
//! it.

use core::ptr::NonNull;

use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};
use lb_common::{
    flow::{BUSY, Flow, FlowKey, GROUP, Group, LEVEL, LEVELS, LOCK, NO_PAIR, OVERFLOW, born},
    hash,
    verdict::Verdict,
};

use crate::{
    atomic::{Half, Word, fence},
    maps::{self, Family},
};

pub(crate) type Key<F> = FlowKey<<F as Family>::Address>;
pub(crate) type Entry<F> = *mut Flow<<F as Family>::Address>;
type Places<F> = *mut Group<<F as Family>::Address>;

/// How often a lock is tried to be taken: for some tens of microseconds.
const LOCK_ATTEMPTS: u32 = 1 << 12;
/// The number of no place, and of none of a pair's.
const NOWHERE: u32 = NO_PAIR;

/// An entry, as it was when it was found.
pub struct Found<F: Family> {
    pub entry: Entry<F>,
    /// Its life word; the birth in it is never zero.
    pub life: u64,
}

impl<F: Family> Found<F> {
    /// Whatever is at a place now.
    #[inline(always)]
    pub fn at(entry: Entry<F>) -> Self {
        let life = life_of::<F>(entry).load();
        fence();
        Self { entry, life }
    }

    /// Whether everything read from the entry since it was found belonged to its connection.
    #[inline(always)]
    pub fn is_still(&self) -> bool {
        fence();
        born(life_of::<F>(self.entry).load()) == born(self.life)
    }
}

/// Finds the entry for packets with this key.
#[inline(always)]
pub fn find<F: Family>(key: &Key<F>) -> Option<Found<F>> {
    if F::IS_WIDE {
        return look::<F>(find_apart::<F>(key)?.as_ptr(), key);
    }
    let settings = maps::SETTINGS.get(0)?;
    let hash = hash::flow(&settings.seed, key);
    let home = F::flows().get_ptr_mut(hash::group(hash, settings.groups))?;
    let first = look::<F>(at::<F>(home, hash::place(hash)), key);
    if first.is_some() {
        return first;
    }
    look::<F>(search::<F>(home, hash, settings.groups, key)?.as_ptr(), key)
}

/// The same in a function of its own, to have a stack of its own.
#[inline(never)]
pub fn find_apart<F: Family>(key: &Key<F>) -> Option<NonNull<Flow<F::Address>>> {
    let settings = maps::SETTINGS.get(0)?;
    let hash = hash::flow(&settings.seed, key);
    let home = F::flows().get_ptr_mut(hash::group(hash, settings.groups))?;
    search::<F>(home, hash, settings.groups, key)
}

/// The entry at the place with this number, whichever it is.
#[inline(always)]
pub fn entry<F: Family>(number: u32) -> Option<Entry<F>> {
    let group = F::flows().get_ptr_mut(number / GROUP as u32)?;
    Some(at::<F>(group, number as usize % GROUP))
}

/// Why a tuple was not inserted.
pub enum Refused {
    /// It has an entry.
    Exists,
    /// There is no room for it, or the lock cannot be had.
    Because(Verdict),
}

/// Inserts an entry with these flags, its level aside, and returns the number of its place, which
/// `fill` is told too. That sets all but the key, the flags and the life word.
#[inline(always)]
pub fn insert<F: Family>(
    key: &Key<F>,
    life: u64,
    flags: u16,
    fill: impl FnOnce(Entry<F>, u32),
) -> Result<u32, Refused> {
    const INTERNAL: Refused = Refused::Because(Verdict::DropInternal);

    let settings = maps::SETTINGS.get(0).ok_or(INTERNAL)?;
    let hash = hash::flow(&settings.seed, key);
    let group = hash::group(hash, settings.groups);
    let home = F::flows().get_ptr_mut(group).ok_or(INTERNAL)?;
    let lock = word::<F>(home, LOCK);
    if !lock.replace(0, 1) && !wait_for::<F>(group) {
        return Err(Refused::Because(Verdict::DropBusy));
    }
    let mut result = Err(Refused::Exists);
    if search::<F>(home, hash, settings.groups, key).is_none() {
        let number = claim::<F>(hash, settings.groups);
        result = match entry::<F>(number) {
            Some(entry) => {
                // SAFETY: an element of an array map, and ours alone until it is published.
                unsafe {
                    (*entry).key = *key;
                    (*entry).flags |= flags;
                    (*entry).pair = NO_PAIR;
                }
                fill(entry, number);
                life_of::<F>(entry).replace(BUSY, life);
                Ok(number)
            }
            None => Err(Refused::Because(Verdict::DropTableFull)),
        };
    }
    lock.replace(1, 0);
    result
}

/// Frees the place of an entry; true for exactly one caller, and only if its life word is `life`.
#[inline(always)]
pub fn free<F: Family>(entry: Entry<F>, life: u64) -> bool {
    // SAFETY: an element of an array map. What is read is the entry's own if `life` still is.
    let level = unsafe { (*entry).flags } >> LEVEL;
    if level == 0 { life_of::<F>(entry).replace(life, 0) } else { free_further::<F>(entry, life) }
}

/// Frees a place that is not in the first group of its key.
#[inline(never)]
fn free_further<F: Family>(entry: Entry<F>, life: u64) -> bool {
    let Some(settings) = maps::SETTINGS.get(0) else { return false };
    // SAFETY: as in `free`.
    let (hash, level) =
        unsafe { (hash::flow(&settings.seed, &(*entry).key), (*entry).flags >> LEVEL) };
    fence();
    let freed = life_of::<F>(entry).replace(life, 0);
    if freed {
        // After it is gone: a search must not end before it.
        uncount::<F>(hash, settings.groups, level);
    }
    freed
}

/// The life word of a place.
#[inline(always)]
pub fn life_of<F: Family>(entry: Entry<F>) -> Word {
    // SAFETY: an element of an array map stays; only ever accessed atomically.
    unsafe { Word::new(&raw mut (*entry).life) }
}

/// The entry at a place, if it is for this key.
#[inline(always)]
fn look<F: Family>(entry: Entry<F>, key: *const Key<F>) -> Option<Found<F>> {
    let found = Found::<F>::at(entry);
    // SAFETY: an element of an array map, and a key that the caller has; whether the former was
    // another connection's is asked later.
    (born(found.life) != 0 && unsafe { (*entry).key.is(&*key) }).then_some(found)
}

/// Looks through all the groups that a key may be in. A function of its own, for the sake of the
/// program's size. It takes no reference: the compiler would keep all of the key on the stack.
#[inline(never)]
fn search<F: Family>(
    home: Places<F>,
    hash: u64,
    groups: u32,
    key: *const Key<F>,
) -> Option<NonNull<Flow<F::Address>>> {
    if let Some(entry) = scan::<F>(home, hash, key) {
        return Some(entry);
    }
    if word::<F>(home, OVERFLOW).load() == 0 {
        return None;
    }
    search_further::<F>(hash, groups, key)
}

/// Looks through the groups of the further levels. A loop of the kernel's, whose body the verifier
/// looks at once.
#[inline(never)]
fn search_further<F: Family>(
    hash: u64,
    groups: u32,
    key: *const Key<F>,
) -> Option<NonNull<Flow<F::Address>>> {
    let mut way = Way { hash, groups, number: NOWHERE, key };
    way.walk(u32::from(LEVELS) - 1, search_next::<F>);
    NonNull::new(entry::<F>(way.number)?)
}

/// Looks through the group of the next level. Returns 1 to end the search.
extern "C" fn search_next<F: Family>(_level: u64, way: *mut c_void) -> i64 {
    // SAFETY: what `Way::walk` passed, and that is of this type.
    let way = unsafe { &mut *way.cast::<Way<*const Key<F>>>() };
    way.hash = hash::next_level(way.hash);
    let group = hash::group(way.hash, way.groups);
    let Some(places) = F::flows().get_ptr_mut(group) else { return 1 };
    let first = hash::place(way.hash);
    for i in 0..GROUP {
        if look::<F>(at::<F>(places, first + i), way.key).is_some() {
            way.number = number(group, first + i);
            return 1;
        }
    }
    i64::from(word::<F>(places, OVERFLOW).load() == 0)
}

#[inline(always)]
fn scan<F: Family>(
    group: Places<F>,
    hash: u64,
    key: *const Key<F>,
) -> Option<NonNull<Flow<F::Address>>> {
    for i in 0..GROUP {
        if let Some(found) = look::<F>(at::<F>(group, hash::place(hash) + i), key) {
            return NonNull::new(found.entry);
        }
    }
    None
}

/// Takes the first free place for a key of this hash, writes its level, and counts the entry in the
/// groups that were full. Returns the number of the place, or `NOWHERE`.
#[inline(never)]
fn claim<F: Family>(hash: u64, groups: u32) -> u32 {
    let mut way = Way { hash, groups, number: NOWHERE, key: () };
    way.walk(LEVELS.into(), claim_next::<F>);
    if way.number == NOWHERE {
        uncount::<F>(hash, groups, LEVELS);
    }
    way.number
}

/// Takes a place in the group of this level. Returns 1 if it has.
extern "C" fn claim_next<F: Family>(level: u64, way: *mut c_void) -> i64 {
    // SAFETY: what `Way::walk` passed, and that is of this type.
    let way = unsafe { &mut *way.cast::<Way<()>>() };
    let group = hash::group(way.hash, way.groups);
    let Some(places) = F::flows().get_ptr_mut(group) else { return 1 };
    let first = hash::place(way.hash);
    for i in 0..GROUP {
        let entry = at::<F>(places, first + i);
        let life = life_of::<F>(entry);
        if life.load() == 0 && life.replace(0, BUSY) {
            // SAFETY: an element of an array map, and ours alone from now on.
            unsafe { (*entry).flags = (level as u16) << LEVEL };
            way.number = number(group, first + i);
            return 1;
        }
    }
    word::<F>(places, OVERFLOW).add(1);
    way.hash = hash::next_level(way.hash);
    0
}

/// Takes an entry out of the counts of the first `levels` groups. No function of its own: calls may
/// be eight deep, and this is where they are.
#[inline(always)]
fn uncount<F: Family>(hash: u64, groups: u32, levels: u16) {
    let mut way = Way { hash, groups, number: NOWHERE, key: () };
    way.walk(u32::from(levels).min(LEVELS.into()), uncount_next::<F>);
}

extern "C" fn uncount_next<F: Family>(_level: u64, way: *mut c_void) -> i64 {
    // SAFETY: what `Way::walk` passed, and that is of this type.
    let way = unsafe { &mut *way.cast::<Way<()>>() };
    let Some(places) = F::flows().get_ptr_mut(hash::group(way.hash, way.groups)) else { return 1 };
    word::<F>(places, OVERFLOW).add(u32::MAX);
    way.hash = hash::next_level(way.hash);
    0
}

/// The way from level to level.
#[repr(C)]
struct Way<K> {
    hash: u64,
    groups: u32,
    /// The place that was found or taken.
    number: u32,
    key: K,
}

impl<K> Way<K> {
    #[inline(always)]
    fn walk(&mut self, levels: u32, step: extern "C" fn(u64, *mut c_void) -> i64) {
        // SAFETY: the callback has the signature that the kernel calls it by, and `self` outlives
        // the call.
        unsafe {
            bpf_loop(levels, step as *mut c_void, core::ptr::from_mut(self).cast::<c_void>(), 0);
        }
    }
}

#[inline(always)]
fn number(group: u32, place: usize) -> u32 {
    group * GROUP as u32 + place as u32 % GROUP as u32
}

/// Takes the lock of a group that another processor has at the moment.
#[inline(never)]
fn wait_for<F: Family>(group: u32) -> bool {
    let mut wait = Wait { group, taken: 0 };
    // SAFETY: the callback has the signature that the kernel calls it by, and `wait` outlives the
    // call.
    unsafe {
        bpf_loop(LOCK_ATTEMPTS, try_lock::<F> as *mut c_void, (&raw mut wait).cast::<c_void>(), 0);
    }
    wait.taken == 1
}

#[repr(C)]
struct Wait {
    group: u32,
    taken: u32,
}

/// Returns 1 to end the wait.
extern "C" fn try_lock<F: Family>(_attempt: u64, wait: *mut c_void) -> i64 {
    // SAFETY: what `wait_for` passed.
    let wait = unsafe { &mut *wait.cast::<Wait>() };
    let Some(group) = F::flows().get_ptr_mut(wait.group) else { return 1 };
    let lock = word::<F>(group, LOCK);
    // Reading alone leaves the line where it is.
    if lock.load() == 0 && lock.replace(0, 1) {
        wait.taken = 1;
        return 1;
    }
    0
}

#[inline(always)]
fn at<F: Family>(group: Places<F>, place: usize) -> Entry<F> {
    // SAFETY: `group` is an element of the map; the mask goes round in it, and is what Linux 6.1
    // knows the bounds by.
    unsafe { &raw mut (*group).0[place & (GROUP - 1)] }
}

/// One of a group's own words.
#[inline(always)]
fn word<F: Family>(group: Places<F>, place: usize) -> Half {
    // SAFETY: an element of an array map stays; only ever accessed atomically.
    unsafe { Half::new(&raw mut (*at::<F>(group, place)).group) }
}
