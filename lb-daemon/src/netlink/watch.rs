//! Follows what the kernel announces.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::SocketAddr,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::{
    host::{self, Interface},
    kernel::list,
    neighbours::{self, Shared},
};
use crate::core::{Event, Link};

/// What is followed. Rules are, because with policy routing they decide as much as routes.
pub(super) const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Neigh,
];

/// A single `ip link set down` makes a dozen messages; so long after the first one, they are told
/// as one event.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Messages nobody asked for, as the connection read them from its socket.
pub(super) type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Turns the kernel's messages into events.
#[derive(Debug)]
pub(super) struct Watcher {
    messages: Messages,
    handle: Handle,
    neighbours: Shared,
    /// Names and states of all interfaces, by number.
    links: BTreeMap<u32, (String, bool)>,
    /// What was said of them last.
    links_told: Option<BTreeMap<String, Link>>,
    events: mpsc::UnboundedSender<Event>,
    /// When to say that routes changed, if they did.
    announce_at: Option<Instant>,
}

impl Watcher {
    /// `handle` must belong to another socket than `messages`: that one may lose answers.
    pub(super) fn new(
        messages: Messages,
        handle: Handle,
        neighbours: Shared,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            messages,
            handle,
            neighbours,
            links: BTreeMap::new(),
            links_told: None,
            events,
            announce_at: None,
        }
    }

    /// Follows the kernel until that fails; returns why it did.
    pub(super) async fn run(mut self) -> anyhow::Error {
        // The subscription stands already: what changes during this dump waits in `messages`, and
        // is applied after it.
        let mut result = self.dump().await;
        while result.is_ok() {
            result = self.step().await;
        }
        result.expect_err("the loop ends with an error")
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        let deadline = self.announce_at.unwrap_or_else(Instant::now);
        tokio::select! {
            message = self.messages.next() => match message {
                None => bail!("the netlink socket was closed"),
                Some((NetlinkMessage { payload, .. }, _)) => self.take_all(payload).await?,
            },
            () = sleep_until(deadline), if self.announce_at.is_some() => self.announce(),
        }
        Ok(())
    }

    /// Learns from a message and all that follow it already.
    ///
    /// Links are told of at once, for a group may have to be given up, but not before all that is
    /// there was read: after a dump, some of it is older than what the dump said.
    async fn take_all(
        &mut self,
        mut payload: NetlinkPayload<RouteNetlinkMessage>,
    ) -> anyhow::Result<()> {
        loop {
            match payload {
                NetlinkPayload::Overrun(_) => self.recover().await?,
                payload => self.take(payload),
            }
            match self.messages.try_recv() {
                Ok((message, _)) => payload = message.payload,
                Err(_) => break,
            }
        }
        self.tell_links();
        Ok(())
    }

    /// Learns from one message.
    fn take(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        use RouteNetlinkMessage as M;
        let NetlinkPayload::InnerMessage(message) = payload else {
            return;
        };
        match message {
            M::NewNeighbour(message) => {
                if let Some(key) = neighbours::key(&message)
                    && let Some(neighbour) = neighbours::neighbour(&message)
                {
                    self.neighbours().learn(key, neighbour);
                }
            }
            M::DelNeighbour(message) => {
                if let Some(key) = neighbours::key(&message) {
                    self.neighbours().forget(key);
                }
            }
            M::NewLink(message) => {
                // A bridge tells of its ports in the same words, and of their being taken out of it.
                if message.header.interface_family != AddressFamily::Bridge {
                    self.learn(message);
                }
                self.announce_soon();
            }
            M::DelLink(message) => {
                if message.header.interface_family != AddressFamily::Bridge {
                    self.links.remove(&message.header.index);
                }
                self.announce_soon();
            }
            M::NewAddress(_)
            | M::DelAddress(_)
            | M::NewRoute(_)
            | M::DelRoute(_)
            | M::NewRule(_)
            | M::DelRule(_) => self.announce_soon(),
            _ => {}
        }
    }

    fn learn(&mut self, message: LinkMessage) {
        let Interface { name, ifindex, up, .. } = message.into();
        self.links.insert(ifindex, (name, up));
    }

    /// Tells of all interfaces, if that is news.
    fn tell_links(&mut self) {
        let links = self.links.iter();
        let links = links.map(|(&ifindex, (name, up))| (name.clone(), Link { ifindex, up: *up }));
        let links: BTreeMap<String, Link> = links.collect();
        if self.links_told.as_ref() != Some(&links) {
            self.links_told = Some(links.clone());
            // Refused only if the owner is gone, and then nobody wants to know.
            let _ = self.events.send(Event::Links(links));
        }
    }

    fn announce_soon(&mut self) {
        self.announce_at.get_or_insert_with(|| Instant::now() + DEBOUNCE);
    }

    fn announce(&mut self) {
        self.announce_at = None;
        // Refused only if the owner is gone, and then nobody wants to know.
        let _ = self.events.send(Event::RoutesChanged);
    }

    /// Finds out what is true after messages were lost (ENOBUFS).
    ///
    /// The kernel reports an overrun once, ahead of the messages that still fitted in the buffer,
    /// and drops further ones in silence until the buffer was read to its end. Both matter: the
    /// rest is older than what was lost, so it must not come after the dump; and a dump taken
    /// before the end may miss a change. Therefore the connection runs without tokio's
    /// cooperative budget: it then reads to the end before it hands on anything, and all of the
    /// rest is here when the overrun is.
    async fn recover(&mut self) -> anyhow::Result<()> {
        warn!(
            "the kernel announced changes faster than they were read; asking for all links and \
             neighbours"
        );
        while let Ok((message, _)) = self.messages.try_recv() {
            self.take(message.payload);
        }
        self.dump().await?;
        self.announce();
        Ok(())
    }

    /// Asks for all links and neighbours.
    async fn dump(&mut self) -> anyhow::Result<()> {
        let interfaces =
            host::interfaces(&self.handle).await.context("cannot list the kernel's links")?;
        self.links = interfaces.into_iter().map(|i| (i.ifindex, (i.name, i.up))).collect();
        self.tell_links();
        let messages = list(&self.handle, |handle| handle.neighbours().get().execute())
            .await
            .context("cannot list the kernel's neighbours")?;
        let all: HashMap<_, _> = messages
            .iter()
            .filter_map(|message| {
                Some((neighbours::key(message)?, neighbours::neighbour(message)?))
            })
            .collect();
        self.neighbours().replace(&all);
        Ok(())
    }

    fn neighbours(&self) -> std::sync::MutexGuard<'_, neighbours::Neighbours> {
        self.neighbours.lock().expect("no panic under this lock")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use lb_common::addr::Mac;
    use netlink_packet_route::{
        link::{LinkAttribute, LinkFlags},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    };
    use rtnetlink::packet_core::NetlinkHeader;

    use super::*;
    use crate::netlink::neighbours::Neighbours;

    type Message = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

    fn message(payload: impl Into<NetlinkPayload<RouteNetlinkMessage>>) -> Message {
        let message = NetlinkMessage::new(NetlinkHeader::default(), payload.into());
        (message, SocketAddr::new(0, 0))
    }

    /// A running watcher that hears only what is sent to it.
    fn watcher() -> (
        UnboundedSender<Message>,
        mpsc::UnboundedReceiver<Event>,
        tokio::task::JoinHandle<anyhow::Error>,
    ) {
        let (requests, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(requests);
        let (events, told) = mpsc::unbounded_channel();
        let neighbours = Arc::new(Mutex::new(Neighbours::new(events.clone())));
        let (send, messages) = unbounded();
        let watcher = Watcher::new(messages, handle, neighbours, events);
        (send, told, tokio::spawn(watcher.run()))
    }

    #[tokio::test]
    async fn a_burst_of_changes_is_one_event() {
        let (messages, mut events, _watcher) = watcher();
        for _ in 0..100 {
            let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
            messages.unbounded_send(message(link)).unwrap();
        }
        tokio::time::sleep(DEBOUNCE * 4).await;
        let told = std::iter::from_fn(|| events.try_recv().ok())
            .filter(|event| matches!(event, Event::RoutesChanged));
        assert_eq!(told.count(), 1);
    }

    #[tokio::test]
    async fn what_is_older_than_an_overrun_does_not_outlive_it() {
        let (messages, mut events, _watcher) = watcher();
        // Of an interface that no kernel has: the dump after the overrun will not know it.
        let mut gone = NeighbourMessage::default();
        gone.header.ifindex = 0x7000_0000;
        gone.header.state = NeighbourState::Reachable;
        gone.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([192, 0, 2, 1].into())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        let gone = RouteNetlinkMessage::NewNeighbour(gone);
        let overrun = NetlinkPayload::Overrun(Vec::new());
        messages.unbounded_send(message(overrun)).unwrap();
        messages.unbounded_send(message(gone)).unwrap();

        let mut told = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Neighbour { ifindex: 0x7000_0000, mac, .. } => told.push(mac),
                Event::RoutesChanged => break,
                _ => {}
            }
        }
        assert_eq!(told, [Some(Mac([2, 0, 0, 0, 0, 1])), None]);
    }

    /// A message about an interface that no kernel has.
    fn link(ifindex: u32, name: &str, family: AddressFamily) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 0x7000_0000 + ifindex;
        link.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        link.header.interface_family = family;
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        link
    }

    /// The names of those that are told of next.
    async fn next_links(events: &mut mpsc::UnboundedReceiver<Event>) -> Vec<String> {
        loop {
            if let Event::Links(links) = events.recv().await.expect("the watcher lives") {
                let made_up = |link: &Link| link.ifindex >= 0x7000_0000;
                break links
                    .into_iter()
                    .filter(|(_, l)| made_up(l))
                    .map(|(name, _)| name)
                    .collect();
            }
        }
    }

    /// A bridge says that a port is gone from it in the words for an interface that is gone.
    #[tokio::test]
    async fn a_port_that_leaves_its_bridge_is_still_there() {
        use AddressFamily::{Bridge, Unspec};
        let (messages, mut events, _watcher) = watcher();
        let send = |link| messages.unbounded_send(message(link)).unwrap();
        assert_eq!(next_links(&mut events).await, [""; 0]);
        send(RouteNetlinkMessage::NewLink(link(1, "port0", Unspec)));
        assert_eq!(next_links(&mut events).await, ["port0"]);
        send(RouteNetlinkMessage::DelLink(link(1, "port0", Bridge)));
        send(RouteNetlinkMessage::NewLink(link(2, "other0", Unspec)));
        assert_eq!(next_links(&mut events).await, ["other0", "port0"]);
        send(RouteNetlinkMessage::DelLink(link(1, "port0", Unspec)));
        assert_eq!(next_links(&mut events).await, ["other0"]);
        // Nor does one come back by what its bridge says.
        send(RouteNetlinkMessage::NewLink(link(1, "port0", Bridge)));
        send(RouteNetlinkMessage::NewLink(link(3, "third0", Unspec)));
        assert_eq!(next_links(&mut events).await, ["other0", "third0"]);
    }

    #[tokio::test]
    async fn a_closed_socket_ends_it_with_an_error() {
        let (messages, _events, watcher) = watcher();
        drop(messages);
        let error = watcher.await.unwrap();
        assert_eq!(error.to_string(), "the netlink socket was closed");
    }
}
