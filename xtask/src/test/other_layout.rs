//! The daemon whose maps are laid out another way, for the tests of an upgrade.

use std::{fs, io, path::PathBuf, process::Stdio};

use crate::{ebpf, workspace};

/// Builds it beside the usual one, as `tandem-other-layout`. What cargo calls `tandem` is made anew by
/// the next build, without compiling anything again.
pub(super) fn build() -> io::Result<()> {
    let program = compile()?;
    let place = program.with_file_name("tandem-other-layout");
    // It may be running, and is not written over then.
    match fs::remove_file(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::copy(program, place).map(drop)
}

fn compile() -> io::Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--locked", "--package=lb-daemon", "--bin=tandem"]);
    command.args(["--features=other-layout", "--message-format=json-render-diagnostics"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let program = ebpf::executable(&String::from_utf8_lossy(&output.stdout));
    program
        .filter(|_| output.status.success())
        .ok_or_else(|| io::Error::other("it does not compile; see above"))
}
