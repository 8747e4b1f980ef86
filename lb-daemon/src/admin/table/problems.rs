//! What is wrong, the worst first: what an operator who was just woken up has to know.

use super::{grid::Tone, units};
use crate::core::{
    BackendStatus, ClaimStatus, GroupStatus, OrphanStatus, ServiceStatus, State, Status,
    SyncStatus, TableStatus, TrackedStatus, group::Role, sync::Stage,
};

/// From how many per cent on a table counts as nearly full.
const NEARLY_FULL: u64 = 90;

/// Something that is not as it should be.
#[derive(Debug)]
pub(super) struct Problem {
    /// [`Tone::Bad`]: clients suffer, or a server is lost. [`Tone::Warn`]: they may, soon.
    pub(super) tone: Tone,
    /// What it is.
    pub(super) text: String,
    /// More lines on it.
    pub(super) details: Vec<String>,
}

/// All that is wrong now. What was wrong once is left to the counters, a bug of our own excepted.
pub(super) fn problems(status: &Status) -> Vec<Problem> {
    let services = status.services.iter();
    let backends = || {
        status.services.iter().flat_map(|service| {
            let of_service = move |backend| (service, backend);
            service.backends.iter().map(of_service)
        })
    };

    let mut problems: Vec<Problem> = services.filter_map(service_down).collect();
    if status.interfaces.is_empty() {
        problems.push(bad("the XDP program is attached to no interface: nothing is forwarded"));
    }
    problems.extend(status.tables.iter().flat_map(table_filling));
    problems.extend(status.groups.iter().filter_map(group_in_fault));
    problems.extend(status.sync.as_ref().and_then(peer_missing));
    problems.extend(status.groups.iter().flat_map(group_weakened));
    problems.extend(status.groups.iter().flat_map(group_disputed));
    problems.extend(backends().filter_map(backend_down));
    problems.extend(backends().filter_map(backend_left_out));
    problems.extend(backends().filter_map(backend_failing));
    problems.extend(backends().filter_map(agent_unheard));
    problems.extend(status.nobody_waits.as_deref().map(nobody_waits));
    problems.extend(status.not_kept.as_deref().map(not_kept));
    problems.extend(backends().filter_map(host_unresolved));
    problems.extend(status.orphans.iter().map(orphaned));
    problems.extend(
        status
            .config
            .last_error
            .as_deref()
            .map(|error| reload_refused(error, status.config.generation)),
    );
    problems.extend(internal_drops(status));
    // The sort is stable: what belongs together stays together.
    problems.sort_by_key(|problem| problem.tone != Tone::Bad);
    problems
}

fn service_down(service: &ServiceStatus) -> Option<Problem> {
    (service.state == State::Down).then(|| {
        let backends = match service.backends.len() {
            0 => "it has no backends".to_owned(),
            1 => "its only backend takes no connections".to_owned(),
            n => format!("none of its {n} backends takes connections"),
        };
        bad(format!("service {} DOWN: {backends}", service.name))
    })
}

/// This host cannot hold it.
fn group_in_fault(group: &GroupStatus) -> Option<Problem> {
    let is_in_fault = group.role == Role::Fault || !group.faults.is_empty();
    is_in_fault.then(|| {
        let since = units::duration(group.since_seconds);
        let why = if group.faults.is_empty() { &group.why } else { &group.faults.join("; ") };
        bad(format!("group {} {} for {since}: {why}", group.name, group.role))
    })
}

/// Connections would end with this host.
fn peer_missing(sync: &SyncStatus) -> Option<Problem> {
    let view = &sync.conversation;
    matches!(view.state, Stage::Disconnected | Stage::Refused).then(|| {
        let since = units::duration(view.since_seconds);
        Problem {
            details: vec![view.why.clone()],
            ..warn(format!("connections are on one host only, and would end with it, for {since}:"))
        }
    })
}

/// What makes another host the better one, without being a fault.
fn group_weakened(group: &GroupStatus) -> impl Iterator<Item = Problem> {
    let tracked = group.tracked.iter().filter(|tracked| tracked.weight != 0);
    tracked.filter_map(|TrackedStatus { kind, name, weight, failure, .. }| {
        let failure = failure.as_deref()?;
        let group = &group.name;
        Some(warn(format!(
            "{kind} {name}, which group {group} tracks with weight {weight}: {failure}"
        )))
    })
}

/// Another host does what only this one's peer may do, or does it otherwise.
fn group_disputed(group: &GroupStatus) -> impl Iterator<Item = Problem> {
    let name = &group.name;
    let claim = group.claim.as_ref().map(|claim| {
        let ClaimStatus { address, mac, interface, age_seconds } = claim;
        let age = units::duration(*age_seconds);
        bad(format!(
            "address {address} of group {name} is on another host too: {mac} on {interface} \
             claimed it {age} ago"
        ))
    });
    let advert = group.problem.as_ref().map(|problem| warn(format!("group {name}: {problem}")));
    claim.into_iter().chain(advert)
}

fn backend_down((service, backend): (&ServiceStatus, &BackendStatus)) -> Option<Problem> {
    (backend.state == State::Down).then(|| {
        bad(format!(
            "{}/{} DOWN for {}{}",
            service.name,
            backend.name,
            units::duration(backend.since_seconds),
            match &backend.why {
                Some(why) => format!(": {why}"),
                None => format!("{}: {}", failures(backend, ", "), last_check(backend)),
            }
        ))
    })
}

