//! `cargo xtask demo`: prepares the demo, starts it, and tidies up after it however it ended.
//!
//! The demo itself is a program of the `tests` package. A signal, a panic or a `kill -9` ends it
//! at once; there is one way of tidying up for all of them, and it is here. The network
//! namespaces are gone with the demo, since they have no names that could outlive it.

use std::{
    env, fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, ExitStatus},
    sync::atomic::{AtomicI32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    termios::{SetArg, Termios, tcgetattr, tcsetattr},
};

use crate::{processes, setup, workspace};

/// The options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Play the scripted story without a terminal; succeeds only if every step held.
    #[arg(long)]
    once: bool,
}

/// What the directories with the demo's files are called, before the number of the process.
const PREFIX: &str = "tandem-demo-";

/// Leaves the alternate screen and shows the cursor.
const RESTORE: &[u8] = b"\x1b[?1049l\x1b[?25h\x1b[0m";

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !(arguments.once || terminal) {
        eprintln!(
            "cargo xtask demo needs a terminal; without one, `cargo xtask demo --once` plays a \
             scripted story"
        );
        return Ok(ExitCode::from(2));
    }
    ensure!(nix::unistd::geteuid().is_root(), "the demo makes network namespaces: run it as root");
    setup::run_to_build()?;
    let program = build()?;

    remove_abandoned();
    let files = Files::make()?;
    let screen = Screen::remember();
    let mut command = Command::new(program);
    command.env("TMPDIR", &files.0);
    if arguments.once {
        command.arg("--once");
    }
    let status = supervise(&mut command)?;
    drop(screen);
    drop(files);
    conclude(status, arguments.once);
    Ok(exit_code(status))
}

/// Builds demo and daemon, and hands back where the demo is.
fn build() -> Result<PathBuf> {
    println!(
        "building Tandem (a debug build, which is quicker to make; the XDP program is optimised)"
    );
    let status = workspace::cargo()
        .args(["build", "--locked", "--package=lb-daemon", "--package=tests"])
        .args(["--bin=tandem", "--bin=demo"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "building Tandem failed ({status})");
    let this = env::current_exe()?;
    Ok(this.with_file_name("demo"))
}

/// Runs the demo to its end and passes signals on to it. Nothing that it started outlives this.
fn supervise(command: &mut Command) -> Result<ExitStatus> {
    processes::adopt_orphans().context("cannot adopt the demo's processes")?;
    pass_signals_on()?;
    let mut child = command.spawn().context("cannot start the demo")?;
    DEMO.store(child.id().cast_signed(), Ordering::Relaxed);
    let status = child.wait();
    DEMO.store(NOBODY, Ordering::Relaxed);
    processes::end_all();
    Ok(status?)
}

const NOBODY: i32 = 0;
static DEMO: AtomicI32 = AtomicI32::new(NOBODY);

/// From now on, what would end us ends the demo.
fn pass_signals_on() -> Result<()> {
    extern "C" fn pass_on(signal: libc::c_int) {
        let demo = DEMO.load(Ordering::Relaxed);
        if demo != NOBODY {
            // SAFETY: kill may be called in a signal handler.
            unsafe { libc::kill(demo, signal) };
        }
    }
    let action = SigAction::new(SigHandler::Handler(pass_on), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: the handler only reads an atomic and calls kill.
        unsafe { sigaction(signal, &action) }?;
    }
    // To give the terminal back must be possible from the background, too.
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is involved.
    unsafe { sigaction(Signal::SIGTTOU, &ignore) }?;
    Ok(())
}

/// The directory that takes all files of the demo. They go with it.
struct Files(PathBuf);

impl Files {
    fn make() -> Result<Self> {
        let path = env::temp_dir().join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let files = Self(path);
        // Servers that are not root have data there.
        fs::set_permissions(&files.0, fs::Permissions::from_mode(0o755))?;
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            // The terminal may be gone, which must not end us.
            let _ = writeln!(io::stderr(), "cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Removes the files of demos that were killed together with the process that tidies up.
fn remove_abandoned() {
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // Nobody depends on it.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The terminal as it was before, if there is one. Dropping this restores it.
struct Screen(Option<Termios>);

impl Screen {
    fn remember() -> Self {
        Self(tcgetattr(io::stdin()).ok().filter(|_| io::stdout().is_terminal()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It may be gone.
            let _ = io::stdout().write_all(RESTORE).and_then(|()| io::stdout().flush());
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

fn conclude(status: ExitStatus, once: bool) {
    let end = match status.signal() {
        Some(signal) => match Signal::try_from(signal) {
            Ok(signal) => format!("the demo was ended by {signal}; "),
            Err(_) => format!("the demo was ended by signal {signal}; "),
        },
        None if once => return,
        None => String::new(),
    };
    let end = format!("{end}the lab is taken down, nothing is left of it");
    let _ = writeln!(io::stdout(), "{end}");
}

/// That of the demo; as a shell has it if a signal ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
