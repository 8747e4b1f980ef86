//! Commands inside a namespace.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Read, Seek},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{
        OnceLock,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, User, setgid, setgroups, setuid},
};

use super::{Conversation, Namespace, Process, wait::until};

/// A command that runs inside a namespace, and dies with this process however that ends.
///
/// It is the first process of a PID namespace of its own, so its children die with it. Working
/// directory is `/`.
#[derive(Debug)]
pub struct Command {
    namespace: Namespace,
    program: String,
    inner: std::process::Command,
    user: Option<(Uid, Gid)>,
    own_pids: bool,
}

/// What a command that ended has printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Command {
    pub(super) fn new(namespace: &Namespace, program: &Path) -> Self {
        let mut inner = std::process::Command::new(program);
        inner.stdin(Stdio::null());
        let program = program.file_name().unwrap_or(program.as_os_str());
        Self {
            namespace: namespace.clone(),
            program: program.to_string_lossy().into_owned(),
            inner,
            user: None,
            own_pids: true,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.inner.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.inner.args(arguments);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Runs it as this user instead of root.
    pub fn user(mut self, name: &str) -> Result<Self> {
        let user = User::from_name(name)?.with_context(|| format!("there is no user {name}"))?;
        self.user = Some((user.uid, user.gid));
        Ok(self)
    }

    /// Spares it the PID namespace: for tools that have no children.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.own_pids = false;
        self
    }

    /// Starts it in the background, in a process group of its own (so that the Ctrl-C of a
    /// terminal is ours to handle), with its output in the file `<namespace>-<program>.log`.
    pub fn spawn(mut self) -> Result<Process> {
        let (name, log, file) = self.log()?;
        self.inner.stdout(file.try_clone()?).stderr(file).process_group(0);
        Ok(Process::new(name, self.start()?, log))
    }

    /// Starts it in the background, to be told lines and to say lines. What it writes to its standard
    /// error goes to the file that [`spawn`](Self::spawn) names.
    pub fn converse(mut self) -> Result<Conversation> {
        let (name, log, file) = self.log()?;
        self.inner.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let mut child = self.start()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).context("a pipe that was asked for is missing")?;
        Ok(Conversation::new(Process::new(name, child, log), input, output))
    }

    /// Runs it on our own terminal, in the foreground, until it ends: a shell for a person.
    pub fn interact(mut self) -> Result<ExitStatus> {
        // Job control of a shell does not work across PID namespaces.
        self.own_pids = false;
        self.inner.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        Ok(self.start()?.wait()?)
    }

    /// Runs it until it ends, which must be within `limit`.
    pub fn output(mut self, limit: Duration) -> Result<Output> {
        // Files, not pipes: no reader is needed, and a grandchild cannot keep us waiting.
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        self.inner.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
        let what = format!("{} in {}", self.program, self.namespace.name());
        let mut child = self.start()?;
        let ended = until(&what, limit, || child.try_wait()?.context("still running"));
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                let printed = read(&mut stderr)?;
                return Err(error.context(format!("{what} was killed; it said: {printed}")));
            }
        };
        Ok(Output { status, stdout: read(&mut stdout)?, stderr: read(&mut stderr)? })
    }

    /// Runs it to a successful end, within 30 seconds, and hands back what it printed.
    pub fn run(self) -> Result<String> {
        let what = format!("{:?} in {}", self.inner, self.namespace.name());
        let output = self.output(Duration::from_secs(30))?;
        ensure!(
            output.status.success(),
            "{what} failed ({}): {}{}",
            output.status,
            output.stdout,
            output.stderr
        );
        Ok(output.stdout)
    }

    /// Its name among others, and the file for what it prints.
    fn log(&self) -> Result<(String, PathBuf, File)> {
        let name = format!("{}-{}", self.namespace.name(), self.program);
        let log = self.namespace.dir().join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        Ok((name, log, file))
    }

    fn start(self) -> Result<Child> {
        let Self { namespace, program, mut inner, user, own_pids } = self;
        let where_to = namespace.clone();
        // SAFETY: between fork and exec the closure only makes system calls; it does not allocate.
        unsafe {
            inner.pre_exec(move || {
                where_to.move_this_process()?;
                if let Some((uid, gid)) = user {
                    setgroups(&[gid])?;
                    setgid(gid)?;
                    setuid(uid)?;
                }
                // After the change of user, which would clear it.
                Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
            });
        }
        match on_lasting_thread(move || fork(inner, own_pids)) {
            Ok(child) => Ok(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{program} is not installed; `cargo xtask setup` installs what the lab needs")
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot run {program} in {}", namespace.name()))
            }
        }
    }
}

/// Forks, on a thread that never makes threads (it could not while its children are to be in
/// another PID namespace).
fn fork(mut command: std::process::Command, own_pids: bool) -> io::Result<Child> {
    if !own_pids {
        return command.spawn();
    }
    let home = File::open("/proc/self/ns/pid")?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let child = command.spawn();
    setns(&home, CloneFlags::CLONE_NEWPID)?;
    child
}

/// Runs a closure on the one thread that lasts as long as the process: the death signal of a
/// child fires when the *thread* that forked it ends.
fn on_lasting_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    type Work = Box<dyn FnOnce() + Send>;
    static THREAD: OnceLock<Sender<Work>> = OnceLock::new();

    let thread = THREAD.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Work>();
        thread::spawn(move || receiver.into_iter().for_each(|work| work()));
        sender
    });
    let (answer, result) = mpsc::channel();
    let work = move || drop(answer.send(work()));
    thread.send(Box::new(work)).expect("the thread lasts as long as the process");
    result.recv().expect("the work does not panic")
}

fn read(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
