//! VRRP's arithmetic and its order of hosts: RFC 3768 (version 2) and RFC 9568 (version 3).

use std::{cmp::Ordering, collections::BTreeSet, net::IpAddr, time::Duration};

use super::{
    Advert, Received, VrrpAdvert, lease,
    record::Discard,
    rules::{Claim, Rules, Verdict},
};
use crate::config::{self, VrrpVersion};

/// Priority of the host that owns the addresses, which nothing tracked changes.
const OWNER: u8 = 255;

/// Priority that says good-bye (RFC 9568, 5.2.4).
const FAREWELL: u8 = 0;

/// VRRP, as a group has it configured.
#[derive(Debug)]
pub(super) struct Vrrp {
    config: config::Vrrp,
    /// What adverts list, in the order of the configuration.
    addresses: Vec<IpAddr>,
    /// Sum of the weights.
    adjustment: i32,
}

impl Vrrp {
    pub(super) fn new(group: &config::Group, config: config::Vrrp) -> Self {
        Self { config, addresses: advertised(group), adjustment: 0 }
    }

    fn advert_with(&self, priority: u8, interval: Duration) -> Advert {
        Advert::Vrrp(VrrpAdvert {
            version: self.config.version,
            virtual_router_id: self.config.virtual_router_id,
            priority,
            interval: centiseconds(interval),
            addresses: self.addresses.clone(),
        })
    }

    /// What is wrong with an advert's interval. RFC 3768, 7.1: one that is not ours MUST be
    /// discarded. RFC 9568, 7.1 (erratum 8301): one of zero MUST be discarded.
    fn wrong_interval(&self, advert: &VrrpAdvert) -> Option<String> {
        let own = centiseconds(self.interval());
        match self.config.version {
            VrrpVersion::V2 if advert.interval != own => {
                let (theirs, ours) = (advert.interval / 100, own / 100);
                Some(format!("has an interval of {theirs} s rather than {ours} s"))
            }
            VrrpVersion::V3 if advert.interval == 0 => Some("has an interval of zero".to_owned()),
            VrrpVersion::V2 | VrrpVersion::V3 => None,
        }
    }

    /// Whether an advert is of other hosts that happen to have our identifier: it lists none of our
    /// addresses. Nobody would serve those if it were heeded.
    ///
    /// RFC 3768, 7.1 drops any other list, unless its sender owns the addresses; RFC 9568, 7.1 only
    /// has it told. Here one that has some of ours is heeded: the peer is about to be reloaded, or
    /// has just been, and two hosts that ignored each other would both be masters.
    fn is_of_strangers(&self, advert: &VrrpAdvert) -> bool {
        let is_ours = |address| self.addresses.contains(address);
        !self.addresses.is_empty() && !advert.addresses.iter().any(is_ours)
    }

    /// What is wrong with the addresses that an advert lists.
    fn wrong_addresses(&self, advert: &VrrpAdvert) -> Option<String> {
        let set = |list: &[IpAddr]| list.iter().copied().collect::<BTreeSet<_>>();
        (set(&advert.addresses) != set(&self.addresses)).then(|| {
            let list = |list: &[IpAddr]| {
                let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
                if texts.is_empty() { "no address".to_owned() } else { texts.join(", ") }
            };
            let (theirs, ours) = (list(&advert.addresses), list(&self.addresses));
            format!("lists {theirs} rather than {ours}")
        })
    }
}

impl Rules for Vrrp {
    fn reconfigure(&mut self, group: &config::Group) {
        if let config::Protocol::Vrrp(config) = &group.protocol {
            self.config = config.clone();
            self.addresses = advertised(group);
        }
    }

    fn adjust(&mut self, adjustment: i32) {
        self.adjustment = adjustment;
    }

    fn priority(&self) -> u8 {
        if self.config.priority == OWNER {
            return OWNER;
        }
        let sum = i32::from(self.config.priority).saturating_add(self.adjustment);
        u8::try_from(sum.clamp(1, 254)).unwrap_or(1)
    }

    fn is_owner(&self) -> bool {
        self.config.priority == OWNER
    }

    fn interval(&self) -> Duration {
        self.config.advert_int
    }

    fn patience(&self) -> Duration {
        self.config.advert_int
    }

    fn lease(&self) -> Duration {
        lease::span(self.config.advert_int)
    }

    /// `Skew_Time`: RFC 3768, 6.1 counts it in 256ths of a second, RFC 9568, 6.1 of the master's
    /// interval.
    fn skew(&self, interval: Duration) -> Duration {
        let unit = match self.config.version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => interval,
        };
        unit * (256 - u32::from(self.priority())) / 256
    }

    /// `Master_Down_Interval` (RFC 3768, 6.1), `Active_Down_Interval` (RFC 9568, 6.1).
    fn master_down(&self, interval: Duration) -> Duration {
        3 * interval + self.skew(interval)
    }

    fn preempts_at_once(&self) -> bool {
        false
    }

    fn advert(&mut self) -> Advert {
        self.advert_with(self.priority(), self.interval())
    }

    fn last_word(&mut self, interval: Duration) -> Advert {
        self.advert_with(self.priority(), self.interval().max(interval))
    }

    fn farewell(&mut self) -> Advert {
        self.advert_with(FAREWELL, self.interval())
    }

    fn judge(&mut self, received: &Received, source: IpAddr) -> Verdict {
        let Advert::Vrrp(advert) = &received.advert else {
            return Verdict::Discard(Discard::Protocol, "is of another protocol".to_owned());
        };
        if advert.version != self.config.version {
            let what = format!("is of version {:?}", advert.version);
            return Verdict::Discard(Discard::Protocol, what);
        }
        if advert.virtual_router_id != self.config.virtual_router_id {
            let what = format!("is for virtual router {}", advert.virtual_router_id);
            return Verdict::Discard(Discard::Protocol, what);
        }
        if let Some(what) = self.wrong_interval(advert) {
            return Verdict::Discard(Discard::Interval, what);
        }
        let complaint = self.wrong_addresses(advert).map(|what| (Discard::Addresses, what));
        if let (Some((reason, what)), true) = (&complaint, self.is_of_strangers(advert)) {
            return Verdict::Discard(*reason, what.clone());
        }
        if advert.priority == FAREWELL {
            return Verdict::Farewell;
        }

        let priority = advert.priority.cmp(&self.priority());
        Verdict::Claim(Claim {
            wins: priority.then(compare(received.source, source)) == Ordering::Greater,
            strength: priority,
            is_owner: advert.priority == OWNER,
            is_too_slow: false,
            interval: Duration::from_millis(10) * u32::from(advert.interval),
            complaint,
        })
    }
}

fn centiseconds(interval: Duration) -> u16 {
    u16::try_from(interval.as_millis() / 10).unwrap_or(u16::MAX)
}

/// RFC 9568, 6.4.3 compares primary addresses as unsigned integers in network byte order.
fn compare(a: IpAddr, b: IpAddr) -> Ordering {
    a.cmp(&b)
}

fn advertised(group: &config::Group) -> Vec<IpAddr> {
    group.addresses.iter().filter(|address| address.advertised).map(|address| address.ip).collect()
}
