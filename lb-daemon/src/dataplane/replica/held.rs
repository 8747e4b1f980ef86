//! SYN-ACKs that the program has held back.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use lb_common::{
    addr::{Address, V4, V6},
    flow::born,
    hold::{HELD_FRAME, Held, Hold},
};
use tracing::warn;

use crate::dataplane::{
    family::Family,
    inject::Injector,
    leases::monotonic_now,
    mapped::{Access, Mapped},
    pins::Pins,
    table::FlowTable,
};

/// For how long frames are held if nobody says any more that they are to be: less than it takes a
/// backend to send a SYN-ACK again, which is then sent on.
const IN_FORCE: u64 = 900_000_000;

/// Frames that are held, the oldest first, and what sends them on.
pub(super) struct HeldFrames {
    frames: VecDeque<Frame>,
    injector: Injector,
    hold: Mapped<Hold>,
    /// Whether what sends them on is there; nothing before it was first wanted.
    is_able: Option<bool>,
    /// Whether frames are held.
    is_on: bool,
    /// Whether it was said that they cannot be sent on.
    has_complained: bool,
}

/// A frame, and whose it is.
struct Frame {
    bytes: Box<[u8]>,
    ifindex: u32,
    is_v4: bool,
    /// The place of the connection's forward entry.
    place: u32,
    /// Its life word.
    life: u64,
}

impl HeldFrames {
    /// Holds nothing yet.
    pub(super) fn open(pins: &Pins, injector: Injector) -> Result<Self> {
        let hold = Mapped::open(pins, "HOLD", Access::Change)?;
        let mut this = Self {
            frames: VecDeque::new(),
            injector,
            hold,
            is_able: None,
            is_on: false,
            has_complained: false,
        };
        this.set(0);
        Ok(this)
    }

    /// Takes one that the program has handed over.
    pub(super) fn push<A: Family>(&mut self, held: &Held<A>) {
        let length = (held.length as usize).min(HELD_FRAME);
        self.frames.push_back(Frame {
            bytes: held.frame[..length].into(),
            ifindex: held.ifindex,
            is_v4: A::TABLE == V4::TABLE,
            place: held.change.place,
            life: held.change.life,
        });
    }

    /// Has the program hold frames, or not, from now on for a short while.
    pub(super) fn hold(&mut self, is_on: bool) {
        let is_on = is_on && self.is_able();
        if is_on && !self.is_on {
            self.since(monotonic_now());
        }
        if is_on || self.is_on {
            self.set(if is_on { monotonic_now() + IN_FORCE } else { 0 });
        }
        self.is_on = is_on;
    }

    fn is_able(&mut self) -> bool {
        let injector = &mut self.injector;
        *self.is_able.get_or_insert_with(|| match injector.load(&Injector::ONE) {
            Ok(()) => true,
            Err(error) => {
                warn!("clients do not wait for the peer, whatever `synchronous` says: {error:#}");
                false
            }
        })
    }

    /// Sends the oldest ones on, those of services that this host serves.
    pub(super) fn release(
        &mut self,
        count: usize,
        v4: &FlowTable<V4>,
        v6: &FlowTable<V6>,
        is_served: impl Fn(u16) -> bool,
    ) {
        for frame in self.frames.drain(..count.min(self.frames.len())) {
            let owner = if frame.is_v4 { owner(v4, frame.place) } else { owner(v6, frame.place) };
            let Some((_, service)) = owner.filter(|(life, _)| born(*life) == born(frame.life))
            else {
                // The connection is over.
                continue;
            };
            let is_served = || is_served(service);
            if let Err(error) = self.injector.inject(&frame.bytes, frame.ifindex, is_served)
                && !self.has_complained
            {
                self.has_complained = true;
                warn!(
                    "a SYN-ACK that was held back cannot be sent on, so that the connection waits for \
                     the backend to repeat it: {error:#} (said once)"
                );
            }
        }
    }

    fn since(&self, at: u64) {
        if let Some((since, _)) = self.words() {
            since.store(at, Ordering::SeqCst);
        }
    }

    fn set(&mut self, until: u64) {
        if let Some((_, word)) = self.words() {
            word.store(until, Ordering::SeqCst);
        }
    }

    fn words(&self) -> Option<(&AtomicU64, &AtomicU64)> {
        let hold = self.hold.element(0)?.as_ptr();
        // SAFETY: aligned words of a mapping that lives as long as the result, which nobody else writes;
        // the program reads each by one load.
        unsafe {
            let since = AtomicU64::from_ptr(&raw mut (*hold).since);
            Some((since, AtomicU64::from_ptr(&raw mut (*hold).until)))
        }
    }
}

/// Life word and service of the connection at a place.
fn owner<A: Address>(flows: &FlowTable<A>, place: u32) -> Option<(u64, u16)> {
    flows.entry(place).map(|flow| (flow.life, flow.service))
}

impl Drop for HeldFrames {
    fn drop(&mut self) {
        self.set(0);
    }
}
