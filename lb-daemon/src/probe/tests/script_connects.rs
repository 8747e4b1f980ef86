//! Scripts that choose where they connect.

use tokio::net::TcpSocket;

use super::*;
use crate::{
    config::{Pattern, TcpAction, TcpConnect, TcpExpect, TcpStep},
    core::Reason,
};

#[tokio::test]
async fn a_script_connects_where_it_is_told_to_and_asks_there() {
    let first = speaker(&[b"220 smtp"]).await;
    let second = speaker(&[b"* OK imap"]).await;
    let (_closed, closed) = closed();
    let steps = vec![to(first), expect("220"), to(second), expect("imap")];
    let outcome = play(closed, steps).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
    assert_eq!(outcome.detail, r#"4 steps done, got "* OK imap""#);
}

#[tokio::test]
async fn what_came_by_one_connection_does_not_count_for_the_next() {
    let first = speaker(&[b"220 smtp"]).await;
    let second = speaker_that_hangs_up(b"* OK imap").await;
    let outcome = play(first, vec![to(first), expect("220"), to(second), expect("220")]).await;
    assert_eq!(outcome.reason, Reason::L7Response, "{outcome:?}");
}

#[tokio::test]
async fn a_script_that_only_connects_passes_by_its_connections() {
    let (_first, first) = listen().await;
    let (_second, second) = listen().await;
    let (_closed, closed) = closed();
    let outcome = play(closed, vec![to(first), to(second)]).await;
    assert_eq!(outcome.reason, Reason::L4Ok);
    assert_eq!(outcome.detail, format!("connected to {second}"));
}

#[tokio::test]
async fn a_connection_that_fails_names_its_step() {
    let (_listener, open) = listen().await;
    let (_closed, closed) = closed();
    let outcome = play(open, vec![to(open), to(closed)]).await;
    assert_eq!(outcome.reason, Reason::L4Connection);
    assert_eq!(outcome.detail, format!("step 2: connect to {closed}: connection refused"));
}

/// A port that nobody listens at and that nobody else can be given meanwhile; and its address.
fn closed() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn play(target: SocketAddr, steps: Vec<TcpStep>) -> Outcome {
    probe(target, CheckKind::Tcp(steps), AMPLE).await
}

fn to(address: SocketAddr) -> TcpStep {
    let connect = TcpConnect { address: Some(address.ip()), port: Some(address.port()), ssl: None };
    TcpStep { action: TcpAction::Connect(connect), comment: None }
}

fn expect(text: &str) -> TcpStep {
    let pattern = Pattern::String(text.into());
    let action = TcpAction::Expect(TcpExpect { pattern, negated: false, min_recv: None });
    TcpStep { action, comment: None }
}
