//! How evenly held connections are spread.

use lb_daemon::core::BackendStatus;

/// By how many connections a backend has more or fewer than its weight says, at most, among those of
/// `after` that are `of`. Weights may have changed since `before`: what is right by one of the two, or
/// between them, is right.
pub fn deviation(
    before: &[BackendStatus],
    after: &[BackendStatus],
    of: impl Fn(&BackendStatus) -> bool,
) -> f64 {
    let is_of: Vec<bool> = after.iter().map(of).collect();
    let among = |all| Iterator::zip(<[_]>::iter(all), &is_of).filter(|(_, is)| **is);
    let connections: Vec<f64> = among(after).map(|(backend, _)| active(backend)).collect();
    let total: f64 = connections.iter().sum();
    let ideals = |weighed| -> Vec<f64> {
        let weights = || among(weighed).map(|(backend, _)| backend.effective_weight);
        let sum: f64 = weights().sum();
        weights().map(|weight| total * weight / sum).collect()
    };
    let ideals = ideals(before).into_iter().zip(ideals(after));
    let outside = connections.iter().zip(ideals).map(|(connections, (first, last))| {
        (first.min(last) - connections).max(connections - first.max(last))
    });
    outside.fold(0.0, f64::max)
}

fn active(backend: &BackendStatus) -> f64 {
    f64::from(u32::try_from(backend.traffic.active).expect("it is a count of a lab"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(of: &[(f64, u64)]) -> Vec<BackendStatus> {
        let backend = |(effective_weight, active): &(f64, u64)| {
            let mut backend =
                BackendStatus { effective_weight: *effective_weight, ..BackendStatus::default() };
            backend.traffic.active = *active;
            backend
        };
        of.iter().map(backend).collect()
    }

    fn is(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn the_worst_counts_whether_it_has_too_many_or_too_few() {
        let even = backends(&[(1.0, 10), (2.0, 20)]);
        assert!(is(deviation(&even, &even, |_| true), 0.0));
        let uneven = backends(&[(1.0, 13), (2.0, 20), (3.0, 27)]);
        assert!(is(deviation(&uneven, &uneven, |_| true), 3.0));
        assert!(is(deviation(&uneven, &uneven, |one| one.effective_weight < 3.0), 2.0));
    }

    #[test]
    fn what_is_right_by_weights_on_the_way_is_right() {
        let before = backends(&[(1.0, 0), (1.0, 0)]);
        let after = backends(&[(1.0, 10), (3.0, 20)]);
        assert!(is(deviation(&before, &after, |_| true), 0.0));
        assert!(is(deviation(&after, &after, |_| true), 2.5));
    }
}
