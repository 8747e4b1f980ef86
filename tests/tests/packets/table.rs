//! The flow table itself: how full it may get, several processors at once, and damage.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroUsize,
    path::Path,
    ptr::NonNull,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use lb_common::{
    addr::{Address, V4, V6},
    flow::{DEAD, Flow, GROUP, OVERFLOW, born, groups},
    maps::{BackendState, LAYOUT, ServiceState, TABLE_V4, TABLE_V6, TableState},
    verdict::Verdict::{DropTableFull, ForwardNew},
};
use lb_daemon::{
    config::Global,
    dataplane::{Count, Drift, Reaper, XdpAction},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    unistd::Pid,
};
use tests::lab::Family;

use crate::{net::Net, verify, world::World};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn random_connections_fill_the_table_to_its_limit_and_leave_nothing_behind() -> Result<()> {
    const LIMIT: u32 = 5_000;
    let settings = |global: &mut Global| {
        (global.maxconn, global.max_half_open) = (LIMIT, 8192);
        global.source_ports = 1024..=65_535;
    };
    with(settings, |world, n| {
        let table = Table::open(n.family, LIMIT)?;
        for number in 0..LIMIT {
            world.send(&stranger(n, number).client().syn().frame())?;
        }
        let opened = world.read([])?.verdicts[ForwardNew.label()];
        ensure!(opened == u64::from(LIMIT), "only {opened} were opened");
        let full = world.decide(stranger(n, LIMIT).client().syn())?.verdict;
        ensure!(full == DropTableFull, "{full:?}");
        ensure!(world.table(n.family)?.connections == u64::from(LIMIT));
        ensure!(table.overflowed() > 20, "a test of no overflow: {}", table.overflowed());
        // All of them are found.
        for number in (0..LIMIT).step_by(97) {
            let done = world.decide(stranger(n, number).client().syn())?;
            ensure!(done.verdict.label() == "forward_client", "{number}: {:?}", done.verdict);
        }
        give_up(world, n)?;
        ensure!(table.overflowed() == 0, "{} are counted still", table.overflowed());
        ensure!(table.taken() == 0, "{} places are taken still", table.taken());
        Ok(())
    })
}

#[test]
fn two_processors_that_open_one_connection_open_it_once() -> Result<()> {
    const ROUNDS: u16 = 1000;
    let settings = |global: &mut Global| global.max_half_open = 4096;
    with(settings, |world, n| {
        let table = Table::open(n.family, 4096)?;
        let start = Barrier::new(2);
        let sender = &*world;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|cpu| {
                    let start = &start;
                    scope.spawn(move || -> Result<()> {
                        stay_on(cpu)?;
                        for round in 0..ROUNDS {
                            let frame = n.client().sport(1024 + round).syn().frame();
                            start.wait();
                            sender.send(&frame)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        let opened = world.read([])?.verdicts[ForwardNew.label()];
        ensure!(opened == u64::from(ROUNDS), "{opened} were opened, not {ROUNDS}");
        let counts = world.table(n.family)?;
        ensure!(counts.connections == opened && counts.half_open == opened, "{counts:?}");
        ensure!(world.active(n.number)? == opened);
        ensure!(table.taken() == 2 * opened, "{} places are taken", table.taken());
        give_up(world, n)?;
        ensure!(table.taken() == 0, "{} places are taken still", table.taken());
        Ok(())
    })
}

#[test]
fn a_packet_is_translated_by_one_connection_though_its_place_is_reused_meanwhile() -> Result<()> {
    const ROUNDS: u64 = 3_000;
    with(
        |_| {},
        |world, n| {
            world.send(&n.client().syn().frame())?;
            let over = AtomicBool::new(false);
            let sender = &*world;
            let seen: Result<usize> = thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    stay_on(1)?;
                    let frame = n.client().plain().frame();
                    let mut seen = 0;
                    while !over.load(Ordering::Relaxed) {
                        let done = sender.send(&frame)?;
                        // The backend's, or a RST; a translation of two connections has a wrong
                        // checksum.
                        if matches!(done.action, XdpAction::Tx | XdpAction::Redirect) {
                            verify::check(&done.frame).context("while it was reopened")?;
                            seen += usize::from(done.action == XdpAction::Redirect);
                        }
                    }
                    Ok(seen)
                });
                let rounds = stay_on(0).and_then(|()| {
                    (0..ROUNDS).try_for_each(|_| {
                        sender.send(&n.client().rst().frame())?;
                        sender.send(&n.client().syn().frame()).map(drop)
                    })
                });
                over.store(true, Ordering::Relaxed);
                let seen = reader.join().expect("no panic");
                rounds.and(seen)
            });
            ensure!(seen? > 0, "no packet met the connection");
            let opened = world.read([])?.verdicts[ForwardNew.label()];
            ensure!(opened > ROUNDS / 2, "it was reopened only {opened} times");
            give_up(world, n)
        },
    )
}

