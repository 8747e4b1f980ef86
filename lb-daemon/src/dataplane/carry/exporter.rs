//! The side of whoever stands in: tells the next daemon what the data plane holds.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, MapData};
use lb_common::{
    addr::{V4, V6},
    maps::{BackendState, NextHop},
};
use serde::Serialize;
use tracing::{info, warn};

use super::{
    account::{Carried, End, Greeting, LAST, Line, PASS, Part, VERSION},
    meeting::{Link, check},
    read::Maps,
    walk::Walk,
};
use crate::dataplane::{
    mapped::{Access, Mapped},
    pins::Pins,
};

/// Connections in one line.
const IN_A_LINE: usize = 256;
/// How long the other side may take to hear what it is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells whoever asks what the data plane of this program's layout holds, on a thread of its own.
#[derive(Debug)]
pub struct Exporter {
    link: Link,
    told: Told,
}

/// When something was last told: one who takes long to be told has not gone.
#[derive(Clone, Debug)]
struct Told(Arc<Mutex<Instant>>);

impl Exporter {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// If there is no data plane, or no thread or socket to be had.
    pub fn start(bpffs: &Path) -> Result<Self> {
        let pins = Pins::of(bpffs);
        let (link, listener) = Link::make(&pins)?;
        let told = Told(Arc::new(Mutex::new(Instant::now())));
        let tells = told.clone();
        let run = move || {
            if let Err(error) = serve(&pins, &listener, &tells) {
                warn!("an upgrade would not find the connections: {error:#}");
            }
        };
        std::thread::Builder::new()
            .name("exporter".to_owned())
            .spawn(run)
            .context("cannot start the exporter thread")?;
        Ok(Self { link, told })
    }

    /// Whether the next daemon may yet ask: it says so when it will not.
    pub fn is_wanted(&self) -> bool {
        self.link.is_there()
    }

    /// How long ago somebody was last told something, or this began.
    pub fn silence(&self) -> Duration {
        self.told.get().elapsed()
    }
}

impl Told {
    fn get(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) {
        *self.get() = Instant::now();
    }
}

fn serve(pins: &Pins, listener: &UnixListener, told: &Told) -> Result<()> {
    let mut teller = Teller::open(pins, told.clone())?;
    for stream in listener.incoming() {
        if let Err(error) = teller.tell(&stream?) {
            warn!("the next daemon was not told all connections: {error:#}");
        }
    }
    Ok(())
}

/// What is told from.
struct Teller {
    maps: Maps,
    states: Mapped<BackendState>,
    v4: Walk<V4>,
    v6: Walk<V6>,
    told: Told,
}

impl Teller {
    fn open(pins: &Pins, told: Told) -> Result<Self> {
        Ok(Self {
            maps: Maps::open(pins)?,
            states: Mapped::open(pins, "BACKEND_STATE", Access::Read)?,
            v4: Walk::open(pins)?,
            v6: Walk::open(pins)?,
            told,
        })
    }

    /// Tells one who has called until that has heard enough.
    fn tell(&mut self, stream: &UnixStream) -> Result<()> {
        check(stream)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut out = Out { stream: BufWriter::new(stream), told: self.told.clone() };
        out.line(&Greeting { version: VERSION })?;
        out.line(&Line::Account(self.maps.account()?))?;
        out.flush()?;
        self.v4.begin();
        self.v6.begin();
        info!("telling a daemon of another version what there is");
        let mut asked = BufReader::new(stream);
        let mut word = String::new();
        while asked.read_line(&mut word)? != 0 {
            match word.as_str() {
                PASS => self.pass(false, &mut out)?,
                LAST => self.pass(true, &mut out)?,
                _ => bail!("it asks for what there is not"),
            }
            word.clear();
        }
        Ok(())
    }

    fn pass(&mut self, is_last: bool, out: &mut Out<'_>) -> Result<()> {
        let mut parts = Parts { hops: &self.maps.hops, part: Part::default(), out };
        self.v4.pass(is_last, |connection| parts.add(connection))?;
        self.v6.pass(is_last, |connection| parts.add(connection))?;
        parts.flush()?;
        out.line(&Line::End(End { cursors: self.cursors() }))?;
        out.flush()
    }

    fn cursors(&self) -> BTreeMap<u16, u64> {
        let cursors = (0..=u16::MAX).map_while(|number| {
            let state = self.states.element(number.into())?;
            // SAFETY: an aligned word of a live mapping, which the program changes atomically.
            let cursor = unsafe { AtomicU64::from_ptr(&raw mut (*state.as_ptr()).cursor) };
            Some((number, cursor.load(Ordering::Relaxed)))
        });
        cursors.filter(|(_, cursor)| *cursor != 0).collect()
    }
}

/// Connections on their way, some of them in each line.
struct Parts<'a, 'b> {
    hops: &'a Array<MapData, NextHop>,
    part: Part,
    out: &'a mut Out<'b>,
}

impl Parts<'_, '_> {
    fn add(&mut self, connection: Carried) -> Result<()> {
        if let Some(way) = connection.way
            && !self.part.ways.contains_key(&way)
        {
            self.part.ways.insert(way, self.hops.get(&way.into(), 0)?.into());
        }
        self.part.connections.push(connection);
        if self.part.connections.len() >= IN_A_LINE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.part);
        if part.connections.is_empty() { Ok(()) } else { self.out.line(&Line::Part(part)) }
    }
}

/// Where lines go.
struct Out<'a> {
    stream: BufWriter<&'a UnixStream>,
    told: Told,
}

impl Out<'_> {
    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.stream, line)?;
        self.stream.write_all(b"\n")?;
        self.told.now();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.flush()?;
        self.told.now();
        Ok(())
    }
}
