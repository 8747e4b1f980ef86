//! Cables and switches.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{Dir, Namespace};

nix::ioctl_readwrite_bad!(read_flags, libc::SIOCGIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(write_flags, libc::SIOCSIFFLAGS, libc::ifreq);

/// A network interface in a namespace.
#[derive(Clone, Debug)]
pub struct Interface {
    namespace: Namespace,
    name: String,
}

/// Lays a cable: a veth pair with one end in each namespace, both up.
///
/// Checksums are computed and segments cut by the sender and nothing is taken on trust by the
/// receiver, as between real machines: an XDP program that rewrites a header sees and must keep
/// a whole checksum. VLAN tags are in the frames rather than beside them, where a program would not
/// see them. GRO stays on, since it is what makes a veth take frames that arrive by
/// `XDP_REDIRECT` or `XDP_TX` at all; without it they vanish in silence.
pub fn veth(
    (a, a_name): (&Namespace, &str),
    (b, b_name): (&Namespace, &str),
) -> Result<(Interface, Interface)> {
    let peer = format!("type veth peer name {b_name} netns {}", b.net_path());
    a.ip(&format!("link add {a_name} {peer}"))
        .with_context(|| format!("no cable from {} to {}", a.name(), b.name()))?;
    let ends = (Interface::new(a, a_name), Interface::new(b, b_name));
    // Both before either is up: an end decides when it comes up whether frames can be redirected
    // to it, by the other's GRO.
    ends.0.like_a_wire()?;
    ends.1.like_a_wire()?;
    ends.0.up()?;
    ends.1.up()?;
    Ok(ends)
}

/// Makes a switch of this name in a namespace; interfaces become its ports by
/// [`Interface::plug_into`].
pub fn bridge(namespace: &Namespace, name: &str) -> Result<Interface> {
    // Without snooping, neighbour solicitations reach a port that has just been plugged in.
    namespace.ip(&format!("link add {name} type bridge mcast_snooping 0 forward_delay 0"))?;
    let bridge = Interface::new(namespace, name);
    bridge.up()?;
    Ok(bridge)
}

impl Interface {
    /// An interface that is there.
    pub fn new(namespace: &Namespace, name: &str) -> Self {
        Self { namespace: namespace.clone(), name: name.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace it is in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Adds an address with its prefix length, `10.1.0.1/24`.
    pub fn address(&self, address: &str) -> Result<()> {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("address add {address} dev {} {nodad}", self.name))
    }

    /// Brings it up.
    pub fn up(&self) -> Result<()> {
        self.switch(true)
    }

    /// Takes it down, at once; the far end of a cable loses its carrier.
    pub fn down(&self) -> Result<()> {
        self.switch(false)
    }

    /// Removes it, and with a cable's end the other one too.
    pub fn remove(&self) -> Result<()> {
        self.ip(&format!("link delete {}", self.name))
    }

    /// Sets its link-layer address, `02:00:00:00:00:01`.
    pub fn set_mac(&self, mac: &str) -> Result<()> {
        self.ip(&format!("link set {} address {mac}", self.name))
    }

    /// Its link-layer address, `02:00:00:00:00:01`.
    pub fn mac(&self) -> Result<String> {
        let answer = self.namespace.ip(&format!("-json link show dev {}", self.name))?;
        let links: serde_json::Value = serde_json::from_str(&answer)?;
        let mac = links[0]["address"].as_str().context("an interface without an address")?;
        Ok(mac.to_owned())
    }

    /// Sets its MTU, in bytes.
    pub fn set_mtu(&self, bytes: u32) -> Result<()> {
        self.ip(&format!("link set {} mtu {bytes}", self.name))
    }

    /// Lets it send no faster than so many megabits a second, so that a transfer takes its time.
    pub fn slow_down(&self, megabits: u32) -> Result<()> {
        let rate = format!("{megabits}mbit");
        let queue = ["qdisc", "replace", "dev", &self.name, "root", "tbf", "rate", &rate];
        let tc = self.namespace.command("tc").args(queue).args(["burst", "64k", "limit", "10m"]);
        tc.plain().run().map(drop)
    }

    /// Makes a VLAN's interface on top of it, up and without addresses. `protocol` is `802.1Q`, or
    /// `802.1ad` for the outer tag of two.
    pub fn vlan(&self, protocol: &str, number: u16) -> Result<Self> {
        let vlan = Self::new(&self.namespace, &format!("{}.{number}", self.name));
        let kind = format!("type vlan protocol {protocol} id {number}");
        self.ip(&format!("link add link {} name {} {kind}", self.name, vlan.name))?;
        vlan.up()?;
        Ok(vlan)
    }

    /// Whether the kernel can make a [VLAN's interface](Self::vlan); some small ones can not.
    pub fn kernel_has_vlans() -> Result<bool> {
        let dir = Dir::new()?;
        let namespace = Namespace::new("vlans", &dir)?;
        let (end, _) = veth((&namespace, "near"), (&namespace, "far"))?;
        match end.vlan("802.1Q", 1) {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains("Unknown device type") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes it a port of a bridge of its namespace.
    pub fn plug_into(&self, bridge: &Interface) -> Result<()> {
        self.ip(&format!("link set {} master {}", self.name, bridge.name))
    }

    /// Turns offloads on or off by `ethtool -K`, such as `&["gro", "off"]`.
    pub fn offloads(&self, settings: &[&str]) -> Result<()> {
        let ethtool = self.namespace.command("ethtool").args(["-K", &self.name]);
        ethtool.args(settings).plain().run().map(drop)
    }

    fn like_a_wire(&self) -> Result<()> {
        // A veth has room for 256 frames. With a queue a sender waits for room (since Linux 6.16)
        // instead of losing frames of a burst.
        let queue = ["qdisc", "add", "dev", &self.name, "root", "pfifo", "limit", "10000"];
        self.namespace.command("tc").args(queue).plain().run()?;
        self.offloads(&["rx", "off", "tx", "off", "tso", "off", "gso", "off", "gro", "on"])?;
        self.offloads(&["rxvlan", "off", "txvlan", "off"])?;
        self.offloads(&["rx-vlan-stag-hw-parse", "off", "tx-vlan-stag-hw-insert", "off"])
    }

    /// By a system call, since starting `ip` takes longer than some measure by.
    fn switch(&self, up: bool) -> Result<()> {
        let done = self.namespace.enter(|| switch(&self.name, up));
        let way = if up { "up" } else { "down" };
        done.with_context(|| {
            format!("cannot bring {} of {} {way}", self.name, self.namespace.name())
        })
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        self.namespace.ip(arguments).map(drop)
    }
}

/// Sets or clears the flag `IFF_UP` of an interface of the namespace that this thread is in.
fn switch(name: &str, up: bool) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // SAFETY: zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays the zero that ends the name.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let bit = i16::try_from(libc::IFF_UP).expect("it is 1");
    // SAFETY: both calls take an `ifreq` with a name, and the first fills in the flags.
    unsafe {
        read_flags(socket.as_raw_fd(), &raw mut request)?;
        let flags = &mut request.ifr_ifru.ifru_flags;
        *flags = if up { *flags | bit } else { *flags & !bit };
        write_flags(socket.as_raw_fd(), &raw const request)?;
    }
    Ok(())
}
