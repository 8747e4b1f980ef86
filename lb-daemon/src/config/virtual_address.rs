//! `virtual_ipaddress` and `virtual_ipaddress_excluded`: the addresses of a group.

use std::net::IpAddr;

use toml::Spanned;

use super::{
    address,
    group_model::GroupAddress,
    node,
    reader::{Field, Table},
    report::{Read, Reported},
};

/// An address, and its place.
pub(super) struct PlacedAddress {
    pub(super) ip: Spanned<IpAddr>,
    prefix: u8,
    /// Where it is if not on the group's own interface.
    pub(super) interface: Option<Spanned<String>>,
    pub(super) advertised: bool,
}

impl PlacedAddress {
    /// The address of a group with this `interface`.
    pub(super) fn on(self, interface: &str) -> GroupAddress {
        GroupAddress {
            ip: self.ip.into_inner(),
            prefix: self.prefix,
            interface: self.interface.map_or_else(|| interface.to_owned(), Spanned::into_inner),
            advertised: self.advertised,
        }
    }
}

/// Reads all addresses of a group, those that are advertised first.
pub(super) fn read(table: &mut Table<'_>) -> Read<Vec<PlacedAddress>> {
    let keys = [("virtual_ipaddress", true), ("virtual_ipaddress_excluded", false)];
    let mut addresses = Vec::new();
    for (key, advertised) in keys {
        table.optional(key, |field| {
            addresses.extend(field.items().iter().map(|item| one(item, advertised)));
            Ok(())
        });
    }
    addresses.into_iter().collect()
}

fn one(field: &Field<'_>, advertised: bool) -> Read<PlacedAddress> {
    if !field.is_table() {
        let (ip, prefix) = with_prefix(field)?;
        return Ok(PlacedAddress { ip: field.spanned(ip), prefix, interface: None, advertised });
    }
    let hint = "write { address = \"10.3.3.241/24\", interface = \"eth2\" }";
    field.table("an address of the group", hint)?.read(|table| {
        let address = table.required("address", hint, |field| {
            let (ip, prefix) = with_prefix(field)?;
            Ok((field.spanned(ip), prefix))
        });
        let interface =
            table.optional("interface", |field| Ok(field.spanned(node::interface(field)?)));
        let (ip, prefix) = address?;
        Ok(PlacedAddress { ip, prefix, interface, advertised })
    })
}

/// `10.2.2.4/24`, or `10.2.2.4` for a prefix of all bits as in keepalived.
fn with_prefix(field: &Field<'_>) -> Read<(IpAddr, u8)> {
    let text = field.string()?;
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text, None),
    };
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return Err(not_an_address(field, text));
    };
    let ip = address::unicast(field, ip)?;
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let Some(prefix) = prefix else {
        return Ok((ip, bits));
    };
    match prefix.parse() {
        Ok(prefix) if (1..=bits).contains(&prefix) => Ok((ip, prefix)),
        _ if prefix.contains(char::is_whitespace) => Err(not_an_address(field, text)),
        _ => {
            let message = format!("`{}`: no prefix of {ip} has length {prefix:?}", field.key());
            let family = address::family(ip);
            Err(field.error(message, format!("prefixes of {family} have 1 to {bits} bits")))
        }
    }
}

fn not_an_address(field: &Field<'_>, text: &str) -> Reported {
    let mut words = text.split_whitespace();
    let hint = match (words.next(), words.next(), words.next()) {
        (Some(address), Some("dev"), Some(interface)) => {
            format!("write {{ address = \"{address}\", interface = \"{interface}\" }}")
        }
        _ => "write it with the length of its prefix, as in \"10.2.2.4/24\"".to_owned(),
    };
    field.error(format!("`{}` is not an address: {text:?}", field.key()), hint)
}
