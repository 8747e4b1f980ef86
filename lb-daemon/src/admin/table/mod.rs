//! The text of `tandem status`: what is wrong, then how everything is; and that of `tandem flows`.
//!
//! Made for a terminal of 100 columns. Names and addresses are never shortened (they are copied from
//! here into other commands), so very long ones make wider lines.

pub mod flows;
mod grid;
mod groups;
mod peer;
mod problems;
#[cfg(test)]
mod tests;
mod units;

use self::{
    grid::{Align, Cell, Grid, Tone},
    problems::problems,
};
use super::Rates;
use crate::core::{
    AgentStatus, BackendStatus, CheckStatus, HostStatus, ObserveStatus, OverrideStatus, Reason,
    ServiceStatus, SlowStartStatus, State, Status,
};

/// Problems listed at the top: when a whole rack is gone, the worst must not scroll away.
const MAX_PROBLEMS: usize = 15;

/// Renders a status as text, with ANSI colours if `colour`.
///
/// With `rates`, backends show what flows now instead of what has flowed since the start.
pub fn render(status: &Status, colour: bool, rates: Option<&Rates>) -> String {
    let sections = [
        Some(header(status)),
        interfaces(status),
        tables(status),
        groups::section(status),
        peer::section(status),
        Some(services(status, rates)),
        losses(status),
    ];
    join(sections.iter().flatten(), colour)
}

/// The same without interfaces, tables and losses: for a screen too low for all of it.
pub fn render_brief(status: &Status, colour: bool, rates: Option<&Rates>) -> String {
    let sections = [
        Some(header(status)),
        groups::section(status),
        peer::section(status),
        Some(services(status, rates)),
    ];
    join(sections.iter().flatten(), colour)
}

fn join<'a>(sections: impl Iterator<Item = &'a Grid>, colour: bool) -> String {
    let mut out = String::new();
    for section in sections {
        if !out.is_empty() {
            out.push('\n');
        }
        section.render(&mut out, colour);
    }
    out
}

/// Who speaks, and what is wrong.
fn header(status: &Status) -> Grid {
    let mut grid = Grid::new(&[]);
    let config = &status.config;
    grid.free([
        Cell::new(&status.node, Tone::Bold),
        Cell::from(format!(
            "  tandem {}, up {}; {} generation {}, {} old",
            status.version,
            units::duration(status.uptime_seconds),
            config.path,
            config.generation,
            units::duration(config.age_seconds)
        )),
    ]);
    let problems = problems(status);
    if problems.is_empty() {
        grid.free([Cell::new("all is well", Tone::Good)]);
    } else {
        grid.free([]);
    }
    let left_out = problems.len().saturating_sub(MAX_PROBLEMS);
    for problem in problems.into_iter().take(MAX_PROBLEMS) {
        let mark = if problem.tone == Tone::Bad { "!! " } else { " ! " };
        grid.free([mark, &problem.text].map(|text| Cell::new(text, problem.tone)));
        for detail in problem.details {
            grid.free([Cell::from("     "), Cell::from(detail)]);
        }
    }
    if left_out > 0 {
        grid.free([Cell::from(format!("   ... and {left_out} more, see below"))]);
    }
    grid
}

fn interfaces(status: &Status) -> Option<Grid> {
    let mut grid = Grid::new(&[Align::Left, Align::Left]);
    grid.titles(&["INTERFACE", "XDP"]);
    for interface in &status.interfaces {
        // Generic mode works, at a fraction of the speed.
        let tone = match interface.mode.as_str() {
            "native" => Tone::Good,
            _ => Tone::Warn,
        };
        grid.row([Cell::from(&interface.name), Cell::new(&interface.mode, tone)]);
    }
    (!status.interfaces.is_empty()).then_some(grid)
}

fn tables(status: &Status) -> Option<Grid> {
    const NUMBER: Align = Align::Right;
    let mut grid = Grid::new(&[Align::Left, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER]);
    grid.titles(&["FLOWS", "CONNECTIONS", "CAPACITY", "FULL", "HALF OPEN", "CAPACITY", "EVICTED"]);
    for table in &status.tables {
        let full = units::percent(table.connections, table.capacity);
        grid.row([
            Cell::from(&table.family),
            units::exact(table.connections).into(),
            units::exact(table.capacity).into(),
            format!("{full}%").into(),
            units::exact(table.half_open).into(),
            units::exact(table.half_open_capacity).into(),
            units::exact(table.evicted).into(),
        ]);
    }
    (!status.tables.is_empty()).then_some(grid)
}

