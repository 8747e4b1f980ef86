//! How a backend that has recovered gets its share of new connections little by little.

use std::time::{Duration, Instant};

/// Steps that the climb has at most, ...
const STEPS: u32 = 20;
/// ... and how far they are apart at least.
const SHORTEST_STEP: Duration = Duration::from_secs(1);

/// The climb from 1 to 100 per cent of the weight.
///
/// ```text
///   100 %                  ┌───   The share is that of the time that has passed, and 1 % at first.
///                    ┌─────┘      It is looked at after each twentieth of the whole time, but not
///              ┌─────┘            more often than once a second. That is HAProxy's rule, which counts
///    1 % ──────┘                  in sixteenths.
///        recovery        slowstart
/// ```
///
/// It begins with a recovery only: when a check or an agent finds the backend up that was down, and
/// when maintenance ends. A limit of connections climbs by the same [`percent`](Self::percent).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SlowStart(Option<Climb>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Climb {
    began: Instant,
    percent: u16,
    /// When the next step is due.
    next: Instant,
}

impl SlowStart {
    /// Begins the climb, if it is to take some time.
    pub(super) fn begin(&mut self, length: Option<Duration>, now: Instant) {
        self.0 = length.map(|_| Climb { began: now, percent: 1, next: now });
        self.advance(length, now);
    }

    /// Ends it: the backend is down.
    pub(super) fn stop(&mut self) {
        self.0 = None;
    }

    /// Looks how far it is by now. It is over at once if it is to take no time any more.
    pub(super) fn advance(&mut self, length: Option<Duration>, now: Instant) {
        let Some(Climb { began, .. }) = self.0 else { return };
        self.0 = length.and_then(|length| {
            let step = (length / STEPS).max(SHORTEST_STEP);
            let steps = now.saturating_duration_since(began).as_nanos() / step.as_nanos();
            let steps = u32::try_from(steps).unwrap_or(u32::MAX);
            let climbed = step.saturating_mul(steps);
            let percent = climbed.as_nanos() * 100 / length.as_nanos().max(1);
            let percent = u16::try_from(percent).unwrap_or(u16::MAX).max(1);
            let next = began + length.min(step.saturating_mul(steps.saturating_add(1)));
            (next > now).then_some(Climb { began, percent, next })
        });
    }

    /// The share of its weight that the backend gets.
    pub(super) fn percent(&self) -> u16 {
        self.0.map_or(100, |climb| climb.percent)
    }

    /// When it ends; none if it is over.
    pub(super) fn ends(&self, length: Option<Duration>) -> Option<Instant> {
        Some(self.0?.began + length?)
    }

    /// When it is to be looked at again; none if it is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.map(|climb| climb.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

    /// The percentage after each second.
    fn time_line(length: Duration) -> Vec<u16> {
        let start = Instant::now();
        let mut climb = SlowStart::default();
        climb.begin(Some(length), start);
        let mut seconds = (0..).map(|second| {
            climb.advance(Some(length), start + Duration::from_secs(second));
            climb.percent()
        });
        let mut line: Vec<_> = seconds.by_ref().take_while(|percent| *percent < 100).collect();
        line.push(100);
        line
    }

    #[test]
    fn a_minute_has_twenty_steps_of_three_seconds() {
        let line = time_line(Duration::from_secs(60));
        assert_eq!(line[..7], [1, 1, 1, 5, 5, 5, 10]);
        assert_eq!(line[30], 50, "half after half of the time");
        assert_eq!((line.len(), line[59], line[60]), (61, 95, 100));
        assert!(line.is_sorted());
    }

    #[test]
    fn a_short_climb_has_a_step_a_second() {
        assert_eq!(time_line(Duration::from_secs(4)), [1, 25, 50, 75, 100]);
        assert_eq!(time_line(Duration::from_millis(2500)), [1, 40, 80, 100]);
        assert_eq!(time_line(Duration::from_millis(300)), [1, 100]);
    }

    #[test]
    fn every_step_is_asked_for_and_none_in_the_past() {
        let mut now = Instant::now();
        let mut climb = SlowStart::default();
        climb.begin(MINUTE, now);
        let mut steps = 0;
        while let Some(next) = climb.next_deadline() {
            assert!(next > now);
            now = next;
            climb.advance(MINUTE, now);
            steps += 1;
        }
        assert_eq!((steps, climb.percent(), climb.ends(MINUTE)), (20, 100, None));
    }

    #[test]
    fn without_a_time_it_is_over_at_once() {
        let now = Instant::now();
        let mut climb = SlowStart::default();
        climb.begin(None, now);
        assert_eq!((climb.percent(), climb.next_deadline()), (100, None));
        climb.begin(MINUTE, now);
        climb.advance(None, now);
        assert_eq!(climb.percent(), 100, "a reload has taken it away");
    }
}
