//! Probes against real sockets on loopback.
//!
//! Only probes that must time out get a short timeout, and nothing is asserted to be quicker than
//! many seconds: tests share their machine.

mod agent;
mod connect;
mod external;
mod garbage;
mod http;
mod http_body;
mod mysql;
mod script;
mod script_connects;
mod tls;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    config::{Check, CheckKind},
    core::{Outcome, ProbeId, ProbeRequest, Subject},
};

/// For probes that must not time out.
const AMPLE: Duration = Duration::from_secs(30);
/// For probes that must.
const SCANT: Duration = Duration::from_secs(1);

async fn probe(target: SocketAddr, kind: CheckKind, timeout: Duration) -> Outcome {
    run(Check { timeout, kind, ..check(target) }).await
}

/// A check of nothing but a connection, with ample time.
fn check(target: SocketAddr) -> Check {
    Check {
        target,
        inter: AMPLE,
        fastinter: AMPLE,
        downinter: AMPLE,
        rise: 1,
        fall: 1,
        timeout: AMPLE,
        source: None,
        ssl: false,
        tls: None,
        kind: CheckKind::Connect,
    }
}

async fn run(check: Check) -> Outcome {
    let id = ProbeId(7);
    let subject = Arc::new(Subject {
        service: "web".to_owned(),
        service_id: 2,
        bind: "10.2.2.5:80".parse().unwrap(),
        backend: "w3".to_owned(),
        backend_id: 3,
        address: "[fd00:6::3]:8080".parse().unwrap(),
        maxconn: 300,
    });
    let request = ProbeRequest { id, check: Arc::new(check), subject };
    let (answered, outcome) = super::run(request).await;
    assert_eq!(answered, id);
    outcome
}

/// A listener and its address.
async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that hands its first connection to `serve`.
async fn server<F>(
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinHandle<F::Output>)
where
    F: Future<Output: Send> + Send + 'static,
{
    let (listener, address) = listen().await;
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await
    });
    (address, task)
}

/// A server that says this to its first client, a piece after the other, and then waits for the
/// client to go.
async fn speaker(pieces: &'static [&'static [u8]]) -> SocketAddr {
    let serve = async |mut stream: TcpStream| {
        say(&mut stream, pieces).await;
        read_all(&mut stream).await;
    };
    server(serve).await.0
}

/// A server that says this and closes the connection.
async fn speaker_that_hangs_up(text: &'static [u8]) -> SocketAddr {
    server(async move |mut stream: TcpStream| {
        say(&mut stream, &[text]).await;
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await;
    })
    .await
    .0
}

/// A server that says this without end.
async fn babbler(text: &'static [u8]) -> SocketAddr {
    server(async move |mut stream: TcpStream| while stream.write_all(text).await.is_ok() {}).await.0
}

/// Writes the pieces in segments of their own.
async fn say(stream: &mut TcpStream, pieces: &[&[u8]]) {
    stream.set_nodelay(true).unwrap();
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        stream.write_all(piece).await.unwrap();
    }
}

/// What the client says before it goes, however it goes.
async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}
