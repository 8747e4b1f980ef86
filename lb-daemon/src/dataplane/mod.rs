//! The data plane's user side: loads and pins the program, makes the maps say what the core
//! desires, reads the counters and ends expired connections.
//!
//! Everything lives in files on a bpffs, so packets go on flowing when the daemon dies, and the
//! next daemon finds its connections:
//!
//! ```text
//! /sys/fs/bpf/tandem/<layout>/maps/FLOWS_V4 ...      one per map
//!                            /links/<ifindex>_native the attachment to an interface
//!                            /exporter               whoever stands in, if an upgrade may ask
//! ```

mod attach;
mod carry;
mod client_hops;
mod counters;
mod end;
mod family;
mod flows;
mod gate;
mod handshakes;
mod inject;
mod leases;
mod limits;
mod lock;
mod mapped;
mod pins;
mod reap;
mod reconcile;
mod recount;
mod replica;
mod simulate;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapError, Queue},
    programs::Xdp,
};
use lb_common::{
    addr::{Mac, V4, V6},
    flow::groups,
    hash::Seed,
    maps::{MAX_BACKENDS, MAX_HOPS, MISS_RESET, Settings, Tags},
};
use nix::time::{ClockId, clock_gettime};
use tracing::{error, info, warn};

pub use self::{
    attach::{Attached, Mode},
    carry::Exporter,
    counters::CounterReader,
    end::Ender,
    flows::Flows,
    gate::Gate,
    handshakes::Alarms,
    inject::{Injected, Injector},
    leases::Leases,
    lock::Lock,
    reap::{Reaper, Sweep},
    recount::{Count, Drift},
    replica::{FindWay, Replica},
    simulate::{Program, Simulated, XdpAction},
    table::FlowTable,
};
use self::{carry::Import, client_hops::Turn, leases::Grace, pins::Pins, reconcile::Reconciler};
use crate::{
    config::{Global, Peer, own_ports},
    core::{Desired, Inventory},
};

/// The program as `lb-ebpf` was compiled to.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tandem.bpf.o"));

/// The loaded data plane. Dropping it leaves everything in force.
pub struct Dataplane {
    ebpf: Ebpf,
    pins: Pins,
    reconciler: Reconciler,
    attached: BTreeMap<String, Attached>,
    grace: Arc<Grace>,
    turn: Turn,
    /// The data plane of another version, whose place this one is to take. One thread at a time may have
    /// it, while all may have the rest.
    import: Mutex<Option<Import>>,
    _lock: Lock,
}

impl Dataplane {
    /// Loads the program, adopting the maps of an earlier daemon if there are any, or what they hold if
    /// that was of another version. Packets are not touched until [`attach`](Self::attach). With a peer,
    /// see [`configure`](Self::configure).
    pub fn open(global: &Global, peer: Option<&Peer>) -> Result<(Self, Inventory)> {
        let mut pins = Pins::create(&global.bpffs)?;
        let mut lock = Lock::wait(&global.bpffs)?;
        if lock.is_some() && !pins.are_there() {
            // Whoever had the lock has just taken everything away.
            pins = Pins::create(&global.bpffs)?;
            lock = Lock::wait(&global.bpffs)?;
        }
        let Some(lock) = lock else {
            bail!(
                "another tandem runs the data plane in {}: stop it first, or give this one a \
                 directory of its own ([global] bpffs)",
                global.bpffs.display()
            );
        };
        let import = Mutex::new(Import::begin(&pins, global, peer)?);
        carry::decline(&pins);
        let mut ebpf = create(&pins, global)?;
        load(&mut ebpf, "tandem")?;
        let half_open = pins.capacity("HALF_OPEN_V4")?;
        let maxconn = set_up(&pins, global, peer, half_open)?.connections;
        if maxconn != global.maxconn || half_open != global.max_half_open {
            warn!(
                maxconn,
                max_half_open = half_open,
                "the flow table of the running data plane keeps its size; run `tandem detach` \
                 before the next start to change it (this ends its connections)"
            );
        }
        let (reconciler, mut inventory) = Reconciler::open(&pins)?;
        let attached = BTreeMap::new();
        let grace = Arc::new(Grace::of(peer));
        let turn = Turn::default();
        inventory.groups = Leases::open(&pins, grace.clone())?.running().collect();
        let this = Self { ebpf, pins, reconciler, attached, grace, turn, import, _lock: lock };
        Ok((this, inventory))
    }

