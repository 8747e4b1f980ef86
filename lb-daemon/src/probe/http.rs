//! The HTTP check: one request, and the status of its answer.
//!
//! The request is written and the head of the answer parsed right here rather than by a client
//! library: many health agents (the usual one for Galera is a shell script behind xinetd) answer
//! without reading the request, often before it was sent, and libraries take such an answer for a
//! protocol error.

use std::net::SocketAddr;

use super::{
    connection::Connection,
    finding::{Finding, Trouble, quote},
};
use crate::{
    config::{HttpCheck, StatusRange},
    core::Reason,
};

/// Most header lines an answer may have.
const MOST_HEADERS: usize = 128;

/// Most characters that are shown of the name a server gives its status.
const LONGEST_NAME: usize = 40;

const ANSWER: &str = "an HTTP answer";

/// The beginning of an answer's head.
#[derive(Debug)]
enum Head {
    /// More is needed.
    Partial,
    /// This is no HTTP/1 answer, and why not.
    Garbage(httparse::Error),
    /// An interim answer, this many bytes long: the real one follows.
    Interim(usize),
    /// A status code and the server's name for it.
    Status(u16, String),
}

/// Sends the request; the check passes if an accepted status code comes. A body is not read.
pub(super) async fn exchange(
    mut connection: Connection,
    check: &HttpCheck,
    target: SocketAddr,
) -> Result<Finding, Finding> {
    let subject = format!("{} {}", check.method, check.uri);
    match connection.send(request(check, target).as_bytes()).await {
        // A server that has already answered and closed: see what it said.
        Ok(()) | Err(Trouble::Broken(_)) => {}
        Err(trouble) => return Err(Finding::not_sent(&subject, &trouble)),
    }

    let mut start = 0;
    let (code, name) = loop {
        match parse(&connection.received()[start..]) {
            Head::Partial => {}
            Head::Garbage(why) => {
                let got = quote(connection.received());
                let detail = format!("{subject}: expected {ANSWER}, got {got}: {why}");
                return Err(Finding::new(Reason::L7Response, detail));
            }
            Head::Interim(length) => {
                start += length;
                continue;
            }
            Head::Status(code, name) => break (code, name),
        }
        if let Err(no_more) = connection.receive().await {
            return Err(Finding::no_answer(&subject, ANSWER, connection.received(), &no_more));
        }
    };

    let status = format!("{subject}: {code} {name}");
    if check.status.iter().any(|range| (range.first..=range.last).contains(&code)) {
        Ok(Finding::new(Reason::L7OkStatus, status.trim_end().to_owned()))
    } else {
        let detail = format!("{}, expected {}", status.trim_end(), ranges(&check.status));
        Err(Finding::new(Reason::L7Status, detail))
    }
}

fn request(check: &HttpCheck, target: SocketAddr) -> String {
    let HttpCheck { method, uri, host, .. } = check;
    let host = host.clone().unwrap_or_else(|| {
        // Without the zone of a link-local address, which means nothing to the server.
        SocketAddr::new(target.ip(), target.port()).to_string()
    });
    format!("{method} {uri} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

fn parse(received: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(received) {
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(why) => Head::Garbage(why),
        Ok(httparse::Status::Complete(length)) => match answer.code {
            // 101 is a final answer: no other follows.
            Some(100 | 102..=199) => Head::Interim(length),
            Some(code) => {
                let name = answer.reason.unwrap_or_default();
                Head::Status(code, name.chars().take(LONGEST_NAME).collect())
            }
            None => Head::Garbage(httparse::Error::Status),
        },
    }
}

fn ranges(ranges: &[StatusRange]) -> String {
    let texts: Vec<_> = ranges
        .iter()
        .map(
            |&StatusRange { first, last }| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
        .collect();
    texts.join(", ")
}
