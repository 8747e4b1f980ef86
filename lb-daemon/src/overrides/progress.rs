//! How far the writing has come: said by those who write, for all who want to know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was to be kept, and how much of that is. A copy is of the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How often something was to be kept.
    asked: u64,
    /// How many of these are on the disk, or were replaced by what is.
    written: u64,
    /// Why the last attempt failed.
    failure: Option<String>,
}

impl Progress {
    /// Something more is to be kept.
    pub(super) fn asked(&self) {
        self.state().asked += 1;
    }

    /// The first `count` are kept. Gives back whether an attempt had failed before.
    pub(super) fn written(&self, count: u64) -> bool {
        let mut state = self.state();
        state.written = count;
        state.failure.take().is_some()
    }

    /// An attempt failed for this reason. Gives back whether that is news.
    pub(super) fn failed(&self, why: &str) -> bool {
        let failure = &mut self.state().failure;
        let is_news = failure.as_deref() != Some(why);
        *failure = Some(why.to_owned());
        is_news
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    /// Whether all is on the disk.
    pub(super) fn is_complete(&self) -> bool {
        let state = self.state();
        state.written == state.asked
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
