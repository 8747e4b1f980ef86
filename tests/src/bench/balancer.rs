//! The product's data plane with a service and backends that only exist in its maps.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range as Numbers,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::MapData;
use lb_common::{
    addr::{Address as _, Mac, Port, V4},
    flow::FlowKey,
    maps::{LAYOUT, NextHop, TABLE_V4},
};
use lb_daemon::{
    config::{Balance, Global, Limits, Timeouts, XdpMode},
    core::{Counters, Desired, DesiredBackend, DesiredService, Slots},
    dataplane::{CounterReader, Dataplane, FlowTable, Reaper},
};

use super::{
    gauge::{Gauge, Runs},
    range::{Flags, Lane, Range, SERVER_SIDE},
};

/// Connections there is room for: 2^20, a little over a million.
pub(super) const CAPACITY: u32 = 1 << 20;
/// The default for so many connections.
const HALF_OPEN: u32 = 32_768;
/// Connections that are opened before they are established.
const AT_ONCE: u32 = 30_000;
/// Backends enough that each has ports for its share of the connections.
const BACKENDS: u16 = 32;
/// Clients, each of which has its share of the connections.
const CLIENTS: u32 = 1_000;
const FIRST_CLIENT: u32 = u32::from_be_bytes([10, 8, 0, 0]);
const FIRST_PORT: u32 = 1_024;
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 100)), 80);

/// A balancer whose interface is a lane's far end.
pub(super) struct Balancer {
    dataplane: Dataplane,
    global: Global,
    counters: CounterReader,
    flows: FlowTable<V4>,
    lane: Lane,
    /// The gauge of the program.
    pub(super) gauge: Gauge,
    /// Connections that are established.
    pub(super) connections: u32,
}

impl Balancer {
    pub(super) fn new(lane: &Lane) -> Result<Self> {
        let global = global(CAPACITY, &lane.name);
        let (mut dataplane, _) = Dataplane::open(&global, None)?;
        dataplane.apply(&desired(lane, Duration::from_secs(120)))?;
        dataplane.attach(&global)?;
        let flows = MapData::from_pin(map_path(&global.bpffs, "FLOWS_V4"))?;
        let gauge = Gauge::find("tandem", flows.info()?.id())?;
        Ok(Self {
            counters: dataplane.counters()?,
            flows: dataplane.flows_v4()?,
            dataplane,
            global,
            lane: lane.clone(),
            gauge,
            connections: 0,
        })
    }

    /// Opens and establishes connections until there are `count`, in batches, and sets the tuples
    /// of each. `opening` is told what the program did while it opened a batch, and its size.
    pub(super) fn grow(
        &mut self,
        range: &mut Range,
        count: u32,
        mut opening: impl FnMut(&mut Range, Runs, u32) -> Result<()>,
    ) -> Result<()> {
        while self.connections < count {
            let first = self.connections;
            let next = count.min(first + AT_ONCE);
            for number in first..next {
                range.set_tuple(number, client_tuple(number))?;
            }
            let tuples = (first, next - first);
            let opened = || self.verdict("forward_new");
            let before = opened()?;
            let runs = range.measure(&self.lane, self.gauge, Flags::Syn, tuples, tuples.1)?;
            ensure!(
                opened()? - before == runs.count,
                "{} SYNs opened {} connections",
                runs.count,
                opened()? - before
            );
            self.establish(range, first..next)?;
            self.connections = next;
            opening(range, runs, tuples.1)?;
        }
        Ok(())
    }

    /// Gives the tuples of the first `count` connections to frames in an order that has nothing to
    /// do with where they lie in memory, and makes them known to `lookup`.
    pub(super) fn shuffle(&self, range: &mut Range, count: u32) -> Result<()> {
        /// A prime, so that its multiples meet every number below `count` once.
        const STRIDE: u64 = 611_953;

        let servers = self.server_tuples();
        for slot in 0..count {
            let number = u32::try_from(u64::from(slot) * STRIDE % u64::from(count))?;
            let client = client_tuple(number);
            range.set_tuple(slot, client)?;
            range.add_connection(&client)?;
            let server = servers.get(&client).context("a connection is missing")?;
            range.set_tuple(SERVER_SIDE + slot, *server)?;
        }
        Ok(())
    }

    /// Fires at it as [`Range::measure`] does, and sees to it that all packets had `verdict`.
    pub(super) fn measure(
        &self,
        range: &mut Range,
        tuples: (u32, u32),
        frames: u32,
        verdict: &str,
    ) -> Result<Runs> {
        let before = self.verdict(verdict)?;
        let runs = range.measure(&self.lane, self.gauge, Flags::Ack, tuples, frames)?;
        let seen = self.verdict(verdict)? - before;
        ensure!(seen == runs.count, "of {} packets only {seen} had {verdict}", runs.count);
        Ok(runs)
    }

