//! Adverts over a wire: our channels beside the real keepalived and ucarp, and what packet
//! analysers say of what we send.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_daemon::{
    config::{
        Announce, Carp, Family, Group, GroupAddress, Hooks, Protocol, Track, Vrrp, VrrpVersion,
    },
    core::group::{Advert, CarpAdvert, Received, Role, VrrpAdvert},
    vrrp_io::{Channel, Discard, is_of_source},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tests::lab::{Dir, Keepalived, Namespace, Ucarp, veth, wait::until};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Two hosts on a cable, `wire` at both ends.
pub(super) struct Pair {
    ours: Namespace,
    pub(super) theirs: Namespace,
    dir: Dir,
}

impl Pair {
    pub(super) fn new() -> Result<Self> {
        let dir = Dir::new()?;
        let (ours, theirs) = (Namespace::new("ours", &dir)?, Namespace::new("theirs", &dir)?);
        let pair = Self { ours, theirs, dir };
        pair.lay_cable()?;
        Ok(pair)
    }

    fn lay_cable(&self) -> Result<()> {
        let ends = veth((&self.ours, "wire"), (&self.theirs, "wire"))?;
        for (end, v4, host) in [(ends.0, OURS, 1), (ends.1, THEIRS, 2)] {
            end.address(&format!("{v4}/24"))?;
            // Not the one that the kernel makes of the MAC: tests know this one.
            end.namespace().ip("address flush dev wire scope link")?;
            end.address(&format!("fe80::{host}/64"))?;
            end.address(&format!("fd01::{host}/64"))?;
        }
        Ok(())
    }

    pub(super) fn channel(&self, group: &Group) -> Result<Channel> {
        open(&self.ours, group)
    }
}

/// Of the only group there is.
fn open(host: &Namespace, group: &Group) -> Result<Channel> {
    let shared = group.addresses.iter().map(|one| one.ip).collect();
    host.enter(|| Channel::open("wire", group, &shared))
}

fn group(protocol: Protocol, addresses: &[&str]) -> Group {
    let address = |ip: &&str| GroupAddress {
        ip: ip.parse().expect("an address"),
        prefix: 32,
        interface: "wire".to_owned(),
        advertised: true,
    };
    Group {
        name: "web".to_owned(),
        interface: "wire".to_owned(),
        protocol,
        addresses: addresses.iter().map(address).collect(),
        preempt: true,
        preempt_delay: Duration::ZERO,
        track: Track::default(),
        hooks: Hooks {
            notify_master: None,
            notify_backup: None,
            notify_fault: None,
            notify_stop: None,
            notify: None,
            user: "nobody".to_owned(),
            timeout: Duration::from_secs(1),
        },
        announce: Announce {
            repeat: 1,
            delay: Duration::ZERO,
            refresh: Duration::ZERO,
            refresh_repeat: 1,
        },
    }
}

fn vrrp(version: VrrpVersion) -> Vrrp {
    Vrrp {
        version,
        virtual_router_id: 51,
        priority: 200,
        advert_int: Duration::from_secs(1),
        family: Family::V4,
        source: None,
        unicast_peers: Vec::new(),
        auth_pass: None,
        auth_pass_file: None,
        pseudo_header: true,
        vmac: None,
    }
}

fn carp() -> Carp {
    let pass = "mypassword".to_owned();
    Carp { vhid: 51, pass, pass_file: None, advbase: 1, advskew: 0 }
}

/// A way to share addresses: our group, and keepalived's configuration of the same.
pub(super) struct Way {
    name: &'static str,
    pub(super) group: Group,
    pub(super) keepalived: String,
    /// Centiseconds.
    pub(super) interval: u16,
    sender: IpAddr,
}

impl Way {
    fn new(name: &'static str, config: Vrrp, addresses: &[&str], more: &str) -> Self {
        let (version, interval) =
            if config.version == VrrpVersion::V2 { (2, 100) } else { (3, 10) };
        let sender = match (config.family, config.unicast_peers.first()) {
            (_, Some(peer)) => *peer,
            (Family::V4, None) => THEIRS.into(),
            (Family::V6, None) => "fe80::2".parse().expect("an address"),
        };
        Self {
            name,
            keepalived: keepalived(version, interval, more, addresses),
            group: group(Protocol::Vrrp(config), addresses),
            interval,
            sender,
        }
    }
}

