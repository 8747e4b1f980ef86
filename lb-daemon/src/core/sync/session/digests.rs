//! Which parts of the tables differ for good.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::super::Digest;

/// What differs, but otherwise each time, is what is changing all the time. This often in a row is
/// enough nevertheless.
const OFTEN: u32 = 6;
/// How long it takes at least from one repair of a group to the next. Each that did not help doubles it,
/// ...
const PAUSE: Duration = Duration::from_secs(20);
/// ... so many times.
const DOUBLINGS: u32 = 5;

/// What the digests heard so far have shown.
#[derive(Debug, Default)]
pub(super) struct Suspicions(BTreeMap<String, Suspicion>);

#[derive(Debug, Default)]
struct Suspicion {
    /// Buckets that differed the last time: by what, and how often in a row.
    differing: BTreeMap<u8, (u64, u32)>,
    /// Repairs since the two were last equal.
    repairs: u32,
    /// Before this there is no other repair.
    pause: Option<Instant>,
}

/// What a digest tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How many buckets are not the same.
    pub(super) differing: u64,
    /// The buckets that are to be repaired now.
    pub(super) repair: BTreeSet<u8>,
}

impl Suspicions {
    /// Compares the peer's digest of a group with this host's.
    ///
    /// Connections that are opened or closed at this moment are in one of the digests only, so that a
    /// difference by itself means nothing. But digests are sums: what only one of the tables has
    /// makes the same difference every time. Two times are enough.
    pub(super) fn compare(
        &mut self,
        group: &str,
        theirs: &Digest,
        ours: &Digest,
        now: Instant,
    ) -> Verdict {
        let suspicion = self.0.entry(group.to_owned()).or_default();
        let before = std::mem::take(&mut suspicion.differing);
        let mut repair = BTreeSet::new();
        for (bucket, (theirs, ours)) in (0..=u8::MAX).zip(theirs.0.iter().zip(&ours.0)) {
            let difference = theirs.wrapping_sub(*ours);
            if difference == 0 {
                continue;
            }
            let (last, times) = before.get(&bucket).copied().unwrap_or_default();
            if last == difference || times + 1 >= OFTEN {
                repair.insert(bucket);
            }
            suspicion.differing.insert(bucket, (difference, times + 1));
        }
        let differing = suspicion.differing.len() as u64;
        if differing == 0 {
            suspicion.repairs = 0;
            suspicion.pause = None;
        }
        if repair.is_empty() || suspicion.pause.is_some_and(|pause| now < pause) {
            return Verdict { differing, repair: BTreeSet::new() };
        }
        suspicion.pause = Some(now + PAUSE * (1 << suspicion.repairs.min(DOUBLINGS)));
        suspicion.repairs += 1;
        suspicion.differing.clear();
        Verdict { differing, repair }
    }

    /// What was seen of a group means nothing any more: it is being transferred.
    pub(super) fn forget(&mut self, group: &str) {
        if let Some(suspicion) = self.0.get_mut(group) {
            suspicion.differing.clear();
        }
    }
}
