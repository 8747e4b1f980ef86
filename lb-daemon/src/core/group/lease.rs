//! How long a host may serve on the strength of one advert.
//!
//! A master's lease has to end before any peer takes over for want of adverts, whatever the peer's
//! priority. With `i` the time after which the peers expect the next advert, and times counted from
//! the moment the machine had the last advert sent:
//!
//! ```text
//!  0 ─────── i ─────── 2i ──────── 3i - i/16 ─── 3i ──── 3i + delay + skew
//!  advert    next      next but    the lease     │       the earliest take-over: the peer counts
//!  sent      is due    one         ends          │       from when it received the advert, which
//!                                                │       is later than it was sent, and adds its
//!                                                         skew (priority 254: i/128)
//! ```
//!
//! - The margin `i/16` is for what the two clocks disagree about (two that are slewed by 500 ppm
//!   each, in opposite directions, differ by 0.3 % of an interval in three of them), and for packets
//!   that are under way in the host whose lease ends. The delay and the skew come on top; neither is
//!   counted on.
//! - The program compares the deadline with an exact clock, so no tick of the kernel's coarse clock
//!   has to be allowed for.
//! - An advert may be late by `2i - i/16` before the lease lapses. At the shortest interval, 10 ms,
//!   the lease is 29.375 ms: a whole advert can be missing and the next one still 9 ms late.

use std::time::Duration;

/// Time from the sending of an advert to the end of the lease that goes with it, when peers wait
/// for at least three times `interval`.
pub(super) fn span(interval: Duration) -> Duration {
    interval * (3 * 16 - 1) / 16
}