pub(super) fn ways() -> Vec<Way> {
    let v2 = Vrrp { auth_pass: Some("secret12".to_owned()), ..vrrp(VrrpVersion::V2) };
    let unicast = Vrrp { unicast_peers: vec![THEIRS.into()], ..v2.clone() };
    let v3 = vrrp(VrrpVersion::V3);
    let v6 = Vrrp { family: Family::V6, ..v3.clone() };
    let pass = "authentication {\n auth_type PASS\n auth_pass secret12\n }\n";
    let peer = keepalived_peer(THEIRS.into(), OURS.into());
    let (one, two) = (["10.1.0.100"], ["fe80::100", "fd01::100"]);
    vec![
        Way::new("version 2 with a password", v2, &one, pass),
        Way::new("version 2 by unicast", unicast, &one, &format!("{pass}{peer}")),
        Way::new("version 3", v3, &one, ""),
        Way::new("version 3 over IPv6", v6, &two, ""),
    ]
}

/// Those of version 3 from host to host, in the checksum of which are the addresses of both.
pub(super) fn unicast_ways() -> [Way; 2] {
    let to = |family, [ours, theirs]: [IpAddr; 2]| {
        let (source, unicast_peers) = (Some(ours), vec![theirs]);
        let config = Vrrp { family, source, unicast_peers, ..vrrp(VrrpVersion::V3) };
        (config, keepalived_peer(theirs, ours))
    };
    let global = ["fd01::1", "fd01::2"].map(|ip| ip.parse().expect("an address"));
    let (v4, v4_peer) = to(Family::V4, [OURS.into(), THEIRS.into()]);
    let (v6, v6_peer) = to(Family::V6, global);
    [
        Way::new("version 3 by unicast", v4, &["10.1.0.100"], &v4_peer),
        Way::new("version 3 over IPv6 by unicast", v6, &["fe80::100", "fd01::100"], &v6_peer),
    ]
}

/// Has keepalived on the host `from` speak to the host `to` alone.
fn keepalived_peer(from: IpAddr, to: IpAddr) -> String {
    format!("unicast_src_ip {from}\n unicast_peer {{\n {to}\n }}\n")
}

fn keepalived(version: u8, interval: u16, more: &str, addresses: &[&str]) -> String {
    let seconds = f64::from(interval) / 100.0;
    let addresses = addresses.join("\n");
    format!(
        "\
global_defs {{
    vrrp_version {version}
}}
vrrp_instance web {{
    state BACKUP
    interface wire
    virtual_router_id 51
    priority 100
    advert_int {seconds}
    {more}
    virtual_ipaddress {{
        {addresses}
    }}
}}
"
    )
}

/// The next advert, within a limit.
fn next(channel: &mut Channel, limit: Duration) -> Result<Received> {
    let end = Instant::now() + limit;
    loop {
        if let Some(Ok(received)) = channel.receive()? {
            return Ok(received);
        }
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no advert within {limit:?}");
        let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(left)?)?;
    }
}

/// What a master of this group says.
fn advert(group: &Group, interval: u16, counter: u64) -> Advert {
    match &group.protocol {
        Protocol::Vrrp(vrrp) => Advert::Vrrp(VrrpAdvert {
            version: vrrp.version,
            virtual_router_id: vrrp.virtual_router_id,
            priority: vrrp.priority,
            interval,
            addresses: group.addresses.iter().map(|address| address.ip).collect(),
        }),
        Protocol::Carp(carp) => Advert::Carp(CarpAdvert {
            vhid: carp.vhid,
            advbase: carp.advbase,
            advskew: carp.advskew,
            demotion: 0,
            counter,
        }),
    }
}

