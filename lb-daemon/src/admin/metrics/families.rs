//! Every metric: its name and what it means.
//!
//! `tandem_` goes before each name; its unit and then `_total` (counters) or `_info` after it.
//! Counters start at zero with the data plane's maps. A service's are the sums of its backends', so
//! they fall when a reload removes a backend; Prometheus takes that for a reset.

use std::{fmt, time::Duration};

use lb_common::verdict::{Action, Verdict};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::{Registry, Unit},
};

use super::encoder::{Encoder, family};
use crate::core::{
    BackendStatus, CheckStatus, Condition, GroupStatus, QueueStatus, ServiceStatus, State, Status,
    SyncStatus, TableStatus, Traffic,
    sync::{Stage, Totals, View},
};

/// The whole exposition of a status, in the `OpenMetrics` text format.
pub fn encode(status: Status) -> String {
    let mut registry = Registry::with_prefix("tandem");
    registry.register_collector(Box::new(Snapshot(status)));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes everything");
    out
}

#[derive(Debug)]
struct Snapshot(Status);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Encoder(encoder);
        node(out, &self.0)?;
        packets(out, &self.0)?;
        tables(out, &self.0.tables)?;
        groups(out, &self.0.groups)?;
        group_adverts(out, &self.0.groups)?;
        if let Some(status) = &self.0.sync {
            sync(out, status)?;
            held(out, &status.conversation, self.0.unheld)?;
        }
        services(out, &self.0.services)?;
        backends(out, &self.0.services)?;
        connections(out, &self.0.services)?;
        checks(out, &self.0.services)
    }
}

fn node(out: &mut Encoder<'_>, status: &Status) -> fmt::Result {
    let config = &status.config;
    out.info(&family("build", "The running daemon."), &[("version", &status.version)])?;
    out.gauge(
        &family("uptime", "How long the daemon has been running.").in_unit(Unit::Seconds),
        &status.uptime_seconds,
    )?;
    out.info(&family("config", "The configuration in force."), &[("path", &config.path)])?;
    out.gauge(
        &family("config_generation", "Configurations put in force since the daemon started."),
        &config.generation,
    )?;
    out.gauge(
        &family("config_age", "How long the configuration has been in force.")
            .in_unit(Unit::Seconds),
        &config.age_seconds,
    )?;
    out.gauge(
        &family(
            "config_last_reload_successful",
            "Whether the last reload was accepted (1) or refused (0).",
        ),
        &u32::from(config.last_error.is_none()),
    )?;
    out.gauge(
        &family(
            "overrides_kept",
            "Whether all that operators said of backends is on the disk (1), or still to be (0).",
        ),
        &u32::from(status.not_kept.is_none()),
    )?;
    out.gauges(
        &family(
            "xdp_attached",
            "1 for each interface with the XDP program, with the mode in force.",
        ),
        status.interfaces.iter().map(|interface| {
            let labels = [("interface", &interface.name), ("mode", &interface.mode)];
            (labels, 1_u32)
        }),
    )
}

fn packets(out: &mut Encoder<'_>, status: &Status) -> fmt::Result {
    out.counters(
        &family("packets", "Packets seen by the XDP program, by why and how they were dealt with."),
        Verdict::ALL.iter().map(|verdict| {
            let action = match verdict.action() {
                Action::Transmit => "transmit",
                Action::Pass => "pass",
                Action::Drop => "drop",
            };
            let packets = status.verdicts.get(verdict.label());
            (
                [("verdict", verdict.label()), ("action", action)],
                packets.copied().unwrap_or_default(),
            )
        }),
    )
}

fn tables(out: &mut Encoder<'_>, tables: &[TableStatus]) -> fmt::Result {
    let each = |value: fn(&TableStatus) -> u64| {
        tables.iter().map(move |table| ([("family", &table.family)], value(table)))
    };
    out.gauges(
        &family(
            "table_connections",
            "Connections in the flow table, closed ones that still linger included.",
        ),
        each(|table| table.connections),
    )?;
    out.gauges(
        &family("table_capacity", "Connections the flow table has room for."),
        each(|table| table.capacity),
    )?;
    out.gauges(
        &family("table_half_open", "Connections whose handshake is under way."),
        each(|table| table.half_open),
    )?;
    out.gauges(
        &family("table_half_open_capacity", "Half-open connections there is room for."),
        each(|table| table.half_open_capacity),
    )?;
    out.counters(
        &family("table_evicted", "Half-open connections that had to make room for newer ones."),
        each(|table| table.evicted),
    )
}