fn services(status: &Status, rates: Option<&Rates>) -> Grid {
    use Align::{Left, Right};
    let mut grid = Grid::new(&[Left, Left, Left, Right, Left, Right, Right, Right, Right, Left]);
    let (opened, bytes_in, bytes_out) = match rates {
        None => ("TOTAL", "IN", "OUT"),
        Some(_) => ("NEW", "IN", "OUT"),
    };
    grid.titles(&[
        "SERVICE", "ADDRESS", "ROLE", "WEIGHT", "STATE", "CONNS", opened, bytes_in, bytes_out,
        "CHECK",
    ]);
    for service in &status.services {
        grid.free(heading(service));
        for backend in &service.backends {
            grid.row(backend_row(service, backend, rates));
            if let Some(note) = note(backend) {
                grid.free([Cell::from("    └ "), Cell::from(note)]);
            }
        }
    }
    if status.services.is_empty() {
        grid.free([Cell::from("none is configured")]);
    }
    grid
}

/// "mysql  UP  leastconn on 10.2.2.4:3306"
fn heading(service: &ServiceStatus) -> [Cell; 6] {
    const SHOWN: usize = 3;
    let mut bind: Vec<String> = service.bind.iter().take(SHOWN).map(ToString::to_string).collect();
    if service.bind.len() > SHOWN {
        bind.push(format!("{} more", service.bind.len() - SHOWN));
    }
    [
        Cell::new(&service.name, Tone::Bold),
        Cell::from("  "),
        Cell::new(word(service.state), tone(service.state)),
        Cell::from("  "),
        Cell::from(format!("{} on {}", service.balance, bind.join(", "))),
        crowd(service),
    ]
}

/// ", 900 of 1000 connections, 5 waiting"
fn crowd(service: &ServiceStatus) -> Cell {
    let active = service.active;
    let limit = service.limit.map(|limit| format!(", {active} of {limit} connections"));
    let waiting = service.queue.map_or(0, |queue| queue.waiting);
    let waiting = (waiting != 0).then(|| format!(", {waiting} waiting"));
    let tone = if waiting.is_some() { Tone::Warn } else { Tone::Plain };
    let parts = [limit, waiting];
    Cell::new(parts.into_iter().flatten().collect::<String>(), tone)
}

/// "12", or "12/300" where that is limited.
fn connections(backend: &BackendStatus) -> String {
    let active = backend.traffic.active;
    backend.limit.map_or_else(|| active.to_string(), |limit| format!("{active}/{limit}"))
}

fn backend_row(
    service: &ServiceStatus,
    backend: &BackendStatus,
    rates: Option<&Rates>,
) -> [Cell; 10] {
    let traffic = &backend.traffic;
    let [opened, bytes_in, bytes_out] = match rates {
        None => [
            units::count(traffic.connections),
            units::bytes(traffic.bytes_in),
            units::bytes(traffic.bytes_out),
        ],
        Some(rates) => {
            let rate = rates.of(&service.name, &backend.name);
            [
                units::frequency(rate.connections),
                units::bits(rate.bits_in),
                units::bits(rate.bits_out),
            ]
        }
    };
    let address = backend.address.map(|address| address.to_string());
    let since = units::duration(backend.since_seconds);
    [
        Cell::from(format!("  {}", backend.name)),
        Cell::from(address.unwrap_or_default()),
        Cell::from(&backend.role),
        Cell::from(backend.effective_weight.to_string()),
        Cell::new(format!("{} {since}", word(backend.state)), tone(backend.state)),
        Cell::from(connections(backend)),
        opened.into(),
        bytes_in.into(),
        bytes_out.into(),
        backend.check.as_ref().map_or(Cell::from("-"), check),
    ]
}

