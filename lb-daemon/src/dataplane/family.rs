//! The two address families as the user side sees them: types and map names.

use std::net::{IpAddr, SocketAddr};

use lb_common::addr::{Address, Port, V4, V6};

/// An address family.
pub(super) trait Family: Address + aya::Pod + std::hash::Hash + Ord + Send + Sync {
    const NAME: &'static str;
    const FLOWS: &'static str;
    const HALF_OPEN: &'static str;
    const SERVICES: &'static str;
    const VIRTUAL_ADDRESSES: &'static str;
    const BACKENDS: &'static str;
    const REAP: &'static str;
    const ADOPT: &'static str;
    const TABLE: u32;

    /// The address and port in this family, or nothing if they belong to the other.
    fn split(address: SocketAddr) -> Option<(Self, Port)> {
        Some((Self::from_ip(address.ip())?, Port::new(address.port())))
    }
}

impl Family for V4 {
    const NAME: &'static str = "ipv4";
    const FLOWS: &'static str = "FLOWS_V4";
    const HALF_OPEN: &'static str = "HALF_OPEN_V4";
    const SERVICES: &'static str = "SERVICES_V4";
    const VIRTUAL_ADDRESSES: &'static str = "VIRTUAL_ADDRESSES_V4";
    const BACKENDS: &'static str = "BACKENDS_V4";
    const REAP: &'static str = "reap_v4";
    const ADOPT: &'static str = "adopt_v4";
    const TABLE: u32 = lb_common::maps::TABLE_V4;
}

impl Family for V6 {
    const NAME: &'static str = "ipv6";
    const FLOWS: &'static str = "FLOWS_V6";
    const HALF_OPEN: &'static str = "HALF_OPEN_V6";
    const SERVICES: &'static str = "SERVICES_V6";
    const VIRTUAL_ADDRESSES: &'static str = "VIRTUAL_ADDRESSES_V6";
    const BACKENDS: &'static str = "BACKENDS_V6";
    const REAP: &'static str = "reap_v6";
    const ADOPT: &'static str = "adopt_v6";
    const TABLE: u32 = lb_common::maps::TABLE_V6;
}

/// The address and port as the rest of the daemon writes them.
pub(super) fn join<A: Address>(address: A, port: Port) -> SocketAddr {
    let ip: IpAddr = address.to_ip();
    SocketAddr::new(ip, port.get())
}
