//! The keys of a `[[group]]` that speaks VRRP.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use toml::Spanned;

use super::{
    address, duration,
    group_model::{Family, Vrrp, VrrpVersion},
    node,
    reader::{Field, Table},
    report::Read,
    secret::{self, Secret},
    virtual_address::PlacedAddress,
};

/// These keys, and what CARP has instead.
pub(super) const KEYS: [(&str, &str); 13] = [
    ("version", "remove it"),
    ("virtual_router_id", "CARP's identifier is `vhid`"),
    ("priority", "CARP's preference is `advskew`, the lower the better"),
    ("advert_int", "CARP's interval is `advbase`, in seconds"),
    ("family", "CARP's adverts are IPv4, whatever the addresses are; remove it"),
    ("mcast_src_ip", "remove it"),
    ("unicast_src_ip", "CARP's adverts are multicast; remove it"),
    ("unicast_peer", "CARP's adverts are multicast; remove it"),
    ("auth_type", "CARP's password is `pass`"),
    ("auth_pass", "CARP's password is `pass`"),
    ("auth_pass_file", "CARP's password is in `pass_file`"),
    ("v3_checksum_as_v2", "remove it"),
    ("use_vmac", "remove it"),
];

/// RFC 3768, section 5.3.7: an octet of seconds.
const INTERVALS_V2: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(255);
/// RFC 9568, section 5.2.7: twelve bits of centiseconds.
const INTERVALS_V3: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_millis(40_950);
/// The field of the packet, filled up with zeros (RFC 2338, section 5.3.6.1).
const PASSWORD: RangeInclusive<usize> = 1..=8;
/// The owner of the addresses.
const OWNER: u8 = 255;

/// The settings, and the place of the identifier.
pub(super) fn read(
    table: &mut Table<'_>,
    addresses: &[PlacedAddress],
) -> Read<(Vrrp, Spanned<u8>)> {
    let version = table.optional("version", version);
    let in_force = version.as_ref().map_or(VrrpVersion::V3, |version| *version.get_ref());
    let hint = "write the identifier that both hosts use: virtual_router_id = 51";
    let id = table.required("virtual_router_id", hint, |field| {
        let id = field.integer(&(1..=255), "it must be the same on both hosts")?;
        Ok(field.spanned(u8::try_from(id).expect("within its range")))
    });
    let priority = table.optional("priority", priority);
    let advert_int = table.optional("advert_int", |field| interval(field, in_force));
    let explicit = table
        .optional("family", |field| field.choice(&[("ipv4", Family::V4), ("ipv6", Family::V6)]));
    let source = source(table);
    let peers = table.optional("unicast_peer", peers).unwrap_or_default();
    let secret = password(table, in_force);
    let as_v2 = table.optional("v3_checksum_as_v2", Field::boolean);
    let vmac = table.optional("use_vmac", vmac).flatten();

    if let (Some(vmac), false) = (&vmac, peers.is_empty()) {
        let message = "there is `use_vmac`, but adverts go to each `unicast_peer`";
        let hint =
            "switches learn from multicast adverts where the virtual MAC address is; remove one";
        table.report().error(vmac.span(), message, hint);
    }
    check_source(table, source.as_ref(), &peers);
    let advertised: Vec<_> =
        addresses.iter().filter(|at| at.advertised).map(|at| at.ip.clone()).collect();
    check_room(table, &advertised);
    let source = source.map(|(_, source)| source);
    let all = || advertised.iter().chain(&source).chain(&peers);
    let first = all().next().map(|first| family(*first.get_ref()));
    let family = explicit.or(first).unwrap_or(Family::V4);
    check_family(table, family, all());
    check_own(table, addresses, source.iter().chain(&peers));
    if family == Family::V6 && in_force == VrrpVersion::V2 {
        let place = version.as_ref().map(Spanned::span);
        let message = "version 2 of VRRP is of IPv4 only, but this group's family is IPv6";
        table.report().error(place.unwrap_or_default(), message, "write version = 3");
    }

    let id = id?;
    let (auth_pass, auth_pass_file) =
        secret.map_or((None, None), |secret| (Some(secret.text), secret.file));
    let vrrp = Vrrp {
        version: in_force,
        virtual_router_id: *id.get_ref(),
        priority: priority.unwrap_or(100),
        advert_int: advert_int.unwrap_or(Duration::from_secs(1)),
        family,
        source: source.map(Spanned::into_inner),
        unicast_peers: peers.into_iter().map(Spanned::into_inner).collect(),
        auth_pass,
        auth_pass_file,
        pseudo_header: !as_v2.unwrap_or(false),
        vmac: vmac.map(|name| {
            let usual = || {
                let of = if family == Family::V6 { "6" } else { "" };
                format!("vrrp{of}.{}", id.get_ref())
            };
            name.into_inner().unwrap_or_else(usual)
        }),
    };
    Ok((vrrp, id))
}