    /// Attaches the program to the interfaces of the configuration, and detaches it from others.
    /// Touches nothing if one of them does not exist.
    pub fn attach(&mut self, global: &Global) -> Result<()> {
        for name in &global.interfaces {
            attach::index(name)?;
        }
        let mut import = self.import.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        match &mut import {
            Some(import) => import.replace()?,
            None => self.pins.remove_others()?,
        }
        for name in &global.interfaces {
            self.attach_one(name, global)?;
        }
        if let Some(import) = import {
            import.finish()?;
        }
        self.detach_others(global)
    }

    /// Attaches the program anew where an interface was replaced by another of its name, as it is
    /// when a driver or a bond is set up again: the program went with the old one.
    pub fn reattach(&mut self, global: &Global) {
        let mut changed = false;
        for name in &global.interfaces {
            let before = self.attached.get(name).map(|attached| attached.ifindex);
            let result = match attach::index(name) {
                Ok(ifindex) if before == Some(ifindex) => continue,
                Ok(_) => self.attach_one(name, global),
                Err(_) if before.is_none() => continue,
                Err(error) => Err(error),
            };
            changed = true;
            if let Err(error) = result {
                self.attached.remove(name);
                error!(
                    "{name} forwards nothing until the XDP program can be attached again: {error:#}"
                );
            }
        }
        if changed && let Err(error) = self.detach_others(global) {
            warn!("cannot clean up after an interface: {error:#}");
        }
    }

    fn attach_one(&mut self, name: &str, global: &Global) -> Result<()> {
        let program = program(&mut self.ebpf, "tandem")?;
        let attached = attach::attach(program, &self.pins, name, global.xdp_mode)?;
        if self.attached.insert(name.to_owned(), attached) != Some(attached) {
            info!(interface = name, mode = %attached.mode, "XDP program attached");
        }
        Ok(())
    }

    fn detach_others(&mut self, global: &Global) -> Result<()> {
        self.attached.retain(|name, _| global.interfaces.contains(name));
        let keep: BTreeSet<u32> = self.attached.values().map(|a| a.ifindex).collect();
        attach::detach_others(&self.pins, &keep)
    }

    /// Where the program is attached, by interface.
    pub fn attached(&self) -> &BTreeMap<String, Attached> {
        &self.attached
    }

    /// Makes the maps say what the core desires.
    pub fn apply(&mut self, desired: &Desired) -> Result<()> {
        self.reconciler.apply(desired)
    }

    /// Sends frames back to clients to a neighbour's new link-layer address.
    pub fn neighbour_moved(
        &mut self,
        links: &BTreeSet<(u32, Tags)>,
        from: Mac,
        to: Mac,
    ) -> Result<()> {
        self.reconciler.neighbour_moved(links, from, to)
    }

    /// Puts those settings in force that can change while connections live. With a peer, changes of
    /// connections are reported, new ones use this host's part of the ports, and a takeover begins
    /// with the peer's grace.
    pub fn configure(&mut self, global: &Global, peer: Option<&Peer>) -> Result<()> {
        set_up(&self.pins, global, peer, self.pins.capacity("HALF_OPEN_V4")?)?;
        self.grace.set(peer);
        Ok(())
    }

    /// Asks the loaded program what it would do with a frame that came in by `ifindex`, and lets it
    /// do it: maps change as they would by a real frame, but nothing is sent.
    pub fn simulate(&self, frame: &[u8], ifindex: u32) -> Result<Simulated> {
        let program = self.ebpf.program("tandem").context("no program tandem")?;
        let program: &Xdp = program.try_into()?;
        simulate::run(program, frame, ifindex)
    }

