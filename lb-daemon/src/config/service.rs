//! `[[service]]`, and the keys it shares with `[defaults]`.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use lb_common::maps::{MAX_LEASTCONN, MAX_SOURCES};
use toml::Spanned;

use super::{
    address::{self, family},
    backend::{self, PlacedBackend, ServerKeys},
    duration,
    group_ledger::GroupLedger,
    ledger::Ledger,
    model::{Balance, Role, Service, Timeouts},
    node,
    reader::{Field, Table},
    report::{Read, Report, Span},
};

/// The keys that a service can set itself or inherit from `[defaults]`.
#[derive(Default)]
pub(super) struct ServiceKeys {
    balance: Option<Balance>,
    allbackups: Option<bool>,
    synchronous: Option<Spanned<bool>>,
    source: Option<Vec<Spanned<IpAddr>>>,
    maxconn: Option<u32>,
    connect: Option<Duration>,
    queue: Option<Duration>,
    client: Option<Duration>,
    server_timeout: Option<Duration>,
    client_fin: Option<Duration>,
    server_fin: Option<Duration>,
    server: ServerKeys,
}

/// `[defaults]`
pub(super) fn defaults(root: &mut Table<'_>) -> ServiceKeys {
    root.table("defaults", "[defaults]").read(|table| {
        let server = ["[defaults.server.check]", "[defaults.server.agent]"];
        ServiceKeys::read(table, ["[defaults.timeout]", "[defaults.server]"], server)
    })
}

