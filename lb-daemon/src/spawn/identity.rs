//! Users by their names.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::{errno::Errno, unistd::User};
use tokio::sync::watch;

use super::Failure;

/// The lookups that have not ended yet, by the user's name, and where their answers will be.
///
/// There is one at a time for each user, and whoever asks meanwhile waits for the same answer. So a
/// directory that hangs keeps one thread for each of its users, and nobody waits for another user's.
static ASKED: Mutex<BTreeMap<String, watch::Receiver<Answer>>> = Mutex::new(BTreeMap::new());

/// Who a user is; nothing if there is none of that name.
type Answer = Result<Option<Identity>, Errno>;

/// Says who a user is; nothing if there is none of that name. May take as long as it likes.
pub(super) type Lookup = fn(&str) -> nix::Result<Option<User>>;

/// Who runs a command.
#[derive(Clone, Copy, Debug)]
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
    let failed = |error| Failure::Lookup { user: user.to_owned(), error };
    let mut answer = ask(user, lookup).map_err(failed)?;
    answer.changed().await.expect("a lookup does not panic");
    match *answer.borrow() {
        Ok(Some(identity)) => Ok(identity),
        Ok(None) => Err(Failure::NoUser(user.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// Where the answer will be, to this question or to one that was asked before and has none yet.
fn ask(user: &str, lookup: Lookup) -> io::Result<watch::Receiver<Answer>> {
    let mut asked = locked();
    if let Some(answer) = asked.get(user) {
        return Ok(answer.clone());
    }
    let (told, answer) = watch::channel(Ok(None));
    let name = user.to_owned();
    let run = move || {
        let found = lookup(&name).map(|user| user.as_ref().map(identity));
        // Whoever comes from now on asks anew.
        locked().remove(&name);
        // Nobody may wait for it any more.
        let _ = told.send(found);
    };
    thread::Builder::new().name("user lookup".to_owned()).spawn(run)?;
    // It is not removed before: this still has the lock.
    asked.insert(user.to_owned(), answer.clone());
    Ok(answer)
}

fn identity(user: &User) -> Identity {
    Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() }
}

fn locked() -> MutexGuard<'static, BTreeMap<String, watch::Receiver<Answer>>> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}