    /// The program with this name on the same maps, to be run on what the caller has.
    pub fn program(&self, global: &Global, name: &'static str) -> Result<Program> {
        let mut ebpf = create(&self.pins, global)?;
        load(&mut ebpf, name)?;
        Ok(Program { ebpf, name })
    }

    /// A reader of the counters, with handles of its own.
    pub fn counters(&self) -> Result<CounterReader> {
        CounterReader::open(&self.pins)
    }

    /// What sees of which backends too many handshakes fail.
    pub fn alarms(&self) -> Result<Alarms> {
        Alarms::open(&self.pins)
    }

    /// Where the groups' leases are written. Those that an earlier process has left go on.
    pub fn leases(&self) -> Result<Leases> {
        Leases::open(&self.pins, self.grace.clone())
    }

    /// The flow table of IPv4, with a handle of its own.
    pub fn flows_v4(&self) -> Result<FlowTable<V4>> {
        FlowTable::open(&self.pins, "FLOWS_V4")
    }

    /// The flow table of IPv6, with a handle of its own.
    pub fn flows_v6(&self) -> Result<FlowTable<V6>> {
        FlowTable::open(&self.pins, "FLOWS_V6")
    }

    /// The connections of both tables, for a thread of its own.
    pub fn flows(&self) -> Flows {
        Flows::new(self.pins.clone())
    }

    /// What ends expired connections, with handles of its own.
    pub fn reaper(&self, global: &Global) -> Result<Reaper> {
        let mut ebpf = create(&self.pins, global)?;
        for name in [Reaper::PROGRAM_V4, Reaper::PROGRAM_V6] {
            load(&mut ebpf, name)?;
        }
        Reaper::open(&self.pins, ebpf, self.turn.clone())
    }

    /// What ends connections before their time, with handles of its own.
    pub fn ender(&self, global: &Global) -> Result<Ender> {
        let mut ebpf = create(&self.pins, global)?;
        for name in Ender::PROGRAMS {
            load(&mut ebpf, name)?;
        }
        Ender::open(&self.pins, ebpf)
    }

    /// What sends frames on that were held back, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the process may not open packet sockets, or the maps are gone.
    pub fn injector(&self, global: &Global) -> Result<Injector> {
        Injector::open(create(&self.pins, global)?)
    }

    /// The way of SYNs that wait for a place, in the network namespace of the calling thread, for a thread of
    /// its own.
    pub fn gate(&self, global: &Global) -> Result<Gate> {
        Gate::open(&self.pins, self.injector(global)?)
    }

    /// What keeps the flow tables equal to the peer's, with handles of its own, for a thread of its
    /// own. It finds the way to a client by `find`.
    pub fn replica(&self, global: &Global, find: FindWay) -> Result<Replica> {
        let mut ebpf = create(&self.pins, global)?;
        for name in Replica::PROGRAMS {
            load(&mut ebpf, name)?;
        }
        let injector = self.injector(global)?;
        let names = self.reconciler.names();
        Replica::open(&self.pins, ebpf, injector, names, find, self.turn.clone())
    }
}

/// The leases in the data plane of this program's layout, whoever else has it open.
pub fn leases(bpffs: &std::path::Path) -> Result<Leases> {
    // Whoever only goes on with leases begins none.
    Leases::open(&Pins::of(bpffs), Arc::default())
}

/// The right to write the data plane's maps, and to take it away; nothing if a daemon has it.
pub fn lock(bpffs: &std::path::Path) -> Result<Option<Lock>> {
    Lock::take(bpffs)
}

/// Whether an earlier daemon left a data plane there.
pub fn exists(bpffs: &std::path::Path) -> bool {
    Pins::exist(bpffs)
}

