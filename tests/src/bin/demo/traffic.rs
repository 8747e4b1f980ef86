//! Steady traffic: clients that ask the virtual addresses, and count who answers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use tests::lab::{MariaDb, Namespace, http_get};

use crate::stage::Stage;

/// So many web clients ask one request after the other, with a pause between them.
const WEB_CLIENTS: usize = 2;
const WEB_PAUSE: Duration = Duration::from_millis(40);
/// The MySQL clients have sessions of so many tenths of a second, again and again. They are not
/// equally long, or they would all come at once.
const MYSQL_TENTHS: [u8; 4] = [8, 11, 14, 19];
const MYSQL_PAUSE: Duration = Duration::from_millis(200);
/// How long a session may take. One that was lost together with its balancer waits for ever: nobody
/// tells a client that only waits.
const MYSQL_LIMIT: Duration = Duration::from_secs(5);

/// Clients on threads of their own, which last as long as the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    answers: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// What a failed request is counted as.
pub(crate) const FAILED: &str = "failed";

impl Traffic {
    /// Starts all clients.
    pub(crate) fn start(stage: &Stage) -> Self {
        let traffic = Self::default();
        let (client, web, mysql) = (stage.pair.client(), stage.web(), stage.mysql());
        for _ in 0..WEB_CLIENTS {
            let ask = move |client: &Namespace| http_get(client, web, "/").map(|got| got.body);
            traffic.run(client, WEB_PAUSE, ask);
        }
        for tenths in MYSQL_TENTHS {
            let query = format!("SELECT @@report_host, SLEEP({tenths} / 10)");
            let ask = move |client: &Namespace| ask_mysql(client, mysql, &query);
            traffic.run(client, MYSQL_PAUSE, ask);
        }
        traffic
    }

    /// How many requests each server has answered since the start, by its name, and how many
    /// [`FAILED`].
    pub(crate) fn answers(&self) -> BTreeMap<String, u64> {
        self.answers.lock().expect("no client panics").clone()
    }

    /// Asks again and again. The first word of an answer is the name of who gave it.
    fn run(
        &self,
        client: &Namespace,
        pause: Duration,
        ask: impl Fn(&Namespace) -> Result<String> + Send + 'static,
    ) {
        let (traffic, client) = (self.clone(), client.clone());
        thread::spawn(move || {
            loop {
                let answer = ask(&client).ok();
                let name = answer.as_deref().and_then(|answer| answer.split_whitespace().next());
                traffic.count(name.unwrap_or(FAILED));
                thread::sleep(pause);
            }
        });
    }

    fn count(&self, name: &str) {
        let mut answers = self.answers.lock().expect("no client panics");
        *answers.entry(name.to_owned()).or_default() += 1;
    }
}

fn ask_mysql(client: &Namespace, mysql: SocketAddr, query: &str) -> Result<String> {
    let answer = MariaDb::client(client, mysql).args(["--execute", query]).output(MYSQL_LIMIT)?;
    ensure!(answer.status.success(), "the session failed: {}", answer.stderr);
    Ok(answer.stdout)
}
