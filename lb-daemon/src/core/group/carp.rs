//! CARP's arithmetic and its order of hosts, as FreeBSD's and OpenBSD's `ip_carp.c` have them.
//!
//! A host advertises every `advbase + advskew / 256` seconds; the one that does so most often is
//! preferred. A demotion counts as more `advskew`, up to [`SLOWEST`] as in FreeBSD; what is beyond
//! goes into the field that OpenBSD demotes by and FreeBSD ignores, and decides among hosts that are
//! all at the end of that scale. Of two hosts that are alike in this the one with the lower address
//! is preferred, as in ucarp. (FreeBSD and OpenBSD give way to their like.)

use std::{cmp::Ordering, net::IpAddr, time::Duration};

use super::{
    Advert, CarpAdvert, Received, lease,
    record::Discard,
    replay::{self, Replay},
    rules::{Claim, Rules, Verdict},
};
use crate::config;

/// `advskew` that a demotion leads to at most: `CARP_MAXSKEW`.
const SLOWEST: u8 = 240;

/// `advbase` and `advskew` of a host that gives the group up: so slow that all others take over.
const FAREWELL: (u8, u8) = (255, 255);

/// CARP, as a group has it configured.
#[derive(Debug)]
pub(super) struct Carp {
    config: config::Carp,
    /// Amount of the demotion, in units of `advskew`.
    demotion: u32,
    /// Of the last advert that was sent or, if that is a little higher, of the last that was heeded.
    counter: u64,
    replay: Replay,
}

impl Carp {
    pub(super) fn new(config: config::Carp, counter: u64) -> Self {
        Self { config, demotion: 0, counter, replay: Replay::default() }
    }

    /// `advskew` in force, and the demotion beyond what it can express.
    fn skew_and_demotion(&self) -> (u8, u8) {
        let (own, most) = (
            u32::from(self.config.advskew),
            u32::from(SLOWEST).max(u32::from(self.config.advskew)),
        );
        let wanted = own + self.demotion;
        let skew = wanted.min(most);
        let byte = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
        (byte(skew), byte(wanted - skew))
    }

    fn next_counter(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        self.counter
    }

    /// Counts on from a counter that was heeded, as FreeBSD, OpenBSD and ucarp do. A host of theirs
    /// that hears one below its own goes back to that, so ours must not fall behind: what it sends
    /// next would be taken for a replay. One that is far away comes here once it hears this host.
    fn keep_up_with(&mut self, heeded: u64) {
        if heeded.wrapping_sub(self.counter) < replay::WINDOW {
            self.counter = heeded;
        }
    }
}

impl Rules for Carp {
    fn reconfigure(&mut self, group: &config::Group) {
        if let config::Protocol::Carp(config) = &group.protocol {
            self.config = config.clone();
        }
    }

    fn adjust(&mut self, adjustment: i32) {
        self.demotion = adjustment.min(0).unsigned_abs();
    }

    fn priority(&self) -> u8 {
        u8::MAX - self.skew_and_demotion().0
    }

    fn is_owner(&self) -> bool {
        false
    }

    fn interval(&self) -> Duration {
        let (skew, _) = self.skew_and_demotion();
        Duration::from_secs(self.config.advbase.into()) + fraction(skew)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.config.advbase.into())
    }

    /// Peers wait for three times `advbase`, and their own `advskew`, which may be zero.
    fn lease(&self) -> Duration {
        lease::span(self.patience())
    }

    fn skew(&self, _interval: Duration) -> Duration {
        Duration::ZERO
    }

    /// FreeBSD counts with its own `advbase`. A master with a longer one has a longer lease too, so
    /// the longer of the two counts here; they are the same unless somebody has erred.
    fn master_down(&self, interval: Duration) -> Duration {
        3 * interval + fraction(self.config.advskew)
    }

    fn preempts_at_once(&self) -> bool {
        true
    }

    fn advert(&mut self) -> Advert {
        let (advskew, demotion) = self.skew_and_demotion();
        Advert::Carp(CarpAdvert {
            vhid: self.config.vhid,
            advbase: self.config.advbase,
            advskew,
            demotion,
            counter: self.next_counter(),
        })
    }

    /// Peers go by the longer of their `advbase` and this one anyway.
    fn last_word(&mut self, _interval: Duration) -> Advert {
        self.advert()
    }

    fn farewell(&mut self) -> Advert {
        let (advbase, advskew) = FAREWELL;
        let (_, demotion) = self.skew_and_demotion();
        let counter = self.next_counter();
        Advert::Carp(CarpAdvert { vhid: self.config.vhid, advbase, advskew, demotion, counter })
    }

    fn counter(&self) -> u64 {
        self.counter
    }

    fn judge(&mut self, received: &Received, source: IpAddr) -> Verdict {
        let Advert::Carp(advert) = &received.advert else {
            return Verdict::Discard(Discard::Protocol, "is of another protocol".to_owned());
        };
        if advert.vhid != self.config.vhid {
            let what = format!("is for virtual host {}", advert.vhid);
            return Verdict::Discard(Discard::Protocol, what);
        }
        if !self.replay.is_new(received.source, advert.counter) {
            let what = format!("was sent before: its counter is {}", advert.counter);
            return Verdict::Discard(Discard::Replay, what);
        }
        self.keep_up_with(advert.counter);
        if (advert.advbase, advert.advskew) == FAREWELL {
            return Verdict::Farewell;
        }

        let (skew, demotion) = self.skew_and_demotion();
        let theirs = (advert.advbase, advert.advskew, advert.demotion);
        let slower = theirs.cmp(&(self.config.advbase, skew, demotion));
        let time = Duration::from_secs(advert.advbase.into()) + fraction(advert.advskew);
        Verdict::Claim(Claim {
            wins: slower.then(received.source.cmp(&source)) == Ordering::Less,
            strength: slower.reverse(),
            is_owner: false,
            is_too_slow: time > 3 * self.patience() + fraction(skew),
            interval: Duration::from_secs(advert.advbase.into()).max(self.patience()),
            complaint: None,
        })
    }
}

/// So many 256ths of a second.
fn fraction(skew: u8) -> Duration {
    Duration::from_secs(1) * u32::from(skew) / 256
}
