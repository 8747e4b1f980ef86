//! Which differences are repaired.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    super::super::Digest,
    super::digests::{Suspicions, Verdict},
};

/// A digest with this in bucket 5.
fn digest(sum: u64) -> Box<Digest> {
    let mut digest = Box::new(Digest([0; 256]));
    digest.0[5] = sum;
    digest
}

/// What is repaired after each of these pairs of sums.
fn repairs(sums: &[(u64, u64)]) -> Vec<bool> {
    let mut suspicions = Suspicions::default();
    let mut now = Instant::now();
    let mut compare = |&(theirs, ours): &(u64, u64)| {
        now += Duration::from_secs(10);
        let Verdict { repair, .. } = suspicions.compare("a", &digest(theirs), &digest(ours), now);
        assert!(repair.is_empty() || repair == BTreeSet::from([5]));
        !repair.is_empty()
    };
    sums.iter().map(&mut compare).collect()
}

#[test]
fn the_same_difference_twice_is_one() {
    assert_eq!(repairs(&[(3, 1), (10, 8)]), [false, true]);
    assert_eq!(repairs(&[(0, 2), (1, 3)]), [false, true]);
}

#[test]
fn another_difference_each_time_is_what_is_under_way() {
    assert_eq!(repairs(&[(3, 1), (10, 7), (9, 0)]), [false; 3]);
    assert_eq!(repairs(&[(3, 1), (7, 7), (3, 1)]), [false; 3]);
}

#[test]
fn but_not_for_ever() {
    let sums = [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)];
    assert_eq!(repairs(&sums), [false, false, false, false, false, true]);
}

#[test]
fn nothing_is_asked_for_again_and_again() {
    let asked = repairs(&[(1, 0); 60]).into_iter().filter(|&asked| asked).count();
    assert!((3..=5).contains(&asked), "{asked} times in ten minutes");
}
