//! The way back to a client that has sent nothing yet: to a connection that was adopted, its packets
//! have come by the peer.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use aya::maps::{Array, HashMap as BpfHashMap, MapData, MapError, Queue};
use lb_common::maps::{HopKey, NextHop};

use crate::dataplane::{client_hops::Turn, pins::Pins};

/// Asks the kernel for the way to an address: nothing if it is not known now. Takes some
/// microseconds, and has the kernel look for a neighbour that it does not know.
pub type FindWay = Box<dyn FnMut(IpAddr) -> Option<NextHop> + Send>;

/// How long a way is taken for granted. A client's first packet shows the right one anyway.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// How long to wait before the kernel is asked again for one that it did not know.
const UNKNOWN_FOR: Duration = Duration::from_millis(200);
/// Clients whose ways are remembered.
const REMEMBERED: usize = 1 << 16;
/// How long the kernel is asked in one go: nobody waits for long, and numbers that were found stay
/// good until they are used.
const PATIENCE: Duration = Duration::from_millis(10);

/// `BPF_NOEXIST` of the kernel.
const NO_EXIST: u64 = 1;

/// Finds the numbers of next hops to clients, and enters new ones as the program does.
pub(in crate::dataplane) struct Ways {
    find: FindWay,
    turn: Turn,
    numbers: BpfHashMap<MapData, HopKey, u32>,
    free: Queue<MapData, u32>,
    hops: Array<MapData, NextHop>,
    /// What the kernel said of clients, and until when that is good.
    remembered: HashMap<IpAddr, (Instant, Option<NextHop>)>,
    /// Numbers found since [`begin`](Self::begin). They are good for as long as what refers to them
    /// is entered before the next walk but one of the flow table ends: until then nobody gives
    /// them away.
    found: HashMap<HopKey, u16>,
    /// Until when the kernel may be asked.
    until: Instant,
}

impl Ways {
    pub(in crate::dataplane) fn open(pins: &Pins, find: FindWay, turn: Turn) -> Result<Self> {
        Ok(Self {
            find,
            turn,
            numbers: pins.open("CLIENT_HOPS")?,
            free: pins.open("FREE_HOPS")?,
            hops: pins.open("NEXT_HOPS")?,
            remembered: HashMap::new(),
            found: HashMap::new(),
            until: Instant::now(),
        })
    }

    /// Begins some work that is done in less than a second: numbers that were found before are found
    /// anew, and the kernel may be asked for some milliseconds. A way that it is not asked for is not
    /// known.
    pub(in crate::dataplane) fn begin(&mut self) {
        self.found.clear();
        self.until = Instant::now() + PATIENCE;
    }

    /// The number of the next hop to a client; nothing if the way is not known now, or if there is
    /// no number left for it.
    ///
    /// # Errors
    ///
    /// If a map cannot be read or written.
    pub(super) fn hop(&mut self, client: IpAddr) -> Result<Option<u16>> {
        self.way(client).map_or(Ok(None), |way| self.number(way))
    }

    fn way(&mut self, client: IpAddr) -> Option<NextHop> {
        let now = Instant::now();
        if let Some((until, way)) = self.remembered.get(&client)
            && *until > now
        {
            return *way;
        }
        if now > self.until {
            return None;
        }
        let way = (self.find)(client).filter(|way| way.ifindex != 0);
        if self.remembered.len() >= REMEMBERED {
            self.remembered.retain(|_, (until, _)| *until > now);
        }
        // Full of what is still good: begins anew rather than grow.
        if self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
        }
        let good_for = if way.is_some() { KNOWN_FOR } else { UNKNOWN_FOR };
        self.remembered.insert(client, (now + good_for, way));
        way
    }

    /// The number of a next hop: the one that the program would find for a frame that came the
    /// other way.
    pub(in crate::dataplane) fn number(&mut self, way: NextHop) -> Result<Option<u16>> {
        let NextHop { ifindex, src, dst, tags } = way;
        let key = HopKey { ifindex, ours: src, theirs: dst, tags };
        if let Some(number) = self.found.get(&key) {
            return Ok(Some(*number));
        }
        let Some(number) = self.find_or_enter(key, way)? else { return Ok(None) };
        let number = u16::try_from(number)?;
        self.found.insert(key, number);
        Ok(Some(number))
    }

    fn find_or_enter(&mut self, key: HopKey, way: NextHop) -> Result<Option<u32>> {
        let turn = self.turn.clone();
        let _ours = turn.take();
        if let Some(number) = self.look_up(&key)? {
            return Ok(Some(number));
        }
        let number = match self.free.pop(0) {
            Ok(number) => number,
            Err(MapError::ElementNotFound) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.hops.set(number, way, 0)?;
        if self.numbers.insert(key, number, NO_EXIST).is_ok() {
            return Ok(Some(number));
        }
        // The program entered it first, or there is no room.
        self.free.push(number, 0)?;
        self.look_up(&key)
    }

    fn look_up(&self, key: &HopKey) -> Result<Option<u32>> {
        match self.numbers.get(key, 0) {
            Ok(number) => Ok(Some(number)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => bail!(error),
        }
    }
}
