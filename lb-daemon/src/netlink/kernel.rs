//! Questions to the kernel that are answered by a list.

use std::time::Duration;

use anyhow::Context as _;
use futures::{Stream, TryStreamExt as _};
use rtnetlink::{Error, Handle};
use tokio::time::{sleep, timeout};

/// Longest wait for an answer of the kernel. It answers in microseconds, or the answer was lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Wait before a list is asked for again that the kernel was too busy for.
const PAUSE: Duration = Duration::from_millis(2);

/// The whole list that `ask` asks for.
///
/// The kernel gives one list at a time on a socket, and refuses another meanwhile (EBUSY), even
/// if whoever asked for the first no longer waits for it. So the second waits here.
pub(super) async fn list<T, S>(
    handle: &Handle,
    ask: impl Fn(&Handle) -> S,
) -> anyhow::Result<Vec<T>>
where
    S: Stream<Item = Result<T, Error>>,
{
    let list = async {
        loop {
            match ask(handle).try_collect().await {
                Err(error) if errno(&error) == Some(libc::EBUSY) => sleep(PAUSE).await,
                result => return result,
            }
        }
    };
    let list = timeout(PATIENCE, list).await;
    Ok(list.context("the kernel does not answer")??)
}

/// The kernel's error number, if the kernel refused the request.
pub(super) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}
