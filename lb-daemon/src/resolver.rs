//! Asks the system's resolver for host names, by `getaddrinfo`: `/etc/hosts`, DNS, and whatever else this
//! host's `nsswitch.conf` says.
//!
//! It blocks, for as long as name servers are silent, and cannot be called off. So it is asked by a few
//! threads of their own, that end with the process; nobody waits for them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::UnboundedSender;

use crate::core::Event;

/// How many names are asked for at the same time.
const THREADS: usize = 4;

/// Answers by [`Event::Resolved`].
pub(crate) struct Resolver {
    names: mpsc::Sender<String>,
    /// What was asked for and is not answered yet: no name is asked for twice.
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Resolver {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// If they cannot be started.
    pub(crate) fn start(events: &UnboundedSender<Event>) -> Result<Self> {
        let (names, queue) = mpsc::channel::<String>();
        let (queue, asked) = (Arc::new(Mutex::new(queue)), Arc::default());
        for _ in 0..THREADS {
            let (queue, asked, events) = (Arc::clone(&queue), Arc::clone(&asked), events.clone());
            thread::Builder::new()
                .name("resolver".to_owned())
                .spawn(move || answer(&queue, &asked, &events))
                .context("cannot start a resolver thread")?;
        }
        Ok(Self { names, asked })
    }

    /// Asks for a name, unless that is under way.
    pub(crate) fn look_up(&self, name: String) {
        if self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            // The threads end only with the process.
            let _ = self.names.send(name);
        }
    }
}

/// Answers one name after the other.
fn answer(
    queue: &Mutex<mpsc::Receiver<String>>,
    asked: &Mutex<BTreeSet<String>>,
    events: &UnboundedSender<Event>,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(name) = next else { return };
        let heard = resolve(&name);
        asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        // Nobody listens any more when the daemon is stopping.
        let _ = events.send(Event::Resolved { name, heard });
    }
}

/// All addresses of a name, in the resolver's order, each once.
fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// What comes of a name.
    async fn heard(name: &str) -> Result<Vec<IpAddr>, String> {
        let (events, mut inbox) = unbounded_channel();
        let resolver = Resolver::start(&events).expect("threads");
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
        let resolver = Resolver::start(&events).expect("threads");
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
}
