//! The way to any address, for a thread that may wait for the kernel's answer but has no runtime, or
//! is in the middle of one of its own.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lb_common::{
    addr::Mac,
    maps::{NextHop, Tag, Tags},
};
use netlink_packet_route::AddressFamily;
use rtnetlink::Handle;
use tokio::time::timeout;

use super::{
    host::{self, Interface},
    kernel::list,
    neighbours::{self, Key, Neighbour},
    resolve,
};

/// Longest wait for an answer, which takes some ten microseconds.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long what the kernel said of its interfaces and neighbours is good for, ...
const KNOWN_FOR: Duration = Duration::from_secs(1);
/// ... and how soon it is asked again for a neighbour that it did not know.
const UNKNOWN_FOR: Duration = Duration::from_millis(100);

/// Finds the way that a frame to an address would go. A thread of its own asks the kernel, in the
/// network namespace of the one that started it; it ends with this.
#[derive(Debug)]
pub struct Ways {
    questions: mpsc::Sender<Question>,
    attached: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(Debug)]
struct Question {
    target: IpAddr,
    reply: mpsc::SyncSender<Option<NextHop>>,
}

impl Ways {
    /// Starts the thread. Frames leave by one of the interfaces `attached`, which may change.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a socket or a thread.
    pub fn start(attached: Arc<Mutex<BTreeSet<String>>>) -> anyhow::Result<Self> {
        let (questions, asked) = mpsc::channel::<Question>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (socket, handle, _) = {
            let _inside = runtime.enter();
            rtnetlink::new_connection().context("cannot open a netlink socket to ask for ways")?
        };
        // It ends with the runtime.
        runtime.spawn(socket);
        let mut kernel =
            Kernel { handle, interfaces: Known::default(), neighbours: Known::default() };
        let names = Arc::clone(&attached);
        let run = move || {
            while let Ok(Question { target, reply }) = asked.recv() {
                let names = names.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let way =
                    runtime.block_on(async { timeout(PATIENCE, kernel.way(target, &names)).await });
                // Who asked may not have waited.
                let _ = reply.send(way.ok().flatten());
            }
        };
        std::thread::Builder::new()
            .name("ways".to_owned())
            .spawn(run)
            .context("cannot start the thread that asks for ways")?;
        Ok(Self { questions, attached })
    }

    /// The names of the interfaces that frames leave by.
    pub fn attached(&self) -> Arc<Mutex<BTreeSet<String>>> {
        Arc::clone(&self.attached)
    }

    /// The next hop to an address: by the kernel's route, and to the neighbour that it knows. Nothing
    /// if there is no route to another host, if that leads by no interface that frames leave by, or
    /// if the neighbour is not known; then the kernel begins to ask for it, and knows it a little
    /// later. Waits for the kernel's answer.
    pub fn find(&self, target: IpAddr) -> Option<NextHop> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.questions.send(Question { target, reply }).ok()?;
        answer.recv_timeout(PATIENCE * 2).ok()?
    }
}

/// What the kernel said, and when.
#[derive(Debug)]
struct Known<K, V> {
    table: HashMap<K, V>,
    asked: Option<Instant>,
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self { table: HashMap::new(), asked: None }
    }
}

impl<K, V> Known<K, V> {
    fn is_older_than(&self, age: Duration) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() > age)
    }

    fn replace(&mut self, table: HashMap<K, V>) {
        (self.table, self.asked) = (table, Some(Instant::now()));
    }
}

/// The kernel, and what it said lately.
struct Kernel {
    handle: Handle,
    interfaces: Known<u32, Interface>,
    neighbours: Known<Key, Neighbour>,
}

