//! What this host has: interfaces and addresses.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::bail;
use futures::TryStreamExt as _;
use lb_common::{addr::Mac, maps::Tag};
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{
        InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        VlanProtocol,
    },
};
use rtnetlink::Handle;

use super::{kernel::list, neighbours::ethernet};

/// A network interface of this host, at the moment it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number, which the kernel does not use again while the host runs.
    pub ifindex: u32,
    /// Its own Ethernet address; none if it is no Ethernet (a loopback, a tunnel).
    pub mac: Option<Mac>,
    /// Whether it is set up and has a carrier.
    pub up: bool,
    /// Largest IP packet it sends, in bytes.
    pub mtu: u32,
    /// If it is a VLAN's: the interface below, and the tag its frames have there.
    pub vlan: Option<(u32, Tag)>,
    loopback: bool,
}

/// All interfaces.
pub(super) async fn interfaces(handle: &Handle) -> anyhow::Result<Vec<Interface>> {
    let links = list(handle, |handle| handle.link().get().execute()).await?;
    Ok(links.into_iter().map(Interface::from).collect())
}

/// The interface with this number, if there is one.
pub(super) async fn interface(
    handle: &Handle,
    ifindex: u32,
) -> Result<Option<Interface>, rtnetlink::Error> {
    let mut links = std::pin::pin!(handle.link().get().match_index(ifindex).execute());
    Ok(links.try_next().await?.map(Interface::from))
}

/// The interface with this name, or an error that names those that could have been meant.
pub(super) fn find(mut interfaces: Vec<Interface>, name: &str) -> anyhow::Result<Interface> {
    if let Some(at) = interfaces.iter().position(|i| i.name == name) {
        return Ok(interfaces.swap_remove(at));
    }
    let others: Vec<&str> = interfaces
        .iter()
        .filter(|interface| !interface.loopback)
        .map(|interface| interface.name.as_str())
        .collect();
    if others.is_empty() {
        bail!("interface {name} does not exist; this host has none but the loopback");
    }
    bail!(
        "interface {name} does not exist; this host has: {} (set [global] interfaces)",
        others.join(", ")
    )
}

/// The addresses of all interfaces.
pub(super) async fn addresses(handle: &Handle) -> anyhow::Result<BTreeSet<IpAddr>> {
    let addresses = list(handle, |handle| handle.address().get().execute()).await?;
    Ok(addresses.iter().filter_map(own).collect())
}

/// This host's side of an address: on a point-to-point link, `Address` is the other side's.
pub(super) fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

impl From<LinkMessage> for Interface {
    fn from(message: LinkMessage) -> Self {
        let LinkMessage { header, attributes, .. } = message;
        let mut interface = Self {
            name: String::new(),
            ifindex: header.index,
            mac: None,
            up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            mtu: 0,
            vlan: None,
            loopback: header.flags.contains(LinkFlags::Loopback),
        };
        let (mut below, mut tag) = (None, None);
        for attribute in attributes {
            match attribute {
                LinkAttribute::Link(ifindex) => below = Some(ifindex),
                LinkAttribute::LinkInfo(infos) => tag = vlan_tag(&infos),
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                LinkAttribute::Address(bytes) if header.link_layer_type == LinkLayerType::Ether => {
                    interface.mac = ethernet(&bytes);
                }
                _ => {}
            }
        }
        interface.vlan = below.zip(tag);
        interface
    }
}

/// The tag of a VLAN's interface.
fn vlan_tag(infos: &[LinkInfo]) -> Option<Tag> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let number = data.iter().find_map(|info| match info {
        InfoVlan::Id(number) => Some(*number),
        _ => None,
    })?;
    let is_service_tag =
        data.iter().any(|info| matches!(info, InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)));
    let protocol: u16 = if is_service_tag { 0x88a8 } else { 0x8100 };
    Some(Tag { protocol: protocol.to_be(), vlan: number.to_be() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            ifindex: 1,
            mac: None,
            up: true,
            mtu: 1500,
            vlan: None,
            loopback: name == "lo",
        }
    }

    #[test]
    fn a_missing_interface_is_answered_with_those_there_are() {
        let all = || ["lo", "eth0", "eth1"].map(interface).to_vec();
        assert_eq!(find(all(), "eth1").unwrap().name, "eth1");
        assert_eq!(
            find(all(), "eth9").unwrap_err().to_string(),
            "interface eth9 does not exist; this host has: eth0, eth1 (set [global] interfaces)"
        );
        assert_eq!(
            find(vec![interface("lo")], "eth9").unwrap_err().to_string(),
            "interface eth9 does not exist; this host has none but the loopback"
        );
    }

    #[test]
    fn the_other_side_of_a_point_to_point_link_is_not_ours() {
        let (ours, theirs) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut message = AddressMessage::default();
        message.attributes = vec![AddressAttribute::Address(theirs), AddressAttribute::Local(ours)];
        assert_eq!(own(&message), Some(ours));

        // IPv6 sends no local side unless there is another side.
        let ours = "fd00::1".parse().unwrap();
        message.attributes = vec![AddressAttribute::Address(ours)];
        assert_eq!(own(&message), Some(ours));
    }
}
