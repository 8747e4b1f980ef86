//! The groups' leases, where the program reads them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use lb_common::maps::{Lease, MAX_GROUPS};
use nix::time::{ClockId, clock_gettime};

use super::{
    mapped::{Access, Mapped},
    pins::Pins,
};
use crate::{
    config::Peer,
    core::group::{self, Lost},
};

/// Writes leases. A store to memory, so that nothing can hold it up.
pub struct Leases {
    memory: Mapped<Lease>,
    /// What this process has written last as the end of each group's lease; nothing before it did.
    written: Vec<Option<u64>>,
    grace: Arc<Grace>,
}

/// How long packets without a flow are dropped rather than answered after a takeover. Shared between
/// those who configure it and those who take over.
#[derive(Debug, Default)]
pub(super) struct Grace(AtomicU64);

impl Grace {
    /// What a peer makes it; none without one, for then nothing is to come.
    pub(super) fn of(peer: Option<&Peer>) -> Self {
        let this = Self::default();
        this.set(peer);
        this
    }

    /// The same from now on, for takeovers to come.
    pub(super) fn set(&self, peer: Option<&Peer>) {
        let grace = peer.map_or(Duration::ZERO, |peer| peer.grace);
        self.0.store(u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Leases {
    /// Maps them. What an earlier process has left stays as it is.
    pub(super) fn open(pins: &Pins, grace: Arc<Grace>) -> Result<Self> {
        let memory = Mapped::open(pins, "LEASES", Access::Change)?;
        let written = vec![None; memory.len()];
        Ok(Self { memory, written, grace })
    }

    /// Sets until when the group with this number is served, or that it no longer is. Returns
    /// nothing if no group can have this number.
    ///
    /// Where a lease begins that had ended, so do its other times. They are written before its end:
    /// whoever finds it held finds them too.
    pub fn set(&mut self, group: u16, until: Option<Instant>) -> Option<()> {
        let lease = self.words(group)?;
        let end = until.map_or(0, monotonic);
        lease.begin(lease.end.load(Ordering::SeqCst), end, self.grace.get());
        lease.end.store(end, Ordering::SeqCst);
        *self.written.get_mut(usize::from(group))? = Some(end);
        Some(())
    }

    /// The number of each group with a lease that has not ended, by its election.
    pub(super) fn running(&self) -> impl Iterator<Item = (u64, u16)> + '_ {
        let groups = (0..self.memory.len()).filter_map(|group| u16::try_from(group).ok());
        groups.filter_map(|group| {
            let election = self.words(group)?.election.load(Ordering::SeqCst);
            (election != 0 && self.running_end(group, election).is_some())
                .then_some((election, group))
        })
    }

    fn words(&self, group: u16) -> Option<Words<'_>> {
        Words::of(&self.memory, group)
    }

    /// When the lease ends that another process has left, if that is still to come.
    fn running_end(&self, group: u16, election: u64) -> Option<u64> {
        let lease = self.words(group)?;
        let end = lease.end.load(Ordering::SeqCst);
        // Written before the end, and only while there is no lease.
        let is_it = lease.election.load(Ordering::SeqCst) == election;
        let is_ours = self.written.get(usize::from(group)) == Some(&Some(end));
        (is_it && !is_ours && end > monotonic_now()).then_some(end)
    }

    fn written(&self, group: u16) -> Option<u64> {
        self.written.get(usize::from(group)).copied().flatten()
    }

    /// Writes an end, unless another process has written one after this one had.
    fn write(&mut self, group: u16, until: u64) -> Result<(), Lost> {
        let Some(lease) = self.words(group) else { return Ok(()) };
        let seen = match self.written(group) {
            Some(written) => written,
            None => lease.end.load(Ordering::SeqCst),
        };
        lease.begin(seen, until, self.grace.get());
        if self.written(group).is_none() {
            lease.end.store(until, Ordering::SeqCst);
        } else {
            lease
                .end
                .compare_exchange(seen, until, Ordering::SeqCst, Ordering::SeqCst)
                .map_err(lost)?;
        }
        self.written[usize::from(group)] = Some(until);
        Ok(())
    }
}

/// The leases as the one who keeps the flows up to date with the peer's sees them.
pub(super) struct Held(Mapped<Lease>);

impl Held {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self(Mapped::open(pins, "LEASES", Access::Change)?))
    }

    /// Whether the group with this number is served now.
    pub(super) fn is_held(&self, group: u16) -> bool {
        let end = Words::of(&self.0, group).map_or(0, |lease| lease.end.load(Ordering::SeqCst));
        end > monotonic_now()
    }

    /// Has packets without a flow for this group answered from now on.
    pub(super) fn end_grace(&self, group: u16) {
        if let Some(lease) = Words::of(&self.0, group) {
            lease.grace.store(0, Ordering::SeqCst);
        }
    }

    /// Notes whether the peer does not have the group: what is silent is over then, by the ordinary
    /// timeouts, whether this host serves the group or not.
    pub(super) fn set_alone(&self, group: u16, is_alone: bool) {
        if let Some(lease) = Words::of(&self.0, group) {
            lease.alone.store(is_alone.into(), Ordering::SeqCst);
        }
    }
}

