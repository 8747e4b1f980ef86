//! CARP's replay counter: adverts that were sent before are not heeded.

use std::{collections::VecDeque, net::IpAddr};

/// A counter lower than one already seen by up to this much is an old one. What is lower by more
/// belongs to a sender that has started anew, with a random counter, as FreeBSD's does.
pub(super) const WINDOW: u64 = 1 << 20;

/// Senders remembered; the one first seen makes room for one too many.
const SENDERS: usize = 16;

/// Starts of a sender remembered, so that nothing from before its last start can be replayed.
const STARTS: usize = 8;

/// The counters seen.
///
/// The HMAC covers neither the sender's address nor its interval. An advert that is replayed from
/// another address is not found here, and may say what its real sender did not: that it is the
/// fastest. The counter alone gives no such advert away, for two honest hosts that count on from each
/// other have the same ones while both are masters.
#[derive(Debug, Default)]
pub(super) struct Replay {
    senders: VecDeque<(IpAddr, VecDeque<u64>)>,
}

impl Replay {
    /// Notes a sender's counter, and says whether it is a new one.
    pub(super) fn is_new(&mut self, sender: IpAddr, counter: u64) -> bool {
        let Some((_, highest)) = self.senders.iter_mut().find(|(known, _)| *known == sender) else {
            if self.senders.len() == SENDERS {
                self.senders.pop_front();
            }
            self.senders.push_back((sender, VecDeque::from([counter])));
            return true;
        };
        if highest.iter().any(|&highest| highest.wrapping_sub(counter) < WINDOW) {
            return false;
        }
        if let Some(current) =
            highest.iter_mut().find(|highest| counter.wrapping_sub(**highest) < WINDOW)
        {
            *current = counter;
        } else {
            if highest.len() == STARTS {
                highest.pop_front();
            }
            highest.push_back(counter);
        }
        true
    }
}
