//! Groups: this host's role for each, and its election.

use std::{fmt, time::Duration};

use prometheus_client::registry::Unit;

use crate::{
    admin::metrics::encoder::{Encoder, family},
    core::{Condition, GroupStatus},
};

/// What this host is for each.
pub(super) fn roles(out: &mut Encoder<'_>, groups: &[GroupStatus]) -> fmt::Result {
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

/// What was said and heard of each.
pub(super) fn adverts(out: &mut Encoder<'_>, groups: &[GroupStatus]) -> fmt::Result {
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
