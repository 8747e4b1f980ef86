//! The file: JSON, so that people can read it, with a version, written as a whole.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::core::{AdminState, BackendName, Override, RuntimeMaxconn, RuntimeWeight};

/// Version of the format. Raised when what is there changes its meaning.
const VERSION: u32 = 1;

/// Longest file that is read: several times what all backends that there can be come to.
const LONGEST: u64 = 4 << 20;

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: u32,
    overrides: Vec<Entry>,
}

/// The only thing that is sure about a file of another version.
#[derive(Debug, Deserialize)]
struct AnyVersion {
    version: u32,
}

/// Of one backend.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    backend: BackendName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Said<AdminState>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<Said<RuntimeWeight>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maxconn: Option<Said<RuntimeMaxconn>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Said<T> {
    is: T,
    /// Seconds since 1970.
    since: u64,
}

/// Why nothing of a file is used.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    /// The kernel does not give it away.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It is not what a daemon writes.
    #[error("{} makes no sense ({reason}), and is {fate}", .path.display())]
    Senseless {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What has become of it.
        fate: String,
    },
}

/// What the file at `path` says, if there is one. `now` and `today` are the same moment.
///
/// # Errors
///
/// If it cannot be read, or makes no sense. Then it is set aside, so that the next one that is
/// written does not replace it.
pub(super) fn read(
    path: &Path,
    now: Instant,
    today: SystemTime,
) -> Result<Vec<Override>, Unusable> {
    let text = match text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Unusable::Unreadable { path: path.into(), error }),
    };
    let contents = parse(&text).map_err(|reason| Unusable::Senseless {
        path: path.into(),
        reason,
        fate: set_aside(path),
    })?;
    let at = |since: u64| {
        let age = unix(today).saturating_sub(since);
        now.checked_sub(Duration::from_secs(age)).unwrap_or(now)
    };
    let overrides = contents.overrides.into_iter().map(|entry| Override {
        backend: entry.backend,
        state: entry.state.map(|said| (said.is, at(said.since))),
        weight: entry.weight.map(|said| (said.is, at(said.since))),
        maxconn: entry.maxconn.map(|said| (said.is, at(said.since))),
    });
    Ok(overrides.collect())
}

fn text(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn parse(text: &[u8]) -> Result<Contents, String> {
    if text.len() as u64 > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    let AnyVersion { version } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("it has version {version}, and this daemon knows version {VERSION}"));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// Gives the file another name, and says what has become of it.
fn set_aside(path: &Path) -> String {
    let aside = beside(path, ".unusable");
    match fs::rename(path, &aside) {
        Ok(()) => format!("set aside as {}", aside.display()),
        Err(error) => format!("left where it is, as it cannot be renamed: {error}"),
    }
}

/// Writes the file as a whole: after a crash, it is the old one or the new one. Its directory is
/// made if there is none.
///
/// # Errors
///
/// If the disk does not take it. Then the old one is still there.
pub(super) fn write(
    path: &Path,
    overrides: &[Override],
    now: Instant,
    today: SystemTime,
) -> Result<()> {
    let since =
        |at: Instant| unix(today).saturating_sub(now.saturating_duration_since(at).as_secs());
    let entries = overrides.iter().map(|one| Entry {
        backend: one.backend.clone(),
        state: one.state.map(|(is, at)| Said { is, since: since(at) }),
        weight: one.weight.map(|(is, at)| Said { is, since: since(at) }),
        maxconn: one.maxconn.map(|(is, at)| Said { is, since: since(at) }),
    });
    let contents = Contents { version: VERSION, overrides: entries.collect() };
    let mut text = serde_json::to_vec_pretty(&contents)?;
    text.push(b'\n');
    replace(path, &text).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let new = beside(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn unix(today: SystemTime) -> u64 {
    today.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