/// The least of a master: sends adverts, on time, until it is stopped.
pub(super) struct Master {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Master {
    pub(super) fn start(mut channel: Channel, group: Group, interval: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut counter = 1;
            while !told.load(Ordering::Relaxed) {
                channel.send(&advert(&group, interval, counter))?;
                counter += 1;
                thread::sleep(Duration::from_millis(u64::from(interval) * 10));
            }
            Ok(())
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("sending does not panic")
    }
}

#[test]
fn keepalived_is_heard_in_every_version() -> Result<()> {
    for way in ways().into_iter().chain(unicast_ways()) {
        let pair = Pair::new()?;
        let mut channel = pair.channel(&way.group)?;
        let mut keepalived = Keepalived::start(&pair.theirs, &way.keepalived)?;
        let received = next(&mut channel, PATIENCE).context(way.name)?;
        let Advert::Vrrp(mut said) = advert(&way.group, way.interval, 0) else { unreachable!() };
        said.priority = 100;
        assert_eq!(received.source, way.sender, "{}", way.name);
        assert_eq!(received.advert, Advert::Vrrp(said.clone()), "{}", way.name);

        keepalived.stop()?;
        until(way.name, PATIENCE, || match next(&mut channel, Duration::ZERO)?.advert {
            Advert::Vrrp(last) if last.priority == 0 => Ok(()),
            other => bail!("not its last word: {other:?}"),
        })?;
        for why in Discard::ALL {
            assert_eq!(channel.counts().discarded(why), 0, "{}: {why}", way.name);
        }
    }
    Ok(())
}

#[test]
fn keepalived_stays_backup_while_we_advertise() -> Result<()> {
    for way in ways().into_iter().chain(unicast_ways()) {
        let pair = Pair::new()?;
        let channel = pair.channel(&way.group)?;
        let master = Master::start(channel, way.group.clone(), way.interval);
        let keepalived = Keepalived::start(&pair.theirs, &way.keepalived)?;
        // Longer than its master-down interval of three adverts and a skew.
        thread::sleep(Duration::from_millis(u64::from(way.interval) * 45));
        assert_eq!(keepalived.role("web")?, Role::Backup, "{}", way.name);
        let log = keepalived.log()?;
        ensure!(!log.contains("nvalid") && !log.contains("ismatch"), "{}: {log}", way.name);

        master.stop()?;
        keepalived.wait_for("web", Role::Master, PATIENCE).context(way.name)?;
    }
    Ok(())
}

#[test]
fn ucarp_is_heard() -> Result<()> {
    let pair = Pair::new()?;
    let config = Carp { advskew: 10, ..carp() };
    let mut channel = pair.channel(&group(Protocol::Carp(config.clone()), &["10.1.0.100"]))?;
    let mut ucarp = Ucarp::start(&pair.theirs, "wire", THEIRS, &config, VIP, false)?;
    ucarp.wait_for(Role::Master, PATIENCE)?;
    let Received { source, advert } = next(&mut channel, PATIENCE)?;
    assert_eq!(source, THEIRS);
    let Advert::Carp(said) = advert else { bail!("{advert:?}") };
    let counter = said.counter;
    let expected = CarpAdvert { vhid: 51, advbase: 1, advskew: 10, demotion: 0, counter };
    assert_eq!(said, expected);
    until("the address", PATIENCE, || {
        ensure!(pair.theirs.ip("address show dev wire")?.contains("10.1.0.100"), "not there");
        Ok(())
    })?;
    ucarp.stop()?;
    ensure!(!pair.theirs.ip("address show dev wire")?.contains("10.1.0.100"), "still there");
    Ok(())
}

#[test]
fn ucarp_stays_backup_while_we_advertise() -> Result<()> {
    let pair = Pair::new()?;
    let shared = group(Protocol::Carp(carp()), &["10.1.0.100"]);
    let master = Master::start(pair.channel(&shared)?, shared.clone(), 100);
    let config = Carp { advskew: 50, ..carp() };
    let ucarp = Ucarp::start(&pair.theirs, "wire", THEIRS, &config, VIP, false)?;
    // Longer than three adverts and its skew.
    thread::sleep(Duration::from_secs(5));
    assert_eq!(ucarp.role()?, Role::Backup);

    master.stop()?;
    ucarp.wait_for(Role::Master, PATIENCE)
}

#[test]
fn vrrp_and_carp_with_the_same_number_do_not_disturb_each_other() -> Result<()> {
    let pair = Pair::new()?;
    let vrrp = group(Protocol::Vrrp(vrrp(VrrpVersion::V2)), &["10.1.0.100"]);
    let carp = group(Protocol::Carp(carp()), &["10.1.0.100"]);
    let other = group(
        Protocol::Vrrp(Vrrp { virtual_router_id: 52, ..self::vrrp(VrrpVersion::V2) }),
        &["10.1.0.100"],
    );
    let groups = [vrrp, carp, other];
    let mut near = groups.each_ref().map(|group| open(&pair.ours, group).expect("a channel"));
    let mut far = groups.each_ref().map(|group| open(&pair.theirs, group).expect("a channel"));
    for (channel, group) in near.iter_mut().zip(&groups) {
        channel.send(&advert(group, 100, 1))?;
    }
    for ((channel, group), strangers) in far.iter_mut().zip(&groups).zip([1, 1, 0]) {
        assert_eq!(next(channel, PATIENCE)?.advert, advert(group, 100, 1));
        while channel.receive()?.is_some() {}
        // Another identifier does not even reach the socket.
        assert_eq!(channel.counts().discarded(Discard::Protocol), strangers);
        assert_eq!(channel.counts().discarded(Discard::Vrid), 0);
        assert_eq!(channel.counts().received, 1);
    }
    // Nor does anybody hear himself.
    for channel in &mut near {
        assert_eq!(channel.receive()?, None);
    }
    Ok(())
}

#[test]
fn what_strangers_send_is_counted_by_its_reason() -> Result<()> {
    let pair = Pair::new()?;
    let [v2, unicast, v3, v6] = <[Way; 4]>::try_from(ways()).ok().context("four ways")?;
    let v2_with = |change: &dyn Fn(&mut Vrrp)| {
        let mut group = v2.group.clone();
        let Protocol::Vrrp(config) = &mut group.protocol else { unreachable!() };
        change(config);
        group
    };
    let carp_with = |pass: &str, address: &str| {
        group(Protocol::Carp(Carp { pass: pass.to_owned(), ..carp() }), &[address])
    };
    let to_us = |config: &mut Vrrp| config.unicast_peers = vec![OURS.into()];
    let ours = carp_with("mypassword", "10.1.0.100");
    let peer_elsewhere = v2_with(&|config| config.unicast_peers = vec![[10, 1, 0, 9].into()]);
    let wrong_password = v2_with(&|config| config.auth_pass = Some("secret13".to_owned()));
    let no_password = v2_with(&|config| config.auth_pass = None);
    for (near, far, why) in [
        (&v2.group, wrong_password, Discard::Auth),
        (&v2.group, no_password, Discard::AuthType),
        (&v2.group, v3.group.clone(), Discard::Version),
        (&v3.group, v2.group.clone(), Discard::Version),
        (&v2.group, v2_with(&to_us), Discard::Destination),
        (&peer_elsewhere, v2_with(&to_us), Discard::UnknownPeer),
        (&ours, carp_with("another", "10.1.0.100"), Discard::Hmac),
        (&ours, carp_with("mypassword", "10.1.0.101"), Discard::Hmac),
        (&ours, v2.group.clone(), Discard::Protocol),
    ] {
        assert_discarded(&pair, near, &far, why)?;
    }

    // As if there were a router between us.
    let rules = "table inet far { chain out { type filter hook output priority 0; \
                 meta l4proto 112 ip ttl set 254; meta l4proto 112 ip6 hoplimit set 254; }; }";
    let file = pair.dir.join("far.nft");
    fs::write(&file, rules)?;
    pair.theirs.command("nft").arg("-f").arg(&file).run()?;
    let mut to_peer = unicast.group.clone();
    let Protocol::Vrrp(config) = &mut to_peer.protocol else { unreachable!() };
    to_us(config);
    let mut heeds = pair.channel(&unicast.group)?;
    open(&pair.theirs, &to_peer)?.send(&advert(&to_peer, 100, 1))?;
    let mut fds = [PollFd::new(heeds.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(PATIENCE)?)?;
    assert!(matches!(heeds.receive()?, Some(Ok(_))), "a peer may be behind a router");
    for (near, far) in
        [(&v2.group, &v2.group), (&v3.group, &v3.group), (&v6.group, &v6.group), (&ours, &ours)]
    {
        assert_discarded(&pair, near, far, Discard::Ttl)?;
    }
    Ok(())
}

/// An advert of a group `far` on the other host is discarded by our host's `near`, for this reason.
fn assert_discarded(pair: &Pair, near: &Group, far: &Group, why: Discard) -> Result<()> {
    let mut channel = pair.channel(near)?;
    open(&pair.theirs, far)?.send(&advert(far, 100, 1))?;
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(PATIENCE)?)?;
    assert_eq!(channel.receive()?, Some(Err(why)));
    assert_eq!((channel.counts().discarded(why), channel.counts().received), (1, 0));
    Ok(())
}

#[test]
fn a_channel_of_a_lost_interface_says_so_and_can_be_opened_anew() -> Result<()> {
    let pair = Pair::new()?;
    for way in ways() {
        let mut channel = pair.channel(&way.group)?;
        let advert = advert(&way.group, way.interval, 0);
        channel.send(&advert)?;
        assert!(!pair.ours.enter(|| channel.is_lost()));

        pair.ours.ip("link delete wire")?;
        channel.send(&advert).expect_err("there is no interface");
        assert!(pair.ours.enter(|| channel.is_lost()));
        assert_eq!((channel.counts().sent, channel.counts().failed), (1, 1));
        pair.channel(&way.group).expect_err("there is no interface");

        pair.lay_cable()?;
        assert!(pair.ours.enter(|| channel.is_lost()), "{}: a new one of that name", way.name);
        pair.channel(&way.group)?.send(&advert)?;
    }
    Ok(())
}

/// RFC 3768 and RFC 9568, 7.2: the source is the interface's primary address, over IPv6 the link-local
/// one.
#[test]
fn the_source_is_never_an_address_of_the_group() -> Result<()> {
    let pair = Pair::new()?;
    pair.ours.ip("address flush dev wire")?;
    let [v2, .., v6] = &ways()[..] else { unreachable!() };
    for (way, shared, own) in
        [(v2, "10.1.0.100/24", "10.1.0.1/24"), (v6, "fe80::100/64", "fe80::1/64")]
    {
        pair.ours.ip(&format!("address add {shared} dev wire"))?;
        let error = pair.channel(&way.group).expect_err("only an address of the group");
        ensure!(error.to_string().contains("address of its own"), "{error}");
        pair.ours.ip(&format!("address add {own} dev wire"))?;
        let source = pair.channel(&way.group)?.source().to_string();
        assert_eq!(Some(source.as_str()), own.split('/').next());
    }
    Ok(())
}

#[test]
fn the_source_is_no_address_of_another_group_either() -> Result<()> {
    let pair = Pair::new()?;
    let way = ways().pop().expect("version 3 over IPv6");
    // The kernel lists the newest one first.
    pair.ours.ip("address add fe80::99/64 dev wire nodad")?;
    let shared = ["fe80::99", "fe80::100"].map(|ip| ip.parse().expect("an address")).into();
    let channel = pair.ours.enter(|| Channel::open("wire", &way.group, &shared))?;
    assert_eq!(channel.source().to_string(), "fe80::1");
    Ok(())
}

#[test]
fn a_configured_source_has_to_be_there() -> Result<()> {
    let pair = Pair::new()?;
    let config = Vrrp { source: Some([10, 1, 0, 9].into()), ..vrrp(VrrpVersion::V3) };
    let group = group(Protocol::Vrrp(config), &["10.1.0.100"]);
    let error = pair.channel(&group).expect_err("there is no such address");
    ensure!(error.to_string().contains("10.1.0.9 is no address of this host"), "{error}");
    pair.ours.ip("address add 10.1.0.9/24 dev wire")?;
    assert_eq!(pair.channel(&group)?.source().to_string(), "10.1.0.9");
    Ok(())
}

#[test]
fn a_channel_finds_out_that_its_source_is_gone() -> Result<()> {
    let pair = Pair::new()?;
    for way in ways() {
        let mut channel = pair.channel(&way.group)?;
        let advert = advert(&way.group, way.interval, 0);
        channel.send(&advert)?;
        let (own, bits) = if channel.source().is_ipv4() {
            (OURS.to_string(), 24)
        } else {
            ("fe80::1".to_owned(), 64)
        };
        pair.ours.ip(&format!("address delete {own}/{bits} dev wire"))?;
        let error = channel.send(&advert).expect_err("there is no such address");
        assert!(is_of_source(&error), "{}: {error}", way.name);
        assert!(pair.channel(&way.group).is_err(), "{}", way.name);
        pair.ours.ip(&format!("address add {own}/{bits} dev wire"))?;
    }
    Ok(())
}

/// What tcpdump and tshark say of one advert of each kind.
#[test]
fn packet_analysers_have_no_complaint() -> Result<()> {
    let pair = Pair::new()?;
    let plain = Vrrp { pseudo_header: false, ..vrrp(VrrpVersion::V3) };
    let mut groups: Vec<_> = ways().into_iter().map(|way| (way.group, way.interval)).collect();
    groups.push((group(Protocol::Vrrp(plain), &["10.1.0.100"]), 10));
    groups.push((group(Protocol::Carp(carp()), &["10.1.0.100"]), 100));
    groups.extend(unicast_ways().map(|way| (way.group, way.interval)));

    let file = pair.dir.join("adverts.pcap");
    let capture = pair.theirs.command("tcpdump");
    let mut capture = capture
        .args(["-Z", "root", "-U", "-i", "wire", "-w"])
        .arg(&file)
        .args(["-c", &groups.len().to_string(), "ip proto 112 or ip6 proto 112"])
        .spawn()?;
    until("tcpdump", PATIENCE, || {
        ensure!(fs::read_to_string(capture.log())?.contains("listening"), "not listening");
        Ok(())
    })?;
    for (group, interval) in &groups {
        pair.channel(group)?.send(&advert(group, *interval, 1))?;
    }
    capture.wait(PATIENCE)?;

    let text = pair.theirs.command("tcpdump").args(["-nvv", "-r"]).arg(&file).run()?;
    let expected = [
        "VRRPv2, Advertisement, vrid 51, prio 200, authtype simple, intvl 1s, length 20, \
         addrs: 10.1.0.100 auth \"secret12\"",
        "10.1.0.1 > 10.1.0.2: VRRPv2, Advertisement, vrid 51, prio 200",
        "10.1.0.1 > 224.0.0.18: VRRPv3, Advertisement, vrid 51, prio 200, intvl 10cs, length 12, \
         addrs: 10.1.0.100",
        "10.1.0.1 > 10.1.0.2: VRRPv3, Advertisement, vrid 51, prio 200, intvl 10cs, length 12",
        "fd01::1 > fd01::2: VRRPv3, Advertisement, vrid 51, prio 200, intvl 10cs, length 40",
        "fe80::1 > ff02::12: VRRPv3, Advertisement, vrid 51, prio 200, intvl 10cs, length 40, \
         addrs(2): fe80::100,fd01::100",
        "flags [none]",
    ];
    for part in expected {
        ensure!(text.contains(part), "no {part:?} in:\n{text}");
    }
    // All of them, by unicast too (RFC 3768, 5.2.3; RFC 9568, 5.1.1.3 and 5.1.2.3).
    for (part, times) in
        [("tos 0xc0, ttl 255,", 6), ("class 0xc0,", 2), ("hlim 255,", 2), ("IP6", 2)]
    {
        assert_eq!(text.matches(part).count(), times, "{part:?} in:\n{text}");
    }
    // Both analysers expect the pseudo-header that RFC 9568 leaves out, and say so of the one
    // advert without.
    assert_eq!(text.matches("bad vrrp cksum").count(), 1, "{text}");
    let carp =
        pair.theirs.command("tcpdump").args(["-nvv", "-T", "carp", "-r"]).arg(&file).run()?;
    let part = "CARPv2-advertise 36: vhid=51 advbase=1 advskew=0 authlen=7 counter=1";
    ensure!(carp.contains(part), "no {part:?} in:\n{carp}");

    // It takes every packet of the protocol for VRRP, unless that is disabled.
    let tshark = |more: &[&str]| {
        pair.theirs.command("tshark").args(["-n", "-V"]).args(more).arg("-r").arg(&file).run()
    };
    let vrrp = tshark(&["-Y", "frame.number <= 4 or frame.number >= 7"])?;
    let carp = tshark(&["-Y", "frame.number == 6", "--disable-protocol", "vrrp"])?;
    for text in [&vrrp, &carp] {
        for complaint in ["alformed", "ncorrect", "Expert Info", "should be"] {
            ensure!(!text.contains(complaint), "{complaint:?} in:\n{text}");
        }
    }
    assert_eq!(vrrp.matches("Virtual Router Redundancy Protocol").count(), 6, "{vrrp}");
    assert_eq!(vrrp.matches("Checksum Status: Good").count(), 6, "{vrrp}");
    for part in ["Common Address Redundancy Protocol", "Virtual Host ID: 51", "Counter: 1"] {
        ensure!(carp.contains(part), "no {part:?} in:\n{carp}");
    }
    Ok(())
}
