//! The checks of the source itself. Each command counts as one test.

use std::process::{Command, Stdio};

use super::tally::Tally;
use crate::{
    ebpf::{self, toolchain::Toolchain},
    setup, workspace,
};

/// The manifest of the XDP program, which is a workspace of its own.
const EBPF: &str = "lb-ebpf/Cargo.toml";

/// The manifest of the fuzz targets, another one.
const FUZZ: &str = "fuzz/Cargo.toml";

/// rustfmt in all workspaces.
pub(super) fn format() -> Tally {
    let mut tally = Tally::default();
    check(
        &mut tally,
        "rustfmt of the workspace",
        workspace::cargo().args(["fmt", "--all", "--check"]),
    );
    for (name, manifest) in [("rustfmt of lb-ebpf", EBPF), ("rustfmt of fuzz", FUZZ)] {
        let mut fmt = workspace::cargo();
        check(&mut tally, name, fmt.args(["fmt", "--check", "--manifest-path", manifest]));
    }
    tally
}

/// clippy in the workspaces of what is shipped, rustdoc, and whether the fuzz targets compile.
pub(super) fn lints() -> Tally {
    let mut tally = Tally::default();
    check(
        &mut tally,
        "clippy of the workspace",
        workspace::cargo().args([
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
    match Toolchain::find() {
        Ok(toolchain) => {
            let target = workspace::ebpf_target_directory();
            let mut clippy = ebpf::clippy(workspace::root(), &toolchain, &target);
            check(&mut tally, "clippy of lb-ebpf", &mut clippy);
        }
        Err(missing) => tally.fail(format!("clippy of lb-ebpf: {missing}")),
    }
    check(
        &mut tally,
        "rustdoc",
        workspace::cargo()
            .args(["doc", "--locked", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    );
    check(
        &mut tally,
        "check of fuzz",
        workspace::cargo()
            .args(["check", "--locked", "--manifest-path", FUZZ, "--target-dir"])
            // What both workspaces need is compiled once.
            .arg(workspace::target_directory()),
    );
    tally
}

/// cargo-deny in both workspaces.
pub(super) fn licences() -> Tally {
    let mut tally = Tally::default();
    let program = match setup::cargo_deny() {
        Ok(program) if program.exists() => program,
        Ok(_) => {
            tally.fail("no cargo-deny: run `cargo xtask setup`".to_owned());
            return tally;
        }
        Err(error) => {
            tally.fail(error.to_string());
            return tally;
        }
    };
    for manifest in ["Cargo.toml", EBPF] {
        let mut command = Command::new(&program);
        command
            .current_dir(workspace::root())
            .args(["--locked", "--manifest-path", manifest, "--config", "deny.toml"])
            .args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]);
        check(&mut tally, &format!("cargo-deny of {manifest}"), &mut command);
    }
    tally.skip("advisories: cargo-deny would download its database of them".to_owned());
    tally
}

/// Runs one command as one test.
fn check(tally: &mut Tally, name: &str, command: &mut Command) {
    println!("--- {name}");
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => tally.pass(1),
        Ok(status) => tally.fail(format!("{name} ({status})")),
        Err(error) => {
            tally
                .fail(format!("{name}: cannot start {}: {error}", command.get_program().display()));
        }
    }
}
