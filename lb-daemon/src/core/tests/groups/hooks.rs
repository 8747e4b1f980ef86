//! Whose hooks are run.

use super::*;

/// Hooks that name themselves.
fn hooked() -> Group {
    let command = |name: &str| Some(vec![format!("/hooks/{name}"), "own".to_owned()]);
    let mut group = group("gw");
    group.hooks.notify_master = command("master");
    group.hooks.notify_backup = command("backup");
    group.hooks.notify_fault = command("fault");
    group.hooks.notify_stop = command("stop");
    group.hooks.notify = command("any");
    group
}

#[test]
fn each_role_has_its_hook_and_then_the_one_of_all_with_keepalived_s_arguments() {
    let mut bench = Bench::start(&with(&[hooked()], &[], &[]));
    for (from, to, own, state) in [
        (Role::Init, Role::Backup, "/hooks/backup own", "BACKUP"),
        (Role::Backup, Role::Master, "/hooks/master own", "MASTER"),
        // A conflict that has healed.
        (Role::Master, Role::Master, "/hooks/master own", "MASTER"),
        (Role::Master, Role::Fault, "/hooks/fault own", "FAULT"),
        (Role::Fault, Role::Init, "/hooks/stop own", "STOP"),
    ] {
        bench.role("gw", from, to);
        let [request] = bench.hooks.as_slice() else { panic!("one request: {:?}", bench.hooks) };
        let commands: Vec<String> = request.commands.iter().map(|c| c.join(" ")).collect();
        assert_eq!(commands, [own.to_owned(), format!("/hooks/any own INSTANCE gw {state} 101")]);
        assert_eq!((request.group.as_str(), request.user.as_str()), ("gw", "nobody"));
        assert_eq!(request.timeout, Duration::from_secs(3));
    }
}

#[test]
fn a_master_that_carries_on_runs_no_hooks_but_says_so() {
    let mut bench = Bench::start(&with(&[hooked()], &[], &[]));
    let why = "carries on".to_owned();
    let (from, to) = (Role::Init, Role::Master);
    let transition = Transition { from, to, priority: 101, why, carries_on: true };
    bench.event(Event::Group { name: "gw".to_owned(), transition });
    assert!(bench.hooks.is_empty(), "{:?}", bench.hooks);
    assert_eq!(bench.said(), "Info: group gw is MASTER, was INIT; priority 101: carries on\n");
    assert_eq!(bench.group().role, Role::Master);
    bench.role("gw", Role::Master, Role::Backup);
    assert_eq!(bench.hooks.len(), 1);
}

#[test]
fn a_role_without_hooks_asks_for_nothing() {
    let mut group = group("gw");
    group.hooks.notify_fault = Some(vec!["/hooks/fault".to_owned()]);
    let mut bench = Bench::start(&with(&[group], &[], &[]));
    bench.role("gw", Role::Init, Role::Backup);
    assert!(bench.hooks.is_empty());
    assert_eq!(bench.said(), "Info: group gw is BACKUP, was INIT; priority 101: because\n");
    bench.role("gw", Role::Backup, Role::Fault);
    assert_eq!(bench.hooks.len(), 1);
    assert_eq!(bench.said(), "Warn: group gw is FAULT, was BACKUP; priority 101: because\n");
    bench.role("nobody's", Role::Init, Role::Backup);
    assert!(bench.hooks.is_empty() && bench.said().is_empty());
}

#[test]
fn a_group_that_a_reload_removes_has_its_last_hook_run() {
    let mut bench = Bench::start(&with(&[hooked()], &[], &[]));
    bench.role("gw", Role::Init, Role::Master);
    bench.reload(&two());
    assert_eq!(bench.commands, [Command::Configure(Vec::new())]);
    assert!(bench.status().groups.is_empty());
    bench.role("gw", Role::Master, Role::Init);
    assert_eq!(bench.hooks[0].commands[0], ["/hooks/stop", "own"]);
    bench.role("gw", Role::Init, Role::Backup);
    assert!(bench.hooks.is_empty(), "it is gone");
}
