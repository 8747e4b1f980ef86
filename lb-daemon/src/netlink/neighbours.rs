//! The neighbours of this host, as the kernel last told of them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use lb_common::addr::Mac;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use tokio::sync::mpsc;

use crate::core::Event;

/// The table, shared by those who learn and those who ask. Its lock is held for moments only,
/// and also while events are sent, so that events come in the order of the facts.
pub(super) type Shared = Arc<Mutex<Neighbours>>;

/// Names a neighbour: interface index and address.
pub(super) type Key = (u32, IpAddr);

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Its Ethernet address; nothing if it did not answer.
    pub(super) mac: Option<Mac>,
    /// Set by the operator or a control plane rather than learnt by asking.
    pub(super) fixed: bool,
}

/// All neighbours, of all interfaces. A change of an Ethernet address becomes an
/// [`Event::Neighbour`]; a mere change of state (reachable, stale, probing, ...) does not.
#[derive(Debug)]
pub(super) struct Neighbours {
    known: HashMap<Key, Neighbour>,
    events: mpsc::UnboundedSender<Event>,
}

impl Neighbours {
    pub(super) fn new(events: mpsc::UnboundedSender<Event>) -> Self {
        Self { known: HashMap::new(), events }
    }

    /// The kernel knows this now.
    pub(super) fn learn(&mut self, key: Key, neighbour: Neighbour) {
        let before = self.known.insert(key, neighbour);
        if before.map(|before| before.mac) != Some(neighbour.mac) {
            self.send(key, neighbour.mac);
        }
    }

    /// The kernel has dropped this neighbour.
    pub(super) fn forget(&mut self, key: Key) {
        let before = self.known.remove(&key);
        if before.is_some_and(|before| before.mac.is_some()) {
            self.send(key, None);
        }
    }

    /// The kernel knows these and no others.
    pub(super) fn replace(&mut self, all: &HashMap<Key, Neighbour>) {
        let gone: Vec<Key> =
            self.known.keys().filter(|key| !all.contains_key(key)).copied().collect();
        for key in gone {
            self.forget(key);
        }
        for (key, neighbour) in all {
            self.learn(*key, *neighbour);
        }
    }

    /// Sends the neighbour's Ethernet address once more, if it is known.
    pub(super) fn repeat(&self, key: Key) {
        if let Some(mac) = self.known.get(&key).and_then(|neighbour| neighbour.mac) {
            self.send(key, Some(mac));
        }
    }

    /// Whether the neighbour's entry is nobody's to touch: see [`Neighbour::fixed`].
    pub(super) fn is_fixed(&self, key: Key) -> bool {
        self.known.get(&key).is_some_and(|neighbour| neighbour.fixed)
    }

    fn send(&self, (ifindex, address): Key, mac: Option<Mac>) {
        // Refused only if the owner is gone, and then nobody wants to know.
        let _ = self.events.send(Event::Neighbour { ifindex, address, mac });
    }
}

/// Which neighbour a message is about; nothing if it is about something else: a proxy entry, or
/// the forwarding table of a bridge.
pub(super) fn key(message: &NeighbourMessage) -> Option<Key> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    message.attributes.iter().find_map(|attribute| {
        let address = match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => IpAddr::V4(*ip),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => IpAddr::V6(*ip),
            _ => return None,
        };
        Some((message.header.ifindex, address))
    })
}

/// What a message says about its neighbour; nothing if the kernel is still asking.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mac = match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => mac(message),
        NeighbourState::Failed => None,
        _ => return None,
    };
    let fixed = matches!(message.header.state, NeighbourState::Permanent | NeighbourState::Noarp)
        || message.header.flags.contains(NeighbourFlags::ExtLearned);
    Some(Neighbour { mac, fixed })
}

fn mac(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => ethernet(bytes),
        _ => None,
    })
}

