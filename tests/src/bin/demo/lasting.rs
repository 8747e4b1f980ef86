//! A MySQL session that is kept open, whatever happens to the balancers.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::lab::{MariaDb, MariaSession};

use crate::stage::Stage;

/// One session, with a transaction that is never committed and a counter in a temporary table: both
/// are gone if the connection is.
#[derive(Debug)]
pub(crate) struct Lasting {
    session: MariaSession,
    /// The server's number of the session.
    pub(crate) id: u64,
    /// The server's name.
    pub(crate) server: String,
    /// What the counter must be.
    pub(crate) count: u64,
}

impl Lasting {
    /// Opens it through the virtual address.
    pub(crate) fn open(stage: &Stage) -> Result<Self> {
        Self::begin(MariaDb::session(stage.pair.client(), stage.mysql())?)
    }

    fn begin(mut session: MariaSession) -> Result<Self> {
        let id = session.id()?;
        let server = session.ask("SELECT @@report_host")?.trim_end().to_owned();
        session.ask("CREATE TEMPORARY TABLE counter (n INT) ENGINE=InnoDB")?;
        session.ask("INSERT INTO counter VALUES (0); BEGIN")?;
        Ok(Self { session, id, server, count: 0 })
    }

    /// Counts one on, and fails unless session and counter are still the same.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        let count = "UPDATE counter SET n = n + 1";
        let answer =
            self.session.ask(&format!("{count}; SELECT CONNECTION_ID(), n FROM counter"))?;
        self.count += 1;
        let wanted = format!("{}\t{}\n", self.id, self.count);
        ensure!(answer == wanted, "the session said {answer:?} instead of {wanted:?}");
        Ok(())
    }
}

/// A session that counts all the time, on a thread of its own that lasts as long as the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counting(Arc<Mutex<Seen>>);

/// What has become of the session.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The server, the number of the session there, and the counter; nothing if there is none now.
    now: Option<(String, u64, u64)>,
    since: Option<Instant>,
    /// The longest time that it waited for an answer.
    longest: Duration,
    /// How many were lost before this one.
    lost: u32,
}

/// Time between two steps of the counter.
const PAUSE: Duration = Duration::from_millis(200);

impl Counting {
    /// Opens it, and opens another one whenever it is lost.
    pub(crate) fn start(stage: &Stage) -> Self {
        let counting = Self::default();
        let (theirs, client, mysql) =
            (counting.clone(), stage.pair.client().clone(), stage.mysql());
        thread::spawn(move || {
            loop {
                let ended = MariaDb::session(&client, mysql)
                    .and_then(Lasting::begin)
                    .and_then(|session| theirs.follow(session))
                    .context("the session that was to last");
                let mut seen = theirs.0.lock().expect("nobody panics with it");
                // One that could not be opened was none.
                seen.lost += u32::from(ended.is_err() && seen.now.is_some());
                seen.now = None;
                drop(seen);
                thread::sleep(PAUSE);
            }
        });
        counting
    }

    fn follow(&self, mut session: Lasting) -> Result<()> {
        self.0.lock().expect("nobody panics with it").since = Some(Instant::now());
        loop {
            let asked = Instant::now();
            session.go_on()?;
            let mut seen = self.0.lock().expect("nobody panics with it");
            seen.longest = seen.longest.max(asked.elapsed());
            seen.now = Some((session.server.clone(), session.id, session.count));
            drop(seen);
            thread::sleep(PAUSE);
        }
    }

    /// A line for people.
    pub(crate) fn line(&self) -> String {
        let Seen { now, since, longest, lost } =
            self.0.lock().expect("nobody panics with it").clone();
        let Some((server, id, count)) = now else {
            return "MYSQL SESSION        \x1b[31mnone\x1b[0m".to_owned();
        };
        let age = since.map_or(0, |since| since.elapsed().as_secs());
        let losses = match lost {
            0 => String::new(),
            some => format!("  \x1b[31mlost before: {some}\x1b[0m"),
        };
        format!(
            "MYSQL SESSION        number {id} on {server}, open for {age} s, counts {count}, waited for \
             {} ms at most{losses}",
            longest.as_millis()
        )
    }
}
