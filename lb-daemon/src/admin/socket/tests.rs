//! The socket as commands see it.

use std::{
    io::{BufRead, Read, Write},
    os::unix::fs::PermissionsExt,
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::*;
use crate::{
    admin::{Reloaded, Request, client, client::ClientError, sample, sample::Scratch},
    core::ConnectionFilter,
};

/// Stands in for the daemon's loop.
fn runtime() -> mpsc::Sender<Handle> {
    let (requests, mut inbox) = mpsc::channel::<Handle>(4);
    tokio::spawn(async move {
        let mut generation = 1;
        while let Some(handle) = inbox.recv().await {
            let Handle { request, parts, reply } = handle;
            let response = match request {
                Request::Status => Response::Status(Box::new(sample::healthy())),
                Request::Reload if generation < 2 => {
                    generation += 1;
                    Response::Reloaded(Reloaded {
                        generation,
                        warnings: vec!["mind the gap".into()],
                    })
                }
                Request::Reload => Response::Failed("line 3: no such key".into()),
                Request::Stop => {
                    let _ = reply.send(Response::Stopping);
                    return;
                }
                Request::Failover { group } if group == "gw" => Response::FailingOver,
                Request::Failover { group } => Response::Failed(format!("no group {group}")),
                Request::Flows { filter: ConnectionFilter { service: None, .. }, limit } => {
                    let limit = limit.unwrap_or(1000);
                    for number in 0..limit {
                        let part = Response::Flows(vec![sample::connection(number)]);
                        if parts.send(part).await.is_err() {
                            break;
                        }
                    }
                    Response::AllFlows { more: limit < 1000 }
                }
                Request::Flows { .. } => Response::Failed("no such service".into()),
                Request::Backend { .. } => Response::Administered { not_kept: None },
                Request::FlowCounts { .. } => Response::FlowCounts(Vec::new()),
            };
            drop(parts);
            let _ = reply.send(response);
        }
    });
    requests
}

fn serving(path: &Path) -> JoinHandle<Infallible> {
    tokio::spawn(Socket::bind(path).unwrap().serve(runtime()))
}

#[tokio::test]
async fn every_request_goes_there_and_back() {
    let scratch = Scratch::new();
    let path = scratch.path("new/directory/tandem.sock");
    let server = serving(&path);

    let socket = path.clone();
    spawn_blocking(move || {
        assert_eq!(client::status(&socket).unwrap().node, "lb1");
        let reloaded = client::reload(&socket).unwrap();
        assert_eq!(reloaded.generation, 2);
        assert_eq!(reloaded.warnings, ["mind the gap"]);
        let refused = client::reload(&socket).unwrap_err();
        assert_eq!(refused.to_string(), "line 3: no such key");
        client::failover(&socket, "gw").unwrap();
        let refused = client::failover(&socket, "other").unwrap_err();
        assert_eq!(refused.to_string(), "no group other");
    })
    .await
    .unwrap();

    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    assert!(!path.exists(), "the socket outlives its server");
}

#[tokio::test]
async fn a_list_of_connections_comes_in_parts_and_ends_with_an_answer() {
    let scratch = Scratch::new();
    let path = scratch.path("tandem.sock");
    let server = serving(&path);
    spawn_blocking(move || {
        let filter = ConnectionFilter::default;
        let mut ports = Vec::new();
        let mut take = |limit| {
            client::flows(&path, filter(), limit, |connections| {
                ports.extend(connections.iter().map(|connection| connection.client.port()));
                Ok::<_, ClientError>(())
            })
        };
        assert!(!take(None).unwrap());
        assert!(take(Some(3)).unwrap());
        assert_eq!(ports, (0..1000).chain(0..3).collect::<Vec<u16>>());

        let unknown = ConnectionFilter { service: Some("x".to_owned()), ..filter() };
        let nothing = |_| panic!("it was refused");
        let refused: ClientError = client::flows(&path, unknown, None, nothing).unwrap_err();
        assert_eq!(refused.to_string(), "no such service");
        assert_eq!(client::flow_counts(&path, filter()).unwrap(), []);

        // Who has seen enough hangs up, and is no hindrance to others.
        let enough = |_| Err(ClientError::Refused("enough".to_owned()));
        let refused = client::flows(&path, filter(), None, enough).unwrap_err();
        assert_eq!(refused.to_string(), "enough");
        assert_eq!(client::status(&path).unwrap().node, "lb1");
    })
    .await
    .unwrap();
    server.abort();
}

#[tokio::test]
async fn only_the_owner_may_connect() {
    let scratch = Scratch::new();
    let path = scratch.path("tandem.sock");
    let _socket = Socket::bind(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new();
    let path = scratch.path("tandem.sock");
    drop(StdListener::bind(&path).unwrap());
    let first = Socket::bind(&path).unwrap();

    let error = Socket::bind(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "another tandem is running, it answers on {}: stop it first, or give this one a \
             socket of its own ([admin] socket)",
            path.display()
        )
    );
    assert!(path.exists(), "the loser took the winner's socket away");

    drop(first);
    Socket::bind(&path).unwrap();
}

#[tokio::test]
async fn what_belongs_to_others_is_left_alone() {
    let scratch = Scratch::new();
    let foreign = scratch.path("haproxy.sock");
    let _listener = StdListener::bind(&foreign).unwrap();
    assert!(matches!(
        Socket::bind(&foreign).unwrap_err(),
        BindError::Foreign(path) if path == foreign
    ));

    let file = scratch.path("notes");
    fs::write(&file, "mine").unwrap();
    assert!(matches!(
        Socket::bind(&file).unwrap_err(),
        BindError::NotSocket(path) if path == file
    ));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn nonsense_and_endless_lines_are_answered() {
    let scratch = Scratch::new();
    let path = scratch.path("tandem.sock");
    let _server = serving(&path);
    spawn_blocking(move || {
        let mut stream = connect(&path, Duration::from_secs(5)).unwrap();
        let mut answers = io::BufReader::new(stream.try_clone().unwrap());
        let mut answer = String::new();

        // Nonsense does not end the conversation.
        stream.write_all(b"show stat\n{\"version\":1,\"body\":\"status\"}\n").unwrap();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains("this is no request to tandem"), "{answer}");
        answer.clear();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"node\":\"lb1\""), "{answer}");

        // A line without an end does.
        answer.clear();
        stream.write_all(&[b'x'; 4096]).unwrap();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains("at most 4096 bytes"), "{answer}");
        assert_eq!(answers.read(&mut [0]).unwrap(), 0);
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn silent_commands_are_hung_up_on_and_make_room() {
    let scratch = Scratch::new();
    let path = scratch.path("tandem.sock");
    let _server = serving(&path);
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    let mut last = UnixStream::connect(&path).await.unwrap();
    last.write_all(&protocol::encode(&Request::Status)).await.unwrap();
    let mut answer = [0; 12];
    timeout(2 * PATIENCE, last.read_exact(&mut answer)).await.expect("no room was made").unwrap();
    assert_eq!(&answer, br#"{"version":1"#);
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "still connected");
    }
}
