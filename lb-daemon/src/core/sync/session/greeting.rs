//! Whether two hosts can work together, by what they say first.

use std::ops::RangeInclusive;

use super::super::Hello;

/// Versions of the protocol that this program speaks.
pub const VERSIONS: RangeInclusive<u16> = 1..=1;

/// Compares what both hosts have said. Returns what people should know of, although it does not keep
/// the two from talking.
///
/// # Errors
///
/// Why they cannot talk, for people.
pub(super) fn compare(ours: &Hello, theirs: &Hello) -> Result<Vec<String>, String> {
    let version = (*ours.versions.end()).min(*theirs.versions.end());
    if version < (*ours.versions.start()).max(*theirs.versions.start()) {
        return Err(format!(
            "{} has Tandem {}, which speaks version {} of the protocol, this host Tandem {} and {}: \
             bring both to the same version of Tandem",
            theirs.node,
            theirs.program,
            range(&theirs.versions),
            ours.program,
            range(&ours.versions),
        ));
    }
    let first = (*ours.source_ports.start()).max(*theirs.source_ports.start());
    let last = (*ours.source_ports.end()).min(*theirs.source_ports.end());
    if first <= last {
        return Err(format!(
            "both this host (ports {}) and {} ({}) translate clients to the ports {first} to {last}: \
             write the same source_ports on both, and see that each names the other in [sync]",
            range(&ours.source_ports),
            theirs.node,
            range(&theirs.source_ports),
        ));
    }
    let only = |some: &Hello, others: &Hello, place: &str| {
        let names: Vec<_> = some.groups.difference(&others.groups).cloned().collect();
        (!names.is_empty()).then(|| {
            format!(
                "only {place} has the groups {}: nothing of them is kept equal",
                names.join(", ")
            )
        })
    };
    let here = only(ours, theirs, "this host");
    Ok(here.into_iter().chain(only(theirs, ours, &theirs.node)).collect())
}

fn range(numbers: &RangeInclusive<u16>) -> String {
    if numbers.start() == numbers.end() {
        numbers.start().to_string()
    } else {
        format!("{} to {}", numbers.start(), numbers.end())
    }
}