fn groups(out: &mut Encoder<'_>, groups: &[GroupStatus]) -> fmt::Result {
    let each = |value: fn(&GroupStatus) -> u64| {
        groups.iter().map(move |group| ([("group", &group.name)], value(group)))
    };
    out.gauges(
        &family(
            "group_role",
            "1 for this host's role for the group: INIT, BACKUP, MASTER or FAULT.",
        ),
        groups.iter().map(|group| {
            let labels = [("group", group.name.as_str()), ("role", group.role.name())];
            (labels, 1_u32)
        }),
    )?;
    out.gauges(
        &family("group_role_age", "How long this host has had its role for the group.")
            .in_unit(Unit::Seconds),
        each(|group| group.since_seconds),
    )?;
    out.gauges(
        &family("group_priority", "Configured priority; of CARP, 255 less advskew."),
        each(|group| u64::from(group.priority)),
    )?;
    out.gauges(
        &family("group_effective_priority", "Priority in force, with what the group tracks."),
        each(|group| u64::from(group.effective_priority)),
    )?;
    out.gauges(
        &family("group_faults", "Reasons why this host must not hold the group; 0 if it may."),
        each(|group| u64::try_from(group.faults.len()).unwrap_or(u64::MAX)),
    )?;
    out.gauges(
        &family(
            "group_lease",
            "How long the group would be served without another advert being sent; 0 if it is not.",
        )
        .in_unit(Unit::Seconds),
        groups.iter().map(|group| {
            let lease = Duration::from_millis(group.lease_ms.unwrap_or_default());
            ([("group", &group.name)], lease.as_secs_f64())
        }),
    )?;
    out.gauges(
        &family(
            "group_tracked",
            "Whether what the group tracks is well (1) or failed (0); not there until it is known.",
        ),
        groups.iter().flat_map(|group| {
            let known = group.tracked.iter().filter(|t| t.condition != Condition::Unknown);
            known.map(|tracked| {
                let labels = [
                    ("group", group.name.as_str()),
                    ("kind", tracked.kind.name()),
                    ("name", &tracked.name),
                ];
                (labels, u32::from(tracked.condition == Condition::Well))
            })
        }),
    )?;
    out.counters(
        &family(
            "group_address_claims",
            "Claims of other hosts to addresses that this one held; repeated ones once in 10 s.",
        ),
        each(|group| group.claims),
    )?;
    out.counters(
        &family(
            "group_addresses_put_back",
            "Addresses put back onto an interface that somebody else had taken them off.",
        ),
        each(|group| group.put_back),
    )?;
    out.counters(
        &family("group_transitions", "How often this host took the role for the group."),
        groups.iter().flat_map(|group| {
            let taken = group.taken.iter();
            taken.map(|(role, times)| ([("group", group.name.as_str()), ("role", role)], *times))
        }),
    )
}

fn group_adverts(out: &mut Encoder<'_>, groups: &[GroupStatus]) -> fmt::Result {
    let each = |value: fn(&GroupStatus) -> u64| {
        groups.iter().map(move |group| ([("group", &group.name)], value(group)))
    };
    out.counters(
        &family("group_adverts_sent", "Adverts of the group that this host sent."),
        each(|group| group.adverts.sent),
    )?;
    out.counters(
        &family("group_adverts_received", "Adverts of the group that came in and were heeded."),
        each(|group| group.adverts.received),
    )?;
    out.counters(
        &family("group_adverts_discarded", "Adverts of the group that came in and were discarded."),
        groups.iter().flat_map(|group| {
            let discarded = group.adverts.discarded.iter();
            discarded.map(|(reason, adverts)| {
                ([("group", group.name.as_str()), ("reason", reason)], *adverts)
            })
        }),
    )
}

