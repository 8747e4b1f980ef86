use super::*;
use crate::{
    config::{HttpCheck, HttpExpect, HttpSubject, HttpVersion, StatusRange},
    core::Reason,
    probe::{
        connection::{Connection, Way},
        http,
    },
};

#[tokio::test]
async fn accepted_and_other_status_codes_are_told_apart() {
    #[rustfmt::skip]
    let table: [(&[u8], Reason, &str); _] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup", Reason::L7Ok, "GET /health: 200 OK"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Reason::L7Ok, "GET /health: 204 No Content"),
        (b"HTTP/1.0 301 Moved\r\n\r\n", Reason::L7Ok, "GET /health: 301 Moved"),
        (b"HTTP/1.1 200\r\n\r\n", Reason::L7Ok, "GET /health: 200"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Reason::L7Status, "GET /health: 404 Not Found, expected 200-399"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Reason::L7Status, "GET /health: 503 Service Unavailable, expected 200-399"),
    ];
    for (answer, reason, detail) in table {
        let outcome = probe(responder(answer).await, get("/health"), AMPLE).await;
        assert_eq!((outcome.reason, outcome.detail.as_str()), (reason, detail));
    }
}

#[tokio::test]
async fn only_the_codes_asked_for_are_accepted() {
    let ranges = [(200, 204), (404, 404)];
    let status = ranges.map(|(first, last)| StatusRange { first, last }).to_vec();
    for (answer, reason) in [
        (b"HTTP/1.1 404 Gone Fishing\r\n\r\n".as_slice(), Reason::L7Ok),
        (b"HTTP/1.1 301 Moved\r\n\r\n", Reason::L7Status),
    ] {
        let expects = vec![wanted(HttpSubject::Status(status.clone()))];
        let kind = CheckKind::Http(HttpCheck { expects, ..check("/") });
        let outcome = probe(responder(answer).await, kind, AMPLE).await;
        assert_eq!(outcome.reason, reason);
        if reason == Reason::L7Status {
            assert_eq!(outcome.detail, "GET /: 301 Moved, expected 200-204, 404");
        }
    }
}

