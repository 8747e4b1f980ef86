//! The daemon's side of the control socket.
//!
//! A lock file beside the socket says whose it is. The kernel drops the lock with the process that
//! holds it, so a socket file that a dead daemon left behind is told from that of a live one without
//! a race between two daemons that start at the same moment.

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
            net::UnixListener as StdListener,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::{
        socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr},
        stat::{Mode, fchmod},
    },
};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    client::connect,
    protocol::{self, Asked, Handle, Response},
};

/// Commands that are served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// How long a command may be silent, or leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request that is read, in bytes.
const LONGEST_REQUEST: u64 = 4096;

/// Why the control socket can't be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Its lock is held.
    #[error(
        "another tandem is running, it answers on {}: stop it first, or give this one a socket of \
         its own ([admin] socket)",
        .0.display()
    )]
    Running(PathBuf),
    /// Something accepts connections there without holding the lock.
    #[error(
        "a program other than tandem answers on {}: set [admin] socket to another path",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The path leads to something that must not be removed.
    #[error("{} exists and is no socket: set [admin] socket to another path", .0.display())]
    NotSocket(PathBuf),
    /// A step failed.
    #[error("cannot {doing} {}: {error}", .path.display())]
    Io {
        /// The step.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The bound control socket. Dropping it removes the file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the socket's file; then, its fields being dropped after it, the lock is let go.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Socket {
    /// Binds the socket, for its owner only (mode 0600), and makes its directory if there is none.
    ///
    /// To be called within a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |doing| move |error| BindError::Io { doing, path: path.into(), error };
        if let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .map_err(failed("make the directory of"))?;
        }
        let lock = lock(path)?;
        clear_away_stale(path)?;
        let listener =
            listen(path).and_then(UnixListener::from_std).map_err(failed("listen on"))?;
        Ok(Self { listener, file: SocketFile { path: path.into(), _lock: lock } })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Takes requests from commands to the daemon's loop and the answers back, for ever.
    pub async fn serve(self, requests: mpsc::Sender<Handle>) -> Infallible {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place =
                Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let requests = requests.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &requests).await {
                            debug!(%error, "a command broke off");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, socket = %self.path().display(), "cannot accept a command");
                    // Out of file descriptors, most likely: don't make it worse by spinning.
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            warn!(%error, socket = %self.path.display(), "cannot remove the control socket");
        }
    }
}

/// Takes the lock that goes with a socket. Its file stays: removing it would let two daemons hold
/// locks on two files of the same name.
fn lock(socket: &Path) -> Result<Flock<File>, BindError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |error| BindError::Io { doing: "lock", path: path.clone(), error };

    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => BindError::Running(socket.into()),
        errno => failed(errno.into()),
    })
}

/// Removes what a dead daemon left at `path`, and nothing else. The lock is held.
fn clear_away_stale(path: &Path) -> Result<(), BindError> {
    let failed =
        |error| BindError::Io { doing: "replace the stale socket", path: path.into(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotSocket(path.into()));
        }
        Ok(_) => {}
    }
    match connect(path, Duration::from_secs(1)) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        // Accepted, or a queue too full to accept: somebody holds it open.
        _ => Err(BindError::Foreign(path.into())),
    }
}

fn listen(path: &Path) -> io::Result<StdListener> {
    let socket = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    // The file that `bind` makes takes over the socket's own mode: it is never open to others, not
    // even for the moment that a chmod afterwards would leave.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::new(128)?)?;
    Ok(socket.into())
}

/// Serves one command until it hangs up.
async fn converse(stream: UnixStream, requests: &mpsc::Sender<Handle>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(line) = next_line(&mut reader).await? {
        let too_long = line.last() != Some(&b'\n');
        let response = if too_long {
            Response::Failed(format!("a request has at most {LONGEST_REQUEST} bytes"))
        } else {
            match protocol::decode_request(&line) {
                Ok(request) => {
                    let mut asked = Asked::send(requests, request).await;
                    while let Some(part) = asked.part().await {
                        // Nobody makes the next one before a slow command has read some.
                        timeout(PATIENCE, writer.write_all(&protocol::encode(&part))).await??;
                    }
                    asked.answer().await
                }
                Err(response) => response,
            }
        };
        timeout(PATIENCE, writer.write_all(&protocol::encode(&response))).await??;
        if too_long {
            break;
        }
    }
    Ok(())
}

/// The next line, its end included unless it is too long; nothing if the command hung up.
async fn next_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut limited = reader.take(LONGEST_REQUEST);
    timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await??;
    let whole = line.last() == Some(&b'\n') || limited.limit() == 0;
    Ok(whole.then_some(line))
}
