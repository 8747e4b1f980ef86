//! Putting addresses onto interfaces and taking them off, from a plain thread.

use std::{fs, net::IpAddr};

use anyhow::Context as _;
use lb_common::addr::Mac;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::link::MacVlanMode;
use rtnetlink::{Handle, LinkMacVlan, LinkUnspec};
use tokio::{runtime::Runtime, time::timeout};

use super::{
    Interface, host,
    kernel::{PATIENCE, errno, list},
};

/// Lifetime of an address that stays.
const FOREVER: u32 = u32::MAX;

/// Who put an address onto its interface, as the kernel keeps it with the address (`IFA_PROTO`, since
/// Linux 5.18; older ones forget it): 1 to 3 are the kernel's own, ours is the IP protocol number of
/// VRRP and CARP.
const OURS: AddressProtocol = AddressProtocol::Other(112);

/// Addresses of the network namespace of the thread that opened it. Every call waits for the
/// kernel's answer, some ten microseconds, and so belongs on a thread that may wait.
#[derive(Debug)]
pub struct Addresses {
    runtime: Runtime,
    handle: Handle,
}

impl Addresses {
    /// Opens a netlink socket.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn open() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (socket, handle, _) = {
            let _inside = runtime.enter();
            rtnetlink::new_connection().context("cannot open a netlink socket for addresses")?
        };
        // It ends with the runtime.
        runtime.spawn(socket);
        Ok(Self { runtime, handle })
    }

    /// The interface with this name.
    ///
    /// # Errors
    ///
    /// If there is none, or the kernel does not answer.
    pub fn interface(&self, name: &str) -> anyhow::Result<Interface> {
        self.runtime.block_on(async {
            let interfaces = host::interfaces(&self.handle).await;
            host::find(interfaces.context("cannot list this host's interfaces")?, name)
        })
    }

    /// Makes an interface with an Ethernet address of its own above another (a macvlan), and sets it
    /// up, so that each of the two answers for its own addresses only, as keepalived does it:
    ///
    /// - Of the interface below, `arp_ignore` becomes 1 and `arp_announce` 2 if they are less: else
    ///   it would answer and ask for the other's addresses with its own Ethernet address. This stays.
    /// - The one above has no reverse path filter, for all routes lead by the other; nor addresses of
    ///   its own making, which would be on two hosts.
    ///
    /// # Errors
    ///
    /// If there is no interface below, if the name is taken, or if the kernel refuses.
    pub fn add_macvlan(&self, name: &str, below: &str, mac: Mac) -> anyhow::Result<()> {
        let below = self.interface(below)?;
        for (setting, least) in [("arp_ignore", 1), ("arp_announce", 2)] {
            let path = format!("/proc/sys/net/ipv4/conf/{}/{setting}", below.name);
            let now = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            if now.trim().parse::<u32>().is_ok_and(|now| now < least) {
                fs::write(&path, least.to_string())
                    .with_context(|| format!("cannot write {path}"))?;
            }
        }
        let link = LinkMacVlan::new(name, below.ifindex, MacVlanMode::Private)
            .address(mac.0.to_vec())
            .build();
        self.change(self.handle.link().add(link).execute(), &[])?;
        let settings = [
            ("ipv4", "arp_ignore", "1"),
            ("ipv4", "rp_filter", "0"),
            ("ipv6", "addr_gen_mode", "1"),
        ];
        for (family, setting, value) in settings {
            // Without IPv6, there is nothing to keep it from.
            let _ = fs::write(format!("/proc/sys/net/{family}/conf/{name}/{setting}"), value);
        }
        let above = self.interface(name)?;
        let up = LinkUnspec::new_with_index(above.ifindex).up().build();
        self.change(self.handle.link().set(up).execute(), &[]).map(drop)
    }

    /// Removes such an interface, and all that is on it. Nothing happens if none of the name has this
    /// Ethernet address.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_macvlan(&self, name: &str, mac: Mac) -> anyhow::Result<()> {
        match self.interface(name) {
            Ok(Interface { ifindex, mac: Some(own), .. }) if own == mac => {
                self.change(self.handle.link().del(ifindex).execute(), &[libc::ENODEV]).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Which of these addresses an interface has.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn present(&self, ifindex: u32, addresses: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
        let messages = self
            .runtime
            .block_on(list(&self.handle, |handle| {
                handle.address().get().set_link_index_filter(ifindex).execute()
            }))
            .context("cannot list this host's addresses")?;
        let here = |ip: &IpAddr| messages.iter().any(|message| host::own(message) == Some(*ip));
        Ok(addresses.iter().copied().filter(here).collect())
    }

    /// All addresses that [`add`](Self::add) has put onto interfaces and nobody has taken off, also in
    /// an earlier life of the daemon: number of the interface, address and prefix.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn ours(&self) -> anyhow::Result<Vec<(u32, IpAddr, u8)>> {
        let messages = self
            .runtime
            .block_on(list(&self.handle, |handle| handle.address().get().execute()))
            .context("cannot list this host's addresses")?;
        let is_ours = |message: &&AddressMessage| {
            message.attributes.contains(&AddressAttribute::Protocol(OURS))
        };
        let ours = messages.iter().filter(is_ours);
        let place = |message: &AddressMessage| {
            let AddressMessage { header, .. } = message;
            host::own(message).map(|ip| (header.index, ip, header.prefix_len))
        };
        Ok(ours.filter_map(place).collect())
    }

    /// Puts an address onto an interface, with the route of its prefix, as keepalived does. Nothing
    /// happens if it is there. Returns whether it was not.
    ///
    /// An IPv6 address is usable at once, without duplicate address detection, which would find the
    /// host that just lost it; and one of its own, with a prefix of 128 bits, is not chosen as the
    /// source of what this host sends of itself, as with keepalived (a preferred lifetime of
    /// zero: RFC 4862, 5.5.4).
    ///
    /// # Errors
    ///
    /// If the interface is gone, or the kernel refuses.
    pub fn add(&self, ifindex: u32, ip: IpAddr, prefix: u8) -> anyhow::Result<bool> {
        let mut request = self.handle.address().add(ifindex, ip, prefix);
        let message = request.message_mut();
        // A broadcast address is for those who configure one.
        message.attributes.retain(|one| !matches!(one, AddressAttribute::Broadcast(_)));
        message.attributes.push(AddressAttribute::Protocol(OURS));
        if ip.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            if prefix == 128 {
                message.attributes.push(AddressAttribute::CacheInfo(not_preferred()));
            }
        }
        self.change(request.execute(), &[libc::EEXIST])
            .with_context(|| format!("cannot put {ip}/{prefix} onto interface number {ifindex}"))
    }

    /// Takes an address off an interface. Nothing happens if it is not there, nor is the interface.
    ///
    /// Other addresses of the prefix stay: the kernel is told to let the next one take its place
    /// (`promote_secondaries` of the interface), as keepalived does.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove(&self, ifindex: u32, ip: IpAddr, prefix: u8) -> anyhow::Result<()> {
        if ip.is_ipv4() && prefix < 32 {
            promote_secondaries(ifindex);
        }
        let message = self.handle.address().add(ifindex, ip, prefix).message_mut().clone();
        self.change(
            self.handle.address().del(message).execute(),
            &[libc::EADDRNOTAVAIL, libc::ENODEV],
        )
        .with_context(|| format!("cannot take {ip}/{prefix} off interface number {ifindex}"))
        .map(drop)
    }

    /// Waits for a change, which is made already if the kernel answers with one of `already`. Returns
    /// whether it was not.
    fn change(
        &self,
        request: impl Future<Output = Result<(), rtnetlink::Error>>,
        already: &[i32],
    ) -> anyhow::Result<bool> {
        let answer = self.runtime.block_on(async { timeout(PATIENCE, request).await });
        match answer.context("the kernel does not answer")? {
            Err(error) if errno(&error).is_some_and(|errno| already.contains(&errno)) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }
}

fn not_preferred() -> CacheInfo {
    let mut info = CacheInfo::default();
    info.ifa_valid = FOREVER;
    info
}

/// Failing is not fatal: it matters only if the address is the first one of its prefix.
fn promote_secondaries(ifindex: u32) {
    let name = nix::net::if_::if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
    if let Some(name) = name {
        let _ = fs::write(format!("/proc/sys/net/ipv4/conf/{name}/promote_secondaries"), "1");
    }
}
