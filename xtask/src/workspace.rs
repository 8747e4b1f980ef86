//! Where the project is, and its own cargo.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::ebpf;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a directory of the workspace")
}

/// The cargo that runs this program, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The target directory of the workspace: the one that this program was built in.
pub(crate) fn target_directory() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let target = ebpf::target_directory(&program).map(Path::to_path_buf);
    target.unwrap_or_else(|| root().join("target"))
}

/// The target directory of the XDP program, beside what cargo keeps for the workspace.
pub(crate) fn ebpf_target_directory() -> PathBuf {
    target_directory().join("ebpf")
}
