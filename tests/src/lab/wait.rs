//! Waiting for something with a limit, and saying what was seen last when it did not happen.

use std::{
    env,
    fmt::Display,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Tries `attempt` every few milliseconds until it succeeds.
///
/// The first attempt is always made. After `timeout`, [`stretched`] for this machine, the error is
/// that of the last attempt.
pub fn until<T, E: Display>(
    what: &str,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let (start, timeout) = (Instant::now(), stretched(timeout));
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

/// A limit that is right for an ordinary machine, as it is on this one: as many times longer as
/// `TANDEM_LAB_STRETCH` in the environment says, for machines that are slow.
pub fn stretched(limit: Duration) -> Duration {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        let factor = env::var("TANDEM_LAB_STRETCH").unwrap_or_else(|_| "1".to_owned());
        factor.parse().expect("TANDEM_LAB_STRETCH is a whole number")
    });
    limit * *FACTOR
}
