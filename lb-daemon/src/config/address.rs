//! Addresses: `10.2.2.4:3306`, `[fd00::4]:3306`, and which of them a packet can be sent to.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{reader::Field, report::Read};

/// Reads an address with a port other than zero.
pub(super) fn socket(field: &Field<'_>) -> Read<SocketAddr> {
    let key = field.key();
    let text = text(field, "10.2.2.4:3306")?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        let (message, hint) = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => {
                ("has no port", format!("write it behind a colon: \"{text}:PORT\""))
            }
            Ok(IpAddr::V6(_)) => {
                let hint = format!("IPv6 goes in brackets before the port: \"[{text}]:PORT\"");
                ("has no port", hint)
            }
            Err(_) => ("is not an address with a port", not_a_socket(text)),
        };
        return Err(field.error(format!("`{key}` {message}: {text:?}"), hint));
    };
    if address.port() == 0 {
        let hint = "write the port behind the address, 1 to 65535";
        return Err(field.error(format!("`{key}` has port 0: {text:?}"), hint));
    }
    // The zone of an IPv6 address is its interface; routes decide on interfaces here.
    if text.contains('%') {
        let hint = "leave the part from `%` to `]` out; the route decides on the interface";
        return Err(field.error(format!("`{key}` has a zone: {text:?}"), hint));
    }
    Ok(SocketAddr::new(address.ip(), address.port()))
}

fn not_a_socket(text: &str) -> String {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    if text.contains('/') {
        return "leave the prefix length out: an address and a port, as in \"10.2.2.4:3306\""
            .into();
    }
    if host.is_empty() || host == "*" {
        return "write the address before the port, as in \"10.2.2.4:3306\"".into();
    }
    if host.parse::<IpAddr>().is_ok() {
        return "the port must be a number, 1 to 65535".into();
    }
    if host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':') {
        return "write the IP address: only backends may be host names".into();
    }
    "write it as \"10.2.2.4:3306\" or \"[fd00::4]:3306\"".into()
}

/// Reads an address without a port.
pub(super) fn ip(field: &Field<'_>) -> Read<IpAddr> {
    let text = text(field, "10.3.3.241")?;
    text.parse().map_err(|_| {
        let hint = if text.parse::<SocketAddr>().is_ok() {
            "leave the port out here"
        } else if text.contains('/') {
            "leave the prefix length out"
        } else {
            "write it as \"10.3.3.241\" or \"fd00::241\""
        };
        field.error(format!("`{}` is not an address: {text:?}", field.key()), hint)
    })
}

fn text<'a>(field: &Field<'a>, example: &str) -> Read<&'a str> {
    field.as_text().ok_or_else(|| {
        let message = format!("`{}` is not an address: {}", field.key(), field.source());
        field.error(message, format!("write it in quotes, as in \"{example}\""))
    })
}

/// Refuses addresses that no packet can be forwarded to or from.
pub(super) fn forwardable(field: &Field<'_>, address: IpAddr) -> Read<IpAddr> {
    if matches!(address, IpAddr::V6(v6) if is_link_local(v6)) {
        let message = format!("`{}`: {address} is a link-local address", field.key());
        let hint = "it means something else on every link; use a global or unique local address \
                    (fd00::/8)";
        return Err(field.error(message, hint));
    }
    unicast(field, address)
}

/// Refuses addresses that no interface could have on a network.
pub(super) fn unicast(field: &Field<'_>, address: IpAddr) -> Read<IpAddr> {
    let (what, hint) = match address {
        _ if address.is_unspecified() => {
            ("means any address", "name the one address that is meant")
        }
        _ if address.is_multicast() => ("is a multicast address", "TCP needs a unicast address"),
        _ if address.is_loopback() => (
            "is a loopback address",
            "packets are forwarded on the wire, which loopback never reaches; use an address of \
             the network",
        ),
        IpAddr::V4(v4) if v4.is_broadcast() => {
            ("is the broadcast address", "TCP needs a unicast address")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            ("is IPv4 written as IPv6", "write it the IPv4 way, as in \"10.2.2.4\"")
        }
        _ => return Ok(address),
    };
    Err(field.error(format!("`{}`: {address} {what}", field.key()), hint))
}

/// Whether packets can be forwarded to an address, as far as that alone tells.
pub fn is_forwardable(address: IpAddr) -> bool {
    let is_odd = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => is_link_local(v6) || v6.to_ipv4_mapped().is_some(),
    };
    !is_odd && !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

/// Refuses addresses that nobody can connect to.
pub(super) fn reachable(field: &Field<'_>, address: IpAddr) -> Read<IpAddr> {
    if address.is_loopback() { Ok(address) } else { forwardable(field, address) }
}

/// `fe80::/10` (RFC 4291, section 2.5.6).
pub(super) fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// The name of an address's family.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
