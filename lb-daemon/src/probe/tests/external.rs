//! Commands that are real.

use super::*;
use crate::{
    config::ExternalCheck,
    core::Reason,
    spawn::tests::{sh, user},
};

#[tokio::test]
async fn a_command_passes_by_its_exit_status() {
    #[rustfmt::skip]
    let table = [
        ("exit 0", Reason::ProcessOk, "exit status 0"),
        ("echo synced", Reason::ProcessOk, "synced"),
        ("echo lagging; exit 2", Reason::ProcessError, "exit status 2: lagging"),
        ("kill -SEGV $$", Reason::ProcessError, "killed by SIGSEGV"),
    ];
    for (script, reason, detail) in table {
        let outcome = ask(external(script), AMPLE).await;
        assert_eq!((outcome.reason, outcome.detail.as_str()), (reason, detail));
    }
}

#[tokio::test]
async fn a_command_that_does_not_end_times_out() {
    let outcome = ask(external("echo asking; exec sleep 1000"), SCANT).await;
    assert_eq!(outcome.reason, Reason::ProcessTimeout);
    assert_eq!(outcome.detail, "no end within 1s, killed: asking");
}

#[tokio::test]
async fn a_command_that_is_not_there_fails() {
    let command = vec!["/nowhere/is-well".to_owned()];
    let outcome = ask(ExternalCheck { command, ..external("") }, AMPLE).await;
    assert_eq!(outcome.reason, Reason::ProcessError);
    assert!(outcome.detail.starts_with("cannot run /nowhere/is-well as user "), "{outcome:?}");
}

#[tokio::test]
async fn a_command_is_told_what_haproxy_tells() {
    let outcome = ask(external(r#"echo "$@""#), AMPLE).await;
    assert_eq!(outcome.detail, "10.2.2.5 80 fd00:6::3 8080");

    let script = "env | grep HAPROXY_ | sort | tr '\\n' ' '; echo";
    let outcome = ask(external(script), AMPLE).await;
    let told = "HAPROXY_PROXY_ADDR=10.2.2.5 HAPROXY_PROXY_ID=2 HAPROXY_PROXY_NAME=web \
                HAPROXY_PROXY_PORT=80 HAPROXY_SERVER_ADDR=fd00:6::3 HAPROXY_SERVER_CURCONN= \
                HAPROXY_SERVER_ID=3 HAPROXY_SERVER_MAXCONN=300 HAPROXY_SERVER_NAME=w3 \
                HAPROXY_SERVER_PORT=8080";
    // Only the beginning of a line is kept.
    assert!(told.starts_with(outcome.detail.as_str()), "{}", outcome.detail);
    assert!(outcome.detail.contains("HAPROXY_SERVER_ADDR=fd00:6::3"), "{}", outcome.detail);
}

#[tokio::test]
async fn a_path_of_its_own_replaces_the_usual_one() {
    let path = Some("/opt/checks".to_owned());
    let outcome = ask(ExternalCheck { path, ..external("echo $PATH") }, AMPLE).await;
    assert_eq!(outcome.detail, "/opt/checks");
}

async fn ask(external: ExternalCheck, timeout: Duration) -> Outcome {
    let target = "192.0.2.1:80".parse().unwrap();
    probe(target, CheckKind::External(external), timeout).await
}

/// Has a shell run this; what follows the script is its own name and then its arguments.
fn external(script: &str) -> ExternalCheck {
    let mut command = sh(script);
    command[0] = "/bin/sh".to_owned();
    command.push("sh".to_owned());
    ExternalCheck { command, path: None, user: user() }
}
