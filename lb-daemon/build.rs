//! Compiles the XDP program into the daemon: `$OUT_DIR/tandem.bpf.o` is the object to embed, and
//! the variable `TANDEM_EBPF_TOOLCHAIN` of the compiled crate says what made it. Without the real
//! object there is no daemon.

#[path = "../xtask/src/ebpf/mod.rs"]
#[allow(dead_code, reason = "xtask uses the rest of it")]
mod ebpf;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use ebpf::toolchain::Toolchain;

/// What the object is made of, relative to the workspace.
const SOURCES: &[&str] = &[
    "lb-common/Cargo.toml",
    "lb-common/src",
    "lb-ebpf/Cargo.lock",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/src",
    "xtask/src/ebpf",
];

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    let variable = |name| env::var_os(name).ok_or_else(|| format!("cargo has not set {name}"));
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("this crate is a directory of the workspace")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let toolchain = Toolchain::find()?;
    let target = ebpf::target_directory(&out).unwrap_or(&out).join("ebpf");
    let other = env::var_os("CARGO_FEATURE_OTHER_LAYOUT").is_some();
    let features: &[&str] = if other { &["other-layout"] } else { &[] };
    let object = ebpf::build(ebpf::TANDEM, features, root, &toolchain, &target, Stdio::piped())?;
    copy(&object, &out.join("tandem.bpf.o"))?;

    // Only now: after a failure cargo shows all this, and comes again anyway.
    for source in SOURCES {
        // Relative to this package: a checkout that is copied with its target directory looks at
        // its own files.
        println!("cargo:rerun-if-changed=../{source}");
    }
    for program in [&toolchain.compiler.rustc, &toolchain.linker] {
        println!("cargo:rerun-if-changed={}", program.display());
    }
    println!("cargo:rustc-env=TANDEM_EBPF_TOOLCHAIN={toolchain}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))
}
