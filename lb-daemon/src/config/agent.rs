//! The agent of a backend: the keys of an `agent` table, and their inheritance.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use toml::Spanned;

use super::{
    address, duration,
    model::AgentCheck,
    reader::{Field, Table},
    report::{Read, Report},
};

/// What one `agent` table says; as a `check`, it inherits key by key.
#[derive(Clone, Default)]
pub(super) struct AgentKeys {
    /// Where the table is; none if there is none.
    place: Option<Spanned<()>>,
    enabled: Option<bool>,
    address: Option<IpAddr>,
    /// Also if it is there and wrong, which is not to be called missing.
    port: Option<Read<u16>>,
    send: Option<String>,
    inter: Option<Duration>,
}

impl AgentKeys {
    pub(super) fn read(field: &Field<'_>, title: &'static str) -> Read<Self> {
        let hint = "write agent = { port = 9707 }; agent = { enabled = false } turns it off";
        let table = field.table(title, hint)?;
        Ok(table.read(|table: &mut Table<'_>| Self {
            place: Some(field.spanned(())),
            enabled: table.optional("enabled", Field::boolean),
            address: table
                .optional("address", |field| address::reachable(field, address::ip(field)?)),
            port: table.maybe("port", port).transpose(),
            send: table.optional("send", |field| Ok(field.string()?.to_owned())),
            inter: table.optional("inter", |field| duration::read(field, &duration::CHECK)),
        }))
    }

    /// These keys, and where they are silent the inherited ones.
    pub(super) fn or(self, inherited: &Self) -> Self {
        Self {
            place: self.place.or_else(|| inherited.place.clone()),
            enabled: self.enabled.or(inherited.enabled),
            address: self.address.or(inherited.address),
            port: self.port.or(inherited.port),
            send: self.send.or_else(|| inherited.send.clone()),
            inter: self.inter.or(inherited.inter),
        }
    }

    /// The agent of a backend with this address, HAProxy's defaults filled in; none if there is none.
    pub(super) fn resolve(
        self,
        backend: SocketAddr,
        report: &Report<'_>,
    ) -> Read<Option<Arc<AgentCheck>>> {
        let Some(place) = self.place.filter(|_| self.enabled != Some(false)) else {
            return Ok(None);
        };
        let Some(port) = self.port.transpose()? else {
            let message = "`agent` has no `port`, and none is inherited";
            return Err(report.error(place.span(), message, "write the agent's: { port = 9707 }"));
        };
        Ok(Some(Arc::new(AgentCheck {
            target: SocketAddr::new(self.address.unwrap_or(backend.ip()), port),
            send: self.send.unwrap_or_default(),
            inter: self.inter.unwrap_or(Duration::from_secs(2)),
        })))
    }
}

fn port(field: &Field<'_>) -> Read<u16> {
    let hint = "the agent has a port of its own that can be connected to";
    let port = field.integer(&(1..=65_535), hint)?;
    Ok(u16::try_from(port).expect("within its range"))
}
