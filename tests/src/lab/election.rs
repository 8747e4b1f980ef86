//! What two hosts of a [`Pair`] are told about the addresses they share.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use super::{Family, Pair};

/// A group with all virtual addresses of a pair, elected by VRRP on the client's side. Both hosts
/// have the same but for the priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// 2 or 3.
    pub version: u8,
    /// Virtual router identifier.
    pub id: u8,
    /// Time between adverts.
    pub advert_int: Duration,
    /// Family of the adverts; IPv6 in version 3 only.
    pub family: Family,
    /// Whether the higher priority takes over from a working master.
    pub preempt: bool,
    /// Simple password of version 2.
    pub auth_pass: Option<&'static str>,
    /// Whether adverts go from one to the other instead of to all.
    pub unicast: bool,
    /// Whether the addresses of the adverts' family on the clients' side have the virtual MAC address.
    pub vmac: bool,
}

impl Election {
    /// One of this version, over IPv4 by multicast, in which nobody preempts.
    pub fn new(version: u8, advert_int: Duration) -> Self {
        let (id, family) = (51, Family::V4);
        Self {
            version,
            id,
            advert_int,
            family,
            preempt: false,
            auth_pass: None,
            unicast: false,
            vmac: false,
        }
    }

    /// The virtual MAC address (RFC 9568, section 7.3).
    pub fn virtual_mac(&self) -> [u8; 6] {
        [0, 0, 0x5e, 0, if self.family == Family::V4 { 1 } else { 2 }, self.id]
    }

    /// How long a host of this priority waits for an advert before it takes over, since the last
    /// one (RFC 9568, section 6.1: `Active_Down_Interval`).
    pub fn down_after(&self, priority: u8) -> Duration {
        3 * self.advert_int + self.skew(priority)
    }

    /// How long it waits when the master has said that it stops (`Skew_Time`). Version 2 has it in
    /// 256ths of a second, whatever the interval.
    pub fn skew(&self, priority: u8) -> Duration {
        let unit = if self.version == 2 { Duration::from_secs(1) } else { self.advert_int };
        unit * (256 - u32::from(priority)) / 256
    }

    /// A `[[group]]` for one of the hosts.
    pub fn for_tandem(&self, pair: &Pair, host: usize, priority: u8) -> String {
        let Self { version, id, advert_int, preempt, .. } = self;
        let address = |(address, interface): (IpAddr, &str)| {
            format!(r#"{{ address = "{address}/{}", interface = "{interface}" }}"#, bits(address))
        };
        let (advertised, excluded) = self.addresses(pair);
        let list = |of: &[(IpAddr, &str)]| -> Vec<_> { of.iter().copied().map(address).collect() };
        let mut group = format!(
            "\
[[group]]
name = \"pair\"
interface = \"front\"
protocol = \"vrrp\"
version = {version}
virtual_router_id = {id}
priority = {priority}
advert_int = \"{}ms\"
preempt = {preempt}
virtual_ipaddress = [{}]
virtual_ipaddress_excluded = [{}]
",
            advert_int.as_millis(),
            list(&advertised).join(", "),
            list(&excluded).join(", "),
        );
        if self.vmac {
            group += "use_vmac = true\n";
        }
        self.write_rest(pair, host, &mut group, |out, key, values| {
            let _ = match values {
                [one] if key != "unicast_peer" => writeln!(out, "{key} = \"{one}\""),
                all => writeln!(out, "{key} = {all:?}"),
            };
        });
        group
    }

    /// A `keepalived.conf` for one of the hosts.
    pub fn for_keepalived(&self, pair: &Pair, host: usize, priority: u8) -> String {
        let Self { version, id, advert_int, preempt, .. } = self;
        let address = |(address, interface): &(IpAddr, &str)| match *interface {
            // Without a name, it is on the interface with the virtual MAC address if there is one.
            "front" if self.vmac => format!("    {address}/{}\n", bits(*address)),
            _ => format!("    {address}/{} dev {interface}\n", bits(*address)),
        };
        let (advertised, excluded) = self.addresses(pair);
        let list = |of: &[(IpAddr, &str)]| of.iter().map(address).collect::<String>();
        // On a busy machine it is late without a real-time priority, and then both are master; and
        // with one it is killed if it works for longer than the limit (in microseconds), by
        // default 10 ms, which taking over takes here.
        let mut instance = format!(
            "\
global_defs {{
  router_id {}
  vrrp_rt_priority 50
  vrrp_rlimit_rttime 2000000
}}
vrrp_instance pair {{
  state BACKUP
  interface front
  version {version}
  virtual_router_id {id}
  priority {priority}
  advert_int {}
  virtual_ipaddress {{
{}  }}
  virtual_ipaddress_excluded {{
{}  }}
",
            pair.twins()[host].name(),
            advert_int.as_secs_f64(),
            list(&advertised),
            list(&excluded),
        );
        if !preempt {
            instance += "  nopreempt\n";
        }
        if self.vmac {
            instance += "  use_vmac\n";
        }
        self.write_rest(pair, host, &mut instance, |out, key, values| {
            let _ = match (key, values) {
                ("auth_pass", [pass]) => {
                    writeln!(
                        out,
                        "  authentication {{\n    auth_type PASS\n    auth_pass {pass}\n  }}"
                    )
                }
                ("unicast_peer", peers) => {
                    writeln!(out, "  unicast_peer {{\n    {}\n  }}", peers.join("\n    "))
                }
                (_, [one]) => writeln!(out, "  {key} {one}"),
                _ => unreachable!("only peers are several"),
            };
        });
        instance + "}\n"
    }

    /// The addresses with their interfaces: those in the adverts, and the rest.
    fn addresses(&self, pair: &Pair) -> (Addresses, Addresses) {
        let of = |family| vec![(pair.vip(family), "front"), (pair.source(family), "back")];
        match self.family {
            Family::V4 => (of(Family::V4), of(Family::V6)),
            Family::V6 => {
                // The first one of IPv6 is link-local (RFC 9568, section 5.2.9).
                let local = "fe80::100".parse().expect("it is an address");
                ([vec![(local, "front")], of(Family::V6)].concat(), of(Family::V4))
            }
        }
    }

    /// What is only there if it is wanted, by keys that Tandem and keepalived share.
    fn write_rest(
        &self,
        pair: &Pair,
        host: usize,
        out: &mut String,
        mut write: impl FnMut(&mut String, &str, &[String]),
    ) {
        if let Some(pass) = self.auth_pass {
            write(out, "auth_pass", &[pass.to_owned()]);
        }
        if self.unicast {
            let address = |of: usize| pair.twins()[of].address(self.family).to_string();
            write(out, "unicast_src_ip", &[address(host)]);
            write(out, "unicast_peer", &[address(1 - host)]);
        }
    }
}

type Addresses = Vec<(IpAddr, &'static str)>;

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_rfcs() {
        let v2 = Election::new(2, Duration::from_secs(1));
        assert_eq!(v2.down_after(100), Duration::from_micros(3_609_375));
        assert_eq!(v2.skew(254), Duration::from_nanos(7_812_500));
        let slow = Election::new(2, Duration::from_secs(2));
        assert_eq!(slow.skew(128), Duration::from_millis(500));
        let v3 = Election::new(3, Duration::from_millis(10));
        assert_eq!(v3.down_after(100), Duration::from_nanos(36_093_750));
    }
}