/// The name of the interface with the virtual MAC address, if there shall be one: the usual one, or
/// another.
fn vmac(field: &Field<'_>) -> Read<Option<Spanned<Option<String>>>> {
    if field.as_text().is_some() {
        return Ok(Some(field.spanned(Some(node::interface(field)?))));
    }
    Ok(field.boolean()?.then(|| field.spanned(None)))
}

fn version(field: &Field<'_>) -> Read<Spanned<VrrpVersion>> {
    let number =
        field.integer(&(2..=3), "3 is RFC 9568, 2 is RFC 3768 and keepalived's default")?;
    Ok(field.spanned(if number == 2 { VrrpVersion::V2 } else { VrrpVersion::V3 }))
}

fn priority(field: &Field<'_>) -> Read<u8> {
    let priority = field.integer(&(1..=255), "the host with the highest is master")?;
    let priority = u8::try_from(priority).expect("within its range");
    if priority == OWNER {
        let message = "`priority` 255 is for the host that owns the addresses";
        let hint = "that host takes them at once, whatever `preempt` and tracking say; write 254 \
                    if they are to move";
        field.report().warning(Some(field.span()), message, hint);
    }
    Ok(priority)
}

fn interval(field: &Field<'_>, version: VrrpVersion) -> Read<Duration> {
    let (range, step, what) = match version {
        VrrpVersion::V2 => (INTERVALS_V2, 1_000, "version 2 of VRRP has whole seconds, 1 to 255"),
        VrrpVersion::V3 => {
            (INTERVALS_V3, 10, "version 3 of VRRP has hundredths of a second, 1 to 4095")
        }
    };
    let interval = duration::with_unit(field, &duration::CHECK)?;
    let steps = u64::try_from(interval.as_millis()).expect("20 days are few") / step;
    let nearest = Duration::from_millis(steps * step).clamp(*range.start(), *range.end());
    if interval == nearest {
        return Ok(interval);
    }
    let message = format!("`advert_int` can't be {}: {what}", field.source());
    Err(field.error(message, format!("the nearest is \"{}\"", duration::format(nearest))))
}

/// Where adverts come from, and which of the two keys said so.
fn source(table: &mut Table<'_>) -> Option<(&'static str, Spanned<IpAddr>)> {
    let [multicast, unicast] = ["mcast_src_ip", "unicast_src_ip"].map(|key| {
        let address = table.optional(key, |field| {
            Ok(field.spanned(address::unicast(field, address::ip(field)?)?))
        });
        address.map(|address| (key, address))
    });
    if let (Some(_), Some((_, second))) = (&multicast, &unicast) {
        let message = "there are both `mcast_src_ip` and `unicast_src_ip`";
        let hint = "keep `unicast_src_ip` if there is a `unicast_peer`, else `mcast_src_ip`";
        table.report().error(second.span(), message, hint);
    }
    unicast.or(multicast)
}

fn peers(field: &Field<'_>) -> Read<Vec<Spanned<IpAddr>>> {
    let mut peers: Vec<Spanned<IpAddr>> = Vec::new();
    let mut failed = Ok(());
    for item in field.items() {
        match address::ip(&item).and_then(|peer| address::unicast(&item, peer)) {
            Ok(peer) if peers.iter().any(|other| *other.get_ref() == peer) => {
                failed = Err(item.error(format!("`unicast_peer` has {peer} twice"), "keep one"));
            }
            Ok(peer) => peers.push(item.spanned(peer)),
            Err(reported) => failed = Err(reported),
        }
    }
    failed.map(|()| peers)
}