/// A lease in memory. `end` and `since` have one writer, the election; it begins a `grace` too, which
/// the thread that talks to the peer ends. That alone writes `alone`.
struct Words<'a> {
    end: &'a AtomicU64,
    since: &'a AtomicU64,
    grace: &'a AtomicU64,
    election: &'a AtomicU64,
    alone: &'a AtomicU64,
}

impl<'a> Words<'a> {
    fn of(leases: &'a Mapped<Lease>, group: u16) -> Option<Self> {
        let lease = leases.element(group.into())?.as_ptr();
        // SAFETY: aligned words of a mapping that lives as long as the result, only ever accessed
        // atomically.
        unsafe {
            Some(Self {
                end: AtomicU64::from_ptr(&raw mut (*lease).end),
                since: AtomicU64::from_ptr(&raw mut (*lease).since),
                grace: AtomicU64::from_ptr(&raw mut (*lease).grace),
                election: AtomicU64::from_ptr(&raw mut (*lease).election),
                alone: AtomicU64::from_ptr(&raw mut (*lease).alone),
            })
        }
    }

    /// Where a lease begins that had ended, its other times begin too.
    fn begin(&self, before: u64, end: u64, grace: u64) {
        let now = monotonic_now();
        if end > now && before <= now {
            self.since.store(now, Ordering::SeqCst);
            self.begin_grace(now, grace);
        }
    }

    fn begin_grace(&self, now: u64, grace: u64) {
        let until = if grace == 0 { 0 } else { now.saturating_add(grace) };
        self.grace.store(until, Ordering::SeqCst);
    }
}

/// Ends all leases in the pinned map of another release. All that is known of it is that an element
/// begins with the lease's end.
pub(super) fn end_all(pin: &Path) -> Result<()> {
    let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let memory = Mapped::<u64>::of(&map, Access::Change)?;
    let words = map.info()?.value_size() as usize / size_of::<u64>();
    for end in (0..memory.len()).step_by(words.max(1)).filter_map(|at| memory.element(at)) {
        // SAFETY: an aligned word of a live mapping, only ever accessed atomically.
        unsafe { AtomicU64::from_ptr(end.as_ptr()) }.store(0, Ordering::SeqCst);
    }
    Ok(())
}

/// Pins the map of leases of another layout at `to` as well: it is the same in all of them.
///
/// # Errors
///
/// If it is not.
pub(super) fn share(pin: &Path, to: &Path) -> Result<()> {
    let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let info = map.info()?;
    let is_same =
        info.value_size() as usize == size_of::<Lease>() && info.max_entries() == MAX_GROUPS;
    ensure!(is_same, "its leases are of another kind");
    map.pin(to).with_context(|| format!("cannot make {}", to.display()))
}

