//! A wall clock that is set by hand, for one program alone.

use std::{fs, path::PathBuf, process};

use anyhow::{Context, Result, ensure};

use super::Dir;

/// The time of day of the programs that are started with its [environment](Self::environment). The
/// clocks that nobody can set go on for them as for everybody.
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    ahead: PathBuf,
}

impl WallClock {
    /// One that is right so far. It takes a C compiler.
    pub fn new(dir: &Dir) -> Result<Self> {
        let [source, library, ahead] =
            ["wall_clock.c", "wall_clock.so", "wall_clock"].map(|name| dir.join(name));
        fs::write(&source, include_str!("wall_clock.c"))?;
        let compiler = process::Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .output()
            .context("cannot run a C compiler")?;
        ensure!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
        let clock = Self { library, ahead };
        clock.set(0)?;
        Ok(clock)
    }

    /// What a program is to find in its environment.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("LD_PRELOAD", self.library.clone()), ("WALL_CLOCK", self.ahead.clone())]
    }

    /// Sets it to so many seconds ahead of the right time, at once.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // Not truncated meanwhile: it is mapped.
        let file =
            fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.ahead)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0)?;
        Ok(())
    }
}
