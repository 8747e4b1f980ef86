//! The terminal: a screen of our own, keys without Enter, and other programs on it.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigHandler, Signal, signal},
        termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr},
    },
    unistd::{getpgrp, read, tcsetpgrp},
};

/// The alternate screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A terminal that is ours. Dropping it gives it back as it was.
#[derive(Debug)]
pub(crate) struct Terminal {
    before: Termios,
}

/// What a person did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Key(u8),
    /// Nothing, for as long as was waited.
    Nothing,
    /// The terminal is gone.
    HungUp,
}

impl Terminal {
    /// Takes the terminal. Ctrl-C goes on to be a signal.
    pub(crate) fn take() -> Result<Self> {
        // SAFETY: to ignore a signal involves no handler. Without it a process that is not in the
        // foreground would be stopped when it gives the terminal back.
        unsafe { signal(Signal::SIGTTOU, SigHandler::SigIgn) }?;
        let before = tcgetattr(io::stdin()).context("cannot ask the terminal")?;
        let terminal = Self { before };
        terminal.enter()?;
        Ok(terminal)
    }

    fn enter(&self) -> Result<()> {
        let mut raw = self.before.clone();
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).context("cannot set the terminal")?;
        write(ENTER)
    }

    fn leave(&self) -> Result<()> {
        write(LEAVE)?;
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before).context("cannot set the terminal")
    }

    /// Hands the terminal, as it was before, to something else for a while.
    pub(crate) fn lend<T>(&self, to: impl FnOnce() -> T) -> Result<T> {
        self.leave()?;
        let answer = to();
        // A shell makes itself the foreground, and cannot undo that if it is killed.
        tcsetpgrp(io::stdin(), getpgrp()).context("cannot get the terminal back")?;
        self.enter()?;
        Ok(answer)
    }

    /// Columns and rows.
    pub(crate) fn size() -> (usize, usize) {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel fills in the struct that this request is about.
        let asked = unsafe { window_size(libc::STDOUT_FILENO, &raw mut size) };
        match (asked, size) {
            (Ok(_), libc::winsize { ws_col: columns @ 1.., ws_row: rows @ 1.., .. }) => {
                (columns.into(), rows.into())
            }
            _ => (80, 24),
        }
    }

    /// Shows these lines, which must fit, in place of what is shown.
    pub(crate) fn draw(lines: &[String]) -> Result<()> {
        // Lines are overwritten, not erased before: nothing flickers.
        let text = lines.join("\x1b[0m\x1b[K\r\n");
        write(&format!("\x1b[H{text}\x1b[0m\x1b[J"))
    }

    /// Waits for a key.
    pub(crate) fn key(wait: Duration) -> Result<Input> {
        if !is_readable(wait)? {
            return Ok(Input::Nothing);
        }
        let mut byte = [0];
        match read(io::stdin(), &mut byte) {
            Ok(0) | Err(_) => Ok(Input::HungUp),
            Ok(_) if byte == *b"\x1b" => {
                // What an arrow key, say, sends at once is no command.
                if is_readable(Duration::ZERO)? {
                    let _ = read(io::stdin(), &mut [0; 64]);
                }
                Ok(Input::Nothing)
            }
            Ok(_) => Ok(Input::Key(byte[0])),
        }
    }
}

fn is_readable(within: Duration) -> Result<bool> {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO);
    match poll(&mut polled, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error).context("cannot wait for a key"),
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There may be no terminal any more.
        let _ = self.leave();
    }
}

nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);

fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("the terminal is gone")
}
