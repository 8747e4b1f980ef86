//! What is expected of HTTP answers beyond their status, and requests that are more than a path.

use regex::bytes::Regex;

use super::*;
use crate::{
    config::{HttpCheck, HttpExpect, HttpSubject, HttpVersion, Pattern, StatusRange},
    core::Reason,
};

#[tokio::test]
async fn a_body_must_hold_what_is_expected() {
    #[rustfmt::skip]
    let table: [(&[u8], Reason, &str); _] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nall up", Reason::L7Ok, "GET /: 200 OK"),
        (b"HTTP/1.1 500 Oops\r\n\r\nall up", Reason::L7Ok, "GET /: 500 Oops"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nall u\r\n1\r\np\r\n0\r\n\r\n", Reason::L7Ok, "GET /: 200 OK"),
        (b"HTTP/1.1 200 OK\r\nX: up\r\nContent-Length: 4\r\n\r\ndown", Reason::L7Response,
         r#"GET /: 200 OK: expected "up" in the body, got "down""#),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndownup", Reason::L7Response,
         r#"GET /: 200 OK: expected "up" in the body, got "down""#),
        (b"HTTP/1.1 200 up\r\nContent-Length: 0\r\n\r\n", Reason::L7Response,
         "GET /: 200 up: expected a body, got nothing"),
    ];
    for (answer, reason, detail) in table {
        let expects = vec![expect(body("up"), false)];
        let outcome = ask(answer, HttpCheck { expects, ..get() }).await;
        assert_eq!((outcome.reason, outcome.detail.as_str()), (reason, detail));
    }
}

#[tokio::test]
async fn a_body_must_not_hold_what_is_refused() {
    #[rustfmt::skip]
    let table: [(&[u8], Reason, &str); _] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", Reason::L7Ok, "GET /: 200 OK"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nSQL Error 17", Reason::L7Response,
         r#"GET /: 200 OK: expected no /Error \d+/ in the body, got "SQL Error 17""#),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Reason::L7Response,
         "GET /: 204 No Content: expected a body, got nothing"),
    ];
    let pattern = Pattern::Regex(Regex::new(r"Error \d+").unwrap());
    for (answer, reason, detail) in table {
        let expects = vec![expect(HttpSubject::Body(pattern.clone()), true)];
        let outcome = ask(answer, HttpCheck { expects, ..get() }).await;
        assert_eq!((outcome.reason, outcome.detail.as_str()), (reason, detail));
    }
}

#[tokio::test]
async fn a_body_in_pieces_is_read_until_the_verdict_is_clear() {
    let (target, _) = server(async |mut stream: TcpStream| {
        say(&mut stream, &[b"HTTP/1.1 200 OK\r\n\r\nall i", b"s we", b"ll"]).await;
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await
    })
    .await;
    let expects = vec![expect(body("is well"), false), expect(body("ERROR"), true)];
    let kind = CheckKind::Http(HttpCheck { expects, ..get() });
    assert_eq!(probe(target, kind, AMPLE).await.reason, Reason::L7Ok);
}

#[tokio::test]
async fn a_body_that_does_not_come_to_an_end_times_out() {
    for negated in [true, false] {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nall is";
        let expects = vec![expect(body("well"), negated)];
        let kind = CheckKind::Http(HttpCheck { expects, ..get() });
        let outcome = probe(speaker(&[ANSWER]).await, kind, SCANT).await;
        assert_eq!(outcome.reason, Reason::L7Timeout);
        let no = if negated { "no " } else { "" };
        let detail =
            format!(r#"GET /: 200 OK: expected {no}"well" in the body within 1s, got "all is""#);
        assert_eq!(outcome.detail, detail);
    }
}

#[tokio::test]
async fn the_answer_to_head_has_no_body() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let expects = vec![expect(body("well"), false)];
    let outcome = ask(answer, HttpCheck { method: "HEAD".to_owned(), expects, ..get() }).await;
    assert_eq!(outcome.detail, "HEAD /: 200 OK: expected a body, got nothing");
}

#[tokio::test]
async fn a_status_can_be_refused_or_matched_as_text() {
    let server_error = StatusRange { first: 500, last: 599 };
    let teapots = || HttpSubject::StatusText(Pattern::Regex(Regex::new("^41").unwrap()));
    #[rustfmt::skip]
    let table = [
        (HttpSubject::Status(vec![server_error]), true, Reason::L7Ok, "GET /: 418 Tea"),
        (HttpSubject::Status(vec![server_error]), false, Reason::L7Status, "GET /: 418 Tea, expected 500-599"),
        (teapots(), false, Reason::L7Ok, "GET /: 418 Tea"),
        (teapots(), true, Reason::L7Status, "GET /: 418 Tea, expected none of /^41/"),
    ];
    for (subject, negated, reason, detail) in table {
        let expects = vec![expect(subject, negated)];
        let outcome = ask(b"HTTP/1.1 418 Tea\r\n\r\n", HttpCheck { expects, ..get() }).await;
        assert_eq!((outcome.reason, outcome.detail.as_str()), (reason, detail));
    }
}

#[tokio::test]
async fn a_request_has_the_headers_and_the_body_it_is_told_to() {
    let check = HttpCheck {
        method: "POST".to_owned(),
        headers: vec![("X-Check".to_owned(), "tandem".to_owned())],
        body: "are you there?".to_owned(),
        ..get()
    };
    let old = HttpCheck { version: HttpVersion::V10, ..get() };
    let named = HttpCheck { host: Some("shop.example".to_owned()), ..old.clone() };
    #[rustfmt::skip]
    let table = [
        (check, "POST / HTTP/1.1\r\nHost: TARGET\r\nX-Check: tandem\r\nContent-Length: 14\r\nConnection: close\r\n\r\nare you there?"),
        (old, "GET / HTTP/1.0\r\nConnection: close\r\n\r\n"),
        (named, "GET / HTTP/1.0\r\nHost: shop.example\r\nConnection: close\r\n\r\n"),
    ];
    for (check, request) in table {
        let (target, heard) = server(async |mut stream: TcpStream| {
            say(&mut stream, &[b"HTTP/1.1 200 OK\r\n\r\n"]).await;
            read_all(&mut stream).await
        })
        .await;
        assert_eq!(probe(target, CheckKind::Http(check), AMPLE).await.reason, Reason::L7Ok);
        let request = request.replace("TARGET", &target.to_string());
        assert_eq!(String::from_utf8(heard.await.unwrap()).unwrap(), request);
    }
}

/// Asks a server that answers with this.
async fn ask(answer: &'static [u8], check: HttpCheck) -> Outcome {
    let target = speaker_that_hangs_up(answer).await;
    probe(target, CheckKind::Http(check), AMPLE).await
}

fn get() -> HttpCheck {
    let CheckKind::Http(check) = http::get("/") else { unreachable!() };
    check
}

fn expect(subject: HttpSubject, negated: bool) -> HttpExpect {
    HttpExpect { subject, negated }
}

fn body(text: &str) -> HttpSubject {
    HttpSubject::Body(Pattern::String(text.into()))
}