impl ServiceKeys {
    /// The titles are those of `timeout` and `server`, and of the tables in `server`.
    fn read(
        table: &mut Table<'_>,
        [timeout, server]: [&'static str; 2],
        of_server: [&'static str; 2],
    ) -> Self {
        table.optional("mode", mode);
        let balance = table.optional("balance", |field| {
            field.choice(&[
                ("roundrobin", Balance::RoundRobin),
                ("leastconn", Balance::LeastConn),
                ("source", Balance::Source),
                ("hash", Balance::Hash),
            ])
        });
        let allbackups = table.optional("allbackups", Field::boolean);
        let synchronous =
            table.optional("synchronous", |field| Ok(field.spanned(field.boolean()?)));
        let source = table.optional("source", sources);
        let maxconn = table.optional("maxconn", backend::limit);
        let [connect, queue, client, server_timeout, client_fin, server_fin] =
            table.table("timeout", timeout).read(|table| {
                ["connect", "queue", "client", "server", "client_fin", "server_fin"].map(|key| {
                    table.optional(key, |field| duration::read(field, &duration::TIMEOUT))
                })
            });
        let server = table.table("server", server).read(|table| ServerKeys::read(table, of_server));
        Self {
            balance,
            allbackups,
            synchronous,
            source,
            maxconn,
            connect,
            queue,
            client,
            server_timeout,
            client_fin,
            server_fin,
            server,
        }
    }

    /// These keys, and where they are silent the inherited ones.
    fn or(self, inherited: &Self) -> Self {
        Self {
            balance: self.balance.or(inherited.balance),
            allbackups: self.allbackups.or(inherited.allbackups),
            synchronous: self.synchronous.or_else(|| inherited.synchronous.clone()),
            source: self.source.or_else(|| inherited.source.clone()),
            maxconn: self.maxconn.or(inherited.maxconn),
            connect: self.connect.or(inherited.connect),
            queue: self.queue.or(inherited.queue),
            client: self.client.or(inherited.client),
            server_timeout: self.server_timeout.or(inherited.server_timeout),
            client_fin: self.client_fin.or(inherited.client_fin),
            server_fin: self.server_fin.or(inherited.server_fin),
            server: self.server.or(&inherited.server),
        }
    }

    /// Where `synchronous = true` stands, if it does in these keys.
    pub(super) fn synchronous(&self) -> Option<Span> {
        self.synchronous.as_ref().filter(|wish| *wish.get_ref()).map(Spanned::span)
    }

    fn timeouts(&self) -> Timeouts {
        const THREE_HOURS: Duration = Duration::from_secs(3 * 3600);
        let client = self.client.unwrap_or(THREE_HOURS);
        let server = self.server_timeout.unwrap_or(THREE_HOURS);
        let connect = self.connect.unwrap_or(Duration::from_secs(5));
        Timeouts {
            connect,
            queue: self.queue.unwrap_or(connect),
            client,
            server,
            client_fin: self.client_fin.unwrap_or(client),
            server_fin: self.server_fin.unwrap_or(server),
        }
    }
}

/// Reads one service, and enters what others may conflict with into the `ledger`.
pub(super) fn read(
    table: Table<'_>,
    defaults: &ServiceKeys,
    ledger: &mut Ledger<'_>,
    groups: &GroupLedger<'_>,
    has_peer: bool,
) -> Read<Service> {
    table.read(|table| {
        let name = table.required("name", "give the service a name: name = \"mysql\"", |field| {
            Ok(field.spanned(node::name(field)?))
        });
        let hint = "write the virtual address and port: bind = \"10.2.2.4:3306\"";
        let bind = table.required("bind", hint, binds);
        let titles = ["[service.timeout]", "[service.server]"];
        let of_server = ["[service.server.check]", "[service.server.agent]"];
        let keys = ServiceKeys::read(table, titles, of_server);
        let synchronous = keys.synchronous();
        let keys = keys.or(defaults);
        let (backends, failed) = backends(table, &keys);

        ledger.service(&name);
        let mut group = None;
        if let Ok(bind) = &bind {
            let sources = keys.source.as_deref().unwrap_or_default();
            ledger.binds(bind);
            group = groups.of_service(bind, sources);
            check_families(table, bind, sources, &backends);
            if let Some(span) = synchronous {
                check_synchronous(table, span, group.is_some(), has_peer);
            }
        }
        ledger.backends(&backends);
        failed?;

        Ok(Service {
            name: name?.into_inner(),
            bind: bind?.into_iter().map(Spanned::into_inner).collect(),
            balance: keys.balance.unwrap_or(Balance::RoundRobin),
            allbackups: keys.allbackups.unwrap_or(false),
            synchronous: keys.synchronous().is_some(),
            group,
            maxconn: keys.maxconn.and_then(NonZeroU32::new),
            timeout: keys.timeouts(),
            source: keys.source.into_iter().flatten().map(Spanned::into_inner).collect(),
            backends: backends.into_iter().map(|placed| placed.backend).collect(),
        })
    })
}

/// The backends that could be read, and whether that is all of them.
fn backends(table: &mut Table<'_>, keys: &ServiceKeys) -> (Vec<PlacedBackend>, Read<()>) {
    let tables = match table.tables("backend", "[[service.backend]]") {
        Ok(tables) => tables,
        Err(reported) => return (Vec::new(), Err(reported)),
    };
    if tables.is_empty() {
        let hint = "add a [[service.backend]] with a name and an address below the service";
        return (Vec::new(), Err(table.missing("this service has no backends", hint)));
    }
    let mut placed = Vec::new();
    let mut failed = Ok(());
    for backend in tables {
        match backend::read(backend, &keys.server) {
            Ok(backend) => placed.push(backend),
            Err(reported) => failed = Err(reported),
        }
    }
    check_uniqueness(table, &placed);
    if failed.is_ok() {
        check_whole(table, keys, &placed);
    }
    (placed, failed)
}

fn check_uniqueness(table: &Table<'_>, backends: &[PlacedBackend]) {
    let report = table.report();
    let mut names = HashMap::new();
    let mut addresses = HashMap::new();
    for backend in backends {
        let (name, address) = (&backend.name, &backend.address);
        if let Some(first) = names.insert(name.get_ref(), name.span()) {
            let message = format!("this service has two backends called {:?}", name.get_ref());
            let hint = format!("rename one; the other is in line {}", report.line(&first));
            report.error(name.span(), message, hint);
        }
        if let Some(first) = addresses.insert(address.get_ref(), address.span()) {
            let message = format!("two backends of this service are {}", address.get_ref());
            let line = report.line(&first);
            let hint = format!("keep one, with the `weight` of both; the other is in line {line}");
            report.error(address.span(), message, hint);
        }
    }
}

/// What can only be said of all backends of a service together.
fn check_whole(table: &Table<'_>, keys: &ServiceKeys, backends: &[PlacedBackend]) {
    let report = table.report();
    if keys.balance == Some(Balance::LeastConn) && backends.len() > MAX_LEASTCONN as usize {
        let message = format!(
            "a leastconn service can have {MAX_LEASTCONN} backends, but this one has {}",
            backends.len()
        );
        let hint = "use balance = \"roundrobin\" (or source, hash), or split the service";
        report.missing(table.span(), message, hint);
    }
    if backends.iter().all(|placed| placed.backend.role == Role::Backup) {
        let message = "all backends of this service are backups";
        let hint = "backups serve when no active backend can; make at least one active";
        report.warning(table.span(), message, hint);
    }
    if backends.iter().all(|placed| placed.backend.weight == 0) {
        let message = "all backends of this service have weight 0: it takes no new connections";
        report.warning(table.span(), message, "set the `weight` of one to 1 or more");
    }
    if keys.maxconn.and_then(NonZeroU32::new).is_none() {
        for placed in backends {
            placed.check_queue(report);
        }
    }
}

/// Nobody is waited for where nobody is told.
fn check_synchronous(table: &Table<'_>, span: Span, has_group: bool, has_peer: bool) {
    let report = table.report();
    if !has_peer {
        sync_missing(report, span);
    } else if !has_group {
        let message = "`synchronous` does nothing here: the service is not in a group";
        let hint = "put its `bind` addresses into a [[group]], or remove `synchronous`: connections \
                    of this host alone are told to nobody";
        report.warning(Some(span), message, hint);
    }
}

/// `synchronous` stands where there is no `[sync]`.
pub(super) fn sync_missing(report: &Report<'_>, span: Span) {
    let message = "`synchronous` does nothing without [sync]: there is no peer to wait for";
    let hint = "add a [sync] section with the peer's address, or remove `synchronous`";
    report.warning(Some(span), message, hint);
}

/// The translation does not change families: all addresses of a service are of one.
fn check_families(
    table: &Table<'_>,
    bind: &[Spanned<SocketAddr>],
    sources: &[Spanned<IpAddr>],
    backends: &[PlacedBackend],
) {
    let Some(first) = bind.first() else { return };
    let ours = family(first.get_ref().ip());
    let report = table.report();
    let line = report.line(&first.span());
    let binds = bind.iter().map(|at| ("bind", at.get_ref().ip(), at.span()));
    let sources = sources.iter().map(|at| ("source", *at.get_ref(), at.span()));
    let backends = backends
        .iter()
        .filter_map(|at| Some(("address", at.address.get_ref().known()?.ip(), at.address.span())));
    for (key, address, span) in binds.chain(sources).chain(backends) {
        let theirs = family(address);
        if theirs != ours {
            let message = format!(
                "`{key}`: {address} is {theirs}, but the service bound in line {line} is {ours}"
            );
            let hint = "all addresses of a service are of one family; make two services, one for \
                        IPv4 and one for IPv6";
            report.error(span, message, hint);
        }
    }
}

fn binds(field: &Field<'_>) -> Read<Vec<Spanned<SocketAddr>>> {
    let binds: Vec<_> = field
        .items()
        .iter()
        .map(|item| {
            let bind = address::socket(item)?;
            address::forwardable(item, bind.ip())?;
            Ok(item.spanned(bind))
        })
        .collect();
    if binds.is_empty() {
        let hint = "write the virtual address and port: bind = \"10.2.2.4:3306\"";
        return Err(field.error("`bind` is empty: nobody could connect", hint));
    }
    binds.into_iter().collect()
}

fn sources(field: &Field<'_>) -> Read<Vec<Spanned<IpAddr>>> {
    let mut seen = HashSet::new();
    let items = field.items();
    let sources: Vec<_> = items
        .iter()
        .map(|item| {
            let source = address::forwardable(item, address::ip(item)?)?;
            if seen.insert(source) {
                return Ok(item.spanned(source));
            }
            Err(item.error(format!("`source` has {source} twice"), "keep one"))
        })
        .collect();
    if let Some(extra) = items.get(MAX_SOURCES) {
        let message = format!("`source` has {} addresses", items.len());
        let hint = format!("{MAX_SOURCES} are the most; remove this and what follows");
        return Err(extra.error(message, hint));
    }
    sources.into_iter().collect()
}

/// Nothing of the model: there is only one mode so far.
fn mode(field: &Field<'_>) -> Read<()> {
    if field.string()? == "http" {
        let hint = "use mode = \"tcp\": connections are balanced without looking into them";
        return Err(field.error("`mode` \"http\" is not available yet", hint));
    }
    field.choice(&[("tcp", ())])
}
