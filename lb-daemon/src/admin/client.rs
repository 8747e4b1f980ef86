//! The command's side of the control socket. It blocks: a command has nothing else to do.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use thiserror::Error;

use super::protocol::{self, Reloaded, Request, Response};
use crate::core::{BackendName, Connection, ConnectionCount, ConnectionFilter, Order, Status};

/// How long the daemon may take: longer than it takes itself to notice that it hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the daemon may take to stop.
const END: Duration = Duration::from_secs(90);

/// Longest answer that is read: a status of thousands of backends is a few megabytes.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Why a command got no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no tandem answers on {}: is it running? (systemctl status tandem; another socket: --socket)",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket is root's.
    #[error("not allowed to talk to tandem on {}: run this command as root", .0.display())]
    NotAllowed(PathBuf),
    /// The daemon exists and is silent.
    #[error(
        "tandem gives no answer on {} within {} s: it hangs or is suspended (journalctl -u tandem)",
        .0.display(), PATIENCE.as_secs()
    )]
    Silent(PathBuf),
    /// The exchange broke off.
    #[error("the connection to tandem on {} failed: {error}", .socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The answer makes no sense to this command.
    #[error(
        "the answer on {} is not understood ({reason}): is the daemon of another release than this \
         command? Restart it, or use the `tandem` it was started from",
        .socket.display()
    )]
    NotUnderstood {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It was told to stop, and is still there.
    #[error(
        "tandem on {} was told to stop, and has not ended within {} s: does a hook take so long? \
         (journalctl -u tandem)",
        .0.display(), END.as_secs()
    )]
    StillRunning(PathBuf),
    /// The daemon says no; why, in its words.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon how things are.
pub fn status(socket: &Path) -> Result<Status, ClientError> {
    match exchange(socket, &Request::Status)? {
        Response::Status(status) => Ok(*status),
        _ => Err(beside_the_point(socket)),
    }
}

/// Asks the daemon to read its configuration again.
///
/// [`ClientError::Refused`] holds the diagnostics if the file is not valid.
pub fn reload(socket: &Path) -> Result<Reloaded, ClientError> {
    match exchange(socket, &Request::Reload)? {
        Response::Reloaded(reloaded) => Ok(reloaded),
        _ => Err(beside_the_point(socket)),
    }
}

/// Has the daemon hand a group over to the other host.
///
/// [`ClientError::Refused`] says why it does not, if there is no such group, or this host is not its
/// master.
pub fn failover(socket: &Path, group: &str) -> Result<(), ClientError> {
    match exchange(socket, &Request::Failover { group: group.to_owned() })? {
        Response::FailingOver => Ok(()),
        _ => Err(beside_the_point(socket)),
    }
}

/// Has the daemon change a backend's administrative state or weight. Returns why that does not outlive
/// the daemon, if it does not.
///
/// [`ClientError::Refused`] names the nearest backend there is, or all, if there is no such one.
pub fn administer(
    socket: &Path,
    backend: BackendName,
    order: Order,
) -> Result<Option<String>, ClientError> {
    match exchange(socket, &Request::Backend { backend, order })? {
        Response::Administered { not_kept } => Ok(not_kept),
        _ => Err(beside_the_point(socket)),
    }
}

