//! The HTTP check: one request, and what its answer must be like.
//!
//! The request is written and the answer parsed right here rather than by a client library: many
//! health agents (the usual one for Galera is a shell script behind xinetd) answer without reading
//! the request, often before it was sent, and libraries take such an answer for a protocol error.

mod body;
mod head;
mod request;

use std::net::SocketAddr;

use self::{
    body::Framing,
    head::{Head, Progress},
};
use super::{
    connection::Connection,
    finding::{Finding, NoMore, Trouble, describe, quote},
};
use crate::{
    config::{HttpCheck, HttpSubject, Pattern, StatusRange},
    core::Reason,
};

const ANSWER: &str = "an HTTP answer";

/// Sends the request; the check passes if the answer is all that is expected of it.
///
/// As in HAProxy, a body is read no further than what is expected needs, and never beyond 16 KiB.
pub(super) async fn exchange(
    mut connection: Connection,
    check: &HttpCheck,
    target: SocketAddr,
) -> Result<Finding, Finding> {
    let subject = format!("{} {}", check.method, check.uri);
    match connection.send(request::text(check, target).as_bytes()).await {
        // A server that has already answered and closed: see what it said.
        Ok(()) | Err(Trouble::Broken(_)) => {}
        Err(trouble) => return Err(Finding::not_sent(&subject, &trouble)),
    }
    let mut head = receive_head(&mut connection, &subject).await?;
    if check.method == "HEAD" {
        head.framing = Framing::Length(0);
    }
    let subject = format!("{subject}: {} {}", head.code, head.name).trim_end().to_owned();
    for expect in &check.expects {
        match &expect.subject {
            HttpSubject::Body(pattern) => {
                await_body(&mut connection, &head, pattern, expect.negated, &subject).await?;
            }
            HttpSubject::Status(ranges) => {
                let is_in = ranges.iter().any(|range| range.holds(head.code));
                judge_status(is_in, expect.negated, &words(ranges), &subject)?;
            }
            HttpSubject::StatusText(pattern) => {
                let is_in = pattern.is_in(head.code.to_string().as_bytes());
                judge_status(is_in, expect.negated, &describe(pattern), &subject)?;
            }
        }
    }
    Ok(Finding::new(Reason::L7Ok, subject))
}

/// Waits for the head of the answer.
async fn receive_head(connection: &mut Connection, subject: &str) -> Result<Head, Finding> {
    let mut start = 0;
    loop {
        match head::parse(&connection.received()[start..]) {
            Progress::Partial => {}
            Progress::Garbage(why) => {
                let got = quote(connection.received());
                let detail = format!("{subject}: expected {ANSWER}, got {got}: {why}");
                return Err(Finding::new(Reason::L7Response, detail));
            }
            Progress::Interim(length) => {
                start += length;
                continue;
            }
            Progress::Complete(head) => return Ok(Head { length: start + head.length, ..head }),
        }
        if let Err(no_more) = connection.receive().await {
            return Err(Finding::no_answer(subject, ANSWER, connection.received(), &no_more));
        }
    }
}

/// Receives the body until it is known whether it is as expected.
async fn await_body(
    connection: &mut Connection,
    head: &Head,
    pattern: &Pattern,
    negated: bool,
    subject: &str,
) -> Result<(), Finding> {
    let expected = format!("{}{} in the body", if negated { "no " } else { "" }, describe(pattern));
    let mut end = None;
    loop {
        let body = head.framing.decode(&connection.received()[head.length..]);
        if body.is_whole {
            end = Some(NoMore::Complete);
        }
        let verdict = match (pattern.is_in(&body.bytes), negated, &end) {
            // As in HAProxy, what is not wanted is not taken for absent where there is nothing.
            (_, _, Some(end)) if body.bytes.is_empty() => Some(Err(("a body", end))),
            (true, false, _) => Some(Ok(())),
            (true, true, _) => Some(Err((expected.as_str(), &NoMore::Complete))),
            (false, true, Some(NoMore::Complete | NoMore::Closed | NoMore::Full(_))) => {
                Some(Ok(()))
            }
            (false, _, Some(end)) => Some(Err((expected.as_str(), end))),
            (false, _, None) => None,
        };
        if let Some(verdict) = verdict {
            return verdict.map_err(|(expected, end)| {
                Finding::no_answer(subject, expected, &body.bytes, end)
            });
        }
        end = connection.receive().await.err();
    }
}

/// The check fails if the status is in what must not be, or not in what must be.
fn judge_status(is_in: bool, negated: bool, what: &str, subject: &str) -> Result<(), Finding> {
    if is_in != negated {
        return Ok(());
    }
    let none = if negated { "none of " } else { "" };
    Err(Finding::new(Reason::L7Status, format!("{subject}, expected {none}{what}")))
}

fn words(ranges: &[StatusRange]) -> String {
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