#[tokio::test]
async fn the_request_names_the_target_unless_told_otherwise() {
    for host in [None, Some("shop.example")] {
        let (target, heard) = server(async |mut stream: TcpStream| {
            say(&mut stream, &[b"HTTP/1.1 200 OK\r\n\r\n"]).await;
            read_all(&mut stream).await
        })
        .await;
        let host = host.map(str::to_owned);
        let kind = CheckKind::Http(HttpCheck {
            method: "OPTIONS".to_owned(),
            host: host.clone(),
            ..check("*")
        });
        assert_eq!(probe(target, kind, AMPLE).await.reason, Reason::L7Ok);
        let host = host.unwrap_or(target.to_string());
        let request = format!("OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(String::from_utf8(heard.await.unwrap()).unwrap(), request);
    }
}

#[tokio::test]
async fn an_agent_that_answers_without_listening_passes() {
    // Its answer and its FIN lie in our socket before the request is sent, again and again.
    for _ in 0..20 {
        let target = speaker_that_hangs_up(b"HTTP/1.1 200 OK\r\n\r\nsynced").await;
        let outcome = probe(target, get("/"), AMPLE).await;
        assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
    }
}

#[tokio::test]
async fn an_agent_that_answered_and_is_gone_passes_too() {
    let (target, gone) = server(async |mut stream: TcpStream| {
        let mut greeting = [0];
        stream.read_exact(&mut greeting).await.unwrap();
        say(&mut stream, &[b"HTTP/1.1 200 OK\r\n\r\nsynced"]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let plain = super::check(target);
    let mut connection = Connection::open(Way::of(&plain)).await.unwrap();
    connection.send(b"!").await.unwrap();
    gone.await.unwrap();
    let finding = http::exchange(connection, &check("/"), target).await.unwrap();
    assert_eq!(finding.reason, Reason::L7Ok, "although the request could not be sent");
}

#[tokio::test]
async fn a_head_in_pieces_and_an_endless_body_pass() {
    let (target, end) = server(async |mut stream: TcpStream| {
        say(&mut stream, &[b"HTTP/1.", b"1 20", b"0 OK\r\nServer: x\r", b"\n\r", b"\n"]).await;
        while stream.write_all(b"no end to it ").await.is_ok() {}
    })
    .await;
    let outcome = probe(target, get("/"), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
    end.await.expect("the probe leaves the server in the middle of the body");
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let target = responder(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 503 No\r\n\r\n",
    )
    .await;
    let outcome = probe(target, get("/"), AMPLE).await;
    assert_eq!(outcome.detail, "GET /: 503 No, expected 200-399");
}

#[tokio::test]
async fn what_is_not_http_fails_and_is_quoted() {
    #[rustfmt::skip]
    let table: [(&[u8], &str); _] = [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", r#"got "SSH-2.0-OpenSSH_9.2p1\r\n": invalid HTTP version"#),
        (b"\x15\x03\x01\0\x02\x02", r#"got "\x15\x03\x01\x00\x02\x02": invalid HTTP version"#),
        (b"HTTP/1.1 abc\r\n\r\n", r#"got "HTTP/1.1 abc\r\n\r\n": invalid response status"#),
    ];
    for (answer, detail) in table {
        let outcome = probe(speaker_that_hangs_up(answer).await, get("/"), AMPLE).await;
        assert_eq!(outcome.reason, Reason::L7Response);
        assert_eq!(outcome.detail, format!("GET /: expected an HTTP answer, {detail}"));
    }
}

#[tokio::test]
async fn a_head_cut_short_fails() {
    let target = speaker_that_hangs_up(b"HTTP/1.1 200 OK\r\nServer: ").await;
    let outcome = probe(target, get("/"), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert_eq!(
        outcome.detail,
        "GET /: expected an HTTP answer, got \"HTTP/1.1 200 OK\\r\\nServer: \", \
         then the connection was closed"
    );
}

#[tokio::test]
async fn a_reset_instead_of_an_answer_fails() {
    let (target, _) = server(async |mut stream: TcpStream| {
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let outcome = probe(target, get("/"), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert_eq!(
        outcome.detail,
        "GET /: expected an HTTP answer, got nothing, then connection reset by peer"
    );
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_times_out() {
    let (_listener, target) = listen().await;
    let outcome = probe(target, get("/"), SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout);
    assert_eq!(outcome.detail, "GET /: expected an HTTP answer within 1s, got nothing");
    assert!(outcome.took >= SCANT);
}

#[tokio::test]
async fn headers_that_drip_without_end_time_out() {
    let (target, _) = server(async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while stream.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let outcome = probe(target, get("/"), SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout, "{outcome:?}");
    assert!(outcome.detail.contains(r#"within 1s, got "HTTP/1.1 200 OK\r\nX: y"#));
}

#[tokio::test]
async fn a_head_longer_than_16_kib_fails() {
    let (target, _) = server(async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await.unwrap();
        while stream.write_all(&[b'y'; 4096]).await.is_ok() {}
    })
    .await;
    let outcome = probe(target, get("/"), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert!(outcome.detail.contains("in the first 16384 bytes"), "{}", outcome.detail);
}

#[tokio::test]
async fn more_headers_than_anyone_sends_fail() {
    let target = babbler(b"HTTP/1.1 200 OK\r\n").await;
    let outcome = probe(target, get("/"), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response, "{outcome:?}");
}

/// A server that reads the request and answers with this.
async fn responder(answer: &'static [u8]) -> SocketAddr {
    server(async move |mut stream: TcpStream| {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer).await.unwrap();
        read_all(&mut stream).await;
    })
    .await
    .0
}

pub(super) fn get(uri: &str) -> CheckKind {
    CheckKind::Http(check(uri))
}

fn check(uri: &str) -> HttpCheck {
    HttpCheck {
        method: "GET".to_owned(),
        uri: uri.to_owned(),
        version: HttpVersion::V11,
        host: None,
        headers: Vec::new(),
        body: String::new(),
        expects: vec![wanted(HttpSubject::Status(vec![StatusRange::GOOD]))],
    }
}

fn wanted(subject: HttpSubject) -> HttpExpect {
    HttpExpect { subject, negated: false }
}
