//! Scripts and processes that are real.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time::timeout};

use super::*;
use crate::{
    config::Script,
    core::Event,
    spawn::tests::{Scratch, sh, user},
};

const LONG: Duration = Duration::from_secs(20);

async fn ran(script: &str, limit: Duration) -> RunOutcome {
    let script = Script {
        name: "chk".to_owned(),
        command: sh(script),
        interval: Duration::from_secs(1),
        timeout: limit,
        rise: 1,
        fall: 1,
        user: user(),
    };
    let (id, outcome) = run_script(RunRequest { id: RunId(7), script: Arc::new(script) }).await;
    assert_eq!(id, RunId(7));
    outcome
}

#[tokio::test]
async fn a_script_passes_by_its_exit_status() {
    let outcome = ran("echo all is well", LONG).await;
    assert_eq!(outcome, RunOutcome { passed: true, detail: "all is well".to_owned() });
    let outcome = ran("echo no pid file; exit 1", LONG).await;
    let detail = "exit status 1: no pid file".to_owned();
    assert_eq!(outcome, RunOutcome { passed: false, detail });
}

#[tokio::test]
async fn a_script_that_does_not_end_has_failed() {
    let outcome = ran("echo asking; exec sleep 1000", Duration::from_millis(200)).await;
    let detail = "no end within 200ms, killed: asking".to_owned();
    assert_eq!(outcome, RunOutcome { passed: false, detail });
}

/// A process of a name of its own, which ends with its owner.
struct Named {
    child: Child,
    _link: Scratch,
}

impl Named {
    fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let link = Scratch::new(&format!("named-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let path = link.0.join(name);
        std::os::unix::fs::symlink("/bin/sleep", &path).unwrap();
        let mut command = Command::new(path);
        let child = command.arg("1000").stdin(Stdio::null()).spawn().expect("sleep runs");
        Self { child, _link: link }
    }

    /// Ends it without waiting for it: a zombie stays.
    fn end(&mut self) {
        self.child.kill().expect("it runs");
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A watcher, and what it tells.
struct Watching {
    watcher: ProcessWatcher,
    told: mpsc::UnboundedReceiver<Event>,
}

impl Watching {
    fn new(names: &[&str]) -> Self {
        let (events, told) = mpsc::unbounded_channel();
        let this = Self { watcher: ProcessWatcher::start(events), told };
        this.watch(names);
        this
    }

    fn watch(&self, names: &[&str]) {
        let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.watcher.watch(names);
    }

    async fn next(&mut self) -> BTreeMap<String, u32> {
        let event = timeout(LONG, self.told.recv()).await.expect("it tells in time");
        match event {
            Some(Event::Processes(counts)) => counts,
            other => panic!("{other:?}"),
        }
    }
}

fn counts(counts: &[(&str, u32)]) -> BTreeMap<String, u32> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn processes_are_counted_by_name_as_they_come_and_go() {
    // 15 characters are all that `comm` has room for.
    const LONG_NAME: &str = "tandem-test-of-a-long-name";
    let mut watching = Watching::new(&["tandem-test-a", LONG_NAME]);
    assert_eq!(watching.next().await, counts(&[("tandem-test-a", 0), (LONG_NAME, 0)]));

    let _first = Named::new("tandem-test-a");
    assert_eq!(watching.next().await["tandem-test-a"], 1);
    let mut second = Named::new("tandem-test-a");
    assert_eq!(watching.next().await["tandem-test-a"], 2);
    let _long = Named::new(LONG_NAME);
    assert_eq!(watching.next().await, counts(&[("tandem-test-a", 2), (LONG_NAME, 1)]));

    second.end();
    assert_eq!(watching.next().await["tandem-test-a"], 1, "a zombie does not run");
}

#[tokio::test]
async fn the_end_of_a_process_is_told_at_once() {
    let mut process = Named::new("tandem-test-b");
    let mut watching = Watching::new(&["tandem-test-b"]);
    assert_eq!(watching.next().await["tandem-test-b"], 1);
    // Far sooner than by reading every second, at least once of a few times.
    let mut fastest = LONG;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ended = Instant::now();
        process.end();
        assert_eq!(watching.next().await["tandem-test-b"], 0);
        fastest = fastest.min(ended.elapsed());
        process = Named::new("tandem-test-b");
        assert_eq!(watching.next().await["tandem-test-b"], 1);
    }
    assert!(fastest < Duration::from_millis(300), "{fastest:?}");
}

#[tokio::test]
async fn other_names_are_counted_from_when_they_are_asked_for() {
    let _one = Named::new("tandem-test-c");
    let _two = Named::new("tandem-test-d");
    let mut watching = Watching::new(&["tandem-test-c"]);
    assert_eq!(watching.next().await, counts(&[("tandem-test-c", 1)]));
    watching.watch(&["tandem-test-d"]);
    assert_eq!(watching.next().await, counts(&[("tandem-test-d", 1)]));
    for _ in 0..3 {
        watching.watch(&[]);
        watching.watch(&["tandem-test-d"]);
        assert_eq!(watching.next().await, counts(&[("tandem-test-d", 1)]), "told anew");
    }
}
