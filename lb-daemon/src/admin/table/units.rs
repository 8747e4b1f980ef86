//! Figures as people read them: three digits are enough to see what is going on.

/// "45s", "12m5s", "3h12m", "3d4h": the two largest units, the second only if it is not zero.
pub(super) fn duration(seconds: u64) -> String {
    let (large, small) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3_600 => ((seconds / 60, "m"), (seconds % 60, "s")),
        3_600..86_400 => ((seconds / 3_600, "h"), (seconds % 3_600 / 60, "m")),
        _ => ((seconds / 86_400, "d"), (seconds % 86_400 / 3_600, "h")),
    };
    match small.0 {
        0 => format!("{}{}", large.0, large.1),
        rest => format!("{}{}{rest}{}", large.0, large.1, small.1),
    }
}

/// "250ms", "1.25s".
pub(super) fn millis(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis}ms"),
        _ => format!("{}s", digits(approximate(millis) / 1_000.0)),
    }
}

/// "99999" and "1.23M": exact as long as that is short.
pub(super) fn count(n: u64) -> String {
    match n {
        0..100_000 => n.to_string(),
        _ => scaled(approximate(n)),
    }
}

/// "1,000,000": exact, however long.
pub(super) fn exact(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "512B", "1.23MB"; a kB is 1000 B, as bits per second are counted too.
pub(super) fn bytes(n: u64) -> String {
    format!("{}B", scaled(approximate(n)))
}

/// "1.23Mb/s".
pub(super) fn bits(per_second: f64) -> String {
    format!("{}b/s", scaled(per_second))
}

/// "0.50/s", "12.3/s", "1.23k/s".
pub(super) fn frequency(per_second: f64) -> String {
    match per_second {
        0.01..1_000.0 => format!("{}/s", digits(per_second)),
        _ => format!("{}/s", scaled(per_second)),
    }
}

/// The share of `part` in `whole` in per cent, rounded up: 100 only if it is full, 0 only if empty.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 0,
        _ if part >= whole => 100,
        _ => part.saturating_mul(100).div_ceil(whole).min(99),
    }
}

fn scaled(n: f64) -> String {
    const PREFIXES: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if n < 999.5 {
        return format!("{n:.0}");
    }
    let mut n = n / 1_000.0;
    let mut prefix = 0;
    while n >= 999.5 && prefix + 1 < PREFIXES.len() {
        n /= 1_000.0;
        prefix += 1;
    }
    format!("{}{}", digits(n), PREFIXES[prefix])
}

/// Three significant digits of a number from 0.01 to 1000.
fn digits(n: f64) -> String {
    match n {
        ..9.995 => format!("{n:.2}"),
        ..99.95 => format!("{n:.1}"),
        _ => format!("{n:.0}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
fn approximate(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        let texts =
            [0, 59, 60, 61, 3_600, 3_661, 86_399, 86_400, 90_000, 86_400 * 400].map(duration);
        assert_eq!(
            texts,
            ["0s", "59s", "1m", "1m1s", "1h", "1h1m", "23h59m", "1d", "1d1h", "400d"]
        );
        assert_eq!([0, 999, 1_000, 1_254].map(millis), ["0ms", "999ms", "1.00s", "1.25s"]);
    }

    #[test]
    fn large_numbers_have_three_digits() {
        let texts = [0, 99_999, 100_000, 999_499, 999_500, 12_345_678, u64::MAX].map(count);
        assert_eq!(texts, ["0", "99999", "100k", "999k", "1.00M", "12.3M", "18.4E"]);
        assert_eq!([999, 1_000, 1_999_999].map(bytes), ["999B", "1.00kB", "2.00MB"]);
        assert_eq!([0.0, 999.4, 1e9].map(bits), ["0b/s", "999b/s", "1.00Gb/s"]);
        assert_eq!(
            [0.0, 0.5, 15.0, 999.0, 26_000.0].map(frequency),
            ["0/s", "0.50/s", "15.0/s", "999/s", "26.0k/s"]
        );
        assert_eq!([7, 1_234, 1_000_000].map(exact), ["7", "1,234", "1,000,000"]);
    }

    #[test]
    fn only_the_full_is_full_and_only_the_empty_is_empty() {
        let shares = [(0, 10), (1, 1_000_000), (999_999, 1_000_000), (10, 10), (11, 10), (0, 0)];
        assert_eq!(shares.map(|(part, whole)| percent(part, whole)), [0, 1, 99, 100, 100, 0]);
    }
}
