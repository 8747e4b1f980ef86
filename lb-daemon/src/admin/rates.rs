//! How fast the counters run.

use std::{collections::BTreeMap, time::Duration};

use crate::core::{Status, Traffic};

/// Traffic per second of every backend, between two snapshots of one daemon.
#[derive(Clone, Debug, Default)]
pub struct Rates(BTreeMap<(String, String), Rate>);

/// Traffic per second of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Connections opened per second.
    pub connections: f64,
    /// Bits per second from clients: whole IP packets.
    pub bits_in: f64,
    /// Bits per second to clients: whole IP packets.
    pub bits_out: f64,
}

impl Rates {
    /// The rates between two snapshots taken `elapsed` apart.
    ///
    /// A backend that is in one of them only, or whose counters went back because the daemon was
    /// restarted, has none.
    pub fn between(before: &Status, after: &Status, elapsed: Duration) -> Self {
        let before = traffic(before);
        let rates = traffic(after)
            .into_iter()
            .filter_map(|(name, now)| {
                let rate = Rate::between(before.get(&name)?, &now, elapsed);
                Some((name, rate))
            })
            .collect();
        Self(rates)
    }

    /// The rate of one backend; zero if it is not known.
    pub fn of(&self, service: &str, backend: &str) -> Rate {
        self.0.get(&(service.to_owned(), backend.to_owned())).copied().unwrap_or_default()
    }
}

impl Rate {
    fn between(before: &Traffic, after: &Traffic, elapsed: Duration) -> Self {
        if elapsed.is_zero() {
            return Self::default();
        }
        let per_second = |before: u64, after: u64| {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people to look at")]
            let difference = after.saturating_sub(before) as f64;
            difference / elapsed.as_secs_f64()
        };
        Self {
            connections: per_second(before.connections, after.connections),
            bits_in: 8.0 * per_second(before.bytes_in, after.bytes_in),
            bits_out: 8.0 * per_second(before.bytes_out, after.bytes_out),
        }
    }
}

fn traffic(status: &Status) -> BTreeMap<(String, String), Traffic> {
    status
        .services
        .iter()
        .flat_map(|service| {
            service.backends.iter().map(|backend| {
                let name = (service.name.clone(), backend.name.clone());
                (name, backend.traffic)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample;

    #[test]
    fn rates_are_differences_per_second() {
        let before = sample::healthy();
        let mut after = before.clone();
        let traffic = &mut after.services[0].backends[0].traffic;
        traffic.connections += 30;
        traffic.bytes_in += 1_000;
        traffic.bytes_out += 5_000_000;

        let rates = Rates::between(&before, &after, Duration::from_secs(2));
        assert_eq!(
            rates.of("mysql", "db1"),
            Rate { connections: 15.0, bits_in: 4_000.0, bits_out: 20_000_000.0 }
        );
        assert_eq!(rates.of("mysql", "db2"), Rate::default());
    }

    #[test]
    fn there_is_no_rate_without_two_moments() {
        let before = sample::healthy();
        let mut after = before.clone();
        after.services[0].backends[0].traffic.connections += 30;
        let at_once = Rates::between(&before, &after, Duration::ZERO);
        assert_eq!(at_once.of("mysql", "db1"), Rate::default());

        after.services[0].backends[0].name = "new".into();
        let appeared = Rates::between(&before, &after, Duration::from_secs(1));
        assert_eq!(appeared.of("mysql", "new"), Rate::default());
    }

    #[test]
    fn counters_that_went_back_have_no_rate() {
        let before = sample::healthy();
        let mut after = before.clone();
        after.services[0].backends[0].traffic = Traffic::default();
        let restarted = Rates::between(&before, &after, Duration::from_secs(1));
        assert_eq!(restarted.of("mysql", "db1"), Rate::default());
    }
}
