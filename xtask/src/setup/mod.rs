//! `cargo xtask setup`: installs what building and testing need, if it is missing.
//!
//! Nothing is installed that is there already, under whatever package name it came; what will be
//! installed, and why, is said first. Packages come from Debian, tools built from source go to
//! the user's cache directory, and so does the virtual machine. No service is started or enabled by it.

mod machine;
mod packages;
mod services;
mod tools;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::ebpf::{linker, toolchain::Compiler};

/// For those whose packages bring no compiler of the XDP program, or one that is too old.
const COMPILER_HINT: &str = "Debian 12 has it in bookworm-security; \
    `rustup toolchain install nightly --component rust-src` does as well";

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    let mut installed = install_to_build()?;
    installed |= tools::install_components()?;
    installed |= tools::install_cargo_deny()?;
    installed |= machine::install()?;
    say_if_complete(installed)
}

/// Installs what building and the lab need, but not what only checks the source.
pub(crate) fn run_to_build() -> Result<()> {
    let installed = install_to_build()?;
    say_if_complete(installed)
}

fn install_to_build() -> Result<bool> {
    let mut installed = packages::install_missing()?;
    installed |= tools::install_bpf_linker(&compiler()?)?;
    Ok(installed)
}

fn say_if_complete(installed: bool) -> Result<()> {
    if !installed {
        let origin = compiler()?.origin;
        println!("setup: nothing is missing; the XDP program is compiled by {origin}");
    }
    Ok(())
}

fn compiler() -> Result<Compiler> {
    Compiler::find().map_err(|reasons| {
        anyhow::anyhow!("no compiler for the XDP program: {}; {COMPILER_HINT}", reasons.join("; "))
    })
}

/// Where the tools are installed.
fn tools_directory() -> Result<PathBuf> {
    linker::tools_directory().context("neither XDG_CACHE_HOME nor HOME is set")
}

/// Where the logs of the long steps go.
fn log(name: &str) -> Result<PathBuf> {
    let tools = tools_directory()?;
    Ok(tools.with_file_name("logs").join(format!("{name}.log")))
}

pub(crate) use machine::Machine;
pub(crate) use tools::cargo_deny;