impl Kernel {
    async fn way(&mut self, target: IpAddr, attached: &BTreeSet<String>) -> Option<NextHop> {
        let (ifindex, via) = resolve::next(&self.handle, target).await?;
        if self.interfaces.is_older_than(KNOWN_FOR) {
            let all = host::interfaces(&self.handle).await.ok()?;
            self.interfaces.replace(all.into_iter().map(|it| (it.ifindex, it)).collect());
        }
        let interface = self.interfaces.table.get(&ifindex)?;
        let (out, tags) = exit(&self.interfaces.table, interface, attached)?;
        let src = interface.mac?;
        let Some(dst) = self.neighbour((ifindex, via)).await else {
            resolve::nudge(&self.handle, (ifindex, via)).await;
            return None;
        };
        Some(NextHop { ifindex: out, src, dst, tags })
    }

    async fn neighbour(&mut self, key: Key) -> Option<Mac> {
        let known = self.neighbours.table.get(&key).and_then(|it| it.mac);
        let good_for = if known.is_some() { KNOWN_FOR } else { UNKNOWN_FOR };
        if !self.neighbours.is_older_than(good_for) {
            return known;
        }
        let mut table = HashMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let messages = list(&self.handle, |handle| {
                let mut request = handle.neighbours().get();
                request.message_mut().header.family = family;
                request.execute()
            });
            for message in messages.await.ok()? {
                let found = neighbours::key(&message).zip(neighbours::neighbour(&message));
                table.extend(found);
            }
        }
        self.neighbours.replace(table);
        self.neighbours.table.get(&key)?.mac
    }
}

/// Where frames of this interface can be put on the wire: by itself, or if it is a VLAN's, by the one
/// below with its tag.
fn exit(
    interfaces: &HashMap<u32, Interface>,
    interface: &Interface,
    attached: &BTreeSet<String>,
) -> Option<(u32, Tags)> {
    let mut tags = [Tag::default(); 2];
    let mut at = interface;
    for _ in 0..=tags.len() {
        if attached.contains(&at.name) {
            return Some((at.ifindex, Tags(tags)));
        }
        let (below, tag) = at.vlan?;
        // Those of a lower interface are further out.
        tags = [tag, tags[0]];
        at = interfaces.get(&below)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{
        InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol,
    };

    use super::*;

    fn interface(ifindex: u32, vlan: Option<(u32, u16, VlanProtocol)>) -> (u32, Interface) {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes = vec![LinkAttribute::IfName(format!("if{ifindex}"))];
        if let Some((below, id, protocol)) = vlan {
            let data = InfoData::Vlan(vec![InfoVlan::Id(id), InfoVlan::Protocol(protocol)]);
            message.attributes.push(LinkAttribute::Link(below));
            message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Data(data)]));
        }
        (ifindex, Interface::from(message))
    }

    /// Card 1; VLAN 100 on it is 2; VLAN 7 in that is 3; a third one in that is 4.
    #[test]
    fn a_frame_leaves_by_the_first_interface_with_the_program_below_with_the_tags_down_to_it() {
        use VlanProtocol::{Ieee8021Ad, Ieee8021Q};
        let interfaces = HashMap::from([
            interface(1, None),
            interface(2, Some((1, 100, Ieee8021Ad))),
            interface(3, Some((2, 7, Ieee8021Q))),
            interface(4, Some((3, 8, Ieee8021Q))),
        ]);
        let tag = |protocol: u16, vlan: u16| Tag { protocol: protocol.to_be(), vlan: vlan.to_be() };
        let (none, outer, inner) = (Tag::default(), tag(0x88a8, 100), tag(0x8100, 7));
        for (from, attached, expected) in [
            (1, "if1", Some((1, [none, none]))),
            (2, "if1", Some((1, [outer, none]))),
            (3, "if1", Some((1, [outer, inner]))),
            (3, "if2", Some((2, [inner, none]))),
            (3, "if3", Some((3, [none, none]))),
            (1, "if2", None),
            (4, "if1", None),
        ] {
            let attached = BTreeSet::from([attached.to_owned()]);
            let found = exit(&interfaces, &interfaces[&from], &attached);
            assert_eq!(found, expected.map(|(out, tags)| (out, Tags(tags))), "{from} {attached:?}");
        }
    }
}
