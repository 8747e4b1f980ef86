//! Compiles the XDP program. `lb-daemon/build.rs` includes this module too, so that a plain
//! `cargo build` and `cargo xtask build-ebpf` make the same object in the same way; it uses
//! nothing but the standard library for that reason.

pub(crate) mod linker;
pub(crate) mod toolchain;

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use toolchain::Toolchain;

/// The binary that the daemon embeds.
pub(crate) const TANDEM: &str = "tandem";
/// The binary with the programs beside it in `cargo xtask bench`.
pub(crate) const BENCH: &str = "bench";

const TARGET: &str = "bpfel-unknown-none";

/// Compiler flags of the object, besides the linker.
///
/// - BTF is generated from the debug information.
/// - CPU version 3 (Linux 5.12) has compare-exchange and atomics that return a value.
const FLAGS: &[&str] = &["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"];

/// Why there is no object.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// Cargo could not be started.
    Start(PathBuf, io::Error),
    /// Cargo ran and failed; its messages, unless they were shown already.
    Failed(String),
    /// Cargo succeeded, but named no executable.
    NoExecutable,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(cargo, error) => write!(f, "cannot start {}: {error}", cargo.display()),
            Self::Failed(messages) if messages.is_empty() => {
                write!(f, "the XDP program (lb-ebpf) does not compile; see above")
            }
            Self::Failed(messages) => {
                write!(f, "the XDP program (lb-ebpf) does not compile:\n{messages}")
            }
            Self::NoExecutable => write!(
                f,
                "cargo built lb-ebpf but named no executable; does lb-ebpf/Cargo.toml have a [[bin]]?"
            ),
        }
    }
}

impl std::error::Error for BuildError {}

/// Compiles a binary of `lb-ebpf`, of the workspace at `root`, with these features, and returns the path
/// of the object.
///
/// `target_dir` is a directory for this build alone: the outer cargo holds the lock of its own.
/// `messages` is where the compiler's messages go; those that come through a pipe are part of the
/// error if the build fails.
pub(crate) fn build(
    binary: &str,
    features: &[&str],
    root: &Path,
    toolchain: &Toolchain,
    target_dir: &Path,
    messages: Stdio,
) -> Result<PathBuf, BuildError> {
    let mut command = cargo(root, toolchain, &toolchain.compiler.cargo, target_dir);
    command
        .arg("build")
        .args(build_args())
        .args(["--bin", binary])
        .args(["--features", &features.join(",")])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(messages);
    let output = command
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|error| BuildError::Start(toolchain.compiler.cargo.clone(), error))?;
    if !output.status.success() {
        return Err(BuildError::Failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    executable(&String::from_utf8_lossy(&output.stdout)).ok_or(BuildError::NoExecutable)
}

/// The command that lints `lb-ebpf` with the clippy of its own compiler.
pub(crate) fn clippy(root: &Path, toolchain: &Toolchain, target_dir: &Path) -> Command {
    let program = toolchain.compiler.cargo.with_file_name("cargo-clippy");
    let mut command = cargo(root, toolchain, &program, target_dir);
    command.arg("clippy").args(build_args()).args(["--", "-D", "warnings"]);
    command
}

/// The target directory that `path`, a file that cargo made, is in.
pub(crate) fn target_directory(path: &Path) -> Option<&Path> {
    path.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file())
}

fn build_args() -> [&'static str; 6] {
    ["--release", "--locked", "--target", TARGET, "-Z", "build-std=core"]
}

fn cargo(root: &Path, toolchain: &Toolchain, program: &Path, target_dir: &Path) -> Command {
    let linker = format!("-Clinker={}", toolchain.linker.display());
    let flags = FLAGS.iter().copied().chain([linker.as_str()]).collect::<Vec<_>>();

    let mut command = Command::new(program);
    for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_outer_build(name)) {
        command.env_remove(name);
    }
    command
        .current_dir(root.join("lb-ebpf"))
        .env("CARGO", &toolchain.compiler.cargo)
        .env("RUSTC", &toolchain.compiler.rustc)
        // Permits -Z in a compiler that is not a nightly; a nightly does not mind.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", target_dir);
    command
}

/// Whether a variable describes the build that this one is nested in. What the user set for
/// cargo's access to the network stays.
fn belongs_to_outer_build(name: &OsStr) -> bool {
    const USERS: &[&str] =
        &["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    const EXACT: &[&str] = &["CARGO", "LD_LIBRARY_PATH", "MAKEFLAGS", "MFLAGS"];
    let name: OsString = name.to_ascii_uppercase();
    let name = name.to_string_lossy();
    let starts = |prefix: &&str| name.starts_with(prefix);
    (["CARGO_", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"].iter().any(starts)
        && !USERS.iter().any(starts))
        || EXACT.contains(&&*name)
}

/// The path of the executable among cargo's messages, one JSON object a line.
pub(crate) fn executable(messages: &str) -> Option<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    messages.lines().rev().find_map(|line| {
        let rest = &line[line.find(KEY)? + KEY.len()..];
        Some(PathBuf::from(&rest[..rest.find('"')?]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","executable":"/t/release/tandem","fresh":true}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/release/tandem")));
    }

    #[test]
    fn without_an_executable_there_is_none() {
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn the_outer_builds_variables_are_recognised() {
        for name in ["CARGO", "CARGO_PKG_NAME", "CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTC_WRAPPER"] {
            assert!(belongs_to_outer_build(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "CARGO_HOME", "CARGO_HTTP_PROXY", "RUSTUP_HOME", "HOME"] {
            assert!(!belongs_to_outer_build(OsStr::new(name)), "{name}");
        }
    }
}
