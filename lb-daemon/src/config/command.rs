//! Commands that are run without a shell, and the users they run as.

use super::{
    reader::{Field, Table},
    report::Read,
};

/// Longest name of a user (`LOGIN_NAME_MAX` of useradd).
const LONGEST_USER: usize = 32;
/// Exists on every system and owns nothing.
const UNPRIVILEGED: &str = "nobody";
/// What only a shell would understand.
const OF_SHELLS: [&str; 10] = ["|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1"];

/// Reads a command: a list of its words, or one text that is taken apart at spaces.
pub(super) fn read(field: &Field<'_>) -> Read<Vec<String>> {
    let words = match field.as_list() {
        Some(items) => {
            let words: Vec<_> = items.iter().map(|item| item.string().map(str::to_owned)).collect();
            words.into_iter().collect::<Read<Vec<_>>>()?
        }
        None => split(field)?,
    };
    if words.iter().any(|word| word.contains('\0')) {
        return Err(field.error(
            format!("`{}` has a zero byte, which no argument can have", field.key()),
            "remove it",
        ));
    }
    match words.first().map(String::as_str) {
        None | Some("") => {
            let message = format!("`{}` is empty", field.key());
            Err(field.error(message, "write a program and its arguments, or leave the key out"))
        }
        Some(program) if program.contains('/') && !program.starts_with('/') => {
            let message = format!("`{}` is not an absolute path: {program:?}", field.key());
            let hint = "begin it with `/`: it must not depend on where the daemon was started";
            Err(field.error(message, hint))
        }
        Some(_) => Ok(words),
    }
}

/// Takes a text apart as keepalived does: at spaces that are not within quotes or behind a
/// backslash.
fn split(field: &Field<'_>) -> Read<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = field.string()?.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().extend(characters.next());
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        let message = format!("`{}` has a {open} that is never closed", field.key());
        let hint =
            format!("close it, or write a list: {} = [\"PROGRAM\", \"ARGUMENT\"]", field.key());
        return Err(field.error(message, hint));
    }
    words.extend(word);
    if let Some(word) = words.iter().find(|word| OF_SHELLS.contains(&word.as_str())) {
        let message = format!("`{}` is run without a shell, which `{word}` is for", field.key());
        let hint = "write a script and name it here, or [\"/bin/sh\", \"-c\", \"...\"]";
        field.report().warning(Some(field.span()), message, hint);
    }
    Ok(words)
}

/// The user that a command runs as; an unprivileged one if `key` is not set.
pub(super) fn user(table: &mut Table<'_>, key: &'static str) -> String {
    table.optional(key, user_name).unwrap_or_else(|| UNPRIVILEGED.to_owned())
}

fn user_name(field: &Field<'_>) -> Read<String> {
    let name = field.string()?;
    let usable = (1..=LONGEST_USER).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !usable {
        let message = format!("no user can be called {name:?}");
        return Err(field.error(message, "write the name of a user, as `getent passwd` lists it"));
    }
    if name == "root" {
        let message =
            format!("`{}` is root: whoever can change the command is root, too", field.key());
        let hint = "have a user of its own for it";
        field.report().warning(Some(field.span()), message, hint);
    }
    Ok(name.to_owned())
}
