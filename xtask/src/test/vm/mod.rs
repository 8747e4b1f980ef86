//! The group `vm`: Debian's own kernel verifies the XDP program and runs the packet tables.
//!
//! It is older than the kernel of many a developer's machine, and its verifier pickier. It boots
//! in qemu's software emulation, which every machine has, from an archive made here; the first
//! process is this program, as [`mod@guest`]. What is printed inside comes out by the serial line.
//!
//! ```text
//!   archive ──► qemu ──► kernel ──► guest ──┬─► verify
//!                  ▲                        └─► test programs
//!   console ◄──────┴──── serial line ◄──────────── output
//! ```

mod archive;
mod console;
mod guest;

use std::{
    env,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::tally::Tally;
use crate::{
    ebpf::{self, toolchain::Toolchain},
    setup::Machine,
    workspace,
};
use archive::Archive;

pub(crate) use guest::run as guest;

/// After this time the machine is taken to hang; a busy host needs several minutes.
const PATIENCE: Duration = Duration::from_secs(600);
const MEMORY: &str = "2G";

/// A test program of the workspace.
struct Test {
    name: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

/// A million random packets would take an emulated processor half an hour.
const TESTS: &[Test] = &[Test {
    name: "packets",
    package: "tests",
    arguments: &[],
    environment: &[("TANDEM_PACKETS", "20000")],
}];

/// What the tests call. It is at the same path in the machine.
const PROGRAMS: [&str; 3] = ["ip", "tc", "ethtool"];
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Modules in the order they are loaded, and where the kernel has them.
const MODULES: [(&str, &str); 1] = [("/veth.ko", "drivers/net/veth.ko")];

/// Where the compiled XDP program is in the machine.
const OBJECT: &str = "/tandem.bpf.o";
/// And this program.
const GUEST: &str = "/xtask";

// What the guest says of a step begins with one of these, and its last line is the third.
const PASSED: &str = "machine: passed: ";
const FAILED: &str = "machine: failed: ";
const END: &str = "machine: all steps done";

impl Test {
    /// Where it is in the machine.
    fn path(&self) -> String {
        format!("/tests/{}", self.name)
    }
}

/// Runs the group.
pub(super) fn run() -> Tally {
    prepare().and_then(|(machine, archive)| boot(&machine, &archive)).unwrap_or_else(|error| {
        let mut tally = Tally::default();
        tally.fail(format!("not run: {error:#}"));
        tally
    })
}

fn prepare() -> Result<(Machine, PathBuf)> {
    let machine = Machine::find()?;
    let toolchain = Toolchain::find()?;
    let target = workspace::ebpf_target_directory();
    let object =
        ebpf::build(ebpf::TANDEM, workspace::root(), &toolchain, &target, Stdio::inherit())?;

    let path = target.with_file_name("vm").join("archive.cpio");
    let directory = path.parent().context("the archive is in a directory")?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for directory in ["/dev", "/proc", "/run", "/sys", "/tmp"] {
        archive.directory(directory)?;
    }
    archive.program(GUEST, &env::current_exe()?)?;
    archive.file(OBJECT, &object)?;
    for (path, module) in MODULES {
        archive.file(path, &machine.module(module)?)?;
    }
    for program in PROGRAMS {
        let found = find(program)?;
        archive.program(&found.to_string_lossy(), &found)?;
    }
    for test in TESTS {
        archive.program(&test.path(), &build(test)?)?;
    }
    archive.finish().with_context(|| format!("cannot write {}", path.display()))?;
    Ok((machine, path))
}

/// Compiles a test program.
fn build(test: &Test) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    cargo.args(["--package", test.package, "--test", test.name]);
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the test {} does not compile", test.name);
    // The package's other programs are built along with it.
    let messages = String::from_utf8_lossy(&output.stdout);
    let tests = messages.lines().filter(|line| line.contains(r#""kind":["test"]"#));
    ebpf::executable(&tests.collect::<Vec<_>>().join("\n"))
        .with_context(|| format!("cargo names no executable of the test {}", test.name))
}

/// Looks for a program where the machine will.
fn find(program: &str) -> Result<PathBuf> {
    env::split_paths(PATH)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("no {program}: run `cargo xtask setup`"))
}

fn boot(machine: &Machine, archive: &Path) -> Result<Tally> {
    let mut qemu = machine.qemu();
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"])
        .args(["-accel", "tcg", "-smp", "2", "-m", MEMORY, "-no-reboot", "-kernel"])
        .arg(machine.kernel()?)
        .arg("-initrd")
        .arg(archive)
        // The kernel itself says nothing but why it dies, and then it does not linger.
        .args([
            "-append",
            &format!("console=ttyS0 quiet loglevel=1 panic=-1 rdinit={GUEST} -- guest"),
        ]);
    console::watch(&mut qemu, PATIENCE)
}
