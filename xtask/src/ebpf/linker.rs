//! Where bpf-linker is, or is to be.
//!
//! It lives in the user's cache directory, one directory for each version and LLVM it was built
//! for, so that the linker of another project or compiler never gets in the way.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::toolchain::Compiler;

/// The version we install.
pub(crate) const VERSION: &str = "0.13.0";

/// The directory that tools are installed below.
pub(crate) fn tools_directory() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("tandem/tools"))
}

/// The directory, below [`tools_directory`], that the linker for this compiler is installed into.
pub(crate) fn directory_name(compiler: &Compiler) -> String {
    format!("bpf-linker-{VERSION}-llvm-{}", llvm_name(compiler.llvm, &compiler.libllvm))
}

/// The linker for this compiler, if it is installed and runs.
pub(crate) fn find(compiler: &Compiler) -> Option<PathBuf> {
    let path = tools_directory()?.join(directory_name(compiler)).join("bin/bpf-linker");
    // It would not run if its libLLVM were gone.
    let status = Command::new(&path)
        .arg("--version")
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success()).then_some(path)
}

/// The distribution's libLLVM is named by its major version; the one of a Rust toolchain also by
/// the release that it is a part of, since it leaves with it.
fn llvm_name(major: u32, library: &Path) -> String {
    let file = library.file_name().unwrap_or_default().to_string_lossy();
    match file.find("-rust-") {
        Some(at) => format!("{major}{}", &file[at..]),
        None => major.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkers_for_different_libraries_do_not_share_a_directory() {
        let debian = Path::new("/usr/lib/x86_64-linux-gnu/libLLVM.so.22.1");
        assert_eq!(llvm_name(22, debian), "22");
        let nightly = Path::new("/t/lib/libLLVM.so.22.1-rust-1.97.0-nightly");
        assert_eq!(llvm_name(22, nightly), "22-rust-1.97.0-nightly");
    }
}
