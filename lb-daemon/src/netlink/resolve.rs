//! The way to an address: route, own Ethernet address, and the neighbour on the way.

use std::{io, net::IpAddr};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lb_common::maps::{Tag, Tags};
use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourFlags, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use rtnetlink::Handle;
use tokio::{sync::mpsc, time::timeout};
use tracing::{debug, warn};

use super::{
    host::{self, Interface},
    kernel::{PATIENCE, errno},
    neighbours::{Key, Shared},
};
use crate::core::{Event, Exit, Route};

/// Targets worked on at a time. The kernel answers one request after the other anyway; this only
/// keeps it busy, and keeps the answers well within the socket's buffer.
const IN_FLIGHT: usize = 16;

/// Finds the way to one target after the other.
#[derive(Debug)]
pub(super) struct Resolver {
    handle: Handle,
    neighbours: Shared,
    events: mpsc::UnboundedSender<Event>,
}

/// Why no frame can be sent to a target.
#[derive(Debug, thiserror::Error)]
enum NoRoute {
    #[error("the kernel has no route: {0}")]
    None(io::Error),
    #[error("the kernel's route is of type {0:?}: not to another host")]
    NotUnicast(RouteType),
    #[error("the kernel's route names no {0}")]
    Without(&'static str),
    #[error("interface {0} has no Ethernet address")]
    NotEthernet(String),
    #[error("interface {0} is gone")]
    Gone(u32),
    #[error(transparent)]
    Failed(#[from] rtnetlink::Error),
    #[error("the kernel does not answer")]
    Silence,
}

impl Resolver {
    pub(super) fn new(
        handle: Handle,
        neighbours: Shared,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self { handle, neighbours, events }
    }

    /// Resolves what comes through `targets`, until that is closed.
    pub(super) async fn run(self, mut targets: mpsc::UnboundedReceiver<IpAddr>) {
        stream::poll_fn(|context| targets.poll_recv(context))
            .for_each_concurrent(IN_FLIGHT, |target| self.resolve(target))
            .await;
    }

    async fn resolve(&self, target: IpAddr) {
        let route = match timeout(PATIENCE, self.route(target)).await {
            Ok(route) => route,
            Err(_) => Err(NoRoute::Silence),
        };
        match &route {
            Err(why @ (NoRoute::Failed(_) | NoRoute::Silence)) => {
                warn!(%target, "cannot ask for a route: {why}");
            }
            Err(why) => debug!(%target, "no way: {why}"),
            Ok(route) => debug!(%target, ?route, "resolved"),
        }
        let route = route.ok();
        let key = route.as_ref().map(|route| (route.ifindex, route.via));
        // Refused only if the owner is gone; the same below.
        let _ = self.events.send(Event::Routed { target, route });

        let Some((ifindex, via)) = key else { return };
        let fixed = {
            let neighbours = self.neighbours.lock().expect("no panic under this lock");
            neighbours.repeat((ifindex, via));
            neighbours.is_fixed((ifindex, via))
        };
        // Using an entry makes it one of the kernel's own: a static one would lose its address.
        if !fixed {
            nudge(&self.handle, (ifindex, via)).await;
        }
    }

    /// Asks the kernel which way it would send.
    async fn route(&self, target: IpAddr) -> Result<Route, NoRoute> {
        let answer = ask(&self.handle, target).await?;
        let ifindex = answer.ifindex.ok_or(NoRoute::Without("interface"))?;
        let source = answer.source.ok_or(NoRoute::Without("source address"))?;
        let interface = self.interface(ifindex).await?;
        let exits = self.exits(&interface).await?;
        Ok(Route {
            ifindex,
            mac: interface.mac.ok_or(NoRoute::NotEthernet(interface.name))?,
            via: answer.gateway.unwrap_or(target),
            source,
            exits,
        })
    }

    async fn interface(&self, ifindex: u32) -> Result<Interface, NoRoute> {
        match host::interface(&self.handle, ifindex).await {
            Ok(Some(interface)) => Ok(interface),
            Ok(None) => Err(NoRoute::Gone(ifindex)),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Err(NoRoute::Gone(ifindex)),
            Err(error) => Err(error.into()),
        }
    }

    /// Where frames of this interface can be put on the wire: see [`Route::exits`].
    async fn exits(&self, interface: &Interface) -> Result<Vec<Exit>, NoRoute> {
        let exit = |interface: &Interface, tags| Exit {
            name: interface.name.clone(),
            ifindex: interface.ifindex,
            tags: Tags(tags),
        };
        let mut exits = vec![exit(interface, [Tag::default(); 2])];
        let Some((below, tag)) = interface.vlan else { return Ok(exits) };
        let below = self.interface(below).await?;
        exits.push(exit(&below, [tag, Tag::default()]));
        if let Some((card, outer)) = below.vlan {
            exits.push(exit(&self.interface(card).await?, [outer, tag]));
        }
        Ok(exits)
    }
}

/// The interface that the kernel would send to `target` by, and the neighbour there; nothing if it
/// would not send it to another host.
pub(super) async fn next(handle: &Handle, target: IpAddr) -> Option<Key> {
    let answer = ask(handle, target).await.ok()?;
    Some((answer.ifindex?, answer.gateway.unwrap_or(target)))
}

async fn ask(handle: &Handle, target: IpAddr) -> Result<Answer, NoRoute> {
    let mut routes = std::pin::pin!(handle.route().get(question(target)).execute());
    let message = match routes.try_next().await {
        Ok(Some(message)) => message,
        Ok(None) => return Err(NoRoute::Silence),
        Err(error) => return Err(refused(error)),
    };
    if message.header.kind != RouteType::Unicast {
        return Err(NoRoute::NotUnicast(message.header.kind));
    }
    Ok(Answer::from(message))
}

/// Makes the kernel treat the neighbour as if it had a packet for it: an unknown one is asked
/// for, a stale one is confirmed, one that failed is tried again, and one that was confirmed
/// lately is left alone.
///
/// It is `ip neigh replace ADDRESS dev INTERFACE nud none use`. `replace`, because a plain
/// `add` refuses an entry that exists; state `none`, because any other would be written into
/// a new entry.
pub(super) async fn nudge(handle: &Handle, (ifindex, via): Key) {
    let request = handle
        .neighbours()
        .add(ifindex, via)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace()
        .execute();
    match timeout(PATIENCE, request).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if errno(&error) == Some(libc::ENOBUFS) => {
            let family = if via.is_ipv4() { "ipv4" } else { "ipv6" };
            warn!(
                "no room for neighbour {via} in the kernel's table; \
                 raise net.{family}.neigh.default.gc_thresh3"
            );
        }
        Ok(Err(error)) => warn!(ifindex, "cannot make the kernel ask for {via}: {error}"),
        Err(_) => warn!(ifindex, "the kernel does not answer when told to ask for {via}"),
    }
}

/// What `ip route get` asks.
fn question(target: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    (message.header.address_family, message.header.destination_prefix_length) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.attributes.push(RouteAttribute::Destination(target.into()));
    message
}

/// What matters of the kernel's answer.
#[derive(Default)]
struct Answer {
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
}

impl From<RouteMessage> for Answer {
    fn from(message: RouteMessage) -> Self {
        let mut answer = Self::default();
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(ifindex) => answer.ifindex = Some(ifindex),
                RouteAttribute::PrefSource(address) => answer.source = ip(&address),
                RouteAttribute::Gateway(address) => answer.gateway = ip(&address),
                // An IPv4 route through an IPv6 router (RFC 5549).
                RouteAttribute::Via(RouteVia::Inet(ip)) => answer.gateway = Some(ip.into()),
                RouteAttribute::Via(RouteVia::Inet6(ip)) => answer.gateway = Some(ip.into()),
                _ => {}
            }
        }
        answer
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// Tells a kernel that has no route from one that could not look for it.
fn refused(error: rtnetlink::Error) -> NoRoute {
    match errno(&error) {
        // In turn: no route; `unreachable`; `blackhole`; `prohibit`.
        Some(code @ (libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)) => {
            NoRoute::None(io::Error::from_raw_os_error(code))
        }
        _ => error.into(),
    }
}
