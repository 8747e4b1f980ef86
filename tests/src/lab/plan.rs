//! The address plan of the labs.
//!
//! Everything has an IPv4 and an IPv6 address, `10.x.0.h` and `fd00:x::h`, with the same network
//! `x` and host `h` in both:
//!
//! | x | network | hosts |
//! |---|---|---|
//! | 1 | before the balancer | 1 balancer, 2 and 3 a pair of them, 10 client, 100 and up virtual addresses, 254 router |
//! | 2 | behind the balancer | 1 balancer, 2 and 3 a pair of them, 11 and up backends, 100 the pair's virtual address, 240 and up further addresses of the balancer, 250 nobody, 254 router |
//! | 3 | the client's, if routed | 10 client, 254 router |
//! | 4 | the backends', if routed | 11 and up backends, 250 nobody, 254 router |
//! | 5 | between the two balancers of a pair, without the others | 2 and 3 |
//! | 8 | a crowd: every address is the client's as well, to be many clients | |
//! | 9 | nowhere: routed to the client, who drops it, to be a client that never answers | |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{Interface, Namespace};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

pub(super) const BEFORE: u8 = 1;
pub(super) const BEHIND: u8 = 2;
pub(super) const CLIENT_NET: u8 = 3;
pub(super) const BACKEND_NET: u8 = 4;
/// Between the hosts of a pair.
pub(super) const BETWEEN: u8 = 5;
pub(super) const CROWD: u8 = 8;
pub(super) const NOWHERE: u8 = 9;

pub(super) const BALANCER: u8 = 1;
/// The hosts of a pair.
pub(super) const PAIR: [u8; 2] = [2, 3];
pub(super) const CLIENT: u8 = 10;
/// The backends follow.
pub(super) const BEFORE_BACKENDS: u8 = 10;
pub(super) const VIRTUAL: u8 = 100;
/// The balancer's further source addresses; there is room for 10.
pub(super) const SOURCES: u8 = 240;
pub(super) const NOBODY: u8 = 250;
pub(super) const ROUTER: u8 = 254;

impl Family {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn address(self, net: u8, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, net, 0, host).into(),
            // Read in decimal on both sides: fd00:2::11 belongs to 10.2.0.11.
            Self::V6 => format!("fd00:{net}::{host}").parse().expect("decimal digits are valid"),
        }
    }

    pub(super) fn many(self, net: u8, number: u16) -> IpAddr {
        match self {
            Self::V4 => {
                let [high, low] = number.to_be_bytes();
                Ipv4Addr::new(10, net, high, low).into()
            }
            Self::V6 => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, number).into(),
        }
    }

    pub(super) fn network(self, net: u8) -> String {
        match self {
            Self::V4 if net >= CROWD => format!("10.{net}.0.0/16"),
            Self::V4 => format!("10.{net}.0.0/24"),
            Self::V6 => format!("fd00:{net}::/64"),
        }
    }

    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

pub(super) fn add(interface: &Interface, net: u8, host: u8) -> Result<()> {
    interface.address(&format!("{}/24", Family::V4.address(net, host)))?;
    interface.address(&format!("{}/64", Family::V6.address(net, host)))
}

pub(super) fn forward(namespace: &Namespace, on: bool) -> Result<()> {
    let value = if on { "1" } else { "0" };
    namespace.sysctl("net.ipv4.ip_forward", value)?;
    namespace.sysctl("net.ipv6.conf.all.forwarding", value)
}

/// Routes `to` (a network of one family, or `default` for both) by way of a host.
pub(super) fn route(namespace: &Namespace, to: &str, net: u8, via: u8) -> Result<()> {
    for family in Family::BOTH {
        let concerned = to == "default" || to.contains(':') == (family == Family::V6);
        if concerned {
            let via = family.address(net, via);
            namespace.ip(&format!("{} route add {to} via {via}", family.flag()))?;
        }
    }
    Ok(())
}

pub(super) fn mac(net: u8, host: u8) -> String {
    format!("02:00:00:00:{net:02}:{host:02x}")
}
