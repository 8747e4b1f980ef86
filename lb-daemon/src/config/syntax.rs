//! Text that is not TOML: the parser's complaints, said so that a reader knows what to type.

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
};

use super::report::{Report, Span};

/// Reports the parser's `errors`; `document` is what it could make of the `text` all the same.
pub(super) fn report(report: &Report<'_>, text: &str, document: &DeTable<'_>, errors: &[Error]) {
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        // The rest of the message lists the characters that a grammar would allow here.
        let (what, _) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
        match what {
            "duplicate key" => duplicate(report, text, span),
            "unclosed array" | "unclosed inline table" => unclosed(report, text, document, span),
            "invalid multi-line basic string" | "invalid multi-line literal string" => {
                let start = value_before(document, span.start).map_or(span.start, |v| v.start);
                let message = "this text is never closed";
                let hint =
                    format!("end it with {}", text.get(start..start + 3).unwrap_or("\"\"\""));
                report.syntax(start..start + 3, true, message, &hint);
            }
            _ => {
                // Keys below a header that can't be read may end up in another table.
                let derails = line_of(text, span.start).trim_start().starts_with('[');
                if VALUES.contains(&what) {
                    not_a_value(report, text, span.start, derails);
                } else {
                    let (message, hint) = explain(what);
                    report.syntax(span, derails, message, hint);
                }
            }
        }
    }
}

/// The parser's complaints about a value that it can't read.
const VALUES: [&str; 7] = [
    "string values must be quoted",
    "invalid boolean",
    "invalid float",
    "unexpected leading zero",
    "invalid value",
    "missing value",
    "missing value for key",
];

/// Something is there twice: no obstacle to reading the rest.
fn duplicate(report: &Report<'_>, text: &str, span: Span) {
    let name = text.get(span.clone()).unwrap_or_default();
    let (message, hint) = if line_of(text, span.start).trim_start().starts_with('[') {
        let hint = "write each header once, and all its keys below it; only lists such as \
                    [[service]] repeat theirs";
        (format!("the table `{name}` is there twice"), hint)
    } else {
        (format!("the key `{name}` is set twice in one table"), "keep one of the two")
    };
    report.error(span, message, hint);
}

/// A bracket without its partner swallows the rest of the file. The parser complains where the
/// file ends, and about much in between; the operator wants to see the bracket.
fn unclosed(report: &Report<'_>, text: &str, document: &DeTable<'_>, end: Span) {
    let mut open = Vec::new();
    each_value(document, &mut |value| {
        let span = value.span();
        let source = text.get(span.clone()).unwrap_or_default();
        let closed = match source.as_bytes().first() {
            Some(b'[') if value.get_ref().is_array() => source.ends_with(']'),
            Some(b'{') => source.ends_with('}'),
            _ => true,
        };
        if !closed {
            open.push(span.start);
        }
    });
    let start = open.into_iter().min().unwrap_or(end.start);
    let (bracket, partner) = match text.as_bytes().get(start) {
        Some(b'{') => ("{", "}"),
        _ => ("[", "]"),
    };
    let message = format!("this `{bracket}` is never closed");
    let hint = format!("close it with `{partner}`; what follows it could not be checked");
    report.syntax(start..start + 1, true, &message, &hint);
}

/// Something that stands where a value should, such as a word without quotes.
fn not_a_value(report: &Report<'_>, text: &str, at: usize, derails: bool) {
    let span = word_at(text, at);
    let word = if report.is_concealed(&span) { "..." } else { &text[span.clone()] };
    let (message, hint) = if word.is_empty() {
        ("there is no value after `=`".to_owned(), "write one, or remove the line".to_owned())
    } else {
        let hint =
            format!("text goes in quotes: \"{word}\"; only numbers, true and false stand without");
        (format!("`{word}` is not a value"), hint)
    };
    report.syntax(span, derails, &message, &hint);
}

/// Message and hint for what needs no look at the text.
fn explain(what: &str) -> (&str, &str) {
    match what {
        "key with no value" => (
            "a key without `=` and a value",
            "every setting is written `key = value`, such as `weight = 10`",
        ),
        "unclosed table" => ("this header is not closed", "end it with `]`, as in [global]"),
        "unclosed array table" => {
            ("this header is not closed", "end it with `]]`, as in [[service]]")
        }
        "invalid basic string" | "invalid literal string" => (
            "this text is not closed on its line, or has a character that is none",
            "end it with the quote it began with; in \"...\" a quote is written \\\", a backslash \
             \\\\, a control character \\u001b",
        ),
        "missing comma between array elements" | "missing comma between key-value pairs" => {
            ("a comma is missing here", "separate what is in brackets by commas")
        }
        "extra `=`" | "extra assignment between key-value pairs" => {
            ("there is a `=` too many", "a key and its value have one `=` between them")
        }
        "unexpected key or value" => (
            "more follows on this line than one setting",
            "write one `key = value` a line; text with spaces goes in quotes",
        ),
        "missing escaped value" | "too few unicode value digits" => (
            "an escape sequence that does not exist",
            "write \\\\ for a backslash, or the whole text in '...', where none is needed",
        ),
        "invalid unquoted key" | "unquoted keys cannot be empty" => (
            "this is not the name of a key",
            "names of keys are letters, digits, `_` and `-`, before a `=`",
        ),
        other => (
            other,
            "this is not TOML: settings are `key = value`, text goes in quotes, lists in [ ]",
        ),
    }
}

/// The value that ends at `offset`.
fn value_before(document: &DeTable<'_>, offset: usize) -> Option<Span> {
    let mut found = None;
    each_value(document, &mut |value| {
        if value.get_ref().is_str() && value.span().end == offset {
            found = Some(value.span());
        }
    });
    found
}

fn each_value<'a>(table: &'a DeTable<'a>, visit: &mut impl FnMut(&'a Spanned<DeValue<'a>>)) {
    fn value<'a>(at: &'a Spanned<DeValue<'a>>, visit: &mut impl FnMut(&'a Spanned<DeValue<'a>>)) {
        visit(at);
        match at.get_ref() {
            DeValue::Array(items) => items.iter().for_each(|item| value(item, visit)),
            DeValue::Table(table) => each_value(table, visit),
            _ => {}
        }
    }
    table.values().for_each(|item| value(item, visit));
}

fn line_of(text: &str, offset: usize) -> &str {
    let (before, after) = text.split_at_checked(offset).unwrap_or((text, ""));
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let end = after.find('\n').map_or(text.len(), |newline| offset + newline);
    &text[start..end]
}

/// What a person would take for the value at `offset`: as far as there is no space or separator.
fn word_at(text: &str, offset: usize) -> Span {
    let (before, after) = text.split_at_checked(offset).unwrap_or((text, ""));
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '=' | '[' | ']' | '{' | '}' | '#');
    let start = before.trim_end_matches(|c| !ends(c)).len();
    let end = after.find(ends).map_or(text.len(), |length| before.len() + length);
    start..end
}
