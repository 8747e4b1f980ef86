//! How long changes take until the peer has them.

use std::time::{Duration, Instant};

use super::LagView;

/// Upper bounds of the histogram's parts, in seconds; a last part has no bound.
const BOUNDS: [f64; 18] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.2, 0.5, 1.0, 2.0,
    5.0, 10.0,
];

/// The longest of the last minute is kept by parts of this length ...
const SLOT: Duration = Duration::from_secs(10);
/// ... so many of them.
const SLOTS: u32 = 6;

/// Times from when a change was reported to when the peer acknowledged it.
#[derive(Debug, Default)]
pub(super) struct Lag {
    last: Option<Duration>,
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
    /// The longest of each part of the last minute, and when that began.
    slots: [Option<(Instant, Duration)>; SLOTS as usize],
}

impl Lag {
    /// So many changes took so long.
    pub(super) fn note(&mut self, lag: Duration, changes: usize, now: Instant) {
        self.last = Some(lag);
        let seconds = lag.as_secs_f64();
        let part = BOUNDS.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS.len());
        self.counts[part] += changes as u64;
        self.sum += lag.saturating_mul(u32::try_from(changes).unwrap_or(u32::MAX));

        match &mut self.slots[0] {
            Some((since, longest)) if now.saturating_duration_since(*since) < SLOT => {
                *longest = lag.max(*longest);
            }
            _ => {
                self.slots.rotate_right(1);
                self.slots[0] = Some((now, lag));
            }
        }
    }

    pub(super) fn view(&self, now: Instant) -> LagView {
        let longest = self.slots.iter().flatten();
        let recent = longest
            .filter(|(since, _)| now.saturating_duration_since(*since) < SLOT * SLOTS)
            .map(|&(_, longest)| longest);
        let count = self.counts.iter().sum();
        let mut below = 0;
        let mut histogram = Vec::new();
        for (&bound, &part) in BOUNDS.iter().zip(&self.counts) {
            below += part;
            histogram.push((bound, below));
        }
        // The bound that 99 of 100 keep to.
        let p99 = (count > 0).then(|| {
            let found = histogram.iter().find(|&&(_, below)| below * 100 >= count * 99);
            found.map_or(f64::INFINITY, |&(bound, _)| bound)
        });
        LagView {
            last_seconds: self.last.map(|lag| lag.as_secs_f64()),
            longest_seconds: recent.max().map(|lag| lag.as_secs_f64()),
            p99_seconds: p99.filter(|bound| bound.is_finite()),
            count,
            sum_seconds: self.sum.as_secs_f64(),
            histogram,
        }
    }
}