/// Only with a peer.
fn sync(out: &mut Encoder<'_>, status: &SyncStatus) -> fmt::Result {
    let view = &status.conversation;
    let is_connected = matches!(view.state, Stage::Transferring | Stage::InSync);
    out.gauge(
        &family("sync_connected", "Whether this host and its peer talk to each other."),
        &u32::from(is_connected),
    )?;
    out.gauge(
        &family("sync_in_sync", "Whether both hosts have the same connections."),
        &u32::from(view.state == Stage::InSync),
    )?;
    out.gauge(
        &family("sync_ready", "Whether this host may take over from a master that works."),
        &u32::from(view.ready),
    )?;
    let lags = [("last", view.lag.last_seconds), ("longest", view.lag.longest_seconds)];
    out.gauges(
        &family(
            "sync_lag",
            "How long the peer took to have a change: the last one, the longest of a minute.",
        )
        .in_unit(Unit::Seconds),
        lags.into_iter().filter_map(|(which, lag)| Some(([("of", which)], lag?))),
    )?;
    out.gauge(
        &family("sync_queue", "Changes that the peer has not acknowledged yet."),
        &view.queue.changes,
    )?;
    let Totals { changes_sent, changes_received, transfers_sent, transfers_received, .. } =
        view.totals;
    let directions = |sent: u64, received: u64| {
        [("sent", sent), ("received", received)].map(|(way, n)| ([("direction", way)], n))
    };
    out.counters(
        &family("sync_changes", "Changes of connections told to the peer, and heard from it."),
        directions(changes_sent, changes_received),
    )?;
    out.counters(
        &family("sync_transfers", "Transfers of all connections, or of some that differed."),
        directions(transfers_sent, transfers_received),
    )?;
    let totals = &view.totals;
    for (name, help, total) in [
        ("sync_mismatches", "Parts of the tables that differed when compared.", totals.mismatches),
        ("sync_lost", "How often changes were lost, and all was transferred.", totals.lost),
        (
            "sync_conflicts",
            "Connections of the peer's that another one here was in the way of.",
            totals.conflicts,
        ),
        ("sync_full", "Connections of the peer's that there was no room for.", totals.full),
        (
            "sync_unknown",
            "Connections of the peer's to an address or backend that this host does not have.",
            totals.unknown,
        ),
        (
            "sync_refused",
            "Callers that were hung up on: not the peer, or without its key.",
            status.refused,
        ),
    ] {
        out.counter(&family(name, help), total)?;
    }
    Ok(())
}

/// SYN-ACKs that wait until the peer knows of their connections.
fn held(out: &mut Encoder<'_>, view: &View, unheld: u64) -> fmt::Result {
    out.gauge(
        &family("sync_holding", "Whether the peer keeps up, so that SYN-ACKs wait for it."),
        &u32::from(view.is_holding),
    )?;
    let ends = [
        ("acknowledged", view.totals.held),
        ("unacknowledged", view.totals.unacknowledged),
        ("no_room", unheld),
    ];
    out.counters(
        &family(
            "sync_answers",
            "SYN-ACKs of synchronous services: sent when the peer knew of the connection, or did not.",
        ),
        ends.map(|(end, count)| ([("end", end)], count)),
    )
}

fn services(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
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
        &family("service_active_connections", "Connections of the service that are not closed."),
        each(|traffic| traffic.active),
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

/// Their states.
fn backends(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
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
            "1 for what was said of the backend at run time (drain, maint, weight), and by whom.",
        ),
        backends_of(services).flat_map(|([service, name], backend)| {
            backend.overrides.iter().map(move |said| {
                // Which weight is a value, that of `backend_weight`: an agent may say another one
                // each time, and every label that ever was is a time series.
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
fn connections(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
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
fn checks(out: &mut Encoder<'_>, services: &[ServiceStatus]) -> fmt::Result {
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

fn by_direction<'a>([inwards, outwards]: [u64; 2]) -> [((&'static str, &'a str), u64); 2] {
    [(("direction", "in"), inwards), (("direction", "out"), outwards)]
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
