//! What a probe found, in words for the operator who reads them in the middle of an outage.

use std::{
    fmt::Write,
    io,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::{
    config::Pattern,
    core::{Outcome, Reason},
};

/// Most characters of an answer that are quoted.
const LONGEST_QUOTE: usize = 60;

/// How a probe ended.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

/// What kept bytes from going to or coming from a backend.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The probe's time is up; it had this much.
    Timeout(Duration),
    /// The connection failed.
    Broken(io::Error),
}

/// Why no more of an answer will come.
#[derive(Debug)]
pub(super) enum NoMore {
    /// It could not.
    Trouble(Trouble),
    /// The backend closed the connection.
    Closed,
    /// All of it has come.
    Complete,
    /// This many bytes came, and more are not looked at.
    Full(usize),
}

impl Finding {
    pub(super) fn new(reason: Reason, detail: String) -> Self {
        Self { reason, detail }
    }

    /// The outcome of a probe that was begun then and ended with this now.
    pub(super) fn after(self, started: Instant) -> Outcome {
        Outcome { reason: self.reason, detail: self.detail, took: started.elapsed() }
    }

    /// The same, said of a part of what was asked.
    pub(super) fn at(self, subject: &str) -> Self {
        Self::new(self.reason, format!("{subject}: {}", self.detail))
    }

    /// `received` is not the `expected` answer to `subject`, and no more will come.
    pub(super) fn no_answer(
        subject: &str,
        expected: &str,
        received: &[u8],
        no_more: &NoMore,
    ) -> Self {
        let got = quote(received);
        let (reason, detail) = match no_more {
            NoMore::Trouble(Trouble::Timeout(timeout)) => {
                (Reason::L7Timeout, format!("expected {expected} within {timeout:?}, got {got}"))
            }
            NoMore::Trouble(Trouble::Broken(error)) => {
                let error = words(error);
                (Reason::L7Response, format!("expected {expected}, got {got}, then {error}"))
            }
            NoMore::Closed => (
                Reason::L7Response,
                format!("expected {expected}, got {got}, then the connection was closed"),
            ),
            NoMore::Complete => (Reason::L7Response, format!("expected {expected}, got {got}")),
            NoMore::Full(limit) => (
                Reason::L7Response,
                format!("expected {expected} in the first {limit} bytes, got {got}"),
            ),
        };
        Self::new(reason, format!("{subject}: {detail}"))
    }

    /// `subject` could not be sent.
    pub(super) fn not_sent(subject: &str, trouble: &Trouble) -> Self {
        let (reason, why) = match trouble {
            Trouble::Timeout(timeout) => {
                (Reason::L7Timeout, format!("not taken within {timeout:?}"))
            }
            Trouble::Broken(error) => (Reason::L7Response, words(error)),
        };
        Self::new(reason, format!("{subject}: could not send: {why}"))
    }
}

impl From<Trouble> for NoMore {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// The error as a part of a sentence: "connection refused".
pub(super) fn words(error: &io::Error) -> String {
    let words = match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    };
    let mut chars = words.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => words,
    }
}

/// The beginning of what a backend said, in quotes and safe for a terminal and a log.
pub(super) fn quote(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    let mut text = String::with_capacity(LONGEST_QUOTE + '…'.len_utf8());
    for &byte in bytes {
        // Rust would escape the apostrophe too, and "can\'t" reads badly.
        let escaped = if byte == b'\'' { "'".to_owned() } else { byte.escape_ascii().to_string() };
        if text.len() + escaped.len() > LONGEST_QUOTE {
            text.push('…');
            break;
        }
        text.push_str(&escaped);
    }
    format!("\"{text}\"")
}

/// What an answer is searched for, as an operator would write it.
pub(super) fn describe(pattern: &Pattern) -> String {
    match pattern {
        Pattern::String(bytes) => quote(bytes),
        Pattern::Regex(regex) => expression(regex.as_str()),
    }
}

/// The beginning of a regular expression, as it is written.
fn expression(regex: &str) -> String {
    let mut text = String::from("/");
    for (count, character) in regex.chars().enumerate() {
        if count == LONGEST_QUOTE {
            text.push('…');
            break;
        }
        if character.is_control() {
            let _ = write!(text, "{}", character.escape_default());
        } else {
            text.push(character);
        }
    }
    text.push('/');
    text
}