fn check(check: &CheckStatus) -> Cell {
    if check.reason == Reason::Observed {
        return Cell::new(check.reason.code(), Tone::Bad);
    }
    let tone = if check.reason.passed() { Tone::Plain } else { Tone::Bad };
    let took = units::millis(check.took_ms);
    Cell::new(format!("{} {took}", check.reason), tone)
}

/// What the row of a backend has no room for: why it is left out, or what its check complains of.
fn note(backend: &BackendStatus) -> Option<String> {
    let complaint = backend
        .check
        .as_ref()
        .filter(|check| !check.reason.passed() && !check.detail.is_empty())
        .map(|check| check.detail.clone());
    let said = overrides(&backend.overrides);
    // What was said is reason enough, but for a limit.
    let may_explain = |said: &OverrideStatus| !said.what.starts_with("maxconn ");
    let explained = matches!(backend.state, State::Drain | State::Maint)
        && backend.overrides.iter().any(may_explain);
    let left_out = (!backend.eligible && backend.state != State::Down && !explained)
        .then_some(backend.why.as_deref())
        .flatten()
        .map(|why| format!("no new connections: {why}"));
    let climb = backend.slow_start.map(|SlowStartStatus { percent, left_seconds }| {
        format!("slow start at {percent}%, {} left", units::duration(left_seconds))
    });
    let agent = backend.agent.as_ref().and_then(agent);
    let host = backend.host.as_ref().map(host);
    let queue = (backend.queue != 0).then(|| format!("{} waiting", backend.queue));
    let notes = [host, said, climb, queue, observed(backend), agent, left_out, complaint];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// "db1.example.org, resolved 5s ago"
fn host(host: &HostStatus) -> String {
    match host.age_seconds {
        Some(age) => format!("{}, resolved {} ago", host.name, units::duration(age)),
        None => host.name.clone(),
    }
}

/// "12 failed handshakes, 10 in a row once"
fn observed(backend: &BackendStatus) -> Option<String> {
    let ObserveStatus { error_limit, alarms, .. } = backend.observe.as_ref()?;
    let failed = units::count(backend.traffic.connection_errors);
    let times = match alarms {
        0 => return None,
        1 => "once".to_owned(),
        many => format!("{} times", units::count(*many)),
    };
    Some(format!("{failed} failed handshakes, {error_limit} in a row {times}"))
}

/// "agent: 75% up"
fn agent(agent: &AgentStatus) -> Option<String> {
    let AgentStatus { answer, problem, .. } = agent;
    let said = answer.iter().chain(problem).map(String::as_str).collect::<Vec<_>>().join(", ");
    (!said.is_empty()).then(|| format!("agent: {said}"))
}

/// "drain by operator for 5m, weight 50% by operator for 3h"
fn overrides(overrides: &[OverrideStatus]) -> Option<String> {
    let each = overrides.iter().map(|OverrideStatus { what, by, since_seconds }| {
        format!("{what} by {by} for {}", units::duration(*since_seconds))
    });
    (!overrides.is_empty()).then(|| each.collect::<Vec<_>>().join(", "))
}

/// The packets that did not get where they should, by reason, most first.
fn losses(status: &Status) -> Option<Grid> {
    let mut losses: Vec<(&String, u64)> = status
        .verdicts
        .iter()
        .filter(|(label, _)| label.starts_with("drop_") || label.starts_with("reset_"))
        .map(|(label, packets)| (label, *packets))
        .filter(|(_, packets)| *packets > 0)
        .collect();
    losses.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));

    let mut grid = Grid::new(&[Align::Left, Align::Right]);
    grid.titles(&["DROPPED OR RESET", "PACKETS"]);
    for (label, packets) in &losses {
        grid.row([Cell::from(label), units::exact(*packets).into()]);
    }
    (!losses.is_empty()).then_some(grid)
}

fn word(state: State) -> &'static str {
    match state {
        State::Up => "UP",
        State::Down => "DOWN",
        State::Drain => "DRAIN",
        State::Maint => "MAINT",
        State::Unchecked => "no check",
    }
}

fn tone(state: State) -> Tone {
    match state {
        State::Up => Tone::Good,
        State::Down => Tone::Bad,
        State::Drain | State::Maint => Tone::Warn,
        State::Unchecked => Tone::Plain,
    }
}
