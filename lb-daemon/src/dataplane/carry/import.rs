//! The next daemon's side: makes its own data plane what the old one is, and puts it in the old one's
//! place.

use std::{
    fmt, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{Ebpf, maps::Array};
use lb_common::{
    addr::{V4, V6},
    flow::{ADOPT_KNOWN, ADOPT_NEW, ADOPT_OVER, Adoption, is_half_open},
    maps::{BackendState, Settings},
};
use serde::de::DeserializeOwned;
use tracing::{info, warn};

use super::{
    Truce,
    account::{Account, End, Greeting, LAST, Line, PASS, Part, VERSION},
    meeting::Offer,
};
use crate::{
    config::{Global, Peer},
    dataplane::{
        client_hops::Turn,
        create,
        family::Family,
        leases, load,
        mapped::{Access, Mapped},
        pins::Pins,
        reconcile::Reconciler,
        replica::{ANSWERED, Keys, Numbers, Replica, Ways, carry_out, enter, established},
        set_up,
    },
};

/// How long each line of the other side may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// New connections leave out so many of the translation ports that would come next: what the old program
/// opens until it is replaced has them.
const PORTS_LEFT_OUT: u64 = 1024;

/// A data plane that is being carried over.
pub(in crate::dataplane) struct Import {
    /// The old one's pins.
    old: Pins,
    ours: Pins,
    lines: BufReader<UnixStream>,
    programs: Ebpf,
    ways: Ways,
    states: Mapped<BackendState>,
    truce: Option<Truce>,
    count: Count,
}

/// What became of what was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    carried: u64,
    failed: u64,
}

impl Import {
    /// Fills the maps of `pins`, which are not in force, from the data plane of another layout, if there
    /// is one, and somebody to tell what it holds. If that fails, says why, and leaves none behind.
    pub(in crate::dataplane) fn begin(
        pins: &Pins,
        global: &Global,
        peer: Option<&Peer>,
    ) -> Result<Option<Self>> {
        let Some(offer) = Offer::find(pins)? else { return Ok(None) };
        // The remains of one that did not get far.
        pins.clear()?;
        match Self::fill(offer, pins, global, peer) {
            Ok(import) => Ok(Some(import)),
            Err(error) => {
                warn!("cannot take over the connections of another version: {error:#}");
                pins.clear()?;
                Ok(None)
            }
        }
    }

    fn fill(offer: Offer, pins: &Pins, global: &Global, peer: Option<&Peer>) -> Result<Self> {
        let socket = offer.accept()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(socket);
        let Greeting { version } = next(&mut lines)?;
        ensure!(version == VERSION, "it tells them in a way that this version does not know");
        let Line::Account(account) = next(&mut lines)? else { bail!("it begins in the middle") };
        account.check()?;

        leases::share(&offer.pins.map("LEASES"), &pins.map("LEASES"))?;
        let mut programs = create(pins, global)?;
        for name in Replica::PROGRAMS {
            load(&mut programs, name)?;
        }
        write(&account, pins, global, peer)?;
        let mut this = Self {
            old: offer.pins,
            ours: pins.clone(),
            lines,
            programs,
            ways: Ways::open(pins, Box::new(|_| None), Turn::default())?,
            states: Mapped::open(pins, "BACKEND_STATE", Access::Change)?,
            truce: None,
            count: Count::default(),
        };
        this.pass(PASS)?;
        Ok(this)
    }

    /// Makes ready for the programs on the interfaces to be replaced: now their links are ours.
    pub(in crate::dataplane) fn replace(&mut self) -> Result<()> {
        if let Err(error) = self.pass(PASS) {
            warn!("the newest connections of the version before are lost: {error:#}");
        }
        self.truce = Some(Truce::begin(&self.ours)?);
        let links = self.old.links();
        let entries = fs::read_dir(&links);
        for link in entries.with_context(|| format!("cannot list {}", links.display()))?.flatten() {
            let to = self.ours.links().join(link.file_name());
            fs::rename(link.path(), &to)
                .with_context(|| format!("cannot make {}", to.display()))?;
        }
        Ok(())
    }

