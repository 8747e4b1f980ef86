//! Services, as their clients see them.

use std::fmt;

use prometheus_client::registry::Unit;

use super::by_direction;
use crate::{
    admin::metrics::encoder::{Encoder, family},
    core::{QueueStatus, ServiceStatus, State, Traffic},
};

/// What each has for its clients.
pub(super) fn all(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
    let totals: Vec<(&str, Traffic)> =
        services.iter().map(|service| (service.name.as_str(), total(service))).collect();
    let each = |value: fn(&Traffic) -> u64| {
        totals.iter().map(move |(service, traffic)| ([("service", *service)], value(traffic)))
    };
    let directions = |value: fn(&Traffic) -> [u64; 2]| {
        totals.iter().flat_map(move |(service, traffic)| {
            by_direction(value(traffic))
                .map(|(direction, value)| ([("service", *service), direction], value))
        })
    };

    out.gauges(
        &family("service_up", "Whether a new connection to the service finds a backend."),
        services.iter().map(|service| {
            let up = u32::from(service.state != State::Down);
            ([("service", &service.name)], up)
        }),
    )?;
    out.gauges(
        &family(
            "service_active_connections",
            "Connections of the service that are not closed, those with removed backends included.",
        ),
        services.iter().map(|service| ([("service", &service.name)], service.active)),
    )?;
    queues(out, services)?;
    out.counters(
        &family("service_connections", "Connections opened through the service."),
        each(|traffic| traffic.connections),
    )?;
    out.counters(
        &family(
            "service_connection_errors",
            "Connections of the service that a backend refused or did not answer.",
        ),
        each(|traffic| traffic.connection_errors),
    )?;
    out.counters(
        &family(
            "service_packets",
            "Packets of the service from clients (in) and to clients (out).",
        ),
        directions(|traffic| [traffic.packets_in, traffic.packets_out]),
    )?;
    out.counters(
        &family(
            "service",
            "Bytes of the service from clients (in) and to clients (out): whole IP packets.",
        )
        .in_unit(Unit::Bytes),
        directions(|traffic| [traffic.bytes_in, traffic.bytes_out]),
    )
}

/// Only of services that are limited, or whose backends are.
fn queues(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
    let each = |value: fn(&QueueStatus) -> u64| {
        services.iter().filter_map(move |service| {
            Some(([("service", &service.name)], value(service.queue.as_ref()?)))
        })
    };
    out.gauges(
        &family("service_limit", "Most connections the service may have; not there if any number."),
        services.iter().filter_map(|it| Some(([("service", &it.name)], u64::from(it.limit?)))),
    )?;
    out.gauges(
        &family("service_queue", "Clients that wait for a place at one of the service's backends."),
        each(|queue| queue.waiting),
    )?;
    out.gauges(
        &family("service_queue_most", "Most clients that waited at once since the daemon started."),
        each(|queue| queue.most),
    )?;
    out.counters(
        &family("service_queued", "Clients that had to wait for a place."),
        each(|queue| queue.queued),
    )?;
    out.counters(
        &family(
            "service_queue_refusals",
            "Clients answered by a RST, because they had waited too \
                 long (timeout) or too many did (full).",
        ),
        services.iter().filter_map(|it| Some((&it.name, it.queue.as_ref()?))).flat_map(
            |(service, queue)| {
                [("timeout", queue.timed_out), ("full", queue.refused)].map(|(reason, clients)| {
                    ([("service", service.as_str()), ("reason", reason)], clients)
                })
            },
        ),
    )
}

fn total(service: &ServiceStatus) -> Traffic {
    service.backends.iter().map(|backend| backend.traffic).fold(
        Traffic::default(),
        |sum, traffic| Traffic {
            active: sum.active + traffic.active,
            connections: sum.connections + traffic.connections,
            connection_errors: sum.connection_errors + traffic.connection_errors,
            packets_in: sum.packets_in + traffic.packets_in,
            bytes_in: sum.bytes_in + traffic.bytes_in,
            packets_out: sum.packets_out + traffic.packets_out,
            bytes_out: sum.bytes_out + traffic.bytes_out,
        },
    )
}
