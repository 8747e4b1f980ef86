//! Commands as they are run, by real processes. Run as root, they run as `nobody`.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Instant,
};

use nix::{
    sys::signal::kill,
    unistd::{User, getuid},
};

use super::*;

/// Long enough on a busy host.
const LIMIT: Duration = Duration::from_secs(20);

/// The user that tests run commands as.
pub(crate) fn user() -> String {
    let own = User::from_uid(getuid()).unwrap().expect("we are somebody").name;
    if getuid().is_root() { "nobody".to_owned() } else { own }
}

/// A shell that does this.
pub(crate) fn sh(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

async fn told(script: &str) -> String {
    match run(&sh(script), &user(), LIMIT).await {
        Ok(output) => format!("ok: {output}"),
        Err(failure) => failure.to_string(),
    }
}

#[tokio::test]
async fn the_last_line_of_the_output_is_kept() {
    assert_eq!(told("echo first; echo last >&2; echo").await, "ok: last");
    assert_eq!(told("true").await, "ok: ");
    assert_eq!(told("printf '\\033[31mred\\a\\n'").await, "ok: \u{fffd}[31mred\u{fffd}");
    let long = told("for i in $(seq 40000); do echo line $i; done").await;
    assert_eq!(long, "ok: line 40000");
    let wide = told("head -c 100000 /dev/zero | tr '\\0' x").await;
    assert_eq!(wide, format!("ok: {}", "x".repeat(LONGEST_LINE)));
}

#[tokio::test]
async fn what_ended_badly_says_how() {
    assert_eq!(told("exit 3").await, "exit status 3");
    assert_eq!(told("echo no pid file; exit 1").await, "exit status 1: no pid file");
    assert_eq!(told("echo oh; kill -SEGV $$").await, "killed by SIGSEGV: oh");
}

/// A directory that does not answer: neither the command's time nor the daemon's end waits for it.
#[test]
fn a_user_who_cannot_be_looked_up_in_time_runs_nothing() {
    let hangs: Lookup = |_| {
        loop {
            std::thread::park();
        }
    };
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limit = Duration::from_millis(100);
        let outcome = runtime.block_on(run_by(hangs, &sh("true"), "somebody", limit, &[]));
        drop(runtime);
        done.send(outcome.unwrap_err().to_string()).unwrap();
    });
    let failure = ended.recv_timeout(LIMIT).expect("it ends");
    assert_eq!(failure, "cannot look up user somebody: no answer within 100ms");
}

/// Of the directory's users, that is, and only for as long as it does not answer.
#[tokio::test]
async fn users_who_cannot_be_looked_up_hold_nobody_else_up() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    static HANGS: AtomicBool = AtomicBool::new(true);
    let hangs: Lookup = |_| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        while HANGS.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        User::from_name(&user())
    };
    let command = sh("echo runs");
    for _ in 0..10 {
        let limit = Duration::from_millis(10);
        let failure = run_by(hangs, &command, "of-a-directory", limit, &[]).await.unwrap_err();
        assert!(matches!(failure, Failure::LookupTimedOut { .. }), "{failure}");
    }
    assert_eq!(told("echo runs").await, "ok: runs");
    assert_eq!(ASKED.load(Ordering::Relaxed), 1, "one thread waits, however many others do");

    HANGS.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        let outcome = run_by(hangs, &command, "of-a-directory", LIMIT, &[]).await;
        assert_eq!(outcome.unwrap(), "runs");
    }
    assert!(ASKED.load(Ordering::Relaxed) > 1, "an answer is not kept");
}

#[tokio::test]
async fn nothing_of_the_daemon_s_is_passed_on() {
    let environment = run(&["/usr/bin/env".to_owned()], &user(), LIMIT).await.unwrap();
    assert_eq!(environment, format!("PATH={PATH}"), "and that is all there is");
    assert_eq!(told("env | wc -l; pwd; cat").await, "ok: /");
    let scratch = Scratch::new("spawn-files");
    let secret = scratch.0.join("secret");
    let _open = fs::File::create(&secret).unwrap();
    let count = format!("ls -l /proc/self/fd | grep -c {}", secret.display());
    assert_eq!(told(&count).await, "exit status 1: 0", "no open file");
}

