//! `[[group]]`: virtual addresses that move between two hosts.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    carp, command, duration,
    group_ledger::{GroupLedger, Identifier},
    group_model::{Announce, Group, Hooks, Protocol, Vrrp},
    node,
    reader::{Field, Table},
    report::Read,
    track,
    virtual_address::{self, PlacedAddress},
    vrrp,
};

/// As far as keepalived's delays go.
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1000);
const REFRESHES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(86_400);
const HOOK_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3_600);

#[derive(Clone, Copy)]
enum Speaks {
    Vrrp,
    Carp,
}

/// Every `[[group]]`; enters what others may conflict with into the `ledger`.
pub(super) fn all(root: &mut Table<'_>, ledger: &mut GroupLedger<'_>) -> Read<Vec<Arc<Group>>> {
    let tables = root.tables("group", "[[group]]");
    if tables.is_err() {
        ledger.addresses(None);
    }
    let groups: Vec<_> =
        tables?.into_iter().map(|table| group(table, ledger).map(Arc::new)).collect();
    groups.into_iter().collect()
}

fn group(table: Table<'_>, ledger: &mut GroupLedger<'_>) -> Read<Group> {
    table.read(|table| {
        let name = table.required("name", "give the group a name: name = \"web\"", |field| {
            Ok(field.spanned(node::name(field)?))
        });
        let hint = "write the interface that adverts go by: interface = \"eth1\"";
        let interface =
            table.required("interface", hint, |field| Ok(field.spanned(node::interface(field)?)));
        let addresses = virtual_address::read(table);
        let protocol = protocol(table, addresses.as_deref().unwrap_or_default());
        let preempt = table.optional("preempt", Field::boolean).unwrap_or(true);
        let preempt_delay = table.optional("preempt_delay", |field| preempt_delay(field, preempt));
        let track = track::read(table);
        let hooks = hooks(table);
        let announce = announce(table);

        ledger.name(&name, table.span());
        ledger.refer(&track);
        if let (Ok(interface), Ok((_, identifier))) = (&interface, &protocol) {
            ledger.identifier(interface, identifier);
        }
        if let Ok((Protocol::Vrrp(Vrrp { vmac: Some(vmac), .. }), identifier)) = &protocol {
            ledger.vmac(vmac, identifier);
        }
        if let Ok(interface) = &interface {
            ledger.interface(interface);
        }
        ledger.addresses(addresses.as_deref().ok());
        if addresses.as_ref().is_ok_and(Vec::is_empty) {
            let message = "this group has no address: only its role will move";
            let hint = "write virtual_ipaddress = [\"10.2.2.4/24\"], unless hooks do all the work";
            table.report().warning(table.span(), message, hint);
        }

        let interface = interface?.into_inner();
        let addresses: Vec<_> =
            addresses?.into_iter().map(|address| address.on(&interface)).collect();
        let track = track.of(table, &interface, &addresses);
        Ok(Group {
            name: name?.into_inner(),
            interface,
            protocol: protocol?.0,
            addresses,
            preempt,
            preempt_delay: preempt_delay.unwrap_or(Duration::ZERO),
            track,
            hooks,
            announce,
        })
    })
}

fn protocol(table: &mut Table<'_>, addresses: &[PlacedAddress]) -> Read<(Protocol, Identifier)> {
    let mut failed = Ok(Speaks::Vrrp);
    let speaks = table.optional("protocol", |field| {
        failed = field.choice(&[("vrrp", Speaks::Vrrp), ("carp", Speaks::Carp)]);
        failed
    });
    // What belongs to a protocol that could not be read can't be told.
    if let Err(reported) = failed {
        for (key, _) in vrrp::KEYS.into_iter().chain(carp::KEYS) {
            table.optional(key, |_| Ok(()));
        }
        return Err(reported);
    }
    match speaks.unwrap_or(Speaks::Vrrp) {
        Speaks::Vrrp => {
            foreign(table, &carp::KEYS, "CARP's, but this group speaks VRRP (`protocol`)");
            let (vrrp, id) = vrrp::read(table, addresses)?;
            let identifier = Identifier::vrrp(vrrp.family, &id);
            Ok((Protocol::Vrrp(vrrp), identifier))
        }
        Speaks::Carp => {
            foreign(table, &vrrp::KEYS, "VRRP's, but this group speaks CARP (`protocol`)");
            let (carp, id) = carp::read(table)?;
            Ok((Protocol::Carp(carp), Identifier::carp(&id)))
        }
    }
}

/// Refuses the keys of the other protocol.
fn foreign(table: &mut Table<'_>, keys: &[(&'static str, &str)], whose: &str) {
    for (key, hint) in keys {
        table.optional(key, |field| Err::<(), _>(field.error(format!("`{key}` is {whose}"), hint)));
    }
}

fn preempt_delay(field: &Field<'_>, preempt: bool) -> Read<Duration> {
    let delay = duration::with_unit_or_zero(field, &DELAYS)?;
    if !preempt && !delay.is_zero() {
        let message = "`preempt_delay` means nothing with preempt = false";
        field.report().warning(Some(field.span()), message, "remove one of the two");
    }
    Ok(delay)
}

fn hooks(table: &mut Table<'_>) -> Hooks {
    let keys = ["notify_master", "notify_backup", "notify_fault", "notify_stop", "notify"];
    let [notify_master, notify_backup, notify_fault, notify_stop, notify] =
        keys.map(|key| table.optional(key, command::read));
    let timeout =
        table.optional("notify_timeout", |field| duration::with_unit(field, &HOOK_TIMEOUTS));
    Hooks {
        notify_master,
        notify_backup,
        notify_fault,
        notify_stop,
        notify,
        user: command::user(table, "notify_user"),
        timeout: timeout.unwrap_or(Duration::from_secs(30)),
    }
}

fn announce(table: &mut Table<'_>) -> Announce {
    let times =
        |field: &Field<'_>| field.integer(&(1..=100), "it is how often each address is announced");
    let repeat = table.optional("garp_master_repeat", times);
    let refresh_repeat = table.optional("garp_master_refresh_repeat", times);
    let delay =
        table.optional("garp_master_delay", |field| duration::with_unit_or_zero(field, &DELAYS));
    let refresh = table
        .optional("garp_master_refresh", |field| duration::with_unit_or_zero(field, &REFRESHES));
    Announce {
        repeat: repeat.unwrap_or(5),
        delay: delay.unwrap_or(Duration::from_secs(5)),
        refresh: refresh.unwrap_or(Duration::ZERO),
        refresh_repeat: refresh_repeat.unwrap_or(1),
    }
}
