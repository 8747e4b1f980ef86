//! Where passwords stand in a file, found by the names of their keys alone: a file that is not TOML, or
//! a key with a typing error, is complained about too, and the complaint shows the line.

use super::{report::Span, suggest};

/// The keys of passwords.
const KEYS: [&str; 4] = ["auth_pass", "key", "pass", "password"];

/// The places of all that may be a password, with its quotes. More is no harm: it is not shown.
pub(super) fn find(text: &str) -> Vec<Span> {
    let is_secret = |name: &str| KEYS.iter().any(|key| suggest::near(name, key));
    let assigned = text.match_indices('=').map(|(at, _)| at);
    let secret = assigned.filter(|at| is_secret(name_before(&text[..*at])));
    secret.map(|at| value_after(text, at + 1)).collect()
}

/// The word that the text ends with, in quotes or not.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\t', '"', '\'']);
    let before = text.trim_end_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-'));
    &text[before.len()..]
}

/// What follows on the line: all that is in quotes, or else all up to what ends a value.
fn value_after(text: &str, start: usize) -> Span {
    let line = text[start..].lines().next().unwrap_or_default();
    let value = line.trim_start();
    let start = start + line.len() - value.len();
    let length = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(value, quote),
        _ => value.find([',', '}', '#']).unwrap_or(value.len()),
    };
    start..start + length
}

/// How long the text in quotes is that this begins with.
fn quoted(value: &str, quote: char) -> usize {
    let mut is_escaped = false;
    let end = value.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == quote && !is_escaped;
        is_escaped = *c == '\\' && quote == '"' && !is_escaped;
        ends
    });
    end.map_or(value.len(), |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_name_of_a_password_is_one() {
        for (line, expected) in [
            ("password = \"a secret\"", &["\"a secret\""][..]),
            ("auth_pass='a secret' # of mine", &["'a secret'"]),
            (
                "{ user = \"u\", password = \"a \\\" secret\", query = \"galera\" }",
                &["\"a \\\" secret\""],
            ),
            ("pasword = secret # mine", &["secret "]),
            ("\"password\" = 12345, pass = 6", &["12345", "6"]),
            ("key = \"never closed", &["\"never closed"]),
            ("password =", &[""]),
            ("password = \r\nuser = 1", &[""]),
            ("password_file = \"/etc/password\"", &[]),
            ("= = ü =", &[]),
        ] {
            let found: Vec<_> = find(line).into_iter().map(|span| &line[span]).collect();
            assert_eq!(found, expected, "{line}");
        }
    }
}
