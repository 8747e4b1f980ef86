//! Passwords: in the configuration itself, or in a file of their own.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    ops::RangeInclusive,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use toml::Spanned;

use super::{
    node,
    reader::{Field, Table},
    report::Read,
};

/// More than any password has.
const LONGEST_FILE: u64 = 4096;

/// A password, and where it came from.
pub(super) struct Secret {
    pub(super) text: String,
    /// Nothing if it stands in the configuration.
    pub(super) file: Option<PathBuf>,
}

/// The password under `key`, or in the file under `file_key`; `length` is in bytes, and `hint` says
/// what it is bounded by. Nothing if there is neither.
pub(super) fn read(
    table: &mut Table<'_>,
    [key, file_key]: [&'static str; 2],
    length: &RangeInclusive<usize>,
    hint: &str,
) -> Read<Option<Spanned<Secret>>> {
    let text = table.maybe(key, |field| {
        // Also if it is refused.
        field.report().conceal(field.span());
        let text = usable(field, field.string()?, length, hint)?;
        Ok(field.spanned(Secret { text, file: None }))
    });
    let file = table.maybe(file_key, |field| {
        let path = node::path(field)?;
        let content = read_file(field, &path)?;
        let text = usable(field, &content, length, hint)?;
        Ok(field.spanned(Secret { text, file: Some(path) }))
    });
    let (text, file) = (text?, file?);
    if let (Some(_), Some(file)) = (&text, &file) {
        let message = format!("there are both `{key}` and `{file_key}`");
        return Err(table.report().error(file.span(), message, "keep one of the two"));
    }
    Ok(text.or(file))
}

fn usable(
    field: &Field<'_>,
    text: &str,
    length: &RangeInclusive<usize>,
    hint: &str,
) -> Read<String> {
    if !length.contains(&text.len()) {
        let message = format!("the password of `{}` has {} bytes", field.key(), text.len());
        return Err(field.error(message, hint));
    }
    // Short passwords are filled up with zeros.
    if text.contains('\0') {
        let message = format!("the password of `{}` has a zero byte", field.key());
        return Err(field.error(message, "a password ends there; choose another"));
    }
    Ok(text.to_owned())
}

/// The file's only line.
fn read_file(field: &Field<'_>, path: &Path) -> Read<String> {
    let secret = read_line(path).map_err(|error| {
        let message = format!("the file of `{}` can't be read: {error}", field.key());
        field.error(message, "it is a text file of one line, the password, that only root may read")
    })?;
    if secret.for_everybody {
        let message = format!("everybody can read the file of `{}`", field.key());
        let hint = format!("chmod 600 {}", path.display());
        field.report().warning(Some(field.span()), message, hint);
    }
    if secret.line.contains('\n') {
        let message = format!("the file of `{}` has more than one line", field.key());
        return Err(field.error(message, "it holds the password and nothing else"));
    }
    Ok(secret.line)
}

/// What stands in the file of a secret.
pub struct SecretFile {
    /// The secret: what there is but for the end of the last line, which should be the only one.
    pub line: String,
    /// Whether every user of the host can read it.
    pub for_everybody: bool,
}

/// Reads the file of a secret, of which the first 4 KiB count.
pub fn read_line(path: &Path) -> io::Result<SecretFile> {
    let file = open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = String::new();
    file.take(LONGEST_FILE).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line).to_owned();
    Ok(SecretFile { line, for_everybody: mode & 0o004 != 0 })
}

/// Opens a regular file. Anything else could block, or never end.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let no_waiting = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(no_waiting).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is no regular file"))
}
