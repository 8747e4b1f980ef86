use std::io::ErrorKind;

use tokio::{net::TcpSocket, time::timeout};

use super::*;
use crate::{core::Reason, probe::connection};

#[tokio::test]
async fn an_accepted_connection_passes_and_ends_by_rst() {
    let (target, end) = server(async |mut stream: TcpStream| stream.read_u8().await).await;
    let outcome = probe(target, CheckKind::Connect, AMPLE).await;
    assert_eq!(outcome.reason, Reason::L4Ok);
    assert_eq!(outcome.detail, format!("connected to {target}"));
    assert!(outcome.took < AMPLE);
    assert_eq!(end.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_passes() {
    let (_listener, target) = listen().await;
    assert_eq!(probe(target, CheckKind::Connect, AMPLE).await.reason, Reason::L4Ok);
}

#[tokio::test]
async fn ipv6_is_checked_as_ipv4_is() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let outcome = probe(target, CheckKind::Connect, AMPLE).await;
    assert_eq!(outcome.reason, Reason::L4Ok);
    assert_eq!(outcome.detail, format!("connected to [::1]:{}", target.port()));
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    // Bound but not listening: nobody else can be given the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = socket.local_addr().unwrap();
    for kind in [CheckKind::Connect, CheckKind::Tcp(Vec::new())] {
        let outcome = probe(target, kind, AMPLE).await;
        assert_eq!(outcome.reason, Reason::L4Connection);
        assert_eq!(outcome.detail, format!("connect to {target}: connection refused"));
    }
}

#[tokio::test]
async fn an_address_no_way_leads_to_is_unreachable() {
    // TCP to the broadcast address is refused by this host's own routing; nothing is sent.
    let target = "255.255.255.255:80".parse().unwrap();
    let outcome = probe(target, CheckKind::Connect, AMPLE).await;
    assert_eq!(outcome.reason, Reason::L4Connection);
    assert_eq!(outcome.detail, "connect to 255.255.255.255:80: network is unreachable");
}

#[tokio::test]
async fn a_server_that_does_not_answer_the_syn_times_out() {
    let (_clog, target) = unanswering().await;
    let outcome = probe(target, CheckKind::Connect, SCANT).await;
    assert_eq!(outcome.reason, Reason::L4Timeout);
    assert_eq!(outcome.detail, format!("connect to {target}: no answer within 1s"));
    assert!(outcome.took >= SCANT);
}

#[tokio::test]
async fn what_this_host_cannot_even_try_is_its_own_fault() {
    // A link-local address without its interface.
    let outcome = probe("[fe80::1]:80".parse().unwrap(), CheckKind::Connect, AMPLE).await;
    assert_eq!(outcome.reason, Reason::Socket);
    assert_eq!(outcome.detail, "connect to [fe80::1]:80: invalid argument");
}

#[tokio::test]
async fn a_check_comes_from_the_source_it_is_told_to() {
    let (listener, target) = listen().await;
    let source = "127.0.0.9".parse().unwrap();
    let outcome = run(Check { source: Some(source), ..check(target) }).await;
    assert_eq!(outcome.reason, Reason::L4Ok, "{outcome:?}");
    assert_eq!(listener.accept().await.unwrap().1.ip(), source);
}

#[tokio::test]
async fn a_source_that_this_host_does_not_have_is_its_own_fault() {
    let (_listener, target) = listen().await;
    let source = Some("192.0.2.1".parse().unwrap());
    let outcome = run(Check { source, ..check(target) }).await;
    assert_eq!(outcome.reason, Reason::Socket);
    assert_eq!(outcome.detail, "cannot connect from 192.0.2.1: cannot assign requested address");
}

#[tokio::test]
async fn a_connection_to_itself_is_refused() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = socket.local_addr().unwrap();
    let error = connection::connect(socket, target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// A listener whose backlog is full, so that the kernel drops SYNs; and what keeps it so.
async fn unanswering() -> (impl Sized, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let target = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    while let Ok(client) = timeout(Duration::from_secs(1), TcpStream::connect(target)).await {
        clients.push(client.unwrap());
        assert!(clients.len() < 100, "the backlog never fills");
    }
    ((listener, clients), target)
}
