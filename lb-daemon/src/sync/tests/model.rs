//! A host of the simplest kind: tables in memory, and the sync thread on top of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::flow::{self, ESTABLISHED, SYN_ACK};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    config::Peer,
    core::{
        Event, PeerNews, SyncStatus,
        sync::{
            Adopted, Change, Conflict, Connection, Cursor, Digest, Hello, Reported, Scope, Stage,
            Tables, Tuple, VERSIONS,
        },
    },
    sync::Sync,
};

pub(super) const GROUP: &str = "gw";
pub(super) const KEY: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);

/// What a host has, for its thread and for the test.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Reported by the program, and not taken yet.
    pub(super) reports: VecDeque<Change>,
    pub(super) connections: BTreeMap<Tuple, Connection>,
    /// What was adopted by changes and transfers, in this order.
    pub(super) adopted: Vec<Change>,
    pub(super) serves: bool,
    /// Whether the daemon dies when this many have been adopted.
    pub(super) dies_after: Option<usize>,
    marked: Option<BTreeSet<Tuple>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Model>>);

impl Shared {
    pub(super) fn get(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Has the host open these connections.
    pub(super) fn open(&self, numbers: std::ops::Range<u32>) {
        let mut model = self.get();
        for number in numbers {
            let one = connection(number);
            model.connections.insert(one.tuple, one);
            model.reports.push_back(Change::Is(one));
        }
    }
}

/// The connection of this number.
pub(super) fn connection(number: u32) -> Connection {
    let [a, b, c, d] = number.to_be_bytes();
    let at = |ip: [u8; 4], port: u16| SocketAddr::from((ip, port));
    let tuple = Tuple {
        client: at([10, a, b, c], 1024 + u16::from(d)),
        bind: at([10, 2, 2, 4], 3306),
        source: at([10, 3, 3, 4], 1024 + u16::from(d)),
        backend: at([10, 3, b, c], 3306),
    };
    Connection { tuple, state: SYN_ACK | ESTABLISHED, timestamp: number }
}

impl Tables for Shared {
    fn changes(&mut self, limit: usize, into: &mut Vec<Reported>) -> Result<()> {
        let mut model = self.get();
        let count = limit.min(model.reports.len());
        let age = Duration::ZERO;
        let reports = model.reports.drain(..count);
        into.extend(reports.map(|change| Reported {
            change,
            age,
            is_silence: false,
            was_answered: false,
        }));
        Ok(())
    }

    fn has_lost_changes(&mut self) -> bool {
        false
    }

    fn scan(
        &mut self,
        scope: &Scope,
        cursor: Cursor,
        places: usize,
        into: &mut Vec<Connection>,
    ) -> Option<Cursor> {
        let model = self.get();
        let first = usize::try_from(cursor.position).expect("small");
        let all = model.connections.values().skip(first).take(places);
        into.extend(all.filter(|one| is_within(scope, &one.tuple) && is_open(one)));
        let next = first + places;
        (next < model.connections.len()).then_some(Cursor { position: next as u64 })
    }

    fn digest(&mut self, group: &str) -> Digest {
        let mut digest = Digest([0; 256]);
        if group == GROUP {
            for one in self.get().connections.values().filter(|one| is_open(one)) {
                let sum = &mut digest.0[usize::from(bucket(&one.tuple))];
                *sum = sum.wrapping_add(u64::from(one.timestamp) + 1);
            }
        }
        digest
    }

    fn adopt(&mut self, changes: &[Change], _conflict: Conflict) -> Result<Adopted> {
        let mut model = self.get();
        let mut done = Adopted::default();
        for change in changes {
            model.adopted.push(*change);
            let tuple = *change.tuple();
            if let Some(marked) = &mut model.marked {
                marked.insert(tuple);
            }
            match change {
                Change::Is(one) | Change::Answered(one) => {
                    match model.connections.insert(tuple, *one) {
                        None => done.new += 1,
                        Some(_) => done.known += 1,
                    }
                }
                Change::Gone(_) => {
                    done.ended += u64::from(model.connections.remove(&tuple).is_some());
                }
            }
        }
        let dies = model.dies_after.is_some_and(|count| model.adopted.len() >= count);
        drop(model);
        assert!(!dies, "a test wants it");
        Ok(done)
    }

    fn mark(&mut self) {
        self.get().marked = Some(BTreeSet::new());
    }

    fn forget_unmarked(&mut self, scope: &Scope) -> Result<u64> {
        let mut model = self.get();
        let marked = model.marked.take().unwrap_or_default();
        let before = model.connections.len();
        model.connections.retain(|tuple, _| marked.contains(tuple) || !is_within(scope, tuple));
        Ok((before - model.connections.len()) as u64)
    }

    fn serving(&self) -> BTreeSet<String> {
        self.get().serves.then(|| GROUP.to_owned()).into_iter().collect()
    }

    fn end_grace(&mut self, _group: &str) {}

