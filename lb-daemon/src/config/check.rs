//! Health checks: the keys of a `check` table, their inheritance, and what comes of them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use toml::Spanned;

use super::{
    address, duration, http_check,
    model::{Check, CheckKind},
    mysql_check,
    reader::{Field, Table},
    report::{Read, Report},
    tcp_check,
};

/// What one `check` table says. Three of them make a check: those of `[defaults.server]`, of
/// `[service.server]` and of the backend, each overriding the one before key by key.
#[derive(Clone, Default)]
pub(super) struct CheckKeys {
    enabled: Option<bool>,
    address: Option<IpAddr>,
    port: Option<u16>,
    inter: Option<Duration>,
    fastinter: Option<Duration>,
    downinter: Option<Duration>,
    /// Kept with its place to compare it with `inter`, which may come from another level.
    timeout: Option<Spanned<Duration>>,
    rise: Option<u32>,
    fall: Option<u32>,
    kind: Option<CheckKind>,
}

impl CheckKeys {
    pub(super) fn read(field: &Field<'_>, title: &'static str) -> Read<Self> {
        let hint = "write check = { inter = \"2s\" }; check = { enabled = false } turns checks off";
        let table = field.table(title, hint)?;
        Ok(table.read(|table| {
            let period = |field: &Field<'_>| duration::read(field, &duration::CHECK);
            Self {
                enabled: table.optional("enabled", Field::boolean),
                address: table
                    .optional("address", |field| address::reachable(field, address::ip(field)?)),
                port: table.optional("port", port),
                inter: table.optional("inter", period),
                fastinter: table.optional("fastinter", period),
                downinter: table.optional("downinter", period),
                timeout: table.optional("timeout", |field| Ok(field.spanned(period(field)?))),
                rise: table.optional("rise", count),
                fall: table.optional("fall", count),
                kind: kind(table),
            }
        }))
    }

    /// These keys, and where they are silent the inherited ones.
    pub(super) fn or(self, inherited: &Self) -> Self {
        Self {
            enabled: self.enabled.or(inherited.enabled),
            address: self.address.or(inherited.address),
            port: self.port.or(inherited.port),
            inter: self.inter.or(inherited.inter),
            fastinter: self.fastinter.or(inherited.fastinter),
            downinter: self.downinter.or(inherited.downinter),
            timeout: self.timeout.or_else(|| inherited.timeout.clone()),
            rise: self.rise.or(inherited.rise),
            fall: self.fall.or(inherited.fall),
            kind: self.kind.or_else(|| inherited.kind.clone()),
        }
    }

    /// The check of a backend with this address, HAProxy's defaults filled in; none if disabled.
    pub(super) fn resolve(self, backend: SocketAddr, report: &Report<'_>) -> Option<Arc<Check>> {
        if self.enabled == Some(false) {
            return None;
        }
        let inter = self.inter.unwrap_or(Duration::from_secs(2));
        if let Some(timeout) = self.timeout.as_ref().filter(|timeout| *timeout.get_ref() > inter) {
            let (long, inter) = (duration::format(*timeout.get_ref()), duration::format(inter));
            let message =
                format!("the check's `timeout` of {long} is longer than `inter`, {inter}");
            let hint = "a check that hangs delays the next one; lower `timeout` or raise `inter`";
            report.warning(Some(timeout.span()), message, hint);
        }
        Some(Arc::new(Check {
            target: SocketAddr::new(
                self.address.unwrap_or(backend.ip()),
                self.port.unwrap_or(backend.port()),
            ),
            inter,
            fastinter: self.fastinter.unwrap_or(inter),
            downinter: self.downinter.unwrap_or(inter),
            rise: self.rise.unwrap_or(2),
            fall: self.fall.unwrap_or(3),
            timeout: self.timeout.map_or(inter, Spanned::into_inner),
            kind: self.kind.unwrap_or(CheckKind::Connect),
        }))
    }
}

fn port(field: &Field<'_>) -> Read<u16> {
    let port = field.integer(&(1..=65_535), "the check needs a port that can be connected to")?;
    Ok(u16::try_from(port).expect("within its range"))
}

fn count(field: &Field<'_>) -> Read<u32> {
    field.integer(&(1..=255), "this many checks in a row change the state")
}

/// What is checked, if this table says so. Each of the keys replaces whatever is inherited.
fn kind(table: &mut Table<'_>) -> Option<CheckKind> {
    let tcp = table.optional("tcp_check", |field| Ok(field.spanned(tcp_check::read(field))));
    let http = table
        .optional("httpchk", |field| Ok(field.spanned(CheckKind::Http(http_check::read(field)?))));
    let mysql = table.optional("mysql_check", |field| {
        Ok(field.spanned(CheckKind::Mysql(mysql_check::read(field)?)))
    });
    let kinds = [("tcp_check", tcp), ("httpchk", http), ("mysql_check", mysql)];
    let mut kinds: Vec<_> =
        kinds.into_iter().filter_map(|(key, kind)| Some((key, kind?))).collect();
    kinds.sort_by_key(|(_, kind)| kind.span().start);
    if let [(first, _), (second, kind), ..] = &kinds[..] {
        table.report().error(
            kind.span(),
            format!("a check has one kind, and this one has both `{first}` and `{second}`"),
            "keep the one that is meant; an inherited one is replaced, it need not be unset",
        );
        return None;
    }
    kinds.pop().map(|(_, kind)| kind.into_inner())
}
