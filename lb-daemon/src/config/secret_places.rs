//! Where passwords stand in a file, found by the names of their keys alone: a file that is not TOML, or
//! a key with a typing error, is complained about too, and the complaint shows the line.

use super::{report::Span, suggest};

/// What the name of a password is, a word of it, or what it may be a typing error for.
const NAMES: [&str; 6] = ["auth_pass", "key", "pass", "passphrase", "password", "secret"];

/// What makes every word that has it the name of a password.
const MARKS: [&str; 2] = ["pass", "secret"];

/// What is near one of these, but is a key that means something else.
const OTHERS: [&str; 1] = ["socket"];

/// What stands between a name and its value, in TOML and in what people write instead.
const SEPARATORS: [char; 6] = [' ', '\t', '=', ':', ',', ']'];

const QUOTES: [char; 2] = ['"', '\''];

/// The places of all that may be a password, with its quotes. More is no harm: it is not shown.
pub(super) fn find(text: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = word_from(text, at) {
        at = word.end;
        let name = text[word].to_lowercase();
        if !is_secret(&name) {
            continue;
        }
        let start = value_start(text, at);
        let quoted = closed_quotes(&text[start..]).map(|length| start + length);
        if let Some(end) = quoted
            && name.ends_with("file")
            && text[start + 1..].starts_with('/')
        {
            // The path of a file that holds the password. Anything else may be the password itself.
            at = end;
            continue;
        }
        at = match quoted {
            Some(end) if another_may_follow(text, end) => end,
            // There may be more of it, or a comment on it.
            _ => line_end(text, quoted.unwrap_or(start)),
        };
        if start < at {
            found.push(start..at);
        }
    }
    found
}

/// The next word at or after `start`.
fn word_from(text: &str, start: usize) -> Option<Span> {
    let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let start = start + text[start..].find(is_of_word)?;
    let length = text[start..].find(|c| !is_of_word(c)).unwrap_or(text.len() - start);
    Some(start..start + length)
}

/// Whether what follows this word, which is in small letters, may be a password.
fn is_secret(word: &str) -> bool {
    let is_name =
        |word: &str| !OTHERS.contains(&word) && NAMES.iter().any(|name| suggest::near(word, name));
    MARKS.iter().any(|mark| word.contains(mark))
        || is_name(word)
        || word.split(['_', '-']).any(is_name)
}

/// Where that begins which may belong to the name that ends at `start`: on its line, or in quotes on
/// the next one that has something.
fn value_start(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    let rest = rest.strip_prefix(QUOTES).unwrap_or(rest);
    let later = rest.trim_start_matches(|c: char| c.is_whitespace() || SEPARATORS.contains(&c));
    let here = rest.trim_start_matches(SEPARATORS);
    let value = if later.starts_with(QUOTES) { later } else { here };
    text.len() - value.len()
}

/// How long the text in quotes is that this begins with; nothing if it does not, or if they are not
/// closed on their line. Three are closed by three on whatever line, or by the end of the file.
fn closed_quotes(value: &str) -> Option<usize> {
    if let Some(three) = ["\"\"\"", "'''"].into_iter().find(|three| value.starts_with(three)) {
        return Some(closing(value, three).unwrap_or(value.len()));
    }
    let one = ["\"", "'"].into_iter().find(|one| value.starts_with(one))?;
    closing(&value[..line_end(value, 0)], one)
}

/// Where the text ends that begins with these quotes, and ends with the same.
fn closing(value: &str, quotes: &str) -> Option<usize> {
    let bytes = value.as_bytes();
    let has_escapes = quotes.starts_with('"');
    let mut is_escaped = false;
    let end = (quotes.len()..bytes.len()).find(|&at| {
        let ends = !is_escaped && bytes[at..].starts_with(quotes.as_bytes());
        is_escaped = has_escapes && !is_escaped && bytes[at] == b'\\';
        ends
    });
    end.map(|at| at + quotes.len())
}

/// Whether what is in quotes up to `end` is followed by another item of a table or a list, or by its
/// end, as far as can be seen. If other quotes are never closed, these were not meant to close.
fn another_may_follow(text: &str, end: usize) -> bool {
    let rest = &text[end..line_end(text, end)];
    let is_closed = |quote| rest.matches(quote).count() % 2 == 0;
    rest.trim_start().starts_with([',', '}', ']']) && QUOTES.into_iter().all(is_closed)
}

