//! A client, a balancer's place, a server, and a cable past the balancer.
//!
//! ```text
//! client 10.1.0.10 ──── 10.1.0.1 balancer 10.2.0.1 ──── 10.2.0.11 server
//!   └─── 10.3.0.10 ───────────────────────────────────── 10.3.0.11 ──┘
//! ```
//!
//! The client is every address of 10.8.0.0/16 by way of the balancer and of 10.9.0.0/16 by the
//! cable, so that it never runs out of ports.

use anyhow::Result;
use lb_common::addr::Mac;

use crate::lab::{Dir, Interface, Namespace, veth};

/// The hosts.
pub(super) struct Hosts {
    pub(super) dir: Dir,
    pub(super) client: Namespace,
    pub(super) balancer: Namespace,
    pub(super) server: Namespace,
}

/// The balancer's interface towards the client.
pub(super) const FRONT: &str = "front";
/// The balancer's interface towards the server.
pub(super) const BACK: &str = "back";

impl Hosts {
    pub(super) fn new() -> Result<Self> {
        let dir = Dir::new()?;
        let client = Namespace::new("client", &dir)?;
        let balancer = Namespace::new("balancer", &dir)?;
        let server = Namespace::new("server", &dir)?;

        let (to_balancer, front) = veth((&client, "eth0"), (&balancer, FRONT))?;
        let (to_server, past) = veth((&client, "cable"), (&server, "cable"))?;
        let (back, home) = veth((&balancer, BACK), (&server, "eth0"))?;
        let addresses = [
            (&to_balancer, "10.1.0.10/24"),
            (&front, "10.1.0.1/24"),
            (&front, "10.1.0.100/32"),
            (&back, "10.2.0.1/24"),
            (&home, "10.2.0.11/24"),
            (&to_server, "10.3.0.10/24"),
            (&past, "10.3.0.11/24"),
        ];
        for (interface, address) in addresses {
            interface.address(address)?;
        }
        for network in ["10.8.0.0/16", "10.9.0.0/16"] {
            client.ip(&format!("route add local {network} dev lo"))?;
        }
        client.ip("route add 10.2.0.0/24 via 10.1.0.1")?;
        balancer.ip("route add 10.8.0.0/16 via 10.1.0.10")?;
        server.ip("route add 10.8.0.0/16 via 10.2.0.1")?;
        server.ip("route add 10.9.0.0/16 via 10.3.0.10")?;
        server.ip("route add 10.1.0.0/24 via 10.2.0.1")?;
        for host in [&client, &balancer] {
            host.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
            host.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
        }
        balancer.sysctl("net.ipv4.ip_forward", "1")?;
        Ok(Self { dir, client, balancer, server })
    }

    /// The addresses of a frame from the balancer to the server.
    pub(super) fn last_hop(&self) -> Result<(Mac, Mac)> {
        let back = Interface::new(&self.balancer, BACK).mac()?;
        let home = Interface::new(&self.server, "eth0").mac()?;
        Ok((mac(&back)?, mac(&home)?))
    }
}

fn mac(text: &str) -> Result<Mac> {
    let mut bytes = [0; 6];
    for (byte, digits) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16)?;
    }
    Ok(Mac(bytes))
}
