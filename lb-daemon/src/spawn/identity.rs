//! Users by their names.

use std::thread;

use nix::unistd::User;
use tokio::sync::{Semaphore, oneshot};

use super::Failure;

/// Lookups at once: one that hangs keeps a thread until it does not any more.
static TURNS: Semaphore = Semaphore::const_new(4);

/// Says who a user is; nothing if there is none of that name. May take as long as it likes.
pub(super) type Lookup = fn(&str) -> nix::Result<Option<User>>;

/// Who runs a command.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Asks what this host is set up to ask, which may be a directory somewhere in the network.
pub(super) fn of_this_host(user: &str) -> nix::Result<Option<User>> {
    User::from_name(user)
}

/// Looks a user up. It can be given up at any time: who waits for an answer then is a thread of its
/// own, not one of the runtime's, which does not end before all of these have.
pub(super) async fn find(user: &str, lookup: Lookup) -> Result<Identity, Failure> {
    let turn = TURNS.acquire().await.expect("it is never closed");
    let failed = |error| Failure::Lookup { user: user.to_owned(), error };
    let (answer, answered) = oneshot::channel();
    let name = user.to_owned();
    let ask = move || {
        // Nobody may wait for it any more.
        let _ = answer.send(lookup(&name));
        drop(turn);
    };
    thread::Builder::new().name("user lookup".to_owned()).spawn(ask).map_err(failed)?;
    match answered.await.expect("a lookup does not panic") {
        Ok(Some(user)) => Ok(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        Ok(None) => Err(Failure::NoUser(user.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}