/// Where the line ends on which `at` is.
fn line_end(text: &str, at: usize) -> usize {
    at + text[at..].lines().next().unwrap_or_default().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(text: &str) -> Vec<&str> {
        find(text).into_iter().map(|span| &text[span]).collect()
    }

    #[test]
    fn what_follows_the_name_of_a_password_is_one() {
        for (line, expected) in [
            ("password = \"a secret\"", "\"a secret\""),
            ("pasword = secret # mine", "secret # mine"),
            ("pass = 123, 4", "123, 4"),
            ("key = \"never closed", "\"never closed"),
            // As keepalived has it, YAML, and nobody.
            ("  auth_pass 1111", "1111"),
            ("auth_pass \"1111\"", "\"1111\""),
            ("password: 1111", "1111"),
            ("\"password\" = 12345", "12345"),
            ("password\"12345\"", "12345\""),
            // In a command, and in an address.
            ("[\"check\", \"--password\", \"1111\"]", "\"1111\""),
            ("[\"check\", \"--password=1111\"]", "1111\"]"),
            ("uri = \"/?api-key=1111\"", "1111\""),
            // On the line after it.
            ("password =\r\n  \"a secret\"\r\nuser = 1", "\"a secret\""),
        ] {
            assert_eq!(secrets(line), [expected], "{line}");
        }
    }

    #[test]
    fn names_of_passwords_are_known_by_their_parts() {
        for name in [
            "auth_pass",
            "auth_password",
            "authpas",
            "bypass",
            "client-secret",
            "every-key",
            "keys",
            "pasphrase",
            "passphrase",
            "PASSWD",
            "secert",
            "secret",
            "sync-kye",
            "sync_key",
        ] {
            assert_eq!(secrets(&format!("{name} = 1")), ["1"], "{name}");
        }
        for name in ["auth_type", "bind", "keepalived", "keystone", "path", "select", "socket"] {
            assert_eq!(secrets(&format!("{name} = 1")), [""; 0], "{name}");
        }
    }

    #[test]
    fn a_password_ends_with_its_quotes_only_if_something_else_may_follow() {
        for (line, expected) in [
            ("{ password = \"a \\\" b\", query = \"galera\" }", &["\"a \\\" b\""][..]),
            ("{ pass = 'a \\', key = \"b\" }", &["'a \\'", "\"b\""]),
            ("{ password = \"my key is\", query = 1 }", &["\"my key is\""]),
            ("auth_pass='a secret' # b", &["'a secret' # b"]),
            ("password = \"a\"b\"", &["\"a\"b\""]),
            ("password = \"a\",b\"", &["\"a\",b\""]),
            ("password = \"a\" query = 1", &["\"a\" query = 1"]),
        ] {
            assert_eq!(secrets(line), expected, "{line}");
        }
    }

    #[test]
    fn a_password_in_three_quotes_goes_on_until_they_are_closed() {
        for (text, expected) in [
            ("pasword = \"\"\"a\"\"\"\nuser = 1", "\"\"\"a\"\"\""),
            ("pass = \"\"\"a\nb\\\"\"\"c\n\"\"\", user = 1", "\"\"\"a\nb\\\"\"\"c\n\"\"\""),
            ("pass = '''a\nb\\''' c\nuser = 1", "'''a\nb\\''' c"),
            ("pass = \"\"\"a\nuser = 1\n", "\"\"\"a\nuser = 1\n"),
        ] {
            assert_eq!(secrets(text), [expected], "{text}");
        }
    }

    #[test]
    fn the_path_of_a_file_is_shown_and_whatever_else_is_in_its_place_is_not() {
        for (text, expected) in [
            ("password_file = \"/etc/a.password\"", &[][..]),
            ("{ password_file = \"/etc/a.password\", query = \"galera\" }", &[]),
            ("password_file = \"/etc/a.password\" password = 1", &["1"]),
            ("key_file = \"a secret\"", &["\"a secret\""]),
            ("key_file = a secret", &["a secret"]),
        ] {
            assert_eq!(secrets(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_alone_hides_nothing() {
        for text in ["", "= = ü =", "password =", "password = \r\nuser = 1", "name = \"key\""] {
            assert_eq!(secrets(text), [""; 0], "{text}");
        }
    }
}
