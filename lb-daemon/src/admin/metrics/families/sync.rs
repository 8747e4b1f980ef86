//! The conversation with the peer of connections. Only with a peer.

use std::fmt;

use prometheus_client::registry::Unit;

use crate::{
    admin::metrics::encoder::{Encoder, family},
    core::{
        SyncStatus,
        sync::{Stage, Totals, View},
    },
};

/// How far the two hosts have the same connections, and what they told each other.
pub(super) fn conversation(out: &mut Encoder<'_>, status: &SyncStatus) -> fmt::Result {
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
pub(super) fn held(out: &mut Encoder<'_>, view: &View, unheld: u64) -> fmt::Result {
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