/// Healthy, wanted, and still without new connections. A backup that stands by is none of these,
/// and a drained backend is the operator's own doing.
fn backend_left_out((service, backend): (&ServiceStatus, &BackendStatus)) -> Option<Problem> {
    let healthy = matches!(backend.state, State::Up | State::Unchecked);
    let stands_by = backend.role == "backup" && service.state != State::Down;
    (healthy && !backend.eligible && !stands_by).then(|| {
        warn(format!(
            "{}/{} is healthy but gets no new connections: {}",
            service.name,
            backend.name,
            backend.why.as_deref().unwrap_or("no reason known")
        ))
    })
}

/// Not down yet: fewer failures than `fall` so far.
fn backend_failing((service, backend): (&ServiceStatus, &BackendStatus)) -> Option<Problem> {
    let failing = backend.check.as_ref().is_some_and(|check| !check.reason.passed());
    let is_checked = !matches!(backend.state, State::Down | State::Maint);
    (failing && is_checked).then(|| {
        warn(format!(
            "{}/{}{}: {}",
            service.name,
            backend.name,
            failures(backend, " "),
            last_check(backend)
        ))
    })
}

/// A limit holds all the same.
fn nobody_waits(why: &str) -> Problem {
    Problem {
        details: vec![why.to_owned()],
        ..warn("clients are turned away where `maxconn` is reached, and do not wait for a place:")
    }
}

/// A restart would forget it.
fn not_kept(why: &str) -> Problem {
    Problem {
        details: vec![why.to_owned()],
        ..warn("what operators said of backends would not outlive the daemon, which tries again:")
    }
}

/// Said of a backend that a reload has taken away, for good or by mistake.
fn orphaned(orphan: &OrphanStatus) -> Problem {
    let OrphanStatus { service, backend, overrides } = orphan;
    let said = super::overrides(overrides).unwrap_or_default();
    Problem {
        details: vec![format!("forget it: tandem backend {service}/{backend} ready")],
        ..warn(format!(
            "{service}/{backend} is not in the configuration, but {said} is kept for it"
        ))
    }
}

/// Its silence changes nothing, but neither does what it has to say.
fn agent_unheard((service, backend): (&ServiceStatus, &BackendStatus)) -> Option<Problem> {
    let problem = backend.agent.as_ref()?.problem.as_ref()?;
    Some(warn(format!("agent of {}/{}: {problem}", service.name, backend.name)))
}

/// It has an address, and that may be an old one.
fn host_unresolved((service, backend): (&ServiceStatus, &BackendStatus)) -> Option<Problem> {
    let host = backend.host.as_ref().filter(|_| backend.address.is_some())?;
    let problem = host.problem.as_ref()?;
    Some(warn(format!(
        "{} of {}/{} does not resolve, and keeps its address: {problem}",
        host.name, service.name, backend.name
    )))
}

fn table_filling(table: &TableStatus) -> Vec<Problem> {
    let family = &table.family;
    let mut problems = Vec::new();
    match units::percent(table.connections, table.capacity) {
        100 => problems.push(bad(format!(
            "the {family} flow table is full, new connections are dropped: raise [global] maxconn"
        ))),
        share @ NEARLY_FULL.. => problems.push(warn(format!(
            "the {family} flow table is {share} % full: raise [global] maxconn"
        ))),
        _ => {}
    }
    if units::percent(table.half_open, table.half_open_capacity) >= NEARLY_FULL {
        problems.push(warn(format!(
            "{} {family} connections are half open, the oldest make room for new ones: a SYN flood?",
            units::exact(table.half_open)
        )));
    }
    problems
}

fn reload_refused(error: &str, generation: u64) -> Problem {
    const SHOWN: usize = 6;
    let mut details: Vec<String> = error.lines().take(SHOWN).map(str::to_owned).collect();
    let left_out = error.lines().count().saturating_sub(SHOWN);
    if left_out > 0 {
        details.push(format!("... and {left_out} more lines: `tandem check` shows them"));
    }
    Problem {
        details,
        ..warn(format!("the last reload was refused, generation {generation} stays in force:"))
    }
}

fn internal_drops(status: &Status) -> Option<Problem> {
    let packets = *status.verdicts.get("drop_internal")?;
    (packets > 0).then(|| {
        warn(format!(
            "drop_internal is at {}: that is always a bug of tandem, please report it",
            units::exact(packets)
        ))
    })
}

/// How many checks failed since the last one that passed, and when the last of them did.
fn failures(backend: &BackendStatus, before: &str) -> String {
    let Some(check) = backend.check.as_ref().filter(|check| !check.reason.passed()) else {
        return String::new();
    };
    let times = match check.failing {
        1 => "once".to_owned(),
        many => format!("{} times", units::exact(many)),
    };
    format!("{before}failed {times}, last {} ago", units::duration(check.age_ms / 1000))
}

fn last_check(backend: &BackendStatus) -> String {
    match &backend.check {
        None => "not checked yet".into(),
        Some(check) if check.detail.is_empty() => {
            format!("{} after {}", check.reason, units::millis(check.took_ms))
        }
        Some(check) => format!("{}, {}", check.reason, check.detail),
    }
}

fn bad(text: impl Into<String>) -> Problem {
    problem(Tone::Bad, text)
}

fn warn(text: impl Into<String>) -> Problem {
    problem(Tone::Warn, text)
}

fn problem(tone: Tone, text: impl Into<String>) -> Problem {
    Problem { tone, text: text.into(), details: Vec::new() }
}
