//! The kernel's view of the network, told as events: which way leads to an address, which
//! Ethernet address a neighbour has, and when either changes.
//!
//! ```text
//! resolve(target) ─► Resolver ─ request socket ─► kernel: route, own MAC, "use this neighbour"
//!                       │
//!                       ├─► Event::Routed
//!                       ▼
//!                   Neighbours ─────────────────► Event::Neighbour
//!                       ▲
//! kernel ─ multicast ─ Watcher ─────────────────► Event::RoutesChanged
//!          socket
//! ```
//!
//! Frames that XDP redirects never touch the kernel's neighbour table, so the kernel does not see
//! that a neighbour is in use and would let its entry grow stale and go. Two things keep it: health
//! checks go to the backends through the kernel's own stack, the same way, every few seconds; and
//! each [`Netlink::resolve`] makes the kernel probe a neighbour that it has not confirmed lately.
//! A stale entry still has its address and is good to forward to; only one that is gone
//! or failed is reported as lost.

mod addresses;
mod host;
mod kernel;
mod neighbours;
mod resolve;
mod watch;
mod ways;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, anyhow};
use rtnetlink::Handle;
use tokio::{
    sync::{mpsc, watch as value},
    task::{AbortHandle, unconstrained},
};

pub use addresses::Addresses;
pub use host::Interface;
pub use ways::Ways;

use self::{neighbours::Neighbours, resolve::Resolver, watch::Watcher};
use crate::core::Event;

/// The netlink sockets of one network namespace, and the task that serves them.
///
/// Dropping it ends the task and closes the sockets.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    targets: mpsc::UnboundedSender<IpAddr>,
    ended: value::Receiver<Option<String>>,
    task: AbortHandle,
}

impl Netlink {
    /// Opens sockets in the network namespace of the calling thread, and starts to follow its
    /// links, addresses, routes, rules and neighbours. Everything that is found out goes to
    /// `events`, beginning with the neighbours that the kernel knows already.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a socket.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn open(events: mpsc::UnboundedSender<Event>) -> anyhow::Result<Self> {
        // Two sockets: a burst of changes that overruns the one must not cost an answer on the
        // other.
        let (requests, handle, _) = rtnetlink::new_connection()
            .context("cannot open a netlink socket to ask for routes")?;
        let (changes, _, messages) = rtnetlink::new_multicast_connection(watch::GROUPS)
            .context("cannot open a netlink socket to follow routes and neighbours")?;

        let neighbours = Arc::new(Mutex::new(Neighbours::new(events.clone())));
        let watcher =
            Watcher::new(messages, handle.clone(), Arc::clone(&neighbours), events.clone());
        let resolver = Resolver::new(handle.clone(), neighbours, events);
        let (targets, asked) = mpsc::unbounded_channel();
        let (end, ended) = value::channel(None);

        // One task for all, so that none of the parts can end without the others and the owner.
        let task = tokio::spawn(async move {
            let why = tokio::select! {
                () = requests => "the kernel closed the netlink request socket".to_owned(),
                // Unconstrained: see `Watcher::recover`.
                () = unconstrained(changes) => "the kernel closed the netlink socket".to_owned(),
                error = watcher.run() => format!("{error:#}"),
                () = resolver.run(asked) => "the owner is gone".to_owned(),
            };
            end.send_replace(Some(why));
        })
        .abort_handle();

        Ok(Self { handle, targets, ended, task })
    }

    /// Finds the way to `target`: [`Effect::Resolve`](crate::core::Effect::Resolve).
    ///
    /// Answers with one [`Event::Routed`]; its route is `None` if the kernel has none, if the target
    /// is this host itself, a broadcast or multicast address, or if the way leads through an
    /// interface without an Ethernet address. Of several equal routes the kernel picks one by its
    /// own hash. [`Event::Neighbour`] follows at once if the neighbour on the way is known, and
    /// otherwise when it has answered; the kernel is made to ask it.
    ///
    /// Does not wait. Any number of targets may be asked for at once; a few are worked on at a time.
    pub fn resolve(&self, target: IpAddr) {
        // Refused only if the task has ended, and that is what `failed` tells.
        let _ = self.targets.send(target);
    }

    /// The interface with this name.
    ///
    /// # Errors
    ///
    /// If there is none: then the message lists those that the host has. If the kernel does not
    /// answer.
    pub async fn interface(&self, name: &str) -> anyhow::Result<Interface> {
        let interfaces =
            host::interfaces(&self.handle).await.context("cannot list this host's interfaces")?;
        host::find(interfaces, name)
    }

    /// Which of these addresses no interface of this host has. The answer does not need the
    /// caller to wait for it: it may be awaited in a task of its own.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn absent(
        &self,
        mut addresses: Vec<IpAddr>,
    ) -> impl Future<Output = anyhow::Result<Vec<IpAddr>>> + use<> {
        let handle = self.handle.clone();
        async move {
            let held =
                host::addresses(&handle).await.context("cannot list this host's addresses")?;
            addresses.retain(|address| !held.contains(address));
            Ok(addresses)
        }
    }

    /// Waits until the kernel can no longer be followed, which should never happen, and says why.
    /// From then on no event comes any more: the owner must open anew or end.
    pub async fn failed(&self) -> anyhow::Error {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => anyhow!(
                "lost touch with the kernel's routes and neighbours: {}",
                why.as_deref().unwrap_or_default()
            ),
            // Nobody left to say why: a panic, which is on the standard error output.
            Err(_) => anyhow!("the task that follows the kernel's routes and neighbours panicked"),
        }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}
