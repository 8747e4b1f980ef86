//! Tools that no package brings: components of rustup, bpf-linker and cargo-deny.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{log, tools_directory};
use crate::{
    ebpf::{
        linker,
        toolchain::{Compiler, Origin},
    },
    step, workspace,
};

const CARGO_DENY_VERSION: &str = "0.20.2";

/// Path of cargo-deny, whether it is installed or not.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let directory = tools_directory()?.join(format!("cargo-deny-{CARGO_DENY_VERSION}"));
    Ok(directory.join("bin/cargo-deny"))
}

/// Adds the components of rustup that the checks need and a minimal profile lacks. Whether any
/// was missing.
pub(super) fn install_components() -> Result<bool> {
    let cargo = workspace::cargo();
    let mut installed =
        add_components(Path::new(cargo.get_program()), &["rustfmt", "clippy"], None)?;
    if let Ok(compiler) = Compiler::find()
        && let Origin::Rustup(name) = &compiler.origin
    {
        installed |= add_components(&compiler.cargo, &["clippy"], Some(name))?;
    }
    Ok(installed)
}

fn add_components(cargo: &Path, components: &[&str], toolchain: Option<&str>) -> Result<bool> {
    let program = |component: &str| match component {
        "rustfmt" => cargo.with_file_name("cargo-fmt"),
        _ => cargo.with_file_name("cargo-clippy"),
    };
    let missing: Vec<_> =
        components.iter().filter(|component| !program(component).exists()).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    for component in missing {
        println!("setup: {component} is missing: it is one of the checks of `cargo xtask test`");
        let mut command = Command::new("rustup");
        command.args(["component", "add", component]);
        if let Some(toolchain) = toolchain {
            command.args(["--toolchain", toolchain]);
        }
        step::run(&format!("rustup component add {component}"), &log(component)?, &mut command)?;
    }
    Ok(true)
}

/// Builds bpf-linker for this compiler, unless it is there. Whether it was not.
pub(super) fn install_bpf_linker(compiler: &Compiler) -> Result<bool> {
    if linker::find(compiler).is_some() {
        return Ok(false);
    }
    let directory = tools_directory()?.join(linker::directory_name(compiler));
    println!(
        "setup: bpf-linker {} is missing: it links the XDP program; it is built from source with\n  \
         the LLVM {} of {} ({}) into {}",
        linker::VERSION,
        compiler.llvm,
        compiler.origin,
        compiler.reason,
        directory.display()
    );
    link_libllvm(&directory, &compiler.libllvm)
        .with_context(|| format!("cannot prepare {}", directory.display()))?;
    let mut command = cargo_install("bpf-linker", linker::VERSION, &directory);
    command
        .args(["--no-default-features", "--features", &format!("llvm-{}", compiler.llvm)])
        .env("LLVM_PREFIX", directory.join("llvm"));
    step::run("building bpf-linker (1 to 3 minutes)", &log("bpf-linker")?, &mut command)?;
    ensure!(
        linker::find(compiler).is_some(),
        "bpf-linker was built into {} but does not run; try `{0}/bin/bpf-linker --version`",
        directory.display()
    );
    Ok(true)
}

/// Makes an LLVM installation out of the library the compiler itself uses: it has everything but
/// the name that a linker looks for. The linker finds it there again when it runs.
fn link_libllvm(directory: &Path, library: &Path) -> std::io::Result<()> {
    let lib = directory.join("llvm/lib");
    fs::create_dir_all(&lib)?;
    let soname = library.file_name().unwrap_or_default();
    for name in ["libLLVM.so".as_ref(), soname] {
        let link = lib.join(name);
        if link.is_symlink() {
            fs::remove_file(&link)?;
        }
        symlink(library, link)?;
    }
    Ok(())
}

/// Builds cargo-deny, unless it is there. Whether it was not.
pub(super) fn install_cargo_deny() -> Result<bool> {
    let program = cargo_deny()?;
    if program.exists() {
        return Ok(false);
    }
    let directory = program.ancestors().nth(2).context("the path has a bin directory")?;
    println!(
        "setup: cargo-deny {CARGO_DENY_VERSION} is missing: it checks the licences; it is built \
         from source\n  into {}",
        directory.display()
    );
    let mut command = cargo_install("cargo-deny", CARGO_DENY_VERSION, directory);
    step::run("building cargo-deny (3 to 8 minutes)", &log("cargo-deny")?, &mut command)?;
    Ok(true)
}

fn cargo_install(name: &str, version: &str, directory: &Path) -> Command {
    let mut command = workspace::cargo();
    command
        .args(["install", name, "--version", version, "--locked", "--root"])
        .arg(directory)
        // Its objects are of no use to the workspace.
        .env_remove("CARGO_TARGET_DIR");
    command
}
