//! A host of the simulated world. Times of the world are nanoseconds.

use super::{super::*, watch::replays};

/// A daemon and the data plane of its host.
#[derive(Debug)]
pub(super) struct Host {
    /// Running or stalled; none if it is dead.
    pub(super) daemon: Option<Group>,
    pub(super) config: Arc<config::Group>,
    pub(super) source: IpAddr,
    pub(super) standing: Standing,
    /// Whether its interface is up.
    pub(super) link: bool,
    /// Whether its kernel refuses to send adverts.
    pub(super) mute: bool,
    /// Until when the daemon is stalled.
    pub(super) stalled: Option<u64>,
    /// What came in while it was.
    pub(super) queue: Vec<(Packet, Received)>,
    /// What the map says, in its own time: it outlives the daemon.
    pub(super) lease: Option<Instant>,
    /// By how many millionths its clock is fast.
    pub(super) fast: i128,
    /// Whether it counts its adverts as FreeBSD's and ucarp's CARP does.
    pub(super) adopts: bool,
    /// The last counter that it sent or heeded, if it does.
    pub(super) counter: u64,
    /// When its clock began.
    pub(super) epoch: Instant,
}

/// A packet's sender, and its number among all that this host sent.
pub(super) type Packet = (usize, u64);

impl Host {
    /// What its clock shows at a time of the world, in nanoseconds.
    pub(super) fn local(&self, at: u64) -> Instant {
        let shown = i128::from(at) * (1_000_000 + self.fast) / 1_000_000;
        self.epoch + Duration::from_nanos(u64::try_from(shown).expect("time goes on"))
    }

    /// The first nanosecond of the world at which its clock has reached a time.
    pub(super) fn world(&self, local: Instant) -> u64 {
        let shown = local.saturating_duration_since(self.epoch).as_nanos();
        let shown = i128::try_from(shown).expect("worlds are short");
        let rate = 1_000_000 + self.fast;
        u64::try_from((shown * 1_000_000 + rate - 1) / rate).expect("time goes on")
    }

    /// Takes over the counter of an advert that it heeds, be it below its own.
    pub(super) const fn adopt(&mut self, advert: &Advert) {
        if let Advert::Carp(advert) = advert {
            self.counter = advert.counter;
        }
    }

    /// An advert of its daemon with the counter that goes out.
    pub(super) fn counted(&mut self, advert: &Advert) -> Advert {
        let mut advert = advert.clone();
        if let (Advert::Carp(advert), true) = (&mut advert, self.adopts) {
            self.counter = self.counter.wrapping_add(1);
            advert.counter = self.counter;
        }
        advert
    }

    /// Adverts that its daemon took for replays.
    pub(super) fn replays(&self) -> u64 {
        self.daemon.as_ref().map_or(0, replays)
    }

    pub(super) fn serves_at(&self, at: u64) -> bool {
        self.lease.is_some_and(|lease| self.local(at) < lease)
    }

    pub(super) fn is_running(&self) -> bool {
        self.daemon.is_some() && self.stalled.is_none()
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.daemon.is_some() && self.link && !self.mute && self.standing.faults.is_empty()
    }
}
