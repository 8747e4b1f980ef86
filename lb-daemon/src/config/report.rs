//! Collects what is wrong while a file is read, and decides what of it is worth saying.

use std::{cell::RefCell, collections::HashSet, ops::Range};

use super::{
    diagnostic::{Diagnostic, Excerpt, Position, Severity, printable},
    secret_places,
};

/// Proof that an error has been reported: whoever gets it instead of a value has nothing to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// A value of the file, if it was right.
pub(super) type Read<T> = Result<T, Reported>;

/// Where a diagnostic points.
pub(super) type Span = Range<usize>;

/// What is wrong with one file so far.
///
/// Readers of every level hold it at the same time and only ever append, hence the [`RefCell`].
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    found: RefCell<Vec<Found>>,
    /// Passwords.
    concealed: RefCell<Vec<Span>>,
}

struct Found {
    kind: Kind,
    /// Nothing if it concerns the file as a whole.
    span: Option<Span>,
    message: String,
    hint: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is not TOML. What follows it on its line, or if `derails` in the rest of the file, may
    /// have been read as something else than was meant.
    Syntax { derails: bool },
    /// Something that is in the file is wrong.
    Wrong,
    /// Something that should be in the file is not.
    Missing,
    /// See [`Severity::Warning`].
    Warning,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let concealed = RefCell::new(secret_places::find(text));
        Self { file, text, found: RefCell::default(), concealed }
    }

    /// The file does not follow TOML's grammar at `span`.
    pub(super) fn syntax(&self, span: Span, derails: bool, message: &str, hint: &str) {
        self.push(Kind::Syntax { derails }, Some(span), message, hint);
    }

    /// What stands at `span` is a password: what is said of the rest of its line is not to show it.
    pub(super) fn conceal(&self, span: Span) {
        self.concealed.borrow_mut().push(span);
    }

    /// Whether something of `span` is a password, which no message is to show.
    pub(super) fn is_concealed(&self, span: &Span) -> bool {
        let concealed = self.concealed.borrow();
        concealed.iter().any(|secret| secret.start < span.end && span.start < secret.end)
    }

    /// What stands at `span` is wrong.
    pub(super) fn error(
        &self,
        span: Span,
        message: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) -> Reported {
        self.push(Kind::Wrong, Some(span), message.as_ref(), hint.as_ref())
    }

    /// Something is missing in the table that begins at `span`, or in the whole file.
    pub(super) fn missing(
        &self,
        span: Option<Span>,
        message: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) -> Reported {
        self.push(Kind::Missing, span, message.as_ref(), hint.as_ref())
    }

    /// What stands at `span` (or in the whole file) is allowed, but probably not meant.
    pub(super) fn warning(
        &self,
        span: Option<Span>,
        message: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) {
        self.push(Kind::Warning, span, message.as_ref(), hint.as_ref());
    }

    /// The text at `span`, as the operator wrote it.
    pub(super) fn source(&self, span: &Span) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The line that `span` begins in, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        self.text.as_bytes().iter().take(span.start).filter(|&&byte| byte == b'\n').count() + 1
    }

    /// Whether an error was reported, and everything worth saying in the order of the file.
    pub(super) fn finish(self) -> (bool, Vec<Diagnostic>) {
        let mut found = self.found.take();
        let failed = found.iter().any(|found| found.kind != Kind::Warning);
        // What concerns the whole file comes first: `None` is less than any position.
        found.sort_by_key(|found| found.span.as_ref().map(|span| span.start));
        self.drop_consequences(&mut found);
        let mut said = HashSet::new();
        let diagnostics = found
            .into_iter()
            .filter(|found| said.insert((found.span.clone(), found.message.clone())))
            .map(|found| self.diagnostic(found))
            .collect();
        (failed, diagnostics)
    }

    fn push(&self, kind: Kind, span: Option<Span>, message: &str, hint: &str) -> Reported {
        // Both may quote the file.
        let (message, hint) = (printable(message), printable(hint));
        self.found.borrow_mut().push(Found { kind, span, message, hint });
        Reported(())
    }

    /// Leaves out what is only a consequence of text that could not be read: an operator who is
    /// told of a key "missing" that is there in the line above would stop trusting the rest.
    fn drop_consequences(&self, found: &mut Vec<Found>) {
        let mut broken_lines = HashSet::new();
        let mut derailed = usize::MAX;
        found.retain(|found| match (found.kind, &found.span) {
            (Kind::Syntax { derails }, Some(span)) => {
                let reliable = span.start <= derailed;
                if derails {
                    derailed = derailed.min(span.start);
                }
                broken_lines.insert(self.line(span)) && reliable
            }
            _ => true,
        });
        if broken_lines.is_empty() {
            return;
        }
        found.retain(|found| match (found.kind, &found.span) {
            (Kind::Wrong, Some(span)) => {
                span.start < derailed && !broken_lines.contains(&self.line(span))
            }
            (Kind::Missing | Kind::Warning, _) => false,
            _ => true,
        });
    }

    fn diagnostic(&self, found: Found) -> Diagnostic {
        let (position, excerpt) = match found.span {
            Some(span) => self.locate(&span),
            None => (Position { line: 1, column: 1 }, None),
        };
        let severity = match found.kind {
            Kind::Warning => Severity::Warning,
            Kind::Syntax { .. } | Kind::Wrong | Kind::Missing => Severity::Error,
        };
        Diagnostic {
            severity,
            file: self.file.to_owned(),
            position: Some(position),
            message: found.message,
            hint: found.hint,
            excerpt,
        }
    }

    fn locate(&self, span: &Span) -> (Position, Option<Excerpt>) {
        let start = floor_char_boundary(self.text, span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = &self.text[line_start..];
        let line = rest.split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);

        let position = Position {
            line: self.line(&(start..start)),
            column: before[line_start..].chars().count() + 1,
        };
        let end = floor_char_boundary(self.text, span.end).min(line_start + line.len());
        let marked = self.text.get(start..end).map_or(0, |marked| marked.chars().count());
        let line = self.without_passwords(line, line_start);
        (position, Some(Excerpt { line: printable(&line), marked: marked.max(1) }))
    }

    /// The line that begins at `start`, as long as it is.
    fn without_passwords(&self, line: &str, start: usize) -> String {
        let concealed = self.concealed.borrow();
        let shown = |(at, c)| {
            let hidden = concealed.iter().any(|span| span.contains(&(start + at)));
            if hidden && c != '"' && c != '\'' { '*' } else { c }
        };
        line.char_indices().map(shown).collect()
    }
}

/// The last boundary between characters that is not after `index`.
fn floor_char_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}
