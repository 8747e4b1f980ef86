//! The configuration file: TOML in, a typed and validated [`Config`] out.
//!
//! ```text
//! text ─► toml ─► syntax errors ───────────────────────────┐
//!           └───► reader ─► node, service, backend, check ─┼─► report ─► Diagnostics
//!                       └─► group, vrrp, carp, sync, ...  ─┤
//!                                └─► ledgers (conflicts) ──┘
//! ```
//!
//! An operator gets every error at once. Therefore the document is not deserialised, which would
//! end at the first error, but walked: the parts of the file each have a module that asks a
//! `reader` for the keys they know, and every error is noted in the `report` with its place.
//! docs/configuration.md is the reference of all keys.

use std::{path::Path, sync::Arc};

use toml::de::DeTable;

mod address;
mod agent;
mod backend;
mod carp;
mod check;
mod check_model;
mod check_to_toml;
mod command;
mod diagnostic;
mod duration;
mod endpoint;
mod external_check;
mod group;
mod group_ledger;
mod group_model;
mod group_to_toml;
mod http_check;
mod ledger;
mod model;
mod mysql_check;
mod mysql_model;
mod mysql_to_toml;
mod names;
mod node;
mod observe;
mod pattern;
mod ports;
mod reader;
mod report;
mod script;
mod secret;
mod secret_places;
mod service;
mod suggest;
mod sync;
mod syntax;
mod tcp_check;
mod tls;
mod tls_model;
mod tls_verifier;
mod to_toml;
mod track;
mod virtual_address;
mod vrrp;

pub use address::is_forwardable;
pub use check_model::{
    Check, CheckKind, ExternalCheck, HttpCheck, HttpExpect, HttpSubject, HttpVersion, Pattern,
    StatusRange, TcpAction, TcpConnect, TcpExpect, TcpStep,
};
pub use diagnostic::{Diagnostic, Diagnostics, Excerpt, Position, Severity};
pub use duration::parse as parse_duration;
pub use group_model::{
    Announce, Carp, Family, Group, GroupAddress, Hooks, Process, Protocol, Script, Track, Tracked,
    Vrrp, VrrpVersion,
};
pub use model::{
    Admin, AgentCheck, Backend, Balance, Config, Global, Limits, Log, LogFormat, MAX_GROUPS,
    Observe, OnError, OnMarkedDown, Peer, Role, Service, Timeouts, XdpMode,
};
pub use mysql_model::{MysqlCheck, MysqlExpect, MysqlLogin, MysqlQuestion, Password};
pub use ports::own_ports;
pub use secret::{SecretFile, read_line as read_secret};
pub(crate) use suggest::nearest;
pub use tls_model::{Authorities, Tls};

use group_ledger::GroupLedger;
use ledger::Ledger;
use reader::Table;
use report::{Read, Report};

/// A usable configuration file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub config: Config,
    /// What it says but probably does not mean, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Reads the configuration file at `path`.
///
/// # Errors
///
/// Everything that is wrong with the file; also that it can't be read or is not UTF-8.
pub fn load(path: &Path) -> Result<Parsed, Diagnostics> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        let hint = "check that the file exists and that this user may read it";
        Diagnostics::unreadable(&file, format!("the file can't be read: {error}"), hint)
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, &file),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line =
                error.as_bytes().iter().take(valid).filter(|&&byte| byte == b'\n').count() + 1;
            let message = format!("the file is not UTF-8: line {line} has a byte that is no text");
            let hint = "save it as UTF-8; a compressed or encrypted file must be unpacked first";
            Err(Diagnostics::unreadable(&file, message, hint))
        }
    }
}

/// Reads a configuration from `text`; diagnostics call it `file`.
///
/// `global.node` is this host's name if the text does not set it, and passwords are read from the
/// files it names; nothing else depends on anything but the text.
///
/// # Errors
///
/// Everything that is wrong with the text.
pub fn parse(text: &str, file: &str) -> Result<Parsed, Diagnostics> {
    let report = Report::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    syntax::report(&report, text, document.get_ref(), &errors);
    let config = read(document.get_ref(), &report);

    match (config, report.finish()) {
        (Ok(config), (false, warnings)) => Ok(Parsed { config, warnings }),
        (_, (_, found)) => Err(Diagnostics::new(file, found)),
    }
}

fn read(document: &DeTable<'_>, report: &Report<'_>) -> Read<Config> {
    Table::root(document, report).read(|root| {
        let global = node::global(root);
        let (admin, metrics) = node::admin(root);
        let log = node::log(root);
        let defaults = service::defaults(root);

        let interfaces = global.as_ref().ok().map(|global| global.interfaces.as_slice());
        let mut pair = GroupLedger::new(report, interfaces);
        let scripts = script::scripts(root, &mut pair.scripts);
        let processes = script::processes(root, &mut pair.processes);
        let groups = group::all(root, &mut pair);
        let ports = global.as_ref().ok().map(|global| &global.source_ports);
        let sync = sync::read(root, &pair, metrics.as_ref(), ports);

        // What is wrong with [sync] has been said.
        let has_peer = sync.as_ref().map_or(true, Option::is_some);
        if let Some(span) = defaults.synchronous().filter(|_| !has_peer) {
            service::sync_missing(report, span);
        }

        let mut ledger = Ledger::new(report);
        let tables = root.tables("service", "[[service]]")?;
        if tables.is_empty() {
            let hint = "add a [[service]] with name, bind and a [[service.backend]]";
            report.warning(None, "there are no services: nothing will be balanced", hint);
        }
        let services: Vec<_> = tables
            .into_iter()
            .map(|table| {
                service::read(table, &defaults, &mut ledger, &pair, has_peer).map(Arc::new)
            })
            .collect();
        let listen = sync.as_ref().ok().and_then(|sync| sync.as_ref().map(|(_, listen)| listen));
        let mut names = ledger.close([("metrics", metrics.as_ref()), ("listen", listen)]);
        pair.close(&mut names, groups.is_ok());

        Ok(Config {
            global: global?,
            admin,
            log,
            sync: sync?.map(|(peer, _)| peer),
            groups: groups?,
            scripts: scripts?,
            processes: processes?,
            services: services.into_iter().collect::<Read<_>>()?,
        })
    })
}