#[tokio::test]
async fn arguments_are_passed_as_they_are() {
    let command = ["/bin/echo", "$HOME", "a b", ";", "|"].map(str::to_owned);
    assert_eq!(run(&command, &user(), LIMIT).await.unwrap(), "$HOME a b ; |");
    // Found by the path.
    assert_eq!(run(&["echo".to_owned(), "x".to_owned()], &user(), LIMIT).await.unwrap(), "x");
}

#[tokio::test]
async fn a_command_runs_as_its_user_without_other_groups() {
    let nobody = User::from_name(&user()).unwrap().expect("it was just looked up");
    let status = told(
        "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm|CapAmb):' /proc/self/status | tr '\\t\\n' ' ;'",
    )
    .await;
    let (uid, gid) = (nobody.uid, nobody.gid);
    assert!(status.contains(&format!("Uid: {uid} {uid} {uid} {uid};")), "{status}");
    assert!(status.contains(&format!("Gid: {gid} {gid} {gid} {gid};")), "{status}");
    if getuid().is_root() {
        assert!(status.contains("Groups: ;") || status.contains("Groups:  ;"), "{status}");
        assert_eq!(status.matches("0000000000000000;").count(), 3, "no capabilities: {status}");
    }
}

#[tokio::test]
async fn a_user_that_does_not_exist_is_refused_with_the_way_out() {
    let failure = run(&sh("true"), "tandem-nobody-has-this", LIMIT).await.unwrap_err();
    assert!(matches!(failure, Failure::NoUser(_)), "{failure:?}");
    assert_eq!(
        failure.to_string(),
        "there is no user tandem-nobody-has-this: make it (`useradd --system \
         tandem-nobody-has-this`), or configure another"
    );
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_named() {
    for (program, why) in [
        ("/nonexistent/check", "No such file or directory (os error 2)"),
        ("/etc/passwd", "Permission denied (os error 13)"),
        ("", "No such file or directory (os error 2)"),
    ] {
        let failure = run(&[program.to_owned()], &user(), LIMIT).await.unwrap_err();
        assert!(matches!(failure, Failure::NotStarted { .. }), "{failure:?}");
        let user = user();
        assert_eq!(failure.to_string(), format!("cannot run {program} as user {user}: {why}"));
    }
}

#[tokio::test]
async fn what_does_not_end_is_killed_with_all_that_it_started() {
    let started = Instant::now();
    let limit = Duration::from_millis(300);
    let script = "trap '' TERM INT HUP; sleep 1000 & echo $!; wait; sleep 1000";
    let failure = run(&sh(script), &user(), limit).await.unwrap_err();
    let Failure::TimedOut { output, .. } = &failure else { panic!("{failure}") };
    assert!(failure.to_string().starts_with("no end within 300ms, killed: "), "{failure}");
    let took = started.elapsed();
    assert!(took >= limit && took < Duration::from_secs(10), "{took:?}");
    let child = Pid::from_raw(output.parse().expect(output));
    // Its new parent may take a moment to notice.
    while kill(child, None).is_ok() && is_running(child) {
        assert!(started.elapsed() < LIMIT, "{child} outlives the command");
        sleep(Duration::from_millis(10)).await;
    }
}

fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z'))
}

/// As `service x restart` does, which leaves its output open.
#[tokio::test]
async fn what_is_left_behind_holds_nobody_up() {
    let started = Instant::now();
    let output = run(&sh("sleep 30 & echo $!"), &user(), LIMIT).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let left = Pid::from_raw(output.parse().expect(&output));
    kill(left, Signal::SIGKILL).expect("it still runs");
}

#[tokio::test]
async fn endless_output_ends_with_the_time() {
    let limit = Duration::from_millis(300);
    let failure = run(&["/usr/bin/yes".to_owned()], &user(), limit).await.unwrap_err();
    assert_eq!(failure.to_string(), "no end within 300ms, killed: y");
}

/// A directory of its own for one test that the tests' user may write to.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tandem-{name}-{}", process::id()));
        fs::create_dir(&path).unwrap();
        let user = User::from_name(&user()).unwrap().expect("it was just looked up");
        nix::unistd::chown(&path, Some(user.uid), Some(user.gid)).unwrap();
        Self(path)
    }

    /// What is in the file of this name; nothing if there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
