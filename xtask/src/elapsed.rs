//! Durations as a person reads them.

use std::{fmt, time::Duration};

/// Shows a duration as `7.2 s` below a minute and as `3 min 20 s` from there on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elapsed(pub(crate) Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds < 60 {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        } else {
            write!(f, "{} min {} s", seconds / 60, seconds % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_begin_at_sixty_seconds() {
        assert_eq!(Elapsed(Duration::from_millis(7_249)).to_string(), "7.2 s");
        assert_eq!(Elapsed(Duration::from_secs(60)).to_string(), "1 min 0 s");
        assert_eq!(Elapsed(Duration::from_secs(200)).to_string(), "3 min 20 s");
    }
}
