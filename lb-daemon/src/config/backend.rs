//! `[[service.backend]]`, and what backends inherit from a `server` table.

use std::{num::NonZeroU32, time::Duration};

use toml::Spanned;

use super::{
    agent::AgentKeys,
    check::CheckKeys,
    duration,
    endpoint::Endpoint,
    model::{Backend, Limits, OnMarkedDown, Role},
    node,
    observe::ObserveKeys,
    reader::{Field, Table},
    report::{Read, Report, Span},
};

/// The keys that a backend can set itself or inherit, as from HAProxy's `default-server`.
#[derive(Clone, Default)]
pub(super) struct ServerKeys {
    weight: Option<u16>,
    maxconn: Option<u32>,
    maxqueue: Option<Spanned<u32>>,
    role: Option<Role>,
    on_marked_down: Option<OnMarkedDown>,
    slowstart: Option<Duration>,
    observe: ObserveKeys,
    check: CheckKeys,
    agent: AgentKeys,
}

impl ServerKeys {
    /// `check` and `agent` are how messages name the tables of these names in it.
    pub(super) fn read(table: &mut Table<'_>, [check, agent]: [&'static str; 2]) -> Self {
        Self {
            weight: table.optional("weight", weight),
            maxconn: table.optional("maxconn", limit),
            maxqueue: table.optional("maxqueue", |field| Ok(field.spanned(limit(field)?))),
            role: table.optional("role", |field| {
                field.choice(&[("active", Role::Active), ("backup", Role::Backup)])
            }),
            on_marked_down: table.optional("on_marked_down", |field| {
                let choices = [OnMarkedDown::None, OnMarkedDown::ShutdownSessions];
                field.choice(&choices.map(|choice| (choice.name(), choice)))
            }),
            slowstart: table
                .optional("slowstart", |field| duration::or_zero(field, &duration::CHECK)),
            observe: ObserveKeys::read(table),
            check: table
                .optional("check", |field| CheckKeys::read(field, check))
                .unwrap_or_default(),
            agent: table
                .optional("agent", |field| AgentKeys::read(field, agent))
                .unwrap_or_default(),
        }
    }

    /// These keys, and where they are silent the inherited ones.
    pub(super) fn or(self, inherited: &Self) -> Self {
        Self {
            weight: self.weight.or(inherited.weight),
            maxconn: self.maxconn.or(inherited.maxconn),
            maxqueue: self.maxqueue.or_else(|| inherited.maxqueue.clone()),
            role: self.role.or(inherited.role),
            on_marked_down: self.on_marked_down.or(inherited.on_marked_down),
            slowstart: self.slowstart.or(inherited.slowstart),
            observe: self.observe.or(&inherited.observe),
            check: self.check.or(&inherited.check),
            agent: self.agent.or(&inherited.agent),
        }
    }

    fn limits(&self) -> Limits {
        let maxconn = self.maxconn.and_then(NonZeroU32::new);
        let maxqueue = self.maxqueue.as_ref().and_then(|it| NonZeroU32::new(*it.get_ref()));
        Limits { maxconn, maxqueue }
    }
}

/// A backend, and the places of what must be compared with the rest of the file.
pub(super) struct PlacedBackend {
    pub(super) name: Spanned<String>,
    pub(super) address: Spanned<Endpoint>,
    /// Where its `maxqueue` stands, if it has one.
    maxqueue: Option<Span>,
    pub(super) backend: Backend,
}

impl PlacedBackend {
    /// Warns of a `maxqueue` that does nothing: nobody waits for a backend that takes everybody, in a
    /// service that does. An agent may say how many it takes.
    pub(super) fn check_queue(&self, report: &Report<'_>) {
        let Backend { limits, agent, .. } = &self.backend;
        if limits.maxqueue.is_some() && limits.maxconn.is_none() && agent.is_none() {
            let message = "`maxqueue` does nothing without `maxconn`: nobody has to wait";
            let hint = "set the `maxconn` of the backend or of the service, or remove `maxqueue`";
            report.warning(self.maxqueue.clone(), message, hint);
        }
    }
}

/// Reads one backend of the service that `inherited` belongs to.
pub(super) fn read(table: Table<'_>, inherited: &ServerKeys) -> Read<PlacedBackend> {
    let report = table.report();
    table.read(|table| {
        let name = table.required("name", "give the backend a name: name = \"db1\"", |field| {
            Ok(field.spanned(node::name(field)?))
        });
        let hint = "write the backend's address and port: address = \"10.4.4.10:3306\"";
        let address =
            table.required("address", hint, |field| Ok(field.spanned(Endpoint::read(field)?)));
        let titles = ["[service.backend.check]", "[service.backend.agent]"];
        let keys = ServerKeys::read(table, titles).or(inherited);
        let (name, address) = (name?, address?);
        let limits = keys.limits();
        let maxqueue = keys.maxqueue.as_ref().map(Spanned::span);
        let place = address.get_ref();
        let agent = keys.agent.resolve(place.address(), report);
        let check = keys.check.resolve(place.address(), report);
        let observe = keys.observe.resolve(name.get_ref(), check.is_some(), report);
        let backend = Backend {
            name: name.get_ref().clone(),
            address: place.address(),
            host: place.host_name().map(str::to_owned),
            weight: keys.weight.unwrap_or(1),
            limits,
            role: keys.role.unwrap_or(Role::Active),
            on_marked_down: keys.on_marked_down.unwrap_or(OnMarkedDown::None),
            slowstart: keys.slowstart.filter(|time| !time.is_zero()),
            observe: observe?,
            check,
            agent: agent?,
        };
        Ok(PlacedBackend { name, address, maxqueue, backend })
    })
}

/// A limit of connections; 0 for none.
pub(super) fn limit(field: &Field<'_>) -> Read<u32> {
    field.integer(&(0..=8_388_608), "it is a number of connections; 0 is no limit")
}

fn weight(field: &Field<'_>) -> Read<u16> {
    let weight = field.integer(&(0..=256), "weights count against each other; 0 drains")?;
    Ok(u16::try_from(weight).expect("within its range"))
}