    /// Makes all connections be idle for too long after `timeout`.
    pub(super) fn set_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.dataplane.apply(&desired(&self.lane, timeout))
    }

    pub(super) fn reaper(&self) -> Result<Reaper> {
        self.dataplane.reaper(&self.global)
    }

    /// Plays the rest of the handshakes. Frames may be lost, and are then sent again.
    fn establish(&self, range: &mut Range, numbers: Numbers<u32>) -> Result<()> {
        const ATTEMPTS: u32 = 5;

        let (first, count) = (numbers.start, numbers.end - numbers.start);
        for _ in 0..ATTEMPTS {
            let mut complete = true;
            let servers = self.server_tuples();
            for number in numbers.clone() {
                match servers.get(&client_tuple(number)) {
                    Some(tuple) => range.set_tuple(SERVER_SIDE + number, *tuple)?,
                    None => complete = false,
                }
            }
            if complete {
                let server = (SERVER_SIDE + first, count);
                range.fire(&self.lane, Flags::SynAck, server, count)?;
                range.fire(&self.lane, Flags::Ack, (first, count), count)?;
                let table = &self.read()?.tables[TABLE_V4 as usize];
                if table.half_open == 0 && table.connections == u64::from(numbers.end) {
                    return Ok(());
                }
            } else {
                range.fire(&self.lane, Flags::Syn, (first, count), count)?;
            }
        }
        let table = &self.read()?.tables[TABLE_V4 as usize];
        bail!("the connections {numbers:?} cannot be established; the table is {table:?}")
    }

    /// What a backend's packet has on each connection, by what a client's has.
    fn server_tuples(&self) -> HashMap<FlowKey<V4>, FlowKey<V4>> {
        let forward = self.flows.entries().filter(|(_, flow)| flow.is_forward());
        forward.map(|(_, flow)| (flow.key, flow.to.pair_key())).collect()
    }

    fn verdict(&self, label: &str) -> Result<u64> {
        self.read()?.verdicts.get(label).copied().with_context(|| format!("no verdict {label}"))
    }

    fn read(&self) -> Result<Counters> {
        self.counters.read([])
    }
}

/// Settings for a table of this size, below a bpffs that goes with the namespace.
pub(super) fn global(maxconn: u32, interface: &str) -> Global {
    Global {
        node: "bench".to_owned(),
        interfaces: vec![interface.to_owned()],
        xdp_mode: XdpMode::Native,
        maxconn,
        max_half_open: HALF_OPEN,
        source_ports: 1024..=65_535,
        bpffs: "/sys/fs/bpf/bench".into(),
        resolve_interval: Duration::from_secs(10),
    }
}

/// Where a map is pinned.
pub(super) fn map_path(bpffs: &Path, name: &str) -> PathBuf {
    bpffs.join(format!("{LAYOUT:016x}/maps/{name}"))
}

/// What a client's packet on a connection has.
fn client_tuple(number: u32) -> FlowKey<V4> {
    let address = Ipv4Addr::from(FIRST_CLIENT + number % CLIENTS);
    let port = u16::try_from(FIRST_PORT + number / CLIENTS).expect("clients have ports enough");
    FlowKey {
        src: v4(address.into()),
        dst: v4(SERVICE.ip()),
        sport: Port::new(port),
        dport: Port::new(SERVICE.port()),
    }
}

fn desired(lane: &Lane, timeout: Duration) -> Desired {
    let hop = NextHop {
        ifindex: lane.far,
        src: Mac([2, 0, 0, 0, 0, 1]),
        dst: Mac([2, 0, 0, 0, 0, 3]),
        ..NextHop::default()
    };
    let service = DesiredService {
        bind: vec![SERVICE],
        balance: Balance::RoundRobin,
        slots: Slots((0..BACKENDS).collect()),
        maxconn: None,
        group: 0,
        synchronous: false,
        timeout: Timeouts {
            connect: timeout,
            queue: timeout,
            client: timeout,
            server: timeout,
            client_fin: timeout,
            server_fin: timeout,
        },
    };
    let backend = |number: u16| DesiredBackend {
        service: 0,
        address: (Ipv4Addr::from(u32::from_be_bytes([10, 2, 0, 1]) + u32::from(number)), 80).into(),
        weight: 1,
        limits: Limits::default(),
        sources: vec![Ipv4Addr::new(10, 1, 0, 1).into()],
        error_limit: None,
        hop,
    };
    Desired {
        services: BTreeMap::from([(0, service)]),
        backends: (0..BACKENDS).map(|number| (number, backend(number))).collect(),
        ..Desired::default()
    }
}

fn v4(address: IpAddr) -> V4 {
    V4::from_ip(address).expect("an IPv4 address")
}
