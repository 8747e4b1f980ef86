//! Steady traffic: clients that ask the virtual addresses, and count who answers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use tests::lab::{MariaDb, Namespace, http_get};

use crate::stage::Stage;

/// Each of the web clients makes so many requests per second, and pauses between them, ...
const WEB_CLIENTS: usize = 2;
const WEB_PAUSE: Duration = Duration::from_millis(40);
/// ... each of the MySQL clients is connected for a second or two, again and again.
const MYSQL_CLIENTS: usize = 4;
const MYSQL_PAUSE: Duration = Duration::from_millis(200);
/// Not all equally long, or they would all come at once.
const MYSQL_TENTHS: [u8; MYSQL_CLIENTS] = [8, 11, 14, 19];

/// Clients on threads of their own. They end when it is dropped.
#[derive(Debug)]
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ending: AtomicBool,
    answers: Mutex<BTreeMap<String, u64>>,
}

/// What a failed request is counted as.
pub(crate) const FAILED: &str = "failed";

impl Traffic {
    /// Starts all clients.
    pub(crate) fn start(stage: &Stage) -> Self {
        let shared = Arc::new(Shared::default());
        let (client, web, mysql) = (stage.lab.client(), stage.web(), stage.mysql());
        let web = move |client: &Namespace| http_get(client, web, "/").map(|answer| answer.body);
        let webs = (0..WEB_CLIENTS).map(|_| run(&shared, client, WEB_PAUSE, web));
        let mysqls = MYSQL_TENTHS.map(|tenths| {
            let query = format!("SELECT @@report_host, SLEEP({tenths} / 10)");
            let ask = move |client: &Namespace| MariaDb::query(client, mysql, &query);
            run(&shared, client, MYSQL_PAUSE, ask)
        });
        let threads = webs.chain(mysqls).collect();
        Self { shared, threads }
    }

    /// How many requests each server has answered since the start, by its name, and how many
    /// [`FAILED`].
    pub(crate) fn answers(&self) -> BTreeMap<String, u64> {
        self.shared.answers.lock().expect("no client panics").clone()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.ending.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Asks again and again. The first word of an answer is the name of who gave it.
fn run(
    shared: &Arc<Shared>,
    client: &Namespace,
    pause: Duration,
    ask: impl Fn(&Namespace) -> Result<String> + Send + 'static,
) -> JoinHandle<()> {
    let (shared, client) = (shared.clone(), client.clone());
    thread::spawn(move || {
        while !shared.ending.load(Relaxed) {
            let answer = ask(&client).ok();
            let name = answer.as_deref().and_then(|answer| answer.split_whitespace().next());
            let mut answers = shared.answers.lock().expect("no client panics");
            *answers.entry(name.unwrap_or(FAILED).to_owned()).or_default() += 1;
            drop(answers);
            thread::sleep(pause);
        }
    })
}
