//! The demo's story, as `cargo xtask demo --once` tells it.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use tests::lab::Dir;

#[test]
fn every_step_of_the_demo_holds_and_nothing_is_left_of_it() -> Result<()> {
    let dir = Dir::new()?;
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    let output = demo.arg("--once").env("TMPDIR", dir.path()).output()?;
    let (told, error) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "{}:\n{told}\n{error}", output.status);
    // The last line of the story, after the session that outlives a killed master.
    let last = told.lines().last().unwrap_or_default();
    ensure!(last.starts_with("every step held"), "{told}");
    let left: Vec<_> = fs::read_dir(dir.path())?.collect::<std::io::Result<_>>()?;
    ensure!(left.is_empty(), "there is {left:?}");
    Ok(())
}
