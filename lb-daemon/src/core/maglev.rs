//! Maglev's consistent hashing (Eisenbud et al., NSDI 2016, section 3.4), with weights.

use std::net::{IpAddr, SocketAddr};

use lb_common::hash::{MAGLEV_SIZE, finish};

/// A lookup table of backend numbers. It depends only on addresses and weights, so all nodes have
/// the same, and the loss of one backend moves little more than that backend's clients.
pub(super) fn table(backends: &[(u16, SocketAddr, u16)]) -> Vec<u16> {
    struct Turn {
        number: u16,
        address: SocketAddr,
        weight: f64,
        /// Entries it may have taken so far.
        due: f64,
        next: u32,
        skip: u32,
    }

    let heaviest = backends.iter().map(|(_, _, weight)| *weight).max().unwrap_or(1).max(1);
    let mut turns: Vec<Turn> = backends
        .iter()
        .map(|(number, address, weight)| Turn {
            number: *number,
            address: *address,
            weight: f64::from(*weight) / f64::from(heaviest),
            due: 0.0,
            next: hash(*address, 1) % MAGLEV_SIZE,
            skip: hash(*address, 2) % (MAGLEV_SIZE - 1) + 1,
        })
        .collect();
    // The order of the file must not matter.
    turns.sort_by_key(|turn| turn.address);

    let mut table = vec![None; MAGLEV_SIZE as usize];
    let mut left = table.len();
    while left > 0 && !turns.is_empty() {
        for turn in &mut turns {
            // The heaviest backend takes an entry in every round, half its weight in every other.
            turn.due += turn.weight;
            if turn.due < 1.0 || left == 0 {
                continue;
            }
            turn.due -= 1.0;
            while table[turn.next as usize].is_some() {
                turn.next = (turn.next + turn.skip) % MAGLEV_SIZE;
            }
            table[turn.next as usize] = Some(turn.number);
            left -= 1;
        }
    }
    table.into_iter().flatten().collect()
}

fn hash(address: SocketAddr, seed: u32) -> u32 {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    octets
        .iter()
        .chain(&address.port().to_be_bytes())
        .fold(finish(seed), |hash, byte| finish(hash.rotate_left(5) ^ u32::from(*byte)))
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "shares of a few thousand entries")]
mod tests {
    use super::*;

    fn backends(n: u8) -> Vec<(u16, SocketAddr, u16)> {
        (1..=n).map(|i| (u16::from(i), SocketAddr::from(([10, 4, 4, i], 3306)), 1)).collect()
    }

    fn share(table: &[u16], number: u16) -> f64 {
        table.iter().filter(|n| **n == number).count() as f64 / table.len() as f64
    }

    #[test]
    fn equal_weights_get_equal_shares() {
        let table = table(&backends(10));
        assert_eq!(table.len(), MAGLEV_SIZE as usize);
        for number in 1..=10 {
            assert!((share(&table, number) - 0.1).abs() < 0.001, "{}", share(&table, number));
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut list = backends(3);
        list[0].2 = 200;
        list[1].2 = 100;
        list[2].2 = 100;
        let table = table(&list);
        assert!((share(&table, 1) - 0.5).abs() < 0.01);
        assert!((share(&table, 2) - 0.25).abs() < 0.01);
    }

    #[test]
    fn losing_one_of_ten_moves_little_more_than_its_tenth() {
        let full = table(&backends(10));
        let mut list = backends(10);
        list.remove(4);
        let less = table(&list);
        let moved = full.iter().zip(&less).filter(|(a, b)| a != b).count();
        let share = moved as f64 / full.len() as f64;
        assert!((0.1..0.2).contains(&share), "{share}");
    }

    #[test]
    fn neither_order_nor_numbers_matter() {
        let mut list = backends(5);
        let before = table(&list);
        list.reverse();
        assert_eq!(table(&list), before);
    }
}
