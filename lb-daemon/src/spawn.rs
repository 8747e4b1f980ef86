//! Runs other people's commands: tracked scripts and hooks.
//!
//! A command is a program and its arguments, run as they are, without a shell. It runs as the user
//! it is configured with and that user's group, without supplementary groups, in `/`, with nothing
//! in its environment but a `PATH`, with an empty standard input, and in a process group of its own,
//! which is killed as a whole if it does not end in time.

mod identity;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    io::{self, ErrorKind},
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use thiserror::Error;
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    process::{Child, Command},
    time::{Instant, sleep, timeout, timeout_at},
};

use self::identity::{Identity, Lookup};

/// Where programs are looked for that have no `/` in their name, and what they are told.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes of output that are kept, from its end.
const KEPT: usize = 4096;

/// Longest detail, in characters.
const LONGEST_LINE: usize = 200;

/// How long the kernel may take to end a process that was killed: longer only if it hangs in the
/// kernel itself, on a dead disk.
const DEATH: Duration = Duration::from_secs(1);

/// Why a command did not succeed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The user it is to run as does not exist.
    #[error("there is no user {0}: make it (`useradd --system {0}`), or configure another")]
    NoUser(String),
    /// The user could not be looked up.
    #[error("cannot look up user {user}: {error}")]
    Lookup {
        /// The user.
        user: String,
        /// What the system said.
        error: io::Error,
    },
    /// Nobody said in time who the user is.
    #[error("cannot look up user {user}: no answer within {limit:?}")]
    LookupTimedOut {
        /// The user.
        user: String,
        /// The time there was, for all of it.
        limit: Duration,
    },
    /// It could not be started.
    #[error("cannot run {program} as user {user}: {error}")]
    NotStarted {
        /// The program.
        program: String,
        /// The user.
        user: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// It ended otherwise than with status 0.
    #[error("{}{}", ending(*.status), said(.output))]
    Ended {
        /// How.
        status: ExitStatus,
        /// The last line of its output.
        output: String,
    },
    /// It did not end, and was killed.
    #[error("no end within {limit:?}, killed{}", said(.output))]
    TimedOut {
        /// The time it had.
        limit: Duration,
        /// The last line of its output.
        output: String,
    },
}

/// Runs `command`, a program and its arguments, as `user`, for `limit` at most.
///
/// Gives back the last line of its output, standard output and error alike. Processes that it leaves
/// behind when it ends by itself are left alone.
pub(crate) async fn run(
    command: &[String],
    user: &str,
    limit: Duration,
) -> Result<String, Failure> {
    run_with(command, user, limit, &[]).await
}

/// The same, with these variables in its environment. A `PATH` among them is not used to find the
/// program, as in HAProxy.
pub(crate) async fn run_with(
    command: &[String],
    user: &str,
    limit: Duration,
    environment: &[(&str, String)],
) -> Result<String, Failure> {
    run_by(identity::of_this_host, command, user, limit, environment).await
}

/// The same, by who the user is according to `lookup`.
async fn run_by(
    lookup: Lookup,
    command: &[String],
    user: &str,
    limit: Duration,
    environment: &[(&str, String)],
) -> Result<String, Failure> {
    let deadline = Instant::now() + limit;
    let identity = timeout_at(deadline, identity::find(user, lookup)).await;
    let no_answer = |_| Failure::LookupTimedOut { user: user.to_owned(), limit };
    let Identity { uid, gid } = identity.map_err(no_answer)??;
    let (program, arguments) =
        command.split_first().map_or(("", command), |(p, a)| (p.as_str(), a));
    let not_started =
        |error| Failure::NotStarted { program: program.to_owned(), user: user.to_owned(), error };

    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let (mut child, mut output) = start(command, uid, gid).map_err(not_started)?;
    let ended = timeout_at(deadline, output.collect_until_end(&mut child)).await;
    let status = if let Ok(status) = ended {
        status.map_err(not_started)?
    } else {
        kill(&mut child).await;
        output.collect_rest();
        return Err(Failure::TimedOut { limit, output: output.last_line() });
    };
    output.collect_rest();
    match (status.success(), output.last_line()) {
        (true, line) => Ok(line),
        (false, output) => Err(Failure::Ended { status, output }),
    }
}

fn start(mut command: Command, uid: u32, gid: u32) -> io::Result<(Child, Output)> {
    let (reader, writer) = io::pipe()?;
    // The command's ends of the pipe are closed here together with the `Command`.
    let child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // Root's supplementary groups go together with root's number.
        .uid(uid)
        .gid(gid)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let pipe = pipe::Receiver::from_owned_fd(reader.into())?;
    Ok((child, Output { pipe, kept: Vec::new() }))
}

/// Kills a command and all that it started in its group.
async fn kill(child: &mut Child) {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(id) = id {
        // Nobody waited for it yet, so the number is still its own.
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = timeout(DEATH, child.wait()).await;
}

/// What a command says.
struct Output {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
}

impl Output {
    /// Reads until the command has ended; others may still have the pipe open then.
    async fn collect_until_end(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let mut buffer = [0; KEPT];
        let mut is_open = true;
        loop {
            tokio::select! {
                status = child.wait() => return status,
                read = self.pipe.read(&mut buffer), if is_open => match read {
                    Ok(0) => is_open = false,
                    Ok(n) => {
                        self.keep(&buffer[..n]);
                        // A command that never stops talking must not take all of a processor.
                        if n == buffer.len() {
                            sleep(Duration::from_millis(1)).await;
                        }
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Reads what is left in the pipe, without waiting for more.
    fn collect_rest(&mut self) {
        let mut buffer = [0; KEPT];
        // No pipe holds more than a few of these, but others may go on filling it.
        for _ in 0..64 {
            match self.pipe.try_read(&mut buffer) {
                Ok(n @ 1..) => self.keep(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
    }

    /// The last line that is not empty, safe for a log.
    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let line = line.unwrap_or_default().chars().take(LONGEST_LINE);
        line.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
    }
}

/// "exit status 1", "killed by SIGSEGV".
fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(Ok(signal))) => format!("killed by {signal}"),
        (None, _) => status.to_string(),
    }
}

/// What a failed command said, after why it failed.
fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {output}") }
}
