//! What is said about a configuration file, and how it is printed.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but probably does not say what was meant.
    Warning,
}

/// One thing that is wrong with a configuration file: what, where, and what to do.
///
/// Prints as several lines, the first of which an editor can jump to:
///
/// ```text
/// tandem.toml:14:1: error: unknown key `weigth` in [[service.backend]]
///    |
/// 14 | weigth = 3
///    | ^^^^^^
///    = did you mean `weight`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as the caller of [`parse`](super::parse) or [`load`](super::load) named it.
    pub file: String,
    /// Where in the file; none if the file could not be read at all.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// The offending line; none for what is missing from the file as a whole.
    pub excerpt: Option<Excerpt>,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A line of the file, of which a part is marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, without its end.
    pub line: String,
    /// How many characters are marked, from the diagnostic's column on; at least one.
    pub marked: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, " {severity}: {}", self.message)?;

        let mut gutter = 2;
        if let (Some(position), Some(excerpt)) = (self.position, &self.excerpt) {
            let number = position.line.to_string();
            gutter = number.len().max(gutter);
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{number:>gutter$} | {}", printable(&excerpt.line))?;
            // Tabs stay tabs, so that the mark stands below what it marks in any terminal.
            let indent: String = excerpt
                .line
                .chars()
                .take(position.column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            writeln!(f, "{:gutter$} | {indent}{}", "", "^".repeat(excerpt.marked))?;
        }
        write!(f, "{:gutter$} = {}", "", self.hint)
    }
}

/// The line without characters that would make a terminal do something.
fn printable(line: &str) -> String {
    let harmless = |c: char| {
        if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
    };
    line.chars().map(harmless).collect()
}

/// Everything that is wrong with a configuration file, in the order of the file; at least one
/// [`Severity::Error`] is among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file: String,
    found: Vec<Diagnostic>,
}

impl Diagnostics {
    /// `found` is in the order of the file.
    pub(super) fn new(file: &str, found: Vec<Diagnostic>) -> Self {
        debug_assert!(found.iter().any(|d| d.severity == Severity::Error));
        Self { file: file.to_owned(), found }
    }

    /// A file that could not even be read.
    pub(super) fn unreadable(file: &str, message: String, hint: &str) -> Self {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            file: file.to_owned(),
            position: None,
            message,
            hint: hint.to_owned(),
            excerpt: None,
        };
        Self::new(file, vec![diagnostic])
    }

    /// Errors and warnings, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.found.iter()
    }

    fn count(&self, severity: Severity) -> usize {
        self.found.iter().filter(|d| d.severity == severity).count()
    }
}

impl fmt::Display for Diagnostics {
    /// Each diagnostic followed by an empty line, then a line that counts them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.found {
            writeln!(f, "{diagnostic}\n")?;
        }
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let errors = self.count(Severity::Error);
        write!(f, "{}: {errors} error{}", self.file, plural(errors))?;
        match self.count(Severity::Warning) {
            0 => Ok(()),
            warnings => write!(f, ", {warnings} warning{}", plural(warnings)),
        }
    }
}

impl std::error::Error for Diagnostics {}