    fn group(&self, _bind: SocketAddr) -> Option<String> {
        Some(GROUP.to_owned())
    }
}

fn is_within(scope: &Scope, tuple: &Tuple) -> bool {
    let has_bucket = scope.buckets.is_empty() || scope.buckets.contains(&bucket(tuple));
    scope.groups.contains(GROUP) && has_bucket
}

fn is_open(one: &Connection) -> bool {
    !flow::is_closed(one.state)
}

fn bucket(tuple: &Tuple) -> u8 {
    tuple.client.port().to_be_bytes()[1]
}

/// A host and its daemon.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) tables: Shared,
    pub(super) sync: Sync,
    inbox: UnboundedReceiver<Event>,
    /// Whether it was told to be ready, ...
    pub(super) ready: Option<bool>,
    /// ... and all else that it was told.
    pub(super) news: Vec<PeerNews>,
}

/// Addresses of two hosts; the first one calls.
pub(super) fn addresses() -> [SocketAddr; 2] {
    let free = |ip: [u8; 4]| {
        let listener = TcpListener::bind(SocketAddr::from((ip, 0))).expect("a free port");
        listener.local_addr().expect("bound")
    };
    [free([127, 0, 0, 1]), free([127, 0, 0, 2])]
}

pub(super) fn config(listen: SocketAddr, peer: SocketAddr) -> Peer {
    Peer {
        listen,
        peer,
        key: KEY.to_owned(),
        key_file: None,
        preempt_wait: Duration::from_secs(60),
        grace: Duration::from_secs(5),
    }
}

pub(super) fn hello(listen: SocketAddr, peer: SocketAddr) -> Hello {
    let (node, source_ports) =
        if listen < peer { ("lb1", 1024..=2047) } else { ("lb2", 2048..=4095) };
    Hello {
        versions: VERSIONS,
        program: "0.1.0".to_owned(),
        node: node.to_owned(),
        source_ports,
        groups: [GROUP.to_owned()].into(),
    }
}

impl Host {
    pub(super) fn start(listen: SocketAddr, peer: SocketAddr, tables: &Shared) -> Self {
        Self::start_with(config(listen, peer), hello(listen, peer), tables)
    }

    pub(super) fn start_with(peer: Peer, hello: Hello, tables: &Shared) -> Self {
        let (events, inbox) = unbounded_channel();
        let sync = Sync::start(Arc::new(peer), hello, Box::new(tables.clone()), None, events);
        let sync = sync.expect("a thread");
        Self { tables: tables.clone(), sync, inbox, ready: None, news: Vec::new() }
    }

    /// Takes in what it was told.
    pub(super) fn listen(&mut self) {
        while let Ok(event) = self.inbox.try_recv() {
            match event {
                Event::Sync { ready } => self.ready = Some(ready),
                Event::Peer(news) => self.news.push(news),
                other => panic!("what has sync to do with {other:?}?"),
            }
        }
    }

    /// Waits for news.
    pub(super) fn hears(&mut self, what: &str, is_it: impl Fn(&PeerNews) -> bool) {
        wait(what, || {
            self.listen();
            self.news.iter().any(&is_it)
        });
    }

    pub(super) fn is_connected(&mut self) {
        self.hears("to be connected", |news| matches!(news, PeerNews::Connected { .. }));
    }

    /// There has been one conversation and no end to it.
    pub(super) fn is_undisturbed(&mut self) {
        self.listen();
        let mut since = self.news.iter().skip_while(|n| matches!(n, PeerNews::Failed { .. }));
        let is_connected = matches!(since.next(), Some(PeerNews::Connected { .. }));
        assert!(is_connected && since.next().is_none(), "{:#?}", self.news);
    }

    /// Waits for the news that there is no conversation, for this reason.
    pub(super) fn fails(&mut self, with: &str) {
        let what = format!("to fail with: {with}");
        self.hears(&what, |news| matches!(news, PeerNews::Failed { why } if why.contains(with)));
    }

    /// Waits for the news that the conversation ended, for this reason.
    pub(super) fn loses(&mut self, with: &str) {
        let what = format!("to lose the peer: {with}");
        self.hears(&what, |news| matches!(news, PeerNews::Lost { why } if why.contains(with)));
    }

    pub(super) fn view(&self) -> SyncStatus {
        self.sync.view()
    }
}

/// Two hosts that are talking.
pub(super) fn pair() -> [Host; 2] {
    let [low, high] = addresses();
    let mut hosts =
        [Host::start(low, high, &Shared::default()), Host::start(high, low, &Shared::default())];
    hosts.iter_mut().for_each(Host::is_connected);
    hosts
}

/// Two hosts that are in sync, the first of which serves.
pub(super) fn pair_serving() -> [Host; 2] {
    let [low, high] = addresses();
    let serving = Shared::default();
    serving.get().serves = true;
    let mut hosts = [Host::start(low, high, &serving), Host::start(high, low, &Shared::default())];
    hosts.iter_mut().for_each(Host::is_connected);
    for host in &hosts {
        wait("being in sync", || host.view().conversation.state == Stage::InSync);
    }
    hosts
}

/// Waits until something is the case.
pub(super) fn wait(what: &str, mut is_it: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_it() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
