//! What hosts send, as the switch between them sees it, with the kernel's times.

use std::{
    collections::HashMap,
    io::IoSliceMut,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol,
            SockType, recvmsg, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

use super::{Namespace, Seen, half_open::checksum, tap};

/// Takes down all frames that come into a switch by its ports, until it is dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<Vec<Frame>>,
    more: Condvar,
    ending: AtomicBool,
}

/// A frame that a host has sent.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When it came to the switch.
    pub at: SystemTime,
    /// The port it came in by, such as `lb1-front` or `client`.
    pub port: Arc<str>,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// An advert of VRRP or CARP, as far as one can tell which without knowing the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertSeen {
    /// Source address.
    pub source: IpAddr,
    /// 2 or 3; CARP's looks like 2.
    pub version: u8,
    /// Virtual router identifier, or the virtual host's.
    pub id: u8,
    /// VRRP's priority; CARP has its `advskew` there.
    pub priority: u8,
}

impl Capture {
    /// Listens in on the ports that a switch has now.
    pub fn on(switch: &Namespace) -> Result<Self> {
        Self::filtered(switch, &[])
    }

    /// The same without any TCP over IPv4, where there is too much of that to be taken down.
    pub fn without_tcp(switch: &Namespace) -> Result<Self> {
        Self::filtered(switch, &NO_TCP)
    }

