//! What is kept, what is found again, and what becomes of files that make no sense.

use std::{
    fs,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{file, *};
use crate::core::{AdminState, BackendName, RuntimeMaxconn, RuntimeWeight};

/// A directory of its own for one test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("tandem-overrides-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// In a directory that is not there yet.
    fn file(&self) -> PathBuf {
        self.0.join("lib/overrides.json")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn name(backend: &str) -> BackendName {
    BackendName { service: "mysql".to_owned(), backend: backend.to_owned() }
}

/// Two backends, of which something was said these times ago.
fn some(now: Instant) -> Vec<Override> {
    let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
    vec![
        Override {
            backend: name("db1"),
            state: Some((AdminState::Maint, ago(90))),
            weight: Some((RuntimeWeight::Percent(50), ago(5))),
            maxconn: Some((RuntimeMaxconn::Absolute(0), ago(7))),
        },
        Override {
            backend: name("db2"),
            state: None,
            weight: Some((RuntimeWeight::Absolute(7), ago(0))),
            maxconn: None,
        },
    ]
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn what_is_kept_is_found_again_with_its_age() {
    let scratch = Scratch::new();
    let path = scratch.file();
    let (now, today) = (Instant::now(), SystemTime::now());
    file::write(&path, &some(now), now, today).unwrap();

    // A later daemon, an hour later.
    let hour = Duration::from_secs(3600);
    let found = file::read(&path, now + hour, today + hour).unwrap();
    let expected: Vec<_> = some(now);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.backend, expected.backend);
        assert_eq!(found.state.map(|(is, _)| is), expected.state.map(|(is, _)| is));
        assert_eq!(found.weight.map(|(is, _)| is), expected.weight.map(|(is, _)| is));
        assert_eq!(found.maxconn.map(|(is, _)| is), expected.maxconn.map(|(is, _)| is));
    }
    let (_, since) = found[0].state.unwrap();
    assert_eq!((now + hour - since).as_secs(), 3690);
}

#[test]
fn without_a_file_nothing_was_said() {
    let scratch = Scratch::new();
    let (overrides, kept) = Overrides::open(scratch.file()).unwrap();
    assert_eq!(kept, []);
    drop(overrides);
    assert!(!scratch.file().exists(), "nothing is written for nothing");
}

#[test]
fn what_was_said_last_is_on_the_disk_when_it_is_confirmed() {
    let scratch = Scratch::new();
    let (overrides, _) = Overrides::open(scratch.file()).unwrap();
    overrides.keep(some(Instant::now()));
    overrides.keep(Vec::new());
    overrides.keep(some(Instant::now()));
    let (sender, confirmed) = mpsc::channel();
    overrides.confirm(move |outcome| sender.send(outcome).unwrap());
    confirmed.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(overrides.not_kept(), None);
    let (_, found) = Overrides::open(scratch.file()).unwrap();
    assert_eq!(found.len(), 2);
    let left: Vec<_> = fs::read_dir(scratch.file().parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing else is left behind: {left:?}");
}

#[test]
fn dropping_it_writes_what_is_waiting() {
    let scratch = Scratch::new();
    let (overrides, _) = Overrides::open(scratch.file()).unwrap();
    overrides.keep(some(Instant::now()));
    drop(overrides);
    let (_, found) = Overrides::open(scratch.file()).unwrap();
    assert_eq!(found.len(), 2);
}

#[test]
fn a_file_that_makes_no_sense_is_set_aside_and_told_of() {
    let valid = r#"{"version":1,"overrides":[]}"#;
    for (text, reason) in [
        ("", "EOF"),
        ("{\"version\":1,\"overrides\":[{\"service\"", "EOF"),
        ("\0\0\0\0", "expected value"),
        (r#"{"version":2,"overrides":[]}"#, "it has version 2"),
        (
            r#"{"version":1,"overrides":[{"service":"a","backend":"b","state":{"is":"gone","since":1}}]}"#,
            "gone",
        ),
        (
            r#"{"version":1,"overrides":[{"service":"a","backend":"b","weight":{"is":"257","since":1}}]}"#,
            "0 to 256",
        ),
        (
            r#"{"version":1,"overrides":[{"service":"a","backend":"b","maxconn":{"is":"-1","since":1}}]}"#,
            "a number of connections",
        ),
        (&format!("{valid}{}", " ".repeat(5 << 20)), "bytes"),
    ] {
        let scratch = Scratch::new();
        let path = scratch.file();
        put(&path, text);
        let error = file::read(&path, Instant::now(), SystemTime::now()).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("set aside as"), "{error}");
        assert!(!path.exists(), "{error}");
        let aside = path.with_file_name("overrides.json.unusable");
        assert_eq!(fs::read_to_string(aside).unwrap(), text, "nothing of it is lost");
        // The daemon starts all the same, and keeps what is said from now on.
        let (overrides, kept) = Overrides::open(path.clone()).unwrap();
        assert_eq!(kept, []);
        overrides.keep(some(Instant::now()));
        drop(overrides);
        assert!(path.exists());
    }
}

#[test]
fn what_cannot_be_kept_is_said_to_whoever_asks() {
    let scratch = Scratch::new();
    // Its directory is a file.
    fs::write(scratch.0.join("lib"), "").unwrap();
    let (overrides, _) = Overrides::open(scratch.file()).unwrap();
    overrides.keep(some(Instant::now()));
    let (sender, confirmed) = mpsc::channel();
    overrides.confirm(move |outcome| sender.send(outcome).unwrap());
    let error = confirmed.recv_timeout(Duration::from_secs(60)).unwrap().unwrap_err();
    assert!(error.starts_with("cannot write "), "{error}");
}

#[test]
fn what_could_not_be_kept_is_tried_again_until_it_is() {
    let scratch = Scratch::new();
    let in_the_way = scratch.0.join("lib");
    fs::write(&in_the_way, "").unwrap();
    let (overrides, _) = Overrides::open(scratch.file()).unwrap();
    assert_eq!(overrides.not_kept(), None);
    overrides.keep(some(Instant::now()));
    until(|| overrides.not_kept().is_some_and(|why| why.starts_with("cannot write ")));
    fs::remove_file(&in_the_way).unwrap();
    // Nobody says anything more.
    until(|| overrides.not_kept().is_none());
    let (_, found) = Overrides::open(scratch.file()).unwrap();
    assert_eq!(found.len(), 2);
}

#[test]
fn a_disk_that_hangs_is_told_of_and_does_not_hold_up_the_end() {
    let scratch = Scratch::new();
    let path = scratch.file();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Opening it to write waits for somebody who reads.
    let pipe = path.with_file_name("overrides.json.new");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let (overrides, _) = Overrides::open(path.clone()).unwrap();
    overrides.keep(some(Instant::now()));
    let why = overrides.not_kept().expect("nothing is written");
    assert!(why.ends_with("is still being written"), "{why}");
    let (done, dropped) = mpsc::channel();
    let end = thread::spawn(move || {
        drop(overrides);
        done.send(()).unwrap();
    });
    let outcome = dropped.recv_timeout(Duration::from_secs(60));
    // Lets the thread go, whatever came of it, and out of its way.
    let aside = path.with_file_name("pipe");
    fs::rename(&pipe, &aside).unwrap();
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&aside).unwrap();
    outcome.expect("it ends all the same");
    end.join().unwrap();
    // It tries once more, which must not be where the directory was.
    until(|| path.exists());
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come about");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_older_than_the_world() {
    let scratch = Scratch::new();
    let path = scratch.file();
    let (now, today) = (Instant::now(), SystemTime::now());
    file::write(&path, &some(now), now, today).unwrap();
    let found = file::read(&path, now, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(found[0].state.map(|(_, since)| since), Some(now));
}