fn password(table: &mut Table<'_>, version: VrrpVersion) -> Option<Secret> {
    table.optional("auth_type", |field| field.choice(&[("PASS", ())]));
    let hint = "it has 1 to 8 bytes; keepalived uses the first eight of a longer one";
    let secret =
        secret::read(table, ["auth_pass", "auth_pass_file"], &PASSWORD, hint).ok().flatten()?;
    if version == VrrpVersion::V3 {
        let message = "version 3 of VRRP has no passwords: RFC 9568 removed authentication";
        let hint = "remove it, or write version = 2 (keepalived's default) on all hosts";
        table.report().error(secret.span(), message, hint);
    }
    Some(secret.into_inner())
}

fn check_source(
    table: &Table<'_>,
    source: Option<&(&'static str, Spanned<IpAddr>)>,
    peers: &[Spanned<IpAddr>],
) {
    let Some((key, source)) = source else { return };
    let report = table.report();
    if let Some(peer) = peers.iter().find(|peer| peer.get_ref() == source.get_ref()) {
        let message = format!("`unicast_peer` has {}, this host's own address", peer.get_ref());
        report.error(peer.span(), message, "write the address of the other host");
    }
    let there = table.present().contains(&"unicast_peer");
    if *key == "unicast_src_ip" && !there {
        let message = "there is `unicast_src_ip`, but no `unicast_peer`";
        let hint = "write unicast_peer = [\"10.0.1.190\"], the other host's address; or \
                    `mcast_src_ip` for multicast";
        report.error(source.span(), message, hint);
    }
    if *key == "mcast_src_ip" && there {
        let message = "there is `mcast_src_ip`, but adverts go to each `unicast_peer`";
        report.error(source.span(), message, "call it `unicast_src_ip`");
    }
    let link_local = matches!(source.get_ref(), IpAddr::V6(v6) if address::is_link_local(*v6));
    if *key == "mcast_src_ip" && source.get_ref().is_ipv6() && !link_local {
        let message = format!("`mcast_src_ip`: {} is not link-local", source.get_ref());
        let hint = "RFC 9568 wants the interface's link-local address (fe80::/10) there";
        report.error(source.span(), message, hint);
    }
}

/// How many addresses an advert can list: an octet counts them, and it goes in one packet of 1500
/// bytes, with 40 of IPv6's header and 8 of its own.
fn check_room(table: &Table<'_>, advertised: &[Spanned<IpAddr>]) {
    let v6 = advertised.first().is_some_and(|first| first.get_ref().is_ipv6());
    let most = if v6 { (1500 - 40 - 8) / 16 } else { 255 };
    if let Some(extra) = advertised.get(most) {
        let message = format!("an advert has room for {most} addresses, not {}", advertised.len());
        let hint = "move this and what follows into `virtual_ipaddress_excluded`";
        table.report().error(extra.span(), message, hint);
    }
}

fn check_family<'s>(
    table: &Table<'_>,
    ours: Family,
    addresses: impl Iterator<Item = &'s Spanned<IpAddr>>,
) {
    let name = match ours {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    for address in addresses.filter(|address| family(*address.get_ref()) != ours) {
        let theirs = address::family(*address.get_ref());
        let message =
            format!("{} is {theirs}, but the group's adverts are {name}", address.get_ref());
        let hint = "what adverts list, and between whom they go, is of one family; addresses of \
                    the other go into `virtual_ipaddress_excluded`, or into a group of their own";
        table.report().error(address.span(), message, hint);
    }
}

/// What moves can't be a host's own.
fn check_own<'s>(
    table: &Table<'_>,
    addresses: &[PlacedAddress],
    hosts: impl Iterator<Item = &'s Spanned<IpAddr>>,
) {
    for host in hosts {
        if let Some(address) = addresses.iter().find(|at| at.ip.get_ref() == host.get_ref()) {
            let line = table.report().line(&address.ip.span());
            let message = format!("{} is one of the addresses that move", host.get_ref());
            let hint = format!("write a host's own address; the group has this one in line {line}");
            table.report().error(host.span(), message, hint);
        }
    }
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}
