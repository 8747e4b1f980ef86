//! Health checks: the keys of a `check` table, their inheritance, and what comes of them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use toml::Spanned;

use super::{
    address,
    check_model::{Check, CheckKind, TcpAction, TcpConnect},
    duration, external_check, http_check, mysql_check,
    reader::{Field, Table},
    report::{Read, Report},
    tcp_check,
    tls::TlsKeys,
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
    /// Kept with its place: the target that it must be able to reach may come from another level.
    source: Option<Spanned<IpAddr>>,
    tls: TlsKeys,
    kind: Option<Spanned<CheckKind>>,
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
                source: table.optional("source", |field| {
                    let source = address::reachable(field, address::ip(field)?)?;
                    Ok(field.spanned(source))
                }),
                tls: TlsKeys::read(table),
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
            source: self.source.or_else(|| inherited.source.clone()),
            tls: self.tls.or(&inherited.tls),
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
        let target = SocketAddr::new(
            self.address.unwrap_or(backend.ip()),
            self.port.unwrap_or(backend.port()),
        );
        self.judge_source(target, report);
        self.judge_source_of_steps(report);
        let place = self.kind.as_ref().map(Spanned::span);
        let kind = self.kind.map_or(CheckKind::Connect, Spanned::into_inner);
        let (ssl, source) = (self.tls.ssl(), self.source.map(Spanned::into_inner));
        let tls =
            (ssl || kind.may_begin_tls()).then(|| self.tls.resolve(&kind, place, report)).flatten();
        Some(Arc::new(Check {
            target,
            inter,
            fastinter: self.fastinter.unwrap_or(inter),
            downinter: self.downinter.unwrap_or(inter),
            rise: self.rise.unwrap_or(2),
            fall: self.fall.unwrap_or(3),
            timeout: self.timeout.map_or(inter, Spanned::into_inner),
            source,
            ssl,
            tls,
            kind,
        }))
    }

    /// Reports a source that `target` can't be reached from.
    fn judge_source(&self, target: SocketAddr, report: &Report<'_>) {
        // Nothing is known yet of a backend that is given by its name.
        if !target.ip().is_unspecified()
            && let Some((from, to)) = self.families(target.ip())
        {
            let message = format!("the check's `source` is {from}, but {target} is {to}");
            self.refuse_source(&message, report);
        }
    }

    /// Reports a source that a step of a script can't connect from.
    fn judge_source_of_steps(&self, report: &Report<'_>) {
        let Some(CheckKind::Tcp(steps)) = self.kind.as_ref().map(Spanned::get_ref) else { return };
        for step in steps {
            let TcpAction::Connect(TcpConnect { address: Some(ip), .. }) = step.action else {
                continue;
            };
            if let Some((from, to)) = self.families(ip) {
                let message = format!(
                    "the check's `source` is {from}, but {ip}, which a step connects to, is {to}"
                );
                self.refuse_source(&message, report);
            }
        }
    }

    /// The families of the source and of whom it is to reach, if they differ.
    fn families(&self, to: IpAddr) -> Option<(&'static str, &'static str)> {
        let [from, to] = [*self.source.as_ref()?.get_ref(), to].map(address::family);
        (from != to).then_some((from, to))
    }

    fn refuse_source(&self, message: &str, report: &Report<'_>) {
        if let Some(source) = &self.source {
            report.error(source.span(), message, "write an address of the same family");
        }
    }
}

pub(super) fn port(field: &Field<'_>) -> Read<u16> {
    let port = field.integer(&(1..=65_535), "the check needs a port that can be connected to")?;
    Ok(u16::try_from(port).expect("within its range"))
}

fn count(field: &Field<'_>) -> Read<u32> {
    field.integer(&(1..=255), "this many checks in a row change the state")
}

/// What is checked, if this table says so. Each of its keys replaces whatever is inherited.
fn kind(table: &mut Table<'_>) -> Option<Spanned<CheckKind>> {
    let mut kinds = [
        table.optional("tcp_check", |field| {
            Ok(("tcp_check", field.spanned(tcp_check::read(field))))
        }),
        table.optional("httpchk", |field| {
            let check = http_check::read(field)?;
            Ok(("httpchk", field.spanned(CheckKind::Http(check))))
        }),
        table.optional("mysql_check", |field| {
            let check = mysql_check::read(field)?;
            Ok(("mysql_check", field.spanned(CheckKind::Mysql(check))))
        }),
        table.optional("external_check", |field| {
            let check = external_check::read(field)?;
            Ok(("external_check", field.spanned(CheckKind::External(check))))
        }),
    ];
    kinds.sort_by_key(|kind| kind.as_ref().map(|(_, kind)| kind.span().start));
    let mut kinds = kinds.into_iter().flatten();
    let (name, kind) = kinds.next()?;
    if let Some((other, second)) = kinds.next() {
        table.report().error(
            second.span(),
            format!("a check has one kind, and this one has both `{name}` and `{other}`"),
            "keep the one that is meant; an inherited one is replaced, it need not be unset",
        );
    }
    Some(kind)
}
