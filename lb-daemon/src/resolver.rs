//! Asks the system's resolver for host names, by `getaddrinfo`: `/etc/hosts`, DNS, and whatever else this
//! host's `nsswitch.conf` says.
//!
//! It blocks, for as long as name servers are silent, and cannot be called off. So each name is asked for
//! by a thread of its own, and one that hangs keeps no other waiting.

use std::{
    collections::BTreeSet,
    net::{IpAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::mpsc::UnboundedSender;

use crate::core::Event;

/// Answers by [`Event::Resolved`].
pub(crate) struct Resolver {
    /// What was asked for and is not answered yet: no name is asked for twice, so there are never more
    /// threads than names.
    asked: Arc<Mutex<BTreeSet<String>>>,
    events: UnboundedSender<Event>,
    resolve: Resolve,
}

type Resolve = fn(&str) -> Result<BTreeSet<IpAddr>, String>;

impl Resolver {
    pub(crate) fn new(events: UnboundedSender<Event>) -> Self {
        Self { asked: Arc::default(), events, resolve }
    }

    /// Asks for a name, unless that is under way.
    pub(crate) fn look_up(&self, name: String) {
        if !lock(&self.asked).insert(name.clone()) {
            return;
        }
        let (asked, events, resolve) = (Arc::clone(&self.asked), self.events.clone(), self.resolve);
        let question = name.clone();
        let thread = thread::Builder::new().name("resolver".to_owned());
        let started = thread.spawn(move || {
            let heard = resolve(&question);
            answer(question, heard, &asked, &events);
        });
        if let Err(error) = started {
            let failure = format!("cannot start a thread that asks for it: {error}");
            answer(name, Err(failure), &self.asked, &self.events);
        }
    }
}

fn answer(
    name: String,
    heard: Result<BTreeSet<IpAddr>, String>,
    asked: &Mutex<BTreeSet<String>>,
    events: &UnboundedSender<Event>,
) {
    lock(asked).remove(&name);
    // Nobody listens any more when the daemon is stopping.
    let _ = events.send(Event::Resolved { name, heard });
}

fn lock(asked: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All addresses of a name.
fn resolve(name: &str) -> Result<BTreeSet<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// What comes of a name.
    async fn heard(name: &str) -> Result<BTreeSet<IpAddr>, String> {
        let (events, mut inbox) = unbounded_channel();
        let resolver = Resolver::new(events);
        resolver.look_up(name.to_owned());
        let event = tokio::time::timeout(Duration::from_secs(60), inbox.recv()).await;
        match event.expect("an answer").expect("an event") {
            Event::Resolved { name: of, heard } if of == name => heard,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_name_of_the_hosts_file_resolves() {
        let addresses = heard("localhost").await.expect("everybody has it");
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        assert!(!addresses.is_empty());
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_is_a_failure() {
        let failure = heard("no-such-name.invalid").await.expect_err("it is reserved");
        assert!(!failure.is_empty());
    }

    #[tokio::test]
    async fn a_name_is_not_asked_for_twice_at_the_same_time() {
        let (events, mut inbox) = unbounded_channel();
        let resolver = Resolver::new(events);
        resolver.asked.lock().expect("no panic").insert("localhost".to_owned());
        resolver.look_up("localhost".to_owned());
        resolver.look_up("no-such-name.invalid".to_owned());
        let event = tokio::time::timeout(Duration::from_secs(60), inbox.recv()).await;
        let event = event.expect("an answer");
        assert!(
            matches!(&event, Some(Event::Resolved { name, .. }) if name == "no-such-name.invalid"),
            "{event:?}"
        );
    }

    #[tokio::test]
    async fn names_that_hang_keep_no_other_waiting() {
        let hangs: Resolve = |name| {
            while name.starts_with("hangs") {
                thread::park();
            }
            Ok(BTreeSet::new())
        };
        let (events, mut inbox) = unbounded_channel();
        let resolver = Resolver { resolve: hangs, ..Resolver::new(events) };
        for nth in 0..20 {
            resolver.look_up(format!("hangs{nth}"));
        }
        resolver.look_up("answers".to_owned());
        let event = tokio::time::timeout(Duration::from_secs(60), inbox.recv()).await;
        let event = event.expect("an answer");
        assert!(
            matches!(&event, Some(Event::Resolved { name, .. }) if name == "answers"),
            "{event:?}"
        );
    }
}
