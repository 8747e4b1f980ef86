//! Who of a service's backends gets new connections, and in what arrangement.

use std::net::SocketAddr;

use lb_common::maps::SLOTS;

use super::{effect::Slots, maglev};
use crate::config::{Balance, Role};

/// What the choice depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its number in the data plane.
    pub(super) number: u16,
    /// Where it is: its identity for consistent hashing, the same on every node.
    pub(super) address: SocketAddr,
    pub(super) role: Role,
    pub(super) weight: u16,
    /// Healthy and reachable.
    pub(super) usable: bool,
}

/// The backends that get new connections: the usable active ones with a weight; if there are none,
/// the first usable backup, or all of them with `allbackups`.
pub(super) fn eligible(candidates: &[Candidate], allbackups: bool) -> Vec<&Candidate> {
    let with = |role| candidates.iter().filter(move |c| c.usable && c.weight > 0 && c.role == role);
    let active: Vec<_> = with(Role::Active).collect();
    if !active.is_empty() {
        return active;
    }
    with(Role::Backup).take(if allbackups { usize::MAX } else { 1 }).collect()
}

/// Arranges the eligible backends as the algorithm's slots.
pub(super) fn arrange(balance: Balance, eligible: &[&Candidate]) -> Slots {
    if eligible.is_empty() {
        return Slots::default();
    }
    let slots = match balance {
        Balance::RoundRobin => turns(eligible),
        Balance::LeastConn => eligible.iter().map(|c| c.number).collect(),
        Balance::Source | Balance::Hash => maglev::table(
            &eligible.iter().map(|c| (c.number, c.address, c.weight)).collect::<Vec<_>>(),
        ),
    };
    Slots(slots.into())
}

/// One round of weighted turns, each backend's spread as evenly as they go: at each turn every
/// backend gains its weight, and the one that has most takes the turn and pays the total.
fn turns(eligible: &[&Candidate]) -> Vec<u16> {
    let weights = scale(&eligible.iter().map(|c| u32::from(c.weight)).collect::<Vec<_>>());
    let total: u32 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    (0..total)
        .map(|_| {
            let mut best = 0;
            for (i, weight) in weights.iter().enumerate() {
                credit[i] += i64::from(*weight);
                if credit[i] > credit[best] {
                    best = i;
                }
            }
            credit[best] -= i64::from(total);
            eligible[best].number
        })
        .collect()
}

/// The smallest whole numbers in the same proportion, their sum at most the slots there are.
fn scale(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u32 = weights.iter().map(|w| w / divisor).sum();
    let room = u32::try_from(SLOTS).unwrap_or(u32::MAX);
    if sum <= room {
        return weights.iter().map(|w| w / divisor).collect();
    }
    // Each has at least one turn, so room is kept for that.
    let spare = u64::from(room) - weights.len() as u64;
    let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
    weights.iter().map(|w| 1 + u32::try_from(u64::from(*w) * spare / total).unwrap_or(0)).collect()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;

    fn candidate(number: u16, role: Role, weight: u16, usable: bool) -> Candidate {
        let address = SocketAddr::from(([10, 4, 4, number as u8], 3306));
        Candidate { number, address, role, weight, usable }
    }

    fn numbers(list: &[&Candidate]) -> Vec<u16> {
        list.iter().map(|c| c.number).collect()
    }

    #[test]
    fn backups_serve_only_when_no_active_backend_is_usable() {
        let mut list = [
            candidate(1, Role::Active, 1, true),
            candidate(2, Role::Backup, 1, true),
            candidate(3, Role::Backup, 1, true),
        ];
        assert_eq!(numbers(&eligible(&list, true)), [1]);
        list[0].usable = false;
        assert_eq!(numbers(&eligible(&list, false)), [2]);
        assert_eq!(numbers(&eligible(&list, true)), [2, 3]);
        list[1].usable = false;
        assert_eq!(numbers(&eligible(&list, false)), [3]);
    }

    #[test]
    fn weight_zero_gets_no_new_connections() {
        let list = [candidate(1, Role::Active, 0, true), candidate(2, Role::Active, 1, true)];
        assert_eq!(numbers(&eligible(&list, false)), [2]);
    }

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        let list = [candidate(1, Role::Active, 20, true), candidate(2, Role::Active, 10, true)];
        assert_eq!(turns(&eligible(&list, false)), [1, 2, 1]);
        let list: Vec<_> = (1..=3).map(|n| candidate(n, Role::Active, 256, true)).collect();
        assert_eq!(turns(&eligible(&list, false)), [1, 2, 3]);
    }

    #[test]
    fn more_turns_than_slots_are_scaled_and_nobody_is_left_out() {
        let weights: Vec<u32> = (0..1000).map(|n| if n == 0 { 1 } else { 255 + n % 2 }).collect();
        let scaled = scale(&weights);
        assert!(scaled.iter().sum::<u32>() <= SLOTS as u32);
        assert!(scaled.iter().all(|w| *w >= 1));
        assert_eq!(scaled[1], 8);
    }

    #[test]
    fn without_backends_there_are_no_slots() {
        for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::Source, Balance::Hash] {
            assert_eq!(arrange(balance, &[]), Slots::default());
        }
    }
}
