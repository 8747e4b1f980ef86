//! What checks send and what they look for in answers: texts, bytes, regular expressions.

use regex::bytes::Regex;

use super::{check_model::Pattern, reader::Field, report::Read};

/// How much of an answer is looked at.
pub(super) const LONGEST_ANSWER: u16 = 16 * 1024;

/// A text that is not empty.
pub(super) fn text(field: &Field<'_>) -> Read<Vec<u8>> {
    let text = field.string()?;
    if text.is_empty() {
        let message = format!("`{}` is empty", field.key());
        return Err(field.error(message, "write the text, or leave the key out"));
    }
    Ok(text.as_bytes().to_vec())
}

/// Bytes, two hexadecimal digits each.
pub(super) fn hex(field: &Field<'_>) -> Read<Vec<u8>> {
    let digits = text(field)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect();
    bytes.ok_or_else(|| {
        let message = format!("`{}` is not hexadecimal", field.key());
        field.error(message, "write two digits (0-9, a-f) for each byte, as in \"0a0b\"")
    })
}

/// Looks for these bytes.
pub(super) fn bytes(field: &Field<'_>, bytes: Vec<u8>) -> Read<Pattern> {
    if bytes.len() > usize::from(LONGEST_ANSWER) {
        let message = format!("`{}` can never be found: it has {} bytes", field.key(), bytes.len());
        let hint = format!("the first {LONGEST_ANSWER} bytes of an answer are looked at");
        return Err(field.error(message, hint));
    }
    Ok(Pattern::String(bytes))
}

/// Looks for a match of this regular expression.
pub(super) fn regex(field: &Field<'_>) -> Read<Pattern> {
    text(field)?;
    let regex = Regex::new(field.string()?).map_err(|error| {
        // A syntax error is a drawing of several lines; what is wrong stands in the last one.
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default();
        let why = why.trim_start_matches("error: ");
        let message = format!("`{}` is not a regular expression: {why}", field.key());
        let hint = if why.contains("not supported") {
            "write it without; `expect_string` is often enough"
        } else {
            "put a backslash before a character that is meant literally, or use `expect_string`"
        };
        field.error(message, hint)
    })?;
    Ok(Pattern::Regex(regex))
}

/// A regular expression that must be found.
pub(super) fn wanted_regex(field: &Field<'_>) -> Read<Pattern> {
    let pattern = regex(field)?;
    if pattern.is_in(b"") {
        let message = format!("`{}` is satisfied before anything is received", field.key());
        let hint = "ask for at least one character, so that a silent backend fails the check";
        field.report().warning(Some(field.span()), message, hint);
    }
    Ok(pattern)
}

/// A regular expression that must not be found.
pub(super) fn unwanted_regex(field: &Field<'_>) -> Read<Pattern> {
    let pattern = regex(field)?;
    if pattern.is_in(b"") {
        let message = format!("`{}` is found in every answer, so no check passes", field.key());
        return Err(field.error(message, "ask for at least one character"));
    }
    Ok(pattern)
}
