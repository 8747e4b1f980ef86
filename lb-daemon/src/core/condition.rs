//! What the results of a check, passed or failed, add up to.

use crate::config::OnError;

/// Whether something is up, and how sure that is. [`Health`](super::Health) shows the rule, which
/// is HAProxy's, and keepalived's for its scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// This check was never answered. The first result decides alone; until then it is taken for
    /// up, or for what an earlier check with another question left it as.
    Unproven { up: bool },
    /// Up; the last `failed` results were failures, which was not enough.
    Up { failed: u32 },
    /// Down; the last `passed` results were passes, which was not enough.
    Down { passed: u32 },
}

impl Condition {
    /// The condition after one more result, if `rise` passes in a row bring it up and `fall`
    /// failures in a row take it down.
    pub(super) const fn after(self, passed: bool, rise: u32, fall: u32) -> Self {
        match (self, passed) {
            (Self::Up { failed }, false) if failed + 1 < fall => Self::Up { failed: failed + 1 },
            (Self::Down { passed }, true) if passed + 1 < rise => Self::Down { passed: passed + 1 },
            (_, true) => Self::Up { failed: 0 },
            (_, false) => Self::Down { passed: 0 },
        }
    }

    /// The condition after too many errors of clients in a row. What is down already gets no worse by
    /// them, and what has passed since counts, unless they are to mark it down.
    pub(super) const fn after_errors(self, on_error: OnError, fall: u32) -> Self {
        match (self, on_error) {
            (_, OnError::MarkDown) => Self::Down { passed: 0 },
            (Self::Up { failed }, OnError::SuddenDeath) if failed + 1 < fall => {
                Self::Up { failed: fall - 1 }
            }
            (
                Self::Up { .. } | Self::Unproven { up: true },
                OnError::FailCheck | OnError::SuddenDeath,
            ) => {
                // No number of passes makes a difference to a failure.
                self.after(false, 1, fall)
            }
            _ => self,
        }
    }

    /// Whether it is up, as far as is known.
    pub(super) const fn is_up(self) -> bool {
        match self {
            Self::Unproven { up } => up,
            Self::Up { .. } => true,
            Self::Down { .. } => false,
        }
    }
}
