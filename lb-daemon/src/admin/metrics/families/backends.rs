//! Backends: their states, their connections and their checks.

use std::{fmt, time::Duration};

use prometheus_client::registry::Unit;

use super::by_direction;
use crate::{
    admin::metrics::encoder::{Encoder, family},
    core::{BackendStatus, CheckStatus, ServiceStatus, State, Traffic},
};

/// What state each is in, and why.
pub(super) fn states(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
    let each = |value: fn(&BackendStatus) -> u64| {
        backends_of(services).map(move |(labels, backend)| (labels, value(backend)))
    };

    out.gauges(
        &family(
            "backend_up",
            "Whether the backend is healthy or not checked (1), or down or in maintenance (0).",
        ),
        each(|backend| u64::from(!matches!(backend.state, State::Down | State::Maint))),
    )?;
    out.gauges(
        &family("backend_state_age", "How long the backend has been in its state.")
            .in_unit(Unit::Seconds),
        each(|backend| backend.since_seconds),
    )?;
    out.gauges(
        &family("backend_eligible", "Whether the backend gets new connections now."),
        each(|backend| u64::from(backend.eligible)),
    )?;
    out.gauges(
        &family("backend_weight", "Share of new connections the backend gets; 0 drains it."),
        backends_of(services).map(|(labels, backend)| (labels, backend.effective_weight)),
    )?;
    out.gauges(
        &family("backend_configured_weight", "The weight that the configuration says."),
        each(|backend| u64::from(backend.weight)),
    )?;
    out.gauges(
        &family(
            "backend_override",
            "1 for what was said of the backend at run time (drain, maint, weight, maxconn), and by \
             whom.",
        ),
        backends_of(services).flat_map(|([service, name], backend)| {
            backend.overrides.iter().map(move |said| {
                // Which weight is a value, that of `backend_weight`, and which limit that of
                // `backend_limit`: an agent may say another one each time, and every label that ever
                // was is a time series.
                let what = said.what.split(' ').next().unwrap_or_default();
                let labels = [service, name, ("override", what), ("by", said.by.as_str())];
                (labels, 1_u32)
            })
        }),
    )?;
    out.gauges(
        &family(
            "backend_agent_up",
            "Whether the backend's agent lets it be up, by what it said last; only with an agent.",
        ),
        backends_of(services)
            .filter_map(|(labels, backend)| Some((labels, u32::from(backend.agent.as_ref()?.up)))),
    )?;
    out.gauges(
        &family(
            "backend_host_resolved",
            "Whether the backend's host name resolved when it was last asked for; only with one.",
        ),
        backends_of(services).filter_map(|(labels, backend)| {
            Some((labels, u32::from(backend.host.as_ref()?.problem.is_none())))
        }),
    )
}

/// What their clients make of them.
pub(super) fn connections(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
    let each = |value: fn(&BackendStatus) -> u64| {
        backends_of(services).map(move |(labels, backend)| (labels, value(backend)))
    };
    let directions = |value: fn(&Traffic) -> [u64; 2]| {
        backends_of(services).flat_map(move |([service, name], backend)| {
            by_direction(value(&backend.traffic))
                .map(|(direction, value)| ([service, name, direction], value))
        })
    };

    out.gauges(
        &family("backend_active_connections", "Connections to the backend that are not closed."),
        each(|backend| backend.traffic.active),
    )?;
    out.gauges(
        &family(
            "backend_limit",
            "Most connections the backend may have by now; not there if any number.",
        ),
        backends_of(services)
            .filter_map(|(labels, backend)| Some((labels, u64::from(backend.limit?)))),
    )?;
    out.gauges(
        &family(
            "backend_configured_limit",
            "The limit of connections that the configuration says; not there if it says none.",
        ),
        backends_of(services)
            .filter_map(|(labels, backend)| Some((labels, u64::from(backend.configured_limit?)))),
    )?;
    out.gauges(
        &family(
            "backend_queue",
            "Clients that wait for this very backend: with balance source or hash.",
        ),
        each(|backend| backend.queue),
    )?;
    out.counters(
        &family("backend_connections", "Connections opened to the backend."),
        each(|backend| backend.traffic.connections),
    )?;
    out.counters(
        &family(
            "backend_connection_errors",
            "Connections that the backend refused or did not answer.",
        ),
        each(|backend| backend.traffic.connection_errors),
    )?;
    out.counters(
        &family(
            "backend_observed_alarms",
            "How many times too many such connections came in a row; only where that is observed.",
        ),
        backends_of(services)
            .filter_map(|(labels, backend)| Some((labels, backend.observe.as_ref()?.alarms))),
    )?;
    out.counters(
        &family(
            "backend_packets",
            "Packets from clients to the backend (in) and from it to clients (out).",
        ),
        directions(|traffic| [traffic.packets_in, traffic.packets_out]),
    )?;
    out.counters(
        &family(
            "backend",
            "Bytes from clients to the backend (in) and from it to clients (out): whole IP packets.",
        )
        .in_unit(Unit::Bytes),
        directions(|traffic| [traffic.bytes_in, traffic.bytes_out]),
    )
}

/// Only of backends that are checked and were so at least once.
pub(super) fn checks(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
    let checked = || {
        backends_of(services)
            .filter_map(|(labels, backend)| Some((labels, backend.check.as_ref()?)))
    };
    let each = |value: fn(&CheckStatus) -> u64| {
        checked().map(move |(labels, check)| (labels, value(check)))
    };
    let seconds = |millis: fn(&CheckStatus) -> u64| {
        checked().map(move |(labels, check)| {
            let time = Duration::from_millis(millis(check));
            (labels, time.as_secs_f64())
        })
    };

    out.gauges(
        &family("backend_check_result", "1 for how the last check ended, by HAProxy's codes."),
        checked().map(|([service, name], check)| {
            ([service, name, ("code", check.reason.code())], 1_u32)
        }),
    )?;
    out.gauges(
        &family("backend_check_passed", "Whether the last check passed."),
        each(|check| u64::from(check.reason.passed())),
    )?;
    out.gauges(
        &family("backend_check_duration", "How long the last check took.").in_unit(Unit::Seconds),
        seconds(|check| check.took_ms),
    )?;
    out.gauges(
        &family("backend_check_age", "How long ago the last check ended.").in_unit(Unit::Seconds),
        seconds(|check| check.age_ms),
    )?;
    out.counters(
        &family("backend_checks", "Checks since the daemon started."),
        checked().flat_map(|([service, name], check)| {
            [("passed", check.passed), ("failed", check.failed)]
                .map(|(result, checks)| ([service, name, ("result", result)], checks))
        }),
    )?;
    out.counters(
        &family("backend_downs", "How many times the backend went down."),
        each(|check| check.downs),
    )
}

fn backends_of(
    services: &[ServiceStatus],
) -> impl Iterator<Item = ([(&'static str, &str); 2], &BackendStatus)> {
    services.iter().flat_map(|service| {
        service.backends.iter().map(|backend| {
            let labels = [("service", service.name.as_str()), ("backend", backend.name.as_str())];
            (labels, backend)
        })
    })
}
