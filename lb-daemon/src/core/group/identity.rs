//! What makes an election the one it is.

use crate::config::{Family, Group, Protocol, VrrpVersion};

/// A digest of a group's name, interface, protocol and identifier. A daemon knows by it which leases
/// of an earlier one are those of its own groups. It is the same in every release; never zero.
pub fn identity(group: &Group) -> u64 {
    let (protocol, id) = match &group.protocol {
        Protocol::Vrrp(vrrp) => {
            let protocol = match (vrrp.version, vrrp.family) {
                (VrrpVersion::V2, _) => "vrrp2",
                (VrrpVersion::V3, Family::V4) => "vrrp3 ipv4",
                (VrrpVersion::V3, Family::V6) => "vrrp3 ipv6",
            };
            (protocol, vrrp.virtual_router_id)
        }
        Protocol::Carp(carp) => ("carp", carp.vhid),
    };
    let words = [group.name.as_bytes(), group.interface.as_bytes(), protocol.as_bytes(), &[id]];
    // FNV-1a, with an end to each word that is in none of the first three.
    let bytes = words.into_iter().flat_map(|word| word.iter().chain(&[0]));
    let digest = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    digest.max(1)
}
