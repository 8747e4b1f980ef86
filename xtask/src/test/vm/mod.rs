//! The group `vm`: Debian's own kernel verifies the XDP program, and runs the packet tables and
//! some of the scenarios.
//!
//! It is older than the kernel of many a developer's machine, and its verifier pickier; and it has
//! what small kernels are built without, such as interfaces of VLANs. It boots in qemu's software
//! emulation, which every machine has, from an archive made here; the first process is this
//! program, as [`mod@guest`]. What is printed inside comes out by the serial line.
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
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{NETNS, PACKETS, tally::Tally};
use crate::{
    ebpf::{self, toolchain::Toolchain},
    setup::Machine,
    workspace,
};
use archive::Archive;

pub(crate) use guest::run as guest;

/// After this time the machine is taken to hang; a busy host needs several minutes.
const PATIENCE: Duration = Duration::from_secs(1800);
const MEMORY: &str = "2G";

/// A test program of the workspace.
struct Test {
    name: &'static str,
    /// What has cargo build it.
    selection: &'static [&'static str],
    /// The tests to run, by their full names; without any, all of them.
    only: &'static [&'static str],
    /// What the names of tests contain that are left out.
    leave_out: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const TESTS: &[Test] = &[
    Test {
        name: "packets",
        selection: PACKETS,
        only: &[],
        // What two hosts tell each other, and what is counted how, asks nothing of a kernel that the rest does not
        // ask; and what is held for a peer goes the way of what is held for a place. Each of these has it verify the
        // program twice, which takes an emulated processor long.
        leave_out: &[
            "admission::counts::",
            "admission::redispatch::",
            "digests::",
            "handshakes::",
            "hold::",
            "pair::",
            "replication::",
        ],
        // A million random packets would take an emulated processor half an hour.
        environment: &[("TANDEM_PACKETS", "20000")],
    },
    Test {
        name: "netns",
        // All that the group builds, so that nothing is compiled twice.
        selection: NETNS,
        // Interfaces of VLANs, which small kernels do not have; of the rest, what uses much of a
        // kernel: both modes, a bridge, pins and what goes on without the daemon.
        only: &[
            "operation::without_a_daemon_everything_flows_and_the_next_one_carries_on",
            "paths::backends_are_on_a_vlan",
            "paths::backends_are_on_a_vlan_within_a_vlan",
            "paths::clients_and_backends_are_on_different_vlans",
            "paths::clients_are_on_a_vlan",
            "reach::one_arm_carries_both_families_in_generic_mode",
            "reach::two_arm_carries_both_families_in_native_mode",
        ],
        leave_out: &[],
        environment: &[("TANDEM_LAB_STRETCH", "10")],
    },
];

/// The product. It is looked for beside the test programs.
const TANDEM: &str = "/tests/tandem";

/// What the tests call. It is at the same path in the machine.
const PROGRAMS: [&str; 3] = ["ip", "tc", "ethtool"];
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Modules in the order they are loaded: each after those it needs. They are at the same path
/// in the machine as below the kernel's own directory.
const MODULES: [&str; 7] = [
    "drivers/net/veth.ko",
    "net/llc/llc.ko",
    "net/802/stp.ko",
    "net/bridge/bridge.ko",
    "net/802/garp.ko",
    "net/802/mrp.ko",
    "net/8021q/8021q.ko",
];

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

    /// What makes it run its tests. Scenarios are run one at a time, as everywhere.
    fn arguments(&self) -> impl Iterator<Item = &str> {
        let options: &[_] =
            if self.only.is_empty() { &[] } else { &["--exact", "--test-threads=1"] };
        let left_out = self.leave_out.iter().flat_map(|part| ["--skip", part]);
        options.iter().chain(self.only).copied().chain(left_out)
    }
}

/// Where a module is in the machine.
fn module_path(module: &str) -> String {
    format!("/modules/{module}")
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
        ebpf::build(ebpf::TANDEM, &[], workspace::root(), &toolchain, &target, Stdio::inherit())?;

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
    for module in MODULES {
        archive.file(&module_path(module), &machine.module(module)?)?;
    }
    for program in PROGRAMS {
        let found = find(program)?;
        archive.program(&found.to_string_lossy(), &found)?;
    }
    for test in TESTS {
        let built = build(test)?;
        archive.program(&test.path(), &built.program)?;
        if let Some(tandem) = built.tandem {
            archive.program(TANDEM, &tandem)?;
        }
    }
    archive.finish().with_context(|| format!("cannot write {}", path.display()))?;
    Ok((machine, path))
}

/// What cargo has built.
struct Built {
    program: PathBuf,
    /// The product, if the test is one of those that start it.
    tandem: Option<PathBuf>,
}

/// Compiles a test program, and makes sure that it has the tests to run.
fn build(test: &Test) -> Result<Built> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    cargo.args(test.selection);
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the test {} does not compile", test.name);
    let messages = String::from_utf8_lossy(&output.stdout);
    let program = executable(&messages, "test", test.name)
        .with_context(|| format!("cargo names no executable of the test {}", test.name))?;

    let mut list = Command::new(&program);
    let output = list.args(test.arguments()).args(["--list", "--format=terse"]).output()?;
    let listed = String::from_utf8_lossy(&output.stdout);
    for name in test.only {
        let line = format!("{name}: test");
        ensure!(listed.lines().any(|listed| listed == line), "{} has no test {name}", test.name);
    }
    Ok(Built { program, tandem: executable(&messages, "bin", "tandem") })
}

/// The executable of a target among cargo's messages about all that it built.
fn executable(messages: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let (kind, name) = (format!(r#""kind":["{kind}"]"#), format!(r#""name":"{name}""#));
    let lines = messages.lines().filter(|line| line.contains(&kind) && line.contains(&name));
    ebpf::executable(&lines.collect::<Vec<_>>().join("\n"))
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
    let mut tally = console::watch(&mut qemu, PATIENCE)?;
    // This kernel was chosen for what it has.
    tally.fail_skipped();
    Ok(tally)
}