#[test]
fn counts_that_are_wrong_are_corrected_by_what_is_there() -> Result<()> {
    with(
        |_| {},
        |world, n| {
            for port in 0..5 {
                world.send(&n.client().sport(1024 + port).syn().frame())?;
            }
            let reaper = world.reaper()?;
            ensure!(reaper.recount() == Drift::default(), "right counts are taken for wrong");
            let index = match n.family {
                Family::V4 => TABLE_V4,
                Family::V6 => TABLE_V6,
            };
            let tables = Mapping::<TableState>::open("TABLES", 2)?;
            let backends = Mapping::<BackendState>::open("BACKEND_STATE", 16)?;
            tables.word(index as usize, |table| &raw mut table.connections).fetch_add(3, SEQ);
            tables.word(index as usize, |table| &raw mut table.half_open).fetch_sub(1, SEQ);
            backends.word(n.number.into(), |backend| &raw mut backend.active).fetch_add(7, SEQ);
            backends.word(9, |backend| &raw mut backend.active).fetch_add(1, SEQ);
            let services = Mapping::<ServiceState>::open("SERVICE_STATE", 16)?;
            services.word(0, |service| &raw mut service.active).fetch_sub(2, SEQ);
            let drift = reaper.recount().0;
            let expected = [
                (Count::Connections(index), 3),
                (Count::HalfOpen(index), -1),
                (Count::Active(n.number), 7),
                (Count::Active(9), 1),
                (Count::ActiveOfService(0), -2),
            ];
            ensure!(drift.into_iter().eq(expected.into_iter()), "another drift");
            let counts = world.table(n.family)?;
            ensure!(counts.connections == 5 && counts.half_open == 5, "{counts:?}");
            ensure!(world.active(n.number)? == 5 && world.active(9)? == 0);
            ensure!(reaper.recount() == Drift::default(), "not corrected for good");
            Ok(())
        },
    )
}

#[test]
fn entries_without_an_owner_and_connections_left_half_removed_are_taken_away() -> Result<()> {
    with(
        |_| {},
        |world, n| {
            for port in 0..3 {
                world.send(&n.client().sport(1024 + port).syn().frame())?;
            }
            let table = Table::open(n.family, 4096)?;
            let owners = table.owners();
            ensure!(owners.len() == 3 && table.taken() == 6);
            table.word(owners[0]).store(0, SEQ);
            table.word(owners[1]).fetch_or(DEAD.into(), SEQ);
            let mut healed = 0;
            let deadline = Instant::now() + PATIENCE;
            while healed < 2 {
                ensure!(Instant::now() < deadline, "{healed} of 2 are healed");
                // One that a sweep has asked for its owner is asked again when it is silent: as if by
                // a daemon that starts.
                let mut reaper = world.reaper()?;
                for _ in 0..2 {
                    let sweep = reaper.sweep()?;
                    ensure!(sweep.reaped == 0, "a connection was ended that has an hour");
                    healed += sweep.healed;
                }
                thread::sleep(Duration::from_millis(100));
            }
            ensure!(table.taken() == 2, "{} places are taken", table.taken());
            world.reaper()?.recount();
            let counts = world.table(n.family)?;
            ensure!(counts.connections == 1 && counts.half_open == 1, "{counts:?}");
            ensure!(world.active(n.number)? == 1);
            give_up(world, n)
        },
    )
}

const SEQ: Ordering = Ordering::SeqCst;

/// Runs a story for each family, with one service and one backend.
fn with(
    settings: impl Fn(&mut Global),
    story: impl Fn(&mut World, &Net) -> Result<()> + Send + Sync,
) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        World::run_with(&settings, |world| {
            let net = Net::new(family, 1, world.arms);
            world.apply(&net.desired())?;
            story(world, &net)
        })?;
    }
    Ok(())
}

