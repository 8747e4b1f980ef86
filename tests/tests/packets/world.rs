//! The program, loaded and ready to be asked.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::verdict::{Action, Verdict};
use lb_daemon::{
    config::{Global, Peer, XdpMode},
    core::{Counters, Desired, TableStatus, group::Leases as _},
    dataplane::{
        CounterReader, Dataplane, Ender, FindWay, Gate, Injector, Leases, Program, Reaper, Replica,
        Simulated, XdpAction,
    },
};
use nix::net::if_::if_nametoindex;
use tests::lab::{Dir, Family, Interface, Namespace, veth};

use crate::frame::Frame;

/// A data plane of its own, in a namespace of its own.
pub(crate) struct World {
    pub(crate) dataplane: Dataplane,
    global: Global,
    counters: CounterReader,
    leases: Mutex<Leases>,
    /// Interfaces towards clients and backends.
    pub(crate) arms: (u32, u32),
    links: Arc<(Interface, Interface)>,
}

/// What the program did with a frame.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) verdict: Verdict,
    pub(crate) action: XdpAction,
    pub(crate) frame: Vec<u8>,
}

impl World {
    /// Room for 4096 connections of each family, 1024 of them half open.
    pub(crate) fn run(story: impl FnOnce(&mut World) -> Result<()> + Send) -> Result<()> {
        Self::run_with(|_| {}, story)
    }

    /// The same with other settings.
    pub(crate) fn run_with(
        settings: impl FnOnce(&mut Global),
        story: impl FnOnce(&mut World) -> Result<()> + Send,
    ) -> Result<()> {
        let mut global = global("/sys/fs/bpf/tandem");
        settings(&mut global);
        Self::with_arms(|links| story(&mut Self::open(global, None, links)?))
    }

    /// Two of them with the same interfaces, each the other's peer; the first has the lower half of
    /// the translation ports.
    pub(crate) fn run_pair(
        peers: &[Peer; 2],
        story: impl FnOnce(World, World) -> Result<()> + Send,
    ) -> Result<()> {
        let [one, two] = ["one", "two"].map(|name| global(&format!("/sys/fs/bpf/{name}")));
        Self::with_arms(|links| {
            let one = Self::open(one, Some(&peers[0]), links.clone())?;
            story(one, Self::open(two, Some(&peers[1]), links)?)
        })
    }

    /// In a namespace with two interfaces.
    fn with_arms(
        story: impl FnOnce(Arc<(Interface, Interface)>) -> Result<()> + Send,
    ) -> Result<()> {
        let namespace = Namespace::new("lb", &Dir::new()?)?;
        // Never sent by: the program wants an interface's number for each
        // frame, and asks for its MTU.
        let links = Arc::new(veth((&namespace, "front"), (&namespace, "back"))?);
        namespace.enter(|| story(links))
    }

    fn open(
        global: Global,
        peer: Option<&Peer>,
        links: Arc<(Interface, Interface)>,
    ) -> Result<Self> {
        let (dataplane, _) = Dataplane::open(&global, peer)?;
        let (counters, leases) = (dataplane.counters()?, Mutex::new(dataplane.leases()?));
        let arms = (if_nametoindex("front")?, if_nametoindex("back")?);
        Ok(Self { dataplane, global, counters, leases, arms, links })
    }

    /// Sets the MTUs of the interfaces towards clients and backends.
    pub(crate) fn set_mtus(&self, front: u32, back: u32) -> Result<()> {
        self.links.0.set_mtu(front)?;
        self.links.1.set_mtu(back)
    }

    pub(crate) fn apply(&mut self, desired: &Desired) -> Result<()> {
        self.dataplane.apply(desired)
    }

    /// Sets until when a group is served, or that it is not.
    pub(crate) fn lease(&self, group: u16, until: Option<Instant>) -> Result<()> {
        self.leases.lock().expect("no panic").set(group, until).context("no such group")
    }

    /// Has the group doubted: another host serves it, too.
    pub(crate) fn doubt(&self, group: u16) {
        self.leases.lock().expect("no panic").doubt(group);
    }

    /// Has the program decide on a frame, without a look at the counters.
    pub(crate) fn send(&self, frame: &Frame) -> Result<Simulated> {
        self.dataplane.simulate(&frame.bytes, frame.ifindex)
    }

    /// Has the program decide on a frame. Fails if not exactly one verdict was counted, once, or
    /// if the action is not the verdict's.
    pub(crate) fn decide(&self, frame: impl Into<Frame>) -> Result<Done> {
        let before = self.read([])?.verdicts;
        let Simulated { action, frame } = self.send(&frame.into())?;
        let after = self.read([])?.verdicts;
        let moved: Vec<(&str, u64)> = after
            .iter()
            .map(|(label, count)| (label.as_str(), count - before[label]))
            .filter(|(_, more)| *more != 0)
            .collect();
        let &[(label, 1)] = &moved[..] else {
            anyhow::bail!("one verdict should have been counted once, but it was {moved:?}");
        };
        let verdict = Verdict::ALL.iter().copied().find(|v| v.label() == label);
        let verdict = verdict.context("a counter that is no verdict's")?;
        let fits = match verdict.action() {
            Action::Transmit => matches!(action, XdpAction::Tx | XdpAction::Redirect),
            Action::Pass => action == XdpAction::Pass,
            Action::Drop => action == XdpAction::Drop,
        };
        ensure!(fits, "counted as {label}, but the action is {action:?}");
        Ok(Done { verdict, action, frame })
    }

    /// Everything that is counted, and the counts of these backends.
    pub(crate) fn read(&self, backends: impl IntoIterator<Item = u16>) -> Result<Counters> {
        self.counters.read(backends)
    }

    /// Connections of a backend that are not closed.
    pub(crate) fn active(&self, backend: u16) -> Result<u64> {
        Ok(self.read([backend])?.backends[&backend].active)
    }

    /// How full the flow table is.
    pub(crate) fn table(&self, family: Family) -> Result<TableStatus> {
        let tables = self.read([])?.tables;
        let name = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        tables.into_iter().find(|table| table.family == name).context("a table for each family")
    }

    /// The program with this name, on the same maps.
    pub(crate) fn program(&self, name: &'static str) -> Result<Program> {
        self.dataplane.program(&self.global, name)
    }

    pub(crate) fn reaper(&self) -> Result<Reaper> {
        self.dataplane.reaper(&self.global)
    }

    pub(crate) fn injector(&self) -> Result<Injector> {
        self.dataplane.injector(&self.global)
    }

    pub(crate) fn ender(&self) -> Result<Ender> {
        self.dataplane.ender(&self.global)
    }

    pub(crate) fn gate(&self) -> Result<Gate> {
        self.dataplane.gate(&self.global)
    }

    pub(crate) fn replica(&self, find: FindWay) -> Result<Replica> {
        self.dataplane.replica(&self.global, find)
    }
}

fn global(bpffs: &str) -> Global {
    Global {
        node: "lb".into(),
        interfaces: vec!["front".into(), "back".into()],
        xdp_mode: XdpMode::Auto,
        maxconn: 4096,
        max_half_open: 1024,
        source_ports: 1024..=32_767,
        bpffs: bpffs.into(),
        resolve_interval: Duration::from_secs(10),
    }
}
