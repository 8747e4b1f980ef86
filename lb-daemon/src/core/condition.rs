//! What the results of a check, passed or failed, add up to.

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

    /// Whether it is up, as far as is known.
    pub(super) const fn is_up(self) -> bool {
        match self {
            Self::Unproven { up } => up,
            Self::Up { .. } => true,
            Self::Down { .. } => false,
        }
    }
}
