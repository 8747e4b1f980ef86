//! `cargo xtask bench`: builds for release, with the programs to compare with, and measures.

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    ebpf::{self, toolchain::Toolchain},
    step, workspace,
};

/// The options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The groups to measure, such as `packet`; all of them without any.
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// Write the rows to this file too, as JSON, one row a line.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmarks load eBPF programs and make network namespaces: run them as root"
    );
    let target = workspace::target_directory();
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--locked", "--package=lb-daemon", "--package=tests"]);
    step::run("building for release", &target.join("bench-build.log"), &mut build)?;
    let toolchain = Toolchain::find()?;
    let objects = workspace::ebpf_target_directory();
    let programs =
        ebpf::build(ebpf::BENCH, &[], workspace::root(), &toolchain, &objects, Stdio::inherit())?;

    let mut bench = Command::new(target.join("release/bench"));
    bench.arg("--programs").arg(programs).args(&arguments.groups);
    if let Some(json) = &arguments.json {
        bench.arg("--json").arg(json);
    }
    let status = bench.status().context("cannot start the benchmarks")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
