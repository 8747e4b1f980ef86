//! What the hosts of a pair tell each other over the wire, and what they tell their neighbours.
//!
//! ```text
//!                 Channel, one per group
//! Advert ─► format ─► bytes ─► socket ─────────► peers
//!            (vrrp, carp)
//! Received ◄─ format ◄─ envelope ◄─ socket ◄──── peers      what is wrong: Discard
//!
//! Announcer ─ gratuitous ARP, unsolicited NA ──► neighbours
//! Claims    ◄ ARP and NA for our addresses ───── neighbours
//! ```
//!
//! Nothing here blocks but opening and closing a channel, and nothing is decided here: that is
//! `core::group`'s. All of it is made to be polled by one thread. VRRP and CARP share IP protocol 112; `packet` tells them apart.
//!
//! Each group has a socket of its own, with a filter in the kernel that lets only its identifier
//! pass. So no group has to hand on what is another's, and a group's adverts cannot fill another's
//! buffer. The price is a copy of the packet's descriptor and a run of six instructions per
//! group of the interface and advert.

mod announce;
mod carp;
mod channel;
mod checksum;
mod claims;
mod discard;
mod filter;
mod format;
mod frames;
mod options;
mod packet;
mod socket;
mod virtual_mac;
mod vrrp;

pub use announce::Announcer;
pub use channel::{Channel, is_of_source};
pub use claims::{Claim, Claims};
pub use discard::{Counts, Discard};
pub use packet::{Envelope, Packet, open_v4};

use std::net::IpAddr;

use crate::{config::Group, core::group::Received};

/// IP protocol number of VRRP and CARP.
const PROTOCOL: u8 = 112;

/// What a packet says to a group, on a host that sends adverts from `own`: what [`Channel::receive`]
/// does with what its socket received, without one.
///
/// # Errors
///
/// Why it is no advert for the group.
pub fn read(group: &Group, own: IpAddr, packet: &Packet<'_>) -> Result<Received, Discard> {
    let (envelope, message) = packet;
    format::Format::new(group).read(envelope, message, own)
}
