//! The way of SYNs that wait for a place: from the program, and back to it.
//!
//! ```text
//!  program ─ ARRIVALS (ring buffer) ─► arrivals()
//!  BACKEND_STATE, SERVICE_STATE (mapped): connections, limits, who waits ─► has_place()
//!  admit(), redispatch() ─► BPF_PROG_TEST_RUN of inject ─► packet socket
//! ```

mod arrivals;

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use anyhow::Result;
use tracing::warn;

use self::arrivals::Arrivals;
use super::{
    inject::{Injected, Injector},
    leases::{Held, monotonic_now},
    limits::Places,
    pins::Pins,
};
use crate::core::admission::{self, Admission, Arrival, Frame};

/// For how long SYNs may wait if nobody says any more that they may: less than it takes a client to send its
/// SYN again.
const IN_FORCE: Duration = Duration::from_millis(900);
/// Longer than a run of the program takes that has begun already.
const RUN: Duration = Duration::from_millis(10);

/// The data plane for the thread that has SYNs wait.
pub struct Gate {
    arrivals: Arrivals,
    places: Places,
    leases: Held,
    injector: Injector,
    /// The services whose SYNs may wait.
    open: BTreeSet<u16>,
    has_complained: bool,
}

impl Gate {
    /// Nobody waits yet: who waited for an earlier daemon is forgotten.
    pub(super) fn open(pins: &Pins, injector: Injector) -> Result<Self> {
        let mut this = Self {
            arrivals: Arrivals::open(pins)?,
            places: Places::open(pins)?,
            leases: Held::open(pins)?,
            injector,
            open: BTreeSet::new(),
            has_complained: false,
        };
        this.begin_anew();
        Ok(this)
    }

    fn begin_anew(&mut self) {
        self.close();
        // Whoever is counted as waiting until then is in the ring as well.
        thread::sleep(RUN);
        self.arrivals.discard();
        let services = (0..self.places.services()).filter_map(|n| self.places.service(n));
        let backends = (0..self.places.backends()).filter_map(|n| self.places.backend(n));
        for place in services.chain(backends) {
            place.waiting.store(0, Ordering::SeqCst);
        }
    }

    /// Has nobody wait from now on.
    fn close(&self) {
        for until in (0..self.places.services()).filter_map(|number| self.places.until(number)) {
            until.store(0, Ordering::SeqCst);
        }
    }

    /// What has become of a SYN that was injected.
    fn admission(&mut self, injected: Result<Injected>) -> Admission {
        match injected {
            Ok(Injected::Sent) => Admission::Sent,
            Ok(Injected::NoPlace(bound)) => Admission::NoPlace(bound),
            Ok(Injected::Dropped) => Admission::Lost,
            Err(error) => {
                self.complain(&error);
                Admission::Lost
            }
        }
    }

    fn complain(&mut self, error: &anyhow::Error) {
        if !std::mem::replace(&mut self.has_complained, true) {
            warn!(
                "a client that waited cannot be served, so that it tries again: {error:#} (said once)"
            );
        }
    }
}

impl admission::Gate for Gate {
    fn has_place(&self, service: u16, bound: Option<u16>) -> bool {
        let service = self.places.service(service);
        let backend = bound.and_then(|number| self.places.backend(number));
        service.into_iter().chain(backend).all(|place| place.has_room())
    }

    fn admit(&mut self, frame: &Frame, group: u16) -> Admission {
        let is_served = || self.serves(group);
        let injected = self.injector.inject(&frame.bytes, frame.ifindex, is_served);
        self.admission(injected)
    }

    fn redispatch(&mut self, frame: &Frame, group: u16, backend: u16) -> Admission {
        let is_served = || self.serves(group);
        let injected = self.injector.inject_to(backend, &frame.bytes, frame.ifindex, is_served);
        self.admission(injected)
    }

    fn refuse(&mut self, frame: &Frame, group: u16) -> bool {
        let is_served = || self.serves(group);
        let refused = self.injector.refuse(&frame.bytes, frame.ifindex, is_served);
        self.admission(refused) == Admission::Sent
    }

    fn left(&mut self, service: u16, bound: Option<u16>) {
        let service = self.places.service(service);
        let backend = bound.and_then(|number| self.places.backend(number));
        service.into_iter().chain(backend).for_each(|place| place.one_left());
    }

    fn moved(&mut self, from: Option<u16>, to: Option<u16>) {
        if let Some(place) = to.and_then(|number| self.places.backend(number)) {
            place.waiting.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(place) = from.and_then(|number| self.places.backend(number)) {
            place.one_left();
        }
    }

    fn serves(&self, group: u16) -> bool {
        group == 0 || self.leases.is_held(group)
    }
}

impl admission::Door for Gate {
    fn arrivals(&mut self, limit: usize, into: &mut Vec<Arrival>) -> Result<usize> {
        self.arrivals.take(limit, into)
    }

    fn prepare(&mut self) -> Result<()> {
        self.injector.load(&Injector::BOTH)
    }

    fn hold_open(&mut self, services: &BTreeSet<u16>) {
        let now = monotonic_now();
        let end = now + u64::try_from(IN_FORCE.as_nanos()).unwrap_or(0);
        for number in self.open.difference(services) {
            if let Some(until) = self.places.until(*number) {
                until.store(0, Ordering::SeqCst);
            }
        }
        for until in services.iter().filter_map(|number| self.places.until(*number)) {
            until.store(end, Ordering::SeqCst);
        }
        self.open.clone_from(services);
    }
}

impl AsFd for Gate {
    /// Readable when there is something to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrivals.as_fd()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}
