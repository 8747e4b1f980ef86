//! What is said on the control socket: one JSON object a line, a request and then its answer.
//!
//! ```text
//! {"version":1,"body":"status"}
//! {"version":1,"body":{"status":{"node":"lb1",...}}}
//! {"version":1,"body":{"failed":"..."}}
//! ```
//!
//! A list of connections is too long for a line: many lines with parts of it come before the answer.
//!
//! [`VERSION`] is raised when an existing request or answer changes its meaning; new requests and
//! new fields leave it alone. The line itself and `failed` never change, so that command and daemon
//! of any two versions can at least tell each other why they don't get on.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::core::{BackendName, Connection, ConnectionCount, ConnectionFilter, Order, Status};

/// Version of this protocol.
pub(super) const VERSION: u32 = 1;

/// How long the daemon's loop may take over an answer. It never waits for anything itself, so this
/// is reached only if something is badly wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How things are.
    Status,
    /// Read the configuration file again and put it in force if it is valid.
    Reload,
    /// Hand a group over to the other host.
    Failover {
        /// Name of the group.
        group: String,
    },
    /// Change a backend's administrative state, its weight or its limit of connections.
    Backend {
        /// Whose.
        backend: BackendName,
        /// To what.
        order: Order,
    },
    /// Give all groups up, end all connections, and end.
    Stop,
    /// List connections.
    Flows {
        /// Which ones.
        filter: ConnectionFilter,
        /// How many at most; all if none.
        limit: Option<u64>,
    },
    /// Count connections.
    FlowCounts {
        /// Which ones.
        filter: ConnectionFilter,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Reload`]: the new configuration is in force.
    Reloaded(Reloaded),
    /// To [`Request::Failover`]: the group is being handed over.
    FailingOver,
    /// To [`Request::Backend`]: it is in force.
    Administered {
        /// Why it does not outlive the daemon; none if it does.
        not_kept: Option<String>,
    },
    /// To [`Request::Stop`]: the daemon stops from now on. When it has, its socket is gone.
    Stopping,
    /// To [`Request::Flows`], before the answer: some of the connections.
    Flows(Vec<Connection>),
    /// To [`Request::Flows`]: that was all.
    AllFlows {
        /// Whether there are more than were to be listed.
        more: bool,
    },
    /// To [`Request::FlowCounts`].
    FlowCounts(Vec<ConnectionCount>),
    /// It could not be done; why, for people. After a refused reload: the diagnostics of the file.
    Failed(String),
}

/// A successful reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Number of the configuration that is in force now.
    pub generation: u64,
    /// What is valid but probably not meant, a line each.
    pub warnings: Vec<String>,
}

/// A request on its way to the daemon's loop, and the way back.
#[derive(Debug)]
pub struct Handle {
    /// What is asked.
    pub request: Request,
    /// Where parts of the answer go that come before it. It is dropped when there are none.
    pub parts: mpsc::Sender<Response>,
    /// Where the answer goes. Whoever asked may be gone by then; that is no error.
    pub reply: oneshot::Sender<Response>,
}

/// A line of the protocol.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    version: u32,
    body: T,
}

/// Parts of an answer that may wait for a command to read them. Whoever makes them waits then.
const PARTS: usize = 4;

/// Asks the daemon's loop, for what is answered without parts.
pub(super) async fn ask(requests: &mpsc::Sender<Handle>, request: Request) -> Response {
    Asked::send(requests, request).await.answer().await
}

/// A request that the daemon's loop has, or will have.
pub(super) struct Asked {
    /// Nothing if the loop took no more requests.
    ways: Option<(mpsc::Receiver<Response>, oneshot::Receiver<Response>)>,
    is_late: bool,
}

impl Asked {
    /// Asks the daemon's loop.
    pub(super) async fn send(requests: &mpsc::Sender<Handle>, request: Request) -> Self {
        let (parts, some) = mpsc::channel(PARTS);
        let (reply, answer) = oneshot::channel();
        let sent = timeout(PATIENCE, requests.send(Handle { request, parts, reply })).await;
        Self { ways: matches!(sent, Ok(Ok(()))).then_some((some, answer)), is_late: sent.is_err() }
    }

    /// The next part that comes before the answer; nothing if there are no more.
    pub(super) async fn part(&mut self) -> Option<Response> {
        let (parts, _) = self.ways.as_mut()?;
        let part = timeout(PATIENCE, parts.recv()).await;
        self.is_late = part.is_err();
        part.ok().flatten()
    }

    /// The answer.
    pub(super) async fn answer(self) -> Response {
        let late = || {
            Response::Failed(format!(
                "the daemon's main loop gave no answer within {} s: see its log (journalctl -u \
                 tandem)",
                PATIENCE.as_secs()
            ))
        };
        if self.is_late {
            return late();
        }
        let stopping = || Response::Failed("the daemon is just stopping".into());
        let Some((_, answer)) = self.ways else { return stopping() };
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| stopping()),
            Err(_) => late(),
        }
    }
}

/// Writes a request or an answer as a line, its end included.
pub(super) fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    let line = Line { version: VERSION, body };
    // It fails only for maps whose keys are not strings, and there are none.
    let mut line = serde_json::to_vec(&line).expect("protocol types are plain JSON");
    line.push(b'\n');
    line
}

/// The daemon's reading of a line, or what to answer to one that it can't read.
pub(super) fn decode_request(line: &[u8]) -> Result<Request, Response> {
    const OURS: &str = env!("CARGO_PKG_VERSION");
    let line: Line<Value> = serde_json::from_slice(line)
        .map_err(|error| Response::Failed(format!("this is no request to tandem: {error}")))?;
    if line.version != VERSION {
        return Err(Response::Failed(format!(
            "the running daemon is tandem {OURS} and speaks version {VERSION} of the control \
             protocol, this command speaks version {}: use the `tandem` of the same release, or \
             restart the daemon",
            line.version
        )));
    }
    serde_json::from_value(line.body).map_err(|error| {
        Response::Failed(format!(
            "the running daemon is tandem {OURS} and does not know this request ({error}): if this \
             command is newer, restart the daemon"
        ))
    })
}

/// The command's reading of a line, or why it can't read it.
pub(super) fn decode_response(line: &[u8]) -> Result<Response, String> {
    let line: Line<Value> =
        serde_json::from_slice(line).map_err(|error| format!("not tandem's protocol: {error}"))?;
    match serde_json::from_value(line.body) {
        Ok(Response::Failed(text)) => Ok(Response::Failed(text)),
        _ if line.version != VERSION => Err(format!(
            "it speaks version {} of the control protocol, this command version {VERSION}",
            line.version
        )),
        Ok(response) => Ok(response),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::sample,
        core::{AdminState, ConnectionState, RuntimeMaxconn, RuntimeWeight},
    };

    fn failure(line: &str) -> String {
        match decode_request(line.as_bytes()) {
            Err(Response::Failed(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_survive_the_way() {
        let failover = Request::Failover { group: "gw".to_owned() };
        let filter = ConnectionFilter {
            service: Some("mysql".to_owned()),
            client: "10.2.0.0/16".parse().ok(),
            state: Some(ConnectionState::Closing),
            ..ConnectionFilter::default()
        };
        let flows = Request::Flows { filter: filter.clone(), limit: Some(7) };
        let counts = Request::FlowCounts { filter };
        let backend = BackendName { service: "mysql".to_owned(), backend: "db1".to_owned() };
        let say = |order| Request::Backend { backend: backend.clone(), order };
        let drain = say(Order::State(AdminState::Drain));
        let weight = say(Order::Weight(RuntimeWeight::Percent(50)));
        let [few, configured] = [RuntimeMaxconn::Absolute(30), RuntimeMaxconn::Configured]
            .map(|maxconn| say(Order::Maxconn(maxconn)));
        let simple = [Request::Status, Request::Reload, Request::Stop];
        let all =
            simple.into_iter().chain([failover, flows, counts, drain, weight, few, configured]);
        for request in all {
            assert_eq!(decode_request(&encode(&request)).unwrap(), request);
        }
    }

    #[test]
    fn a_status_survives_the_way() {
        let sent = Response::Status(Box::new(sample::troubled()));
        let line = encode(&sent);
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let Ok(Response::Status(status)) = decode_response(&line) else {
            panic!("not a status");
        };
        assert_eq!(
            serde_json::to_value(&status).unwrap(),
            serde_json::to_value(sample::troubled()).unwrap()
        );
    }

    #[test]
    fn a_newer_command_is_told_so() {
        insta::assert_snapshot!(
            failure(r#"{"version":2,"body":{"drain":"mysql/db1"}}"#).replace(env!("CARGO_PKG_VERSION"), "VERSION"),
            @"the running daemon is tandem VERSION and speaks version 1 of the control protocol, this command speaks version 2: use the `tandem` of the same release, or restart the daemon"
        );
        insta::assert_snapshot!(
            failure(r#"{"version":1,"body":"drain"}"#).replace(env!("CARGO_PKG_VERSION"), "VERSION"),
            @"the running daemon is tandem VERSION and does not know this request (unknown variant `drain`, expected one of `status`, `reload`, `failover`, `backend`, `stop`, `flows`, `flow_counts`): if this command is newer, restart the daemon"
        );
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        for line in ["", "GET / HTTP/1.1", "{}", r#"{"version":1}"#, "[1,2]x"] {
            assert!(failure(line).starts_with("this is no request to tandem: "), "{line}");
        }
    }

    #[test]
    fn a_failure_is_understood_whatever_the_version() {
        let line = br#"{"version":9,"body":{"failed":"speak up"}}"#;
        assert!(matches!(decode_response(line), Ok(Response::Failed(text)) if text == "speak up"));
        let error = decode_response(br#"{"version":9,"body":{"news":1}}"#).unwrap_err();
        assert_eq!(error, "it speaks version 9 of the control protocol, this command version 1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_answer_is_not_waited_for_for_ever() {
        let (requests, kept) = mpsc::channel(1);
        let Response::Failed(text) = ask(&requests, Request::Status).await else {
            panic!("an answer from nowhere");
        };
        assert!(text.contains("no answer within 10 s"), "{text}");

        drop(kept);
        let Response::Failed(text) = ask(&requests, Request::Status).await else {
            panic!("an answer from nowhere");
        };
        assert_eq!(text, "the daemon is just stopping");
    }
}