/// Has all half-open connections expire, and sees their counts return to zero.
fn give_up(world: &mut World, n: &Net) -> Result<()> {
    let mut desired = n.desired();
    if let Some(service) = desired.services.get_mut(&0) {
        service.timeout.connect = Duration::ZERO;
    }
    world.apply(&desired)?;
    let mut reaper: Reaper = world.reaper()?;
    let deadline = Instant::now() + PATIENCE;
    while reaper.sweep()?.entries != 0 {
        ensure!(Instant::now() < deadline, "connections are still there");
        thread::sleep(Duration::from_millis(10));
    }
    let counts = world.table(n.family)?;
    ensure!(counts.connections == 0 && counts.half_open == 0, "{counts:?}");
    ensure!(world.active(n.number)? == 0, "the backend's count leaks");
    Ok(())
}

/// The same hosts, but for a client that has nothing to do with those of other numbers.
fn stranger(net: &Net, number: u32) -> Net {
    let mixed = number.wrapping_mul(0x9e37_79b1);
    let [a, b, c, d] = mixed.to_be_bytes();
    let ip: IpAddr = match net.family {
        Family::V4 => Ipv4Addr::new(10, a, b, c).into(),
        Family::V6 => {
            let halves = [[a, b], [c, d]].map(u16::from_be_bytes);
            Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, halves[0], halves[1]).into()
        }
    };
    let port = 1024 + u16::from_be_bytes([c, d]) % 60_000;
    Net { client: (ip, port).into(), ..net.clone() }
}

fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    // With a single processor, they interrupt each other there.
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
    Ok(())
}

/// A map that the program uses.
pub(crate) fn pinned(name: &str) -> Result<MapData> {
    let path = Path::new("/sys/fs/bpf/tandem").join(format!("{LAYOUT:016x}/maps/{name}"));
    Ok(MapData::from_pin(path)?)
}

/// A pinned map in this process's memory, to be looked at and damaged.
pub(crate) struct Mapping<T> {
    memory: NonNull<T>,
    length: NonZeroUsize,
    count: usize,
}

impl<T> Mapping<T> {
    pub(crate) fn open(name: &str, count: usize) -> Result<Self> {
        let map = pinned(name)?;
        let length = NonZeroUsize::new(count * size_of::<T>()).context("nothing to map")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, wherever the kernel finds room.
        let memory = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map.fd(), 0)? };
        Ok(Self { memory: memory.cast(), length, count })
    }

    pub(crate) fn word(&self, index: usize, field: fn(&mut T) -> *mut u64) -> &AtomicU64 {
        assert!(index < self.count);
        // SAFETY: within the mapping; the fields asked for are aligned words.
        unsafe { AtomicU64::from_ptr(field(self.memory.add(index).as_mut())) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: what `open` mapped.
        let _ = unsafe { munmap(self.memory.cast(), self.length.get()) };
    }
}

/// A family's flow table.
enum Table {
    V4(Mapping<Flow<V4>>),
    V6(Mapping<Flow<V6>>),
}

impl Table {
    fn open(family: Family, maxconn: u32) -> Result<Self> {
        let places = groups(maxconn) as usize * GROUP;
        Ok(match family {
            Family::V4 => Self::V4(Mapping::open("FLOWS_V4", places)?),
            Family::V6 => Self::V6(Mapping::open("FLOWS_V6", places)?),
        })
    }

    fn word(&self, place: usize) -> &AtomicU64 {
        match self {
            Self::V4(map) => map.word(place, |flow| &raw mut flow.life),
            Self::V6(map) => map.word(place, |flow| &raw mut flow.life),
        }
    }

    fn places(&self) -> usize {
        match self {
            Self::V4(map) => map.count,
            Self::V6(map) => map.count,
        }
    }

    /// Whether the entry at a place owns its connection, and the group's word there.
    fn look(&self, place: usize) -> (bool, u32) {
        fn of<A: Address>(map: &Mapping<Flow<A>>, place: usize) -> (bool, u32) {
            assert!(place < map.count);
            // SAFETY: within the mapping, and nobody changes it at the moment.
            let flow = unsafe { map.memory.add(place).read_volatile() };
            (flow.is_forward(), flow.group)
        }
        match self {
            Self::V4(map) => of(map, place),
            Self::V6(map) => of(map, place),
        }
    }

    fn taken(&self) -> u64 {
        (0..self.places()).filter(|place| self.word(*place).load(SEQ) != 0).count() as u64
    }

    /// Places of forward entries.
    fn owners(&self) -> Vec<usize> {
        let is_owner =
            |place: &usize| born(self.word(*place).load(SEQ)) != 0 && self.look(*place).0;
        (0..self.places()).filter(is_owner).collect()
    }

    /// Entries that are in another group than their first.
    fn overflowed(&self) -> u64 {
        (OVERFLOW..self.places()).step_by(GROUP).map(|place| u64::from(self.look(place).1)).sum()
    }
}