    fn filtered(switch: &Namespace, filter: &[libc::sock_filter]) -> Result<Self> {
        let (socket, ports) = switch
            .enter(|| open(filter))
            .with_context(|| format!("cannot capture on {}", switch.name()))?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = thread::spawn(move || theirs.listen(&socket, &ports));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What has been taken down, in order of arrival.
    pub fn frames(&self) -> Vec<Frame> {
        self.shared.lock().clone()
    }

    /// Forgets what has been taken down.
    pub fn forget(&self) {
        self.shared.lock().clear();
    }

    /// Waits for a frame that `wanted` makes something of, among those taken down too.
    pub fn wait_for<T>(
        &self,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&Frame) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        let (mut frames, mut next) = (self.shared.lock(), 0);
        loop {
            // Fewer than before if they were forgotten meanwhile.
            if let Some(found) = frames.get(next..).and_then(|new| new.iter().find_map(&wanted)) {
                return Ok(found);
            }
            next = frames.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{what}: not seen on the wire within {timeout:?}");
            }
            frames = self.shared.more.wait_timeout(frames, left).expect("nobody panics here").0;
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.ending.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Frame {
    /// The type in the Ethernet header, and what follows it.
    pub fn payload(&self) -> Option<(u16, &[u8])> {
        let kind = self.bytes.get(12..14)?;
        Some((u16::from_be_bytes([kind[0], kind[1]]), &self.bytes[14..]))
    }

    /// The advert in it.
    pub fn advert(&self) -> Option<AdvertSeen> {
        let (source, advert): (IpAddr, _) = match self.payload()? {
            (IPV4, packet) if packet.get(9) == Some(&ADVERTS) => {
                let header = usize::from(packet[0] & 0x0f) * 4;
                (ipv4(packet, 12)?.into(), packet.get(header..)?)
            }
            (IPV6, packet) if packet.get(6) == Some(&ADVERTS) => {
                (ipv6(packet, 8)?.into(), packet.get(40..)?)
            }
            _ => return None,
        };
        let [kind, id, priority] = *advert.first_chunk()?;
        Some(AdvertSeen { source, version: kind >> 4, id, priority })
    }

    /// Whether the advert over IPv4 in it has a checksum over the message alone, as version 2 has,
    /// or else over a pseudo-header too.
    pub fn has_plain_checksum(&self) -> Option<bool> {
        self.advert()?;
        let (kind, packet) = self.payload()?;
        let header = usize::from(packet[0] & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        (kind == IPV4).then(|| Some(checksum(packet.get(header..length)?) == 0))?
    }

    /// The address that it says is at its sender's: by an ARP reply, a gratuitous ARP request, or
    /// a neighbour advertisement.
    pub fn claims(&self) -> Option<IpAddr> {
        match self.payload()? {
            (ARP, packet) => {
                let (sender, target) = (ipv4(packet, 14)?, ipv4(packet, 24)?);
                let reply = packet[6..8] == [0, 2];
                (reply || sender == target).then_some(sender.into())
            }
            (IPV6, packet) if packet.get(6) == Some(&ICMPV6) => {
                let message = packet.get(40..)?;
                (*message.first()? == NEIGHBOUR_ADVERTISEMENT)
                    .then(|| ipv6(message, 8))?
                    .map(Into::into)
            }
            _ => None,
        }
    }

    /// The TCP segment in it.
    pub fn segment(&self) -> Option<Seen> {
        tap::parse(self.payload()?.1)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.frames.lock().expect("nobody panics here")
    }

    fn listen(&self, socket: &OwnedFd, ports: &HashMap<usize, Arc<str>>) {
        while !self.ending.load(Relaxed) {
            match receive(socket, ports) {
                Ok(Some(frame)) => {
                    self.lock().push(frame);
                    self.more.notify_all();
                }
                // Not of interest, or time to look whether this is to end.
                Ok(None) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => panic!("a packet socket that receives fails only so: {error}"),
            }
        }
    }
}

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const ARP: u16 = 0x0806;
/// The protocol number of VRRP, which CARP uses too.
const ADVERTS: u8 = 112;
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// All headers of interest fit.
const SNAP: usize = 128;
/// Bytes, room for tens of thousands of frames.
const BUFFER: usize = 64 << 20;

/// Everything but TCP over IPv4, in the kernel's classic language of filters.
const NO_TCP: [libc::sock_filter; 6] = {
    // Load a half-word and a byte from a place in the frame, jump if equal, return a number of bytes.
    const LDH: u16 = 0x28;
    const LDB: u16 = 0x30;
    const JEQ: u16 = 0x15;
    const RET: u16 = 0x06;
    const fn line(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code, jt, jf, k }
    }
    [
        line(LDH, 0, 0, 12),
        line(JEQ, 0, 3, IPV4 as u32),
        line(LDB, 0, 0, 23),
        line(JEQ, 0, 1, libc::IPPROTO_TCP.cast_unsigned()),
        line(RET, 0, 0, 0),
        line(RET, 0, 0, u32::MAX),
    ]
};

/// A socket for all frames of the namespace that this thread is in that pass a filter, and the names
/// of those of its interfaces that are ports of a bridge.
fn open(filter: &[libc::sock_filter]) -> Result<(OwnedFd, HashMap<usize, Arc<str>>)> {
    // Before the socket sees the first frame.
    let mut ports = HashMap::new();
    for interface in &nix::net::if_::if_nameindex()? {
        let name = interface.name().to_string_lossy();
        if std::path::Path::new(&format!("/sys/class/net/{name}/brport")).exists() {
            ports.insert(usize::try_from(interface.index())?, Arc::from(&*name));
        }
    }
    let all = SockProtocol::EthAll;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
    attach(&socket, filter).context("cannot attach a filter")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
    Ok((socket, ports))
}

/// Has a socket receive only what passes a filter; everything if that is empty.
fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) -> Result<()> {
    if filter.is_empty() {
        return Ok(());
    }
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len())?, filter: filter.as_ptr().cast_mut() };
    let length = libc::socklen_t::try_from(size_of_val(&program))?;
    // SAFETY: the kernel reads a `sock_fprog`, and as many instructions as that says there are.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// The next frame, if it came in by a port.
fn receive(socket: &OwnedFd, ports: &HashMap<usize, Arc<str>>) -> nix::Result<Option<Frame>> {
    let mut bytes = [0; SNAP];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut into, Some(&mut control), flags)?;
    let times = message.cmsgs()?.find_map(|one| match one {
        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
        _ => None,
    });
    let (length, from) = (message.bytes, message.address);
    let port = from
        .filter(|from| from.pkttype() != libc::PACKET_OUTGOING)
        .and_then(|from| ports.get(&from.ifindex()));
    Ok(port.zip(times).map(|(port, time)| Frame {
        at: UNIX_EPOCH + time,
        port: port.clone(),
        bytes: bytes[..length].to_vec(),
    }))
}

fn ipv4(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn ipv6(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}