    /// Brings everything up to date, and removes what is left of the old data plane. The programs on the
    /// interfaces have been replaced.
    pub(in crate::dataplane) fn finish(mut self) -> Result<()> {
        if let Err(error) = self.pass(LAST) {
            warn!("the newest connections of the version before are lost: {error:#}");
        }
        drop(self.truce.take());
        info!("carried over from the version before: {}", self.count);
        self.old.discard()
    }

    /// Has the other side tell of connections, and enters them.
    fn pass(&mut self, word: &str) -> Result<()> {
        self.lines.get_mut().write_all(word.as_bytes()).context("nobody stands in any more")?;
        loop {
            match next(&mut self.lines)? {
                Line::Part(part) => self.enter(&part)?,
                Line::End(end) => return self.go_on_from(&end),
                Line::Account(_) => bail!("it begins anew"),
            }
        }
    }

    fn enter(&mut self, part: &Part) -> Result<()> {
        self.ways.begin();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for one in &part.connections {
            let connection = one.connection();
            let numbers = Numbers { service: one.service, backend: one.number };
            let way = one.way.and_then(|way| part.ways.get(&way));
            let hop = match way {
                Some(way) => self.ways.number((*way).into())?,
                None => None,
            };
            let state = entered(connection.state);
            if let Some(keys) = Keys::<V4>::split(&connection.tuple) {
                v4.push(enter(&keys, &connection, state, numbers, hop, ADOPT_OVER));
            } else if let Some(keys) = Keys::<V6>::split(&connection.tuple) {
                v6.push(enter(&keys, &connection, state, numbers, hop, ADOPT_OVER));
            }
        }
        self.order(&mut v4)?;
        self.order(&mut v6)
    }

    fn order<A: Family>(&mut self, orders: &mut [Adoption<A>]) -> Result<()> {
        carry_out(&self.programs, orders)?;
        for order in orders {
            match order.order {
                ADOPT_NEW => self.count.carried += 1,
                ADOPT_KNOWN => {}
                _ => self.count.failed += 1,
            }
        }
        Ok(())
    }

    /// Has new connections take other translation ports than the old program's last ones.
    fn go_on_from(&self, end: &End) -> Result<()> {
        for (number, cursor) in &end.cursors {
            let state = self.states.element((*number).into()).context("no such backend")?;
            // SAFETY: an aligned word of a live mapping, which the program too changes atomically.
            let word = unsafe { AtomicU64::from_ptr(&raw mut (*state.as_ptr()).cursor) };
            word.fetch_max(cursor.saturating_add(PORTS_LEFT_OUT), Ordering::SeqCst);
        }
        Ok(())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { carried, failed } = *self;
        write!(f, "{carried} connections")?;
        if failed == 0 { Ok(()) } else { write!(f, "; there was no room for {failed}") }
    }
}

/// The state bits that a connection begins with here. Of one that is not established nobody knows whether
/// its client has the answer, as of one that a peer held back: it lives on for as long as those do.
const fn entered(state: u8) -> u8 {
    if is_half_open(state) { ANSWERED } else { established(state) }
}

/// Writes everything but connections.
fn write(account: &Account, pins: &Pins, global: &Global, peer: Option<&Peer>) -> Result<()> {
    set_up(pins, global, peer, pins.capacity("HALF_OPEN_V4")?)?;
    let mut settings: Array<_, Settings> = pins.open("SETTINGS")?;
    let new = settings.get(&0, 0)?;
    settings.set(0, Settings { epoch: account.epoch, ..new }, 0)?;
    let (mut reconciler, _) = Reconciler::open(pins)?;
    reconciler.apply(&account.desired()?)
}

/// The next line of the other side.
fn next<T: DeserializeOwned>(lines: &mut BufReader<UnixStream>) -> Result<T> {
    let mut line = String::new();
    let length = lines.read_line(&mut line).context("no answer")?;
    ensure!(length != 0, "whoever stands in has ended");
    serde_json::from_str(&line).context("an answer that makes no sense")
}
