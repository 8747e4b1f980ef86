//! Waiting for something with a limit, and saying what was seen last when it did not happen.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Tries `attempt` every few milliseconds until it succeeds.
///
/// The first attempt is always made. After `timeout` the error is that of the last attempt.
pub fn until<T, E: Display>(
    what: &str,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= timeout => {
                bail!("{what}: not within {timeout:?}: {last:#}")
            }
            Err(_) => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
    }
}
