//! Where answers come from: the file that forces a failure, the last answer while it is fresh, or
//! MySQL, which is asked once at a time however many want to know.

use std::{
    path::PathBuf,
    sync::{Mutex as StdMutex, PoisonError},
    time::Duration,
};

use tokio::{fs, sync::Mutex, time::Instant};
use tracing::{info, warn};

use super::{Verdict, database::Database};

/// What knows the answer.
#[derive(Debug)]
pub(super) struct Source {
    fail_file: PathBuf,
    database: Database,
    cache: Duration,
    /// Locked while MySQL is asked: who waits for it finds the answer here.
    last: Mutex<Option<Last>>,
    /// Whether the last answer that was given was a good one.
    told: StdMutex<Option<bool>>,
}

/// The last answer of MySQL.
#[derive(Debug)]
struct Last {
    verdict: Verdict,
    came: Instant,
}

impl Source {
    /// Answers are fresh for as long as `cache`.
    pub(super) fn new(fail_file: PathBuf, database: Database, cache: Duration) -> Self {
        Self { fail_file, database, cache, last: Mutex::default(), told: StdMutex::default() }
    }

    /// The answer to somebody who asks now.
    pub(super) async fn verdict(&self) -> Verdict {
        let verdict = match self.forced().await {
            Some(why) => Verdict::Unfit(why),
            None => self.of_mysql().await,
        };
        self.tell(&verdict);
        verdict
    }

    /// Why the answer is a failure whatever MySQL says, if it is.
    async fn forced(&self) -> Option<String> {
        let file = self.fail_file.display();
        match fs::try_exists(&self.fail_file).await {
            Ok(false) => None,
            Ok(true) => Some(format!("{file} is there: this host was taken out on purpose")),
            // Whoever has made the file would be surprised by anything else.
            Err(error) => Some(format!("whether {file} is there can't be seen: {error}")),
        }
    }

    async fn of_mysql(&self) -> Verdict {
        let arrived = Instant::now();
        let mut last = self.last.lock().await;
        // What came since then is fresh, however short the cache.
        if let Some(last) = last.as_ref().filter(|last| last.came + self.cache >= arrived) {
            return last.verdict.clone();
        }
        let verdict = self.database.ask().await;
        *last = Some(Last { verdict: verdict.clone(), came: Instant::now() });
        verdict
    }

    /// Logs when the answer is another one than before.
    fn tell(&self, verdict: &Verdict) {
        let fit = matches!(verdict, Verdict::Fit(_));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.replace(fit) == Some(fit) {
            return;
        }
        match verdict {
            Verdict::Fit(what) => info!("MySQL can serve: {what}"),
            Verdict::Unfit(why) => warn!("MySQL cannot serve: {why}"),
        }
    }
}
