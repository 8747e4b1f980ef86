//! Hooks as real processes.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::*;
use crate::spawn::tests::{Scratch, sh, user};

fn request(group: &str, timeout: Duration, commands: &[Vec<String>]) -> HookRequest {
    HookRequest { group: group.to_owned(), commands: commands.to_vec(), user: user(), timeout }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn hooks_of_a_group_run_in_order_one_at_a_time_with_their_arguments() {
    let scratch = Scratch::new("hooks-order");
    let log = scratch.0.join("log").display().to_string();
    let mut hooks = Hooks::new();
    let mut expected = String::new();
    for n in 0..8 {
        // The earlier ones take longer: side by side, they would end the other way round.
        let mut command = sh(&format!(
            "echo begin {n} $* >> {log}; sleep 0.{:02}; echo end {n} >> {log}; exit {}",
            (8 - n) * 3,
            n % 2
        ));
        command.extend(["hook", "INSTANCE", "gw", "MASTER", "110"].map(str::to_owned));
        hooks.run(request("gw", LONG, &[command]));
        writeln!(expected, "begin {n} INSTANCE gw MASTER 110\nend {n}").unwrap();
    }
    hooks.finish(LAST).await;
    assert_eq!(scratch.read("log"), expected);
}

#[tokio::test]
async fn the_commands_of_one_change_run_all_even_if_one_fails_or_is_missing() {
    let scratch = Scratch::new("hooks-all");
    let log = scratch.0.join("log").display().to_string();
    let say = |word: &str| sh(&format!("echo {word} >> {log}; false"));
    let missing = vec!["/nonexistent/hook".to_owned()];
    let mut hooks = Hooks::new();
    hooks.run(request("gw", LONG, &[say("one"), missing, say("two")]));
    hooks.run(request("gw", LONG, &[say("three")]));
    hooks.finish(LAST).await;
    assert_eq!(scratch.read("log"), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_hook_that_hangs_holds_up_its_own_group_alone_and_only_for_its_timeout() {
    let scratch = Scratch::new("hooks-hang");
    let log = scratch.0.join("log").display().to_string();
    let started = Instant::now();
    let mut hooks = Hooks::new();
    let hang = sh(&format!("echo hangs >> {log}; sleep 1000"));
    let limit = Duration::from_secs(2);
    hooks.run(request("gw", limit, &[hang]));
    hooks.run(request("gw", LONG, &[sh(&format!("echo after >> {log}"))]));
    hooks.run(request("web", LONG, &[sh(&format!("echo other >> {log}.web"))]));
    assert!(started.elapsed() < Duration::from_secs(1), "asking waits for nobody");

    while scratch.read("log.web").is_empty() {
        assert!(started.elapsed() < LONG, "web waits for gw");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!scratch.read("log").contains("after"), "two at a time");
    hooks.finish(LAST).await;
    assert!(started.elapsed() >= limit);
    assert_eq!(scratch.read("log"), "hangs\nafter\n");
}

#[tokio::test]
async fn nothing_to_finish_is_finished_at_once() {
    Hooks::new().finish(LAST).await;
}

#[tokio::test]
async fn of_too_many_changes_the_oldest_are_left_out() {
    let scratch = Scratch::new("hooks-many");
    let log = scratch.0.join("log").display().to_string();
    let mut hooks = Hooks::new();
    for n in 0..100 {
        hooks.run(request("gw", LONG, &[sh(&format!("echo {n} >> {log}"))]));
    }
    hooks.finish(LAST).await;
    let last: Vec<String> = (84..100).map(|n| n.to_string()).collect();
    assert_eq!(scratch.read("log").lines().collect::<Vec<_>>(), last);
}

#[tokio::test]
async fn at_the_end_hooks_have_a_limited_time_together() {
    let scratch = Scratch::new("hooks-last");
    let log = scratch.0.join("log").display().to_string();
    let started = Instant::now();
    let mut hooks = Hooks::new();
    for group in ["gw", "web"] {
        for _ in 0..2 {
            let hang = sh(&format!("echo begins >> {log}.{group}; exec sleep 1000"));
            hooks.run(request(group, LONG, &[hang]));
        }
    }
    hooks.finish(Duration::from_secs(2)).await;
    assert!(started.elapsed() < LONG, "each has a timeout of its own");
    for group in ["gw", "web"] {
        assert_eq!(scratch.read(&format!("log.{group}")), "begins\n");
    }
}
