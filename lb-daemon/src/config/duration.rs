//! Durations as HAProxy writes them: `"500ms"`, `"2s"`, `"3h"`; a bare number is milliseconds.

use std::{ops::RangeInclusive, time::Duration};

use super::{reader::Field, report::Read};

/// The units, in microseconds, longest first.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

const LONGEST: Duration = Duration::from_secs(20 * 86_400);

/// What a service's timeouts may be: the flow table's clock ticks once in about a millisecond
/// and wraps after 52 days.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=LONGEST;
/// What the times of a health check may be.
pub(super) const CHECK: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// Reads a duration within `range`.
pub(super) fn read(field: &Field<'_>, range: &RangeInclusive<Duration>) -> Read<Duration> {
    let duration = any(field)?;
    if duration.is_zero() {
        let shortest = format(*range.start());
        let hint = format!("write \"{shortest}\" or more; zero does not mean \"never\" here");
        return Err(field.error(format!("`{}` must not be zero", field.key()), hint));
    }
    within(field, duration, range)
}

/// Reads a duration within `range` for a key that keepalived counts in seconds. Such a key wants
/// its unit, lest `60` be taken over for 60 ms.
pub(super) fn with_unit(field: &Field<'_>, range: &RangeInclusive<Duration>) -> Read<Duration> {
    read(unit_is_there(field)?, range)
}

/// The same for a key of which zero has a meaning; zero needs no unit.
pub(super) fn with_unit_or_zero(
    field: &Field<'_>,
    range: &RangeInclusive<Duration>,
) -> Read<Duration> {
    or_zero(unit_is_there(field)?, range)
}

/// Reads a duration within `range`, or zero, which has a meaning of its own.
pub(super) fn or_zero(field: &Field<'_>, range: &RangeInclusive<Duration>) -> Read<Duration> {
    let duration = any(field)?;
    if duration.is_zero() { Ok(duration) } else { within(field, duration, range) }
}

fn unit_is_there<'f, 'a>(field: &'f Field<'a>) -> Read<&'f Field<'a>> {
    let source = field.source();
    let number = source.trim_matches(['"', '\'']);
    if number.parse::<u64>().is_ok_and(|number| number != 0) {
        let message = format!("`{}` is {source}, without a unit", field.key());
        let hint = format!(
            "keepalived counts this in seconds, HAProxy in milliseconds: write \"{number}s\" or \
             \"{number}ms\""
        );
        return Err(field.error(message, hint));
    }
    Ok(field)
}

fn any(field: &Field<'_>) -> Read<Duration> {
    let parsed = match field.as_integer() {
        Some(milliseconds) => u64::try_from(milliseconds).ok().map(Duration::from_millis),
        None => field.as_text().and_then(parse),
    };
    parsed.ok_or_else(|| {
        let message = format!("`{}` is {}, which is not a duration", field.key(), field.source());
        let hint = "write a whole number and one of the units us, ms, s, m, h, d, as in \"2s\"";
        field.error(message, hint)
    })
}

fn within(
    field: &Field<'_>,
    duration: Duration,
    range: &RangeInclusive<Duration>,
) -> Read<Duration> {
    let key = field.key();
    if !range.contains(&duration) {
        let what = if duration < *range.start() { "short" } else { "long" };
        let message = format!("`{key}` is too {what}: {}", field.source());
        let (shortest, longest) = (format(*range.start()), format(*range.end()));
        let bare = match field.as_integer() {
            Some(_) => "; a bare number is milliseconds",
            None => "",
        };
        let hint = format!("it can be \"{shortest}\" to \"{longest}\"{bare}");
        return Err(field.error(message, hint));
    }
    Ok(duration)
}

/// A number and a unit; a number that is too large for any use is cut off. Nothing if it is no
/// duration.
pub fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { "ms" } else { unit };
    let (_, microseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    if number.is_empty() {
        return None;
    }
    let number = number.parse().unwrap_or(u64::MAX);
    Some(Duration::from_micros(number.saturating_mul(*microseconds)))
}

/// The shortest way to write `duration`, which is in whole microseconds.
pub(super) fn format(duration: Duration) -> String {
    let total = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if total == 0 {
        return "0s".into();
    }
    let (unit, microseconds) = UNITS
        .into_iter()
        .find(|(_, microseconds)| total.is_multiple_of(*microseconds))
        .unwrap_or(("us", 1));
    format!("{}{unit}", total / microseconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_haproxys() {
        for (text, microseconds) in [
            ("100us", 100),
            ("500ms", 500_000),
            ("2s", 2_000_000),
            ("5m", 300_000_000),
            ("3h", 10_800_000_000),
            ("1d", 86_400_000_000),
            ("5000", 5_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_micros(microseconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "2 s", " 2s", "2S", "2sec", "-2s", "+2s", "1.5s", "1h30m", "2s "] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_largest_unit_that_divides_is_written() {
        assert_eq!(format(Duration::from_secs(10_800)), "3h");
        assert_eq!(format(Duration::from_secs(90)), "90s");
        assert_eq!(format(Duration::from_micros(1_500)), "1500us");
        assert_eq!(format(Duration::ZERO), "0s");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(microseconds in 1..=1_728_000_000_000_u64) {
            let duration = Duration::from_micros(microseconds);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }
    }
}
