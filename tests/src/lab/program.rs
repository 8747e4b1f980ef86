//! Which programs a lab runs.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context, Result};

/// The daemon's binary: `TANDEM_BIN`, or the one that was built beside this program.
pub(super) fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TANDEM_BIN") {
        let path =
            fs::canonicalize(&path).with_context(|| format!("TANDEM_BIN is {}", path.display()))?;
        return Ok(path);
    }
    beside("tandem")?.with_context(|| {
        "there is no tandem binary beside this program; run `cargo build --package lb-daemon`, or \
         name one in TANDEM_BIN"
    })
}

/// The daemon with the feature `other-layout`: `TANDEM_OTHER_LAYOUT_BIN`, or the one beside this program.
pub(super) fn other_layout() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TANDEM_OTHER_LAYOUT_BIN") {
        return fs::canonicalize(&path)
            .with_context(|| format!("TANDEM_OTHER_LAYOUT_BIN is {}", path.display()));
    }
    beside("tandem-other-layout")?.with_context(|| {
        "there is no tandem-other-layout beside this program; `cargo xtask test netns` makes it, or \
         name a tandem that was built with `--features other-layout` in TANDEM_OTHER_LAYOUT_BIN"
    })
}

/// Makes a daemon as from another build of the same source, at this place: another file with other
/// contents, and the same maps. As package managers do it, a program that runs there is not written over.
pub(super) fn anew(place: &Path) -> Result<PathBuf> {
    static BUILD: AtomicU64 = AtomicU64::new(0);

    let new = place.with_extension("new");
    fs::copy(binary()?, &new).with_context(|| format!("cannot make {}", new.display()))?;
    // Whatever comes after the sections of an ELF file is of no meaning.
    let mut end = OpenOptions::new().append(true).open(&new)?;
    writeln!(end, "build {} of {}", BUILD.fetch_add(1, Relaxed), process::id())?;
    fs::rename(&new, place)?;
    Ok(place.to_owned())
}

/// A program that was built together with this one, if it was.
pub(super) fn beside(name: &str) -> Result<Option<PathBuf>> {
    let program = env::current_exe()?;
    // Test executables are in `target/debug/deps`, others in `target/debug`.
    let places = program.ancestors().skip(1).take(2);
    Ok(places.map(|place| place.join(name)).find(|file| file.is_file()))
}
