//! `[sync]`: the other host of the pair, which is told of connections and tells of its own.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use toml::Spanned;

use super::{
    address::{self, family},
    duration,
    group_ledger::GroupLedger,
    model::Peer,
    reader::{Field, Table},
    report::Read,
    secret,
};

/// No fewer than the cipher's key has.
const KEY: RangeInclusive<usize> = 32..=1024;
const WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const GRACES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// Translated connections to one backend by one `source`: fewer are soon used up.
const FEW_PORTS: usize = 1024;

/// The other host, and the place of this one's address to compare it with the services'.
pub(super) type PlacedPeer = (Arc<Peer>, Spanned<SocketAddr>);

/// `[sync]`, if it is there; `ports` are those of `[global]`, nothing if they could not be read.
pub(super) fn read(
    root: &mut Table<'_>,
    groups: &GroupLedger<'_>,
    metrics: Option<&Spanned<SocketAddr>>,
    ports: Option<&RangeInclusive<u16>>,
) -> Read<Option<PlacedPeer>> {
    let table = root.table("sync", "[sync]");
    if table.span().is_none() {
        return Ok(None);
    }
    table.read(|table| {
        let hint = "write an address of this host that does not move, and a port: listen = \
                    \"10.0.0.1:7000\"";
        let listen = table.required("listen", hint, |field| own(field, groups));
        let hint = "write the other host's `listen`: peer = \"10.0.0.2:7000\"";
        let peer = table.required("peer", hint, |field| own(field, groups));
        let key = key(table);
        let preempt_wait =
            table.optional("preempt_wait", |field| duration::with_unit_or_zero(field, &WAITS));
        let grace = table.optional("grace", |field| duration::with_unit_or_zero(field, &GRACES));

        if let (Ok(listen), Ok(peer)) = (&listen, &peer) {
            check_two_hosts(table, listen, peer);
        }
        if let (Ok(listen), Some(metrics)) = (&listen, metrics) {
            check_metrics(table, listen, metrics);
        }
        if groups.is_empty() {
            let message = "there is no [[group]], so there is nothing to tell the other host";
            let hint = "connections are told of if their service is bound to an address of a \
                        group; add one, or remove [sync]";
            table.report().warning(table.span(), message, hint);
        }
        if let Some(ports) = ports {
            check_ports(table, ports);
        }

        let (listen, peer, key) = (listen?, peer?, key?);
        let peer = Peer {
            listen: *listen.get_ref(),
            peer: peer.into_inner(),
            key: key.text,
            key_file: key.file,
            preempt_wait: preempt_wait.unwrap_or(Duration::from_secs(60)),
            grace: grace.unwrap_or(Duration::from_secs(5)),
        };
        Ok(Some((Arc::new(peer), listen)))
    })
}

/// An address that a host has for itself, whoever holds the groups.
fn own(field: &Field<'_>, groups: &GroupLedger<'_>) -> Read<Spanned<SocketAddr>> {
    let address = address::socket(field)?;
    address::forwardable(field, address.ip())?;
    if let Some(line) = groups.line_of(address.ip()) {
        let message =
            format!("`{}` is an address that moves with a group: {}", field.key(), address.ip());
        let hint =
            format!("write one that its host always has; the group in line {line} has this one");
        return Err(field.error(message, hint));
    }
    Ok(field.spanned(address))
}

fn key(table: &mut Table<'_>) -> Read<secret::Secret> {
    let hint = "it has 32 to 1024 bytes, the same on both hosts: `openssl rand -hex 32 > \
                /etc/tandem/sync.key` makes one";
    if let Some(secret) = secret::read(table, ["key", "key_file"], &KEY, hint)? {
        return Ok(secret.into_inner());
    }
    let message = "`key_file` is missing in [sync]";
    let hint = "write key_file = \"/etc/tandem/sync.key\"; `openssl rand -hex 32 > \
                /etc/tandem/sync.key` makes one, and both hosts have the same";
    Err(table.missing(message, hint))
}

fn check_two_hosts(table: &Table<'_>, listen: &Spanned<SocketAddr>, peer: &Spanned<SocketAddr>) {
    let (ours, theirs) = (listen.get_ref().ip(), peer.get_ref().ip());
    let report = table.report();
    if ours == theirs {
        let message = format!("`peer` is this host's own address: {theirs}");
        let hint = format!(
            "write the address of the other host; this one's is in line {}",
            report.line(&listen.span())
        );
        report.error(peer.span(), message, hint);
    } else if family(ours) != family(theirs) {
        let message = format!(
            "`peer`: {theirs} is {}, but `listen` in line {} is {}",
            family(theirs),
            report.line(&listen.span()),
            family(ours)
        );
        report.error(peer.span(), message, "both are of one family, as one calls the other");
    }
}

fn check_metrics(table: &Table<'_>, listen: &Spanned<SocketAddr>, metrics: &Spanned<SocketAddr>) {
    let (ours, theirs) = (listen.get_ref(), metrics.get_ref());
    // IPv6's "any address" is IPv4's, too, unless the system was told otherwise.
    let any = match theirs.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && ours.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    if ours.port() == theirs.port() && (any || ours.ip() == theirs.ip()) {
        let report = table.report();
        let message = format!("`listen` is the address of the metrics: {ours}");
        let hint =
            format!("use another port; `metrics` is in line {}", report.line(&metrics.span()));
        report.error(listen.span(), message, hint);
    }
}

fn check_ports(table: &Table<'_>, ports: &RangeInclusive<u16>) {
    let half = ports.len() / 2;
    if half < FEW_PORTS {
        let message = format!(
            "each host has {half} ports for new connections: half of `source_ports`, which is \
             {}-{}",
            ports.start(),
            ports.end()
        );
        let hint = "each backend can have so many connections by one `source` address; make \
                    `source_ports` of [global] larger, on both hosts";
        table.report().warning(table.span(), message, hint);
    }
}