/// Takes the data plane away: detaches the program everywhere and forgets all connections. Returns
/// the number of attachments removed.
pub fn detach(bpffs: &std::path::Path) -> Result<usize> {
    Pins::remove_all(bpffs)
}

/// The same where the daemon is gone; refuses if it is not.
pub fn detach_orphan(bpffs: &std::path::Path) -> Result<usize> {
    check_privileges()?;
    if !bpffs.exists() {
        return Ok(0);
    }
    let Some(_lock) = Lock::take(bpffs)? else {
        bail!(
            "a tandem daemon is running with its data plane in {}: stop it (`systemctl stop \
             tandem`), which detaches too",
            bpffs.display()
        );
    };
    detach(bpffs)
}

/// Creates the maps, or opens those that are pinned; loads no program yet.
fn create(pins: &Pins, global: &Global) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries("FLOWS_V4", groups(global.maxconn))
        .map_max_entries("FLOWS_V6", groups(global.maxconn))
        .map_max_entries("HALF_OPEN_V4", global.max_half_open)
        .map_max_entries("HALF_OPEN_V6", global.max_half_open);
    for map in pins::MAPS {
        loader.map_pin_path(map, pins.map(map));
    }
    loader.load(OBJECT).context("cannot create the eBPF maps")
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    program(ebpf, name)?.load().with_context(|| {
        format!("the kernel refuses the eBPF program {name}; Tandem needs Linux 6.1 or newer")
    })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

/// Fills what the program expects of fresh maps, and writes the settings; returns them. What places
/// the entries in the flow tables stays as it is as long as the maps do.
fn set_up(pins: &Pins, global: &Global, peer: Option<&Peer>, half_open: u32) -> Result<Settings> {
    let mut settings: Array<_, Settings> = pins.open("SETTINGS")?;
    let mut new = settings.get(&0, 0)?;
    if new.port_count == 0 {
        // Fresh maps, or the remains of a start that did not get far.
        let mut free: Queue<_, u32> = pins.open("FREE_HOPS")?;
        loop {
            match free.pop(0) {
                Ok(_) => {}
                Err(MapError::ElementNotFound) => break,
                Err(error) => return Err(error.into()),
            }
        }
        for hop in MAX_BACKENDS..MAX_HOPS {
            free.push(hop, 0)?;
        }
        new.seed = random_seed()?;
        new.groups = pins.capacity("FLOWS_V4")?;
        new.connections = global.maxconn;
        new.epoch = epoch()?;
    }
    let ports = own_ports(&global.source_ports, peer);
    new.port_first = u32::from(*ports.start());
    new.port_count = u32::from(*ports.end()) + 1 - new.port_first;
    new.report = peer.is_some().into();
    new.half_open = half_open;
    new.miss = MISS_RESET;
    settings.set(0, new, 0)?;
    Ok(new)
}

/// What the clock of the day is ahead of the monotonic one, in milliseconds, less whole turns of the
/// 32 bits that TCP timestamps have.
fn epoch() -> Result<u32> {
    let of_day = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?);
    let monotonic = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    let ahead = of_day.saturating_sub(monotonic).as_millis() & u128::from(u32::MAX);
    Ok(u32::try_from(ahead)?)
}

fn random_seed() -> Result<Seed> {
    let [start, by] = random()?;
    Ok(Seed { start, by: by | 1 })
}

fn random() -> Result<[u64; 2]> {
    let mut bytes = [[0; 8]; 2];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(bytes.as_flattened_mut()))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.map(u64::from_ne_bytes))
}

/// Fails with one clear line where the kernel would fail with many obscure ones.
pub fn check_privileges() -> Result<()> {
    /// `CAP_NET_ADMIN` and `CAP_BPF`, as numbered by the kernel.
    const NEEDED: u64 = 1 << 12 | 1 << 39;

    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    if effective.is_some_and(|capabilities| capabilities & NEEDED != NEEDED) {
        bail!(
            "not privileged to load eBPF programs: run as root, or give the service \
             CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW"
        );
    }
    Ok(())
}
