//! The virtual machine of `cargo xtask test vm`: qemu, and the kernel of this Debian.
//!
//! Both are unpacked beside the tools instead of installed. A kernel that is installed may be the
//! one that boots next; and apt would take the qemu-utils of another release, such as backports,
//! away for Debian's own qemu. A qemu that is installed already is used.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    log,
    packages::{apt_get, find},
    tools_directory,
};
use crate::step;

const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// The package that depends on the kernel's, whose name has the version in it.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// How the directories of kernels begin.
const KERNEL_PREFIX: &str = "linux-image-";

/// What it takes to boot Debian's kernel.
pub(crate) struct Machine {
    qemu: Qemu,
    /// Where the package of the kernel is unpacked.
    kernel: PathBuf,
}

enum Qemu {
    Installed(PathBuf),
    /// Its packages, and those of the libraries that are not installed, are unpacked here.
    Unpacked(PathBuf),
}

impl Machine {
    /// The machine, or which of its packages are missing.
    pub(crate) fn find() -> Result<Self> {
        let tools = tools_directory()?;
        match (Qemu::find(&tools), find_kernel(&tools)) {
            (Some(qemu), Some(kernel)) => Ok(Self { qemu, kernel }),
            (None, Some(_)) => bail!("no {QEMU}: run `cargo xtask setup`"),
            (_, None) => bail!("no kernel for the virtual machine: run `cargo xtask setup`"),
        }
    }

    /// Runs qemu.
    pub(crate) fn qemu(&self) -> Command {
        match &self.qemu {
            Qemu::Installed(program) => Command::new(program),
            Qemu::Unpacked(root) => {
                let libraries = ["usr/lib", "lib"]
                    .map(|lib| root.join(lib).join(format!("{}-linux-gnu", env::consts::ARCH)));
                let mut command = Command::new(root.join("usr/bin").join(QEMU));
                command.env(
                    "LD_LIBRARY_PATH",
                    env::join_paths(libraries).expect("a cache directory has no colon in its path"),
                );
                command
            }
        }
    }

    /// The kernel's image.
    pub(crate) fn kernel(&self) -> Result<PathBuf> {
        let boot = self.kernel.join("boot");
        only_entry(&boot, "vmlinuz-")
            .with_context(|| format!("no kernel in {}; remove the directory", boot.display()))
    }

    /// A module of the kernel, by its path below the kernel's own directory.
    pub(crate) fn module(&self, path: &str) -> Result<PathBuf> {
        let modules = only_entry(&self.kernel.join("lib/modules"), "").context("no modules")?;
        let module = modules.join("kernel").join(path);
        ensure!(module.is_file(), "{} is missing", module.display());
        Ok(module)
    }
}

impl Qemu {
    fn find(tools: &Path) -> Option<Self> {
        let unpacked = || {
            let root = tools.join(QEMU_PACKAGE);
            root.join("usr/bin").join(QEMU).is_file().then_some(Self::Unpacked(root))
        };
        find(QEMU).map(Self::Installed).or_else(unpacked)
    }
}

/// The newest kernel that is unpacked.
fn find_kernel(tools: &Path) -> Option<PathBuf> {
    let kernels = fs::read_dir(tools).ok()?.flatten().map(|entry| entry.path());
    kernels
        .filter(|path| name(path).starts_with(KERNEL_PREFIX))
        .max_by_key(|path| version(&name(path)))
}

/// The numbers in a name; `6.1.0-9` is before `6.1.0-56`.
fn version(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn only_entry(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    entries.find(|path| name(path).starts_with(prefix))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Fetches what is missing. Whether anything was.
pub(super) fn install() -> Result<bool> {
    let tools = tools_directory()?;
    let qemu = Qemu::find(&tools).is_none();
    let kernel = find_kernel(&tools).is_none();
    if !qemu && !kernel {
        return Ok(false);
    }
    println!(
        "setup: the machine of `cargo xtask test vm` is missing; it is unpacked, not installed, into"
    );
    println!("  {}", tools.display());
    ensure!(
        find("apt-get").is_some(),
        "this is not Debian: install {QEMU} by hand, and unpack the kernel of Debian's package \
         {KERNEL_PACKAGE} there"
    );
    step::run("apt-get update", &log("apt-update")?, apt_get().arg("update"))?;
    if qemu {
        // With the libraries it needs and this machine lacks.
        let arguments = ["install", "--download-only", "--yes", "--no-install-recommends"];
        fetch(QEMU_PACKAGE, &tools, apt_get().args(arguments))?;
        ensure!(Qemu::find(&tools).is_some(), "{QEMU_PACKAGE} has no {QEMU} in it");
    }
    if kernel {
        fetch(&kernel_package()?, &tools, apt_get().arg("download"))?;
    }
    Ok(true)
}

/// Has apt-get put packages into a directory, and unpacks them into one of the package's name.
fn fetch(package: &str, tools: &Path, apt_get: &mut Command) -> Result<()> {
    let half_done = tools.join(format!("unpacking-{package}"));
    let archives = half_done.join("archives");
    let cannot = || format!("cannot unpack into {}", tools.display());
    if half_done.exists() {
        fs::remove_dir_all(&half_done).with_context(cannot)?;
    }
    fs::create_dir_all(archives.join("partial")).with_context(cannot)?;
    let mut option = "Dir::Cache::archives=".to_owned();
    option.push_str(&archives.to_string_lossy());
    apt_get.current_dir(&archives).args(["-o", &option]).arg(package);
    step::run(&format!("fetching {package}"), &log(package)?, apt_get)?;

    let mut unpack = Command::new("sh");
    unpack
        .args(["-ec", "for package in archives/*.deb; do dpkg-deb --extract $package root; done"])
        .current_dir(&half_done);
    step::run(&format!("unpacking {package}"), &log(&format!("unpack-{package}"))?, &mut unpack)?;
    // Only what is whole gets the name it is found by.
    fs::rename(half_done.join("root"), tools.join(package)).with_context(cannot)?;
    fs::remove_dir_all(half_done).with_context(cannot)
}

/// The kernel that this Debian calls its own.
fn kernel_package() -> Result<String> {
    let output = Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    package
        .filter(|package| package.starts_with(KERNEL_PREFIX))
        .map(str::to_owned)
        .with_context(|| format!("apt knows no kernel that {KERNEL_PACKAGE} depends on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_newer_by_its_numbers() {
        let name = |number| version(&format!("linux-image-6.1.0-{number}-cloud-amd64"));
        assert!(name(9) < name(56));
        assert!(version("linux-image-6.1.0-56-cloud-amd64") < version("linux-image-6.12.0-1"));
    }
}