/// Whether two pins are of the same map.
pub(super) fn are_shared(one: &Path, other: &Path) -> bool {
    let id = |pin| Some(MapData::from_pin(pin).ok()?.info().ok()?.id());
    id(one).is_some_and(|map| id(other) == Some(map))
}

/// What another process has done that has written this as the end of a lease.
const fn lost(found: u64) -> Lost {
    if found == 0 { Lost::Ended } else { Lost::Claimed }
}

impl group::Leases for Leases {
    fn is_running(&self, group: u16, election: u64) -> bool {
        self.running_end(group, election).is_some()
    }

    fn claim(&mut self, group: u16, election: u64) -> Option<Instant> {
        // Read again if it was just renewed.
        while let Some(end) = self.running_end(group, election) {
            // A nanosecond less, so that the other process sees another's writing.
            let claimed = end - 1;
            let word = self.words(group)?.end;
            if word.compare_exchange(end, claimed, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                self.written[usize::from(group)] = Some(claimed);
                return Some(instant(claimed));
            }
        }
        None
    }

    fn renew(&mut self, group: u16, election: u64, until: Instant) -> Result<(), Lost> {
        if self.written(group).is_none_or(|end| end == 0)
            && let Some(lease) = self.words(group)
        {
            lease.election.store(election, Ordering::SeqCst);
        }
        self.write(group, monotonic(until))
    }

    fn end(&mut self, group: u16) -> Result<(), Lost> {
        self.write(group, 0)
    }

    fn check(&self, group: u16) -> Result<(), Lost> {
        let (Some(lease), Some(written)) = (self.words(group), self.written(group)) else {
            return Ok(());
        };
        let found = lease.end.load(Ordering::SeqCst);
        if found == written { Ok(()) } else { Err(lost(found)) }
    }

    fn doubt(&mut self, group: u16) {
        if let Some(lease) = self.words(group) {
            lease.begin_grace(monotonic_now(), self.grace.get());
        }
    }

    fn end_others(&mut self, groups: &[(u16, u64)]) {
        let others: Vec<u16> = self
            .running()
            .filter(|(election, group)| !groups.contains(&(*group, *election)))
            .map(|(_, group)| group)
            .collect();
        for group in others {
            self.set(group, None);
        }
    }
}

/// Now, on the clock that the program reads, in nanoseconds.
pub(super) fn monotonic_now() -> u64 {
    monotonic(Instant::now())
}

/// A time on the clock that the program reads, in nanoseconds.
fn monotonic(when: Instant) -> u64 {
    // Never fails with this clock.
    on_clock(when, || {
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
    })
}

/// The same time the other way round, or earlier by as much as this takes.
fn instant(monotonic: u64) -> Instant {
    let start = Instant::now();
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::MAX, Duration::from);
    start + Duration::from_nanos(monotonic).saturating_sub(now)
}

/// The clock is read before the time that is left: who is held up between the two makes the lease
/// shorter by that, never longer.
fn on_clock(when: Instant, read: impl FnOnce() -> Duration) -> u64 {
    let now = read();
    let left = when.saturating_duration_since(Instant::now());
    u64::try_from((now + left).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_held_up_while_a_lease_is_written_does_not_prolong_it() {
        let held_up = Duration::from_millis(50);
        let until = Instant::now() + Duration::from_secs(1);
        // Not before its time on that clock, in whatever way these two lines are held up.
        let left = until.saturating_duration_since(Instant::now());
        let clock = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        let most = u64::try_from((left + clock()).as_nanos()).unwrap();
        let end = on_clock(until, || {
            std::thread::sleep(held_up);
            clock()
        });
        assert!(end <= most, "ends {} ns later", end - most);
    }
}
