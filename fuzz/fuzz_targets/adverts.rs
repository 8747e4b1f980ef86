//! Whatever comes in by the network, the readers of adverts and of claims to addresses return.
//!
//! `cargo fuzz run adverts`, which needs a nightly compiler; or, with a stable one,
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run adverts`.
#![no_main]

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
};

use lb_daemon::{
    config::{self, Family},
    vrrp_io::{self, Claim, Envelope},
};
use libfuzzer_sys::fuzz_target;

/// One of each version, protocol and family; the last is VRRP's over IPv6.
const GROUPS: &str = r#"
[global]
node = "lb1"
interfaces = ["eth0"]

[[group]]
name = "two"
interface = "eth0"
version = 2
virtual_router_id = 51
auth_pass = "password"
virtual_ipaddress = "10.0.0.100/24"

[[group]]
name = "carp"
protocol = "carp"
interface = "eth0"
vhid = 51
pass = "password"
virtual_ipaddress = "10.0.0.102/24"

[[group]]
name = "three"
interface = "eth0"
virtual_router_id = 52
virtual_ipaddress = "10.0.0.101/24"

[[group]]
name = "six"
interface = "eth0"
virtual_router_id = 53
virtual_ipaddress = "fe80::100/64"
"#;

static CONFIG: LazyLock<config::Config> =
    LazyLock::new(|| config::parse(GROUPS, "groups").expect("it is valid").config);

const OWN: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const SENDER: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
const ROUTERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12));

fuzz_target!(|bytes: &[u8]| {
    let [v4 @ .., v6] = &CONFIG.groups[..] else { unreachable!("there are four") };
    if let Ok(packet) = vrrp_io::open_v4(bytes) {
        for group in v4 {
            let _ = vrrp_io::read(group, OWN, &packet);
        }
    }
    // A raw socket of IPv6 hands the header over beside the message.
    let envelope = Envelope { source: SENDER, destination: ROUTERS, hop_limit: 255 };
    let _ = vrrp_io::read(v6, OWN, &(envelope, bytes));
    for family in [Family::V4, Family::V6] {
        let _ = Claim::read(family, bytes);
    }
});