/// A link-layer address that a frame can be sent to or from: not the loopback's zeroes, nor an
/// address of another medium.
pub(super) fn ethernet(bytes: &[u8]) -> Option<Mac> {
    let mac = Mac(bytes.try_into().ok()?);
    (mac != Mac::default()).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    fn message(state: NeighbourState, lladdr: Option<&[u8]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = state;
        let address = NeighbourAddress::Inet([10, 1, 0, 2].into());
        message.attributes.push(NeighbourAttribute::Destination(address));
        if let Some(bytes) = lladdr {
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(bytes.to_vec()));
        }
        message
    }

    fn learnt(mac: Option<Mac>) -> Neighbour {
        Neighbour { mac, fixed: false }
    }

    type Told = (u32, IpAddr, Option<Mac>);

    /// A table, and what it has told since the last call.
    fn table() -> (Neighbours, impl FnMut() -> Vec<Told>) {
        let (send, mut events) = mpsc::unbounded_channel();
        let drain = move || {
            std::iter::from_fn(|| events.try_recv().ok())
                .map(|event| match event {
                    Event::Neighbour { ifindex, address, mac } => (ifindex, address, mac),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        (Neighbours::new(send), drain)
    }

    #[test]
    fn every_state_says_what_the_kernel_means_by_it() {
        use NeighbourState as S;
        for state in [S::Reachable, S::Stale, S::Delay, S::Probe] {
            let message = message(state, Some(&A.0));
            assert_eq!(neighbour(&message), Some(learnt(Some(A))), "{state:?}");
        }
        for state in [S::Permanent, S::Noarp] {
            let fixed = Neighbour { mac: Some(A), fixed: true };
            assert_eq!(neighbour(&message(state, Some(&A.0))), Some(fixed));
        }
        assert_eq!(neighbour(&message(S::Failed, None)), Some(learnt(None)));
        assert_eq!(neighbour(&message(S::Incomplete, None)), None);
        assert_eq!(neighbour(&message(S::None, None)), None);
    }

    #[test]
    fn what_no_frame_can_be_sent_to_is_not_an_address() {
        for bytes in [&[0; 6][..], &[], &[10, 0, 0, 1], &[1; 20]] {
            let message = message(NeighbourState::Noarp, Some(bytes));
            assert_eq!(neighbour(&message).unwrap().mac, None, "{bytes:?}");
        }
    }

    #[test]
    fn proxies_and_bridge_entries_are_not_neighbours() {
        let mut proxy = message(NeighbourState::None, None);
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(key(&proxy), None);

        let mut bridge = message(NeighbourState::Reachable, Some(&A.0));
        bridge.attributes.remove(0);
        assert_eq!(key(&bridge), None);
    }

    #[test]
    fn only_a_change_of_the_ethernet_address_is_an_event() {
        let (mut table, mut events) = table();
        let address = IpAddr::from([10, 1, 0, 2]);
        let mut expect = |table: &mut Neighbours, heard, told: &[Option<Mac>]| {
            match heard {
                Some(mac) => table.learn((3, address), learnt(mac)),
                None => table.forget((3, address)),
            }
            let told: Vec<_> = told.iter().map(|mac| (3, address, *mac)).collect();
            assert_eq!(events(), told, "{heard:?}");
        };
        expect(&mut table, Some(Some(A)), &[Some(A)]);
        expect(&mut table, Some(Some(A)), &[]);
        expect(&mut table, Some(Some(B)), &[Some(B)]);
        expect(&mut table, Some(None), &[None]);
        expect(&mut table, Some(None), &[]);
        expect(&mut table, None, &[]);
        expect(&mut table, Some(None), &[None]);
        expect(&mut table, Some(Some(B)), &[Some(B)]);
        expect(&mut table, None, &[None]);
    }

    #[test]
    fn a_resynchronisation_tells_only_of_differences() {
        let (mut table, mut events) = table();
        let [same, gone, moved, new] = [1, 2, 3, 4].map(|host| (3, [10, 1, 0, host].into()));
        for key in [same, gone, moved] {
            table.learn(key, learnt(Some(A)));
        }
        events();

        let now = [(same, A), (moved, B), (new, A)];
        table.replace(&now.map(|(key, mac)| (key, learnt(Some(mac)))).into());

        let mut told = events();
        told.sort();
        let expected = [(gone, None), (moved, Some(B)), (new, Some(A))];
        assert_eq!(told, expected.map(|((ifindex, ip), mac)| (ifindex, ip, mac)));
    }
}
