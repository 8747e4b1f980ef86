//! Where a backend is: `10.4.4.10:3306`, `db1.example.org:3306`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{address, reader::Field, report::Read};

/// An address or a host name, with a port other than zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Endpoint {
    Address(SocketAddr),
    Host(String, u16),
}

/// Longest name of a host, and longest part of one between dots (RFC 1035, section 2.3.4).
const LONGEST: (usize, usize) = (253, 63);

impl Endpoint {
    /// Reads one that packets can be forwarded to, as far as is known.
    pub(super) fn read(field: &Field<'_>) -> Read<Self> {
        if let Some(text) = field.as_text().filter(|text| is_meant_as_name(text)) {
            return Self::host(text).ok_or_else(|| {
                let message = format!("`{}` is not a host name with a port: {text:?}", field.key());
                let hint = if is_nearly_an_address(before_port(text)) {
                    "the part behind the last dot of a name begins with a letter; if an address is \
                     meant, write it as \"10.4.4.10:3306\""
                } else {
                    "write the port behind a colon, as in \"db1.example.org:3306\"; names have \
                     letters, digits, hyphens and dots"
                };
                field.error(message, hint)
            });
        }
        let address = address::socket(field)?;
        address::forwardable(field, address.ip())?;
        Ok(Self::Address(address))
    }

    fn host(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        is_host(host).then(|| Self::Host(host.to_owned(), port))
    }

    /// Its address; of a host, an unspecified one.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Address(address) => *address,
            Self::Host(_, port) => (Ipv4Addr::UNSPECIFIED, *port).into(),
        }
    }

    /// The host's name, if it has one.
    pub(super) fn host_name(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Host(name, _) => Some(name),
        }
    }

    /// Its address, unless that is not known yet.
    pub(super) fn known(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Host(..) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// What has a letter before the port, and is no address of IPv6.
fn is_meant_as_name(text: &str) -> bool {
    let host = before_port(text);
    host.contains(|c: char| c.is_ascii_alphabetic())
        && !host.contains([':', '/'])
        && text.parse::<IpAddr>().is_err()
}

fn before_port(text: &str) -> &str {
    text.rsplit_once(':').map_or(text, |(host, _)| host)
}

/// Whether the last of its labels begins with a digit, as in an address with a letter O for a zero. No
/// top-level domain does.
fn is_nearly_an_address(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit_once('.').is_some_and(|(_, last)| last.starts_with(|c: char| c.is_ascii_digit()))
}

fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LONGEST.1).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= LONGEST.0 && name.split('.').all(is_label) && !is_nearly_an_address(name)
}