/// Has the daemon stop, and waits until it has: for as long as its hooks take, but no longer than a
/// minute and a half.
pub fn stop(socket: &Path) -> Result<(), ClientError> {
    let Response::Stopping = exchange(socket, &Request::Stop)? else {
        return Err(beside_the_point(socket));
    };
    let deadline = Instant::now() + END;
    // Its socket is the last that it lets go.
    while connect(socket, PATIENCE).is_ok() {
        if Instant::now() >= deadline {
            return Err(ClientError::StillRunning(socket.into()));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Asks the daemon for the connections of the filter, at most `limit` of them, and hands them to `take`
/// as they come, some at a time. Returns whether there are more than the limit.
///
/// [`ClientError::Refused`] says which names there are, if the filter has others. What `take` fails with
/// ends the exchange, and is returned.
pub fn flows<E: From<ClientError>>(
    socket: &Path,
    filter: ConnectionFilter,
    limit: Option<u64>,
    mut take: impl FnMut(Vec<Connection>) -> Result<(), E>,
) -> Result<bool, E> {
    let mut exchange = Exchange::begin(socket, &Request::Flows { filter, limit })?;
    loop {
        match exchange.next()? {
            Response::Flows(connections) => take(connections)?,
            Response::AllFlows { more } => return Ok(more),
            _ => return Err(beside_the_point(socket).into()),
        }
    }
}

/// Asks the daemon how many connections of the filter each backend has.
///
/// [`ClientError::Refused`] as with [`flows`].
pub fn flow_counts(
    socket: &Path,
    filter: ConnectionFilter,
) -> Result<Vec<ConnectionCount>, ClientError> {
    match exchange(socket, &Request::FlowCounts { filter })? {
        Response::FlowCounts(counts) => Ok(counts),
        _ => Err(beside_the_point(socket)),
    }
}

fn exchange(path: &Path, request: &Request) -> Result<Response, ClientError> {
    Exchange::begin(path, request)?.next()
}

/// A request that was sent, and what is still to be read.
struct Exchange<'a> {
    path: &'a Path,
    stream: BufReader<UnixStream>,
}

impl<'a> Exchange<'a> {
    fn begin(path: &'a Path, request: &Request) -> Result<Self, ClientError> {
        let send = || -> io::Result<UnixStream> {
            let mut stream = connect(path, PATIENCE)?;
            stream.write_all(&protocol::encode(request))?;
            Ok(stream)
        };
        let stream = send().map_err(|error| failed(path, error))?;
        Ok(Self { path, stream: BufReader::new(stream) })
    }

    /// The next line of the answer.
    fn next(&mut self) -> Result<Response, ClientError> {
        let line = self.line().map_err(|error| failed(self.path, error))?;
        match protocol::decode_response(&line) {
            Ok(Response::Failed(text)) => Err(ClientError::Refused(text)),
            Ok(response) => Ok(response),
            Err(reason) => Err(ClientError::NotUnderstood { socket: self.path.into(), reason }),
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.by_ref().take(LONGEST_ANSWER).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }
}

fn failed(path: &Path, error: io::Error) -> ClientError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(path.into()),
        ErrorKind::PermissionDenied => ClientError::NotAllowed(path.into()),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Silent(path.into()),
        _ => ClientError::Io { socket: path.into(), error },
    }
}

/// Connects, and lets no step take longer than `patience`, the connecting included: the standard
/// library's `connect` would wait for ever once the queue of a daemon that hangs is full.
pub(super) fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let stream = UnixStream::from(socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?);
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

fn beside_the_point(socket: &Path) -> ClientError {
    ClientError::NotUnderstood {
        socket: socket.into(),
        reason: "it answers another question".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::admin::sample::Scratch;

    /// A daemon that answers one request with `answer`, whatever it is.
    fn answering(scratch: &Scratch, answer: &'static str) -> PathBuf {
        let path = scratch.path("tandem.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        path
    }

    #[test]
    fn without_a_daemon_the_error_says_what_to_look_at() {
        let scratch = Scratch::new();
        let missing = scratch.path("tandem.sock");
        assert_eq!(
            status(&missing).unwrap_err().to_string(),
            format!(
                "no tandem answers on {}: is it running? (systemctl status tandem; another socket: \
                 --socket)",
                missing.display()
            )
        );

        let stale = scratch.path("stale.sock");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(matches!(
            reload(&stale).unwrap_err(),
            ClientError::NotRunning(path) if path == stale
        ));
    }

    #[test]
    fn a_daemon_of_another_protocol_is_named_as_the_cause() {
        let scratch = Scratch::new();
        let path = answering(&scratch, "{\"version\":7,\"body\":{\"status\":[]}}\n");
        let error = status(&path).unwrap_err().to_string();
        assert!(error.contains("speaks version 7 of the control protocol"), "{error}");
    }

    #[test]
    fn an_answer_to_another_question_is_not_taken_for_success() {
        let scratch = Scratch::new();
        let answer = "{\"version\":1,\"body\":{\"reloaded\":{\"generation\":2,\"warnings\":[]}}}\n";
        let path = answering(&scratch, answer);
        assert!(matches!(status(&path).unwrap_err(), ClientError::NotUnderstood { .. }));
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        let scratch = Scratch::new();
        let path = answering(&scratch, "{\"version\":1,\"body\":{\"stat");
        assert!(matches!(
            status(&path).unwrap_err(),
            ClientError::Io { error, .. } if error.kind() == ErrorKind::UnexpectedEof
        ));
    }

    #[test]
    fn a_daemon_that_hangs_does_not_hang_the_command() {
        let scratch = Scratch::new();
        let path = scratch.path("tandem.sock");
        let _never_accepts = UnixListener::bind(&path).unwrap();
        let patience = Duration::from_millis(20);
        // Fill the queue of connections that wait to be accepted.
        let mut waiting = Vec::new();
        let error = loop {
            match connect(&path, patience) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10_000);
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}
