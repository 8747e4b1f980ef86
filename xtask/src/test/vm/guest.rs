//! What runs in the machine: this program again, as its first process.

use std::{
    convert::Infallible,
    fs::{self, File},
    io,
    process::{self, Command},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        termios::tcdrain,
        utsname::uname,
    },
};

use super::{END, FAILED, MODULES, OBJECT, PASSED, PATH, TESTS, Test, module_path};
use crate::verify;

/// Runs everything, says on the console what became of it, and switches the machine off.
pub(crate) fn run() -> Result<Infallible> {
    ensure!(process::id() == 1, "this is for the machine of `cargo xtask test vm` only");
    step("preparing the machine", prepare());
    step("verification", verify_object());
    for test in TESTS {
        step(test.name, run_test(test));
    }
    println!("{END}");
    // What was printed has left the machine before it is switched off.
    tcdrain(io::stdout())?;
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}

fn step(name: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) => println!("{PASSED}{name}"),
        Err(error) => {
            // One that quotes a log has many lines; the first says what is wrong.
            let error = format!("{error:#}");
            let first = error.lines().next().unwrap_or_default();
            println!("{error}\n{FAILED}{name}: {first}");
        }
    }
}

fn prepare() -> Result<()> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("bpf", "/sys/fs/bpf"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
    ] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {at}"))?;
    }
    for path in MODULES.map(module_path) {
        let module = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        finit_module(module, c"", ModuleInitFlags::empty())
            .with_context(|| format!("cannot load {path}"))?;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).env("PATH", PATH).status()?;
    ensure!(up.success(), "lo does not come up ({up})");
    let system = uname()?;
    println!("kernel:   {} {}", system.release().display(), system.version().display());
    Ok(())
}

fn verify_object() -> Result<()> {
    verify::verify(&fs::read(OBJECT)?)
}

fn run_test(test: &Test) -> Result<()> {
    let status = Command::new(test.path())
        .args(test.arguments())
        .envs(test.environment.iter().copied())
        .env("PATH", PATH)
        .current_dir("/")
        .status()
        .context("cannot start it")?;
    ensure!(status.success(), "{status}");
    Ok(())
}
