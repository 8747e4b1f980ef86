//! The daemon, and what its XDP program sees and keeps.

use std::fmt;

use lb_common::verdict::{Action, Verdict};
use prometheus_client::registry::Unit;

use crate::{
    admin::metrics::encoder::{Encoder, family},
    core::{Status, TableStatus},
};

/// The daemon, its configuration and its interfaces.
pub(super) fn node(out: &mut Encoder<'_>, status: &Status) -> fmt::Result {
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

/// What became of the packets.
pub(super) fn packets(out: &mut Encoder<'_>, status: &Status) -> fmt::Result {
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

/// How full the flow tables are.
pub(super) fn tables(out: &mut Encoder<'_>, tables: &[TableStatus]) -> fmt::Result {
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
