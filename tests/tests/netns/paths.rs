//! The way of the packets: it changes in the middle of a transfer, has VLANs or large frames.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_daemon::core::{State, Status};
use tests::lab::{
    Ask, Bulk, BulkServer, Family, Host, IdentServer, Interface, Lab, Namespace, Service, Settings,
    Shape, Tagged, Tandem, wait::until,
};

const PATIENCE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(120);
const MEGABYTE: u64 = 1_000_000;
/// Some three seconds of [`RATE`].
const BYTES: u64 = 20 * MEGABYTE;
/// Megabits a second at which hosts send where something is to happen meanwhile.
const RATE: u32 = 50;

/// Which side sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::Up, Self::Down];
}

/// A lab with one backend, and a bulk service that is at the lab's own addresses.
struct Stage {
    family: Family,
    tandem: Tandem,
    _server: BulkServer,
    lab: Lab,
}

impl Stage {
    fn set(shape: Shape, family: Family) -> Result<Self> {
        let lab = Lab::new(shape, 1)?;
        let service = Service::new("bulk", (lab.vip(family), 80));
        let service = service.backends(lab.backends(), family, 80);
        Self::serve(lab, family, &service)
    }

    fn serve(lab: Lab, family: Family, service: &Service) -> Result<Self> {
        Self::serve_in("native", lab, family, service)
    }

    fn serve_in(mode: &str, lab: Lab, family: Family, service: &Service) -> Result<Self> {
        let server = BulkServer::start(&lab.backends()[0], 80)?;
        // Neither end finds the path's MTU by itself: it takes the ICMP message.
        for end in [lab.client(), &lab.backends()[0]] {
            end.sysctl("net.ipv4.tcp_mtu_probing", "0")?;
        }
        let settings = Settings::new(&lab, &service.to_string());
        let settings = settings.global(&format!("xdp_mode = {mode:?}"));
        let tandem = Tandem::start_with(&lab, &settings)?;
        tandem.wait_until_all_serve()?;
        Ok(Self { family, tandem, _server: server, lab })
    }

    /// Transfers a slow lot; when it is on its way, makes the change. Returns what was counted
    /// before the change and at the end.
    fn transfer_while(
        &self,
        direction: Direction,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<(Status, Status)> {
        let (client, backend) = (self.lab.client(), &self.lab.backends()[0]);
        for end in [client, backend] {
            Interface::new(end, "eth0").slow_down(RATE)?;
        }
        let before = thread::scope(|scope| {
            let transfer = scope.spawn(|| self.transfer(direction, BYTES));
            let before = self.tandem.wait_until("it is on its way", PATIENCE, |status| {
                let traffic = status.services[0].backends[0].traffic;
                traffic.bytes_in.max(traffic.bytes_out) > MEGABYTE
            })?;
            change()?;
            ensure!(!transfer.is_finished(), "it was over before the change");
            transfer.join().expect("a transfer does not panic")?;
            Ok(before)
        })?;
        Ok((before, self.tandem.status()?))
    }

    fn transfer(&self, direction: Direction, bytes: u64) -> Result<Bulk> {
        let to: SocketAddr = (self.lab.vip(self.family), 80).into();
        let part = match direction {
            Direction::Up => Bulk::upload,
            Direction::Down => Bulk::download,
        };
        part(self.lab.client(), to, bytes, LIMIT)
    }

    /// The smallest MTU that is worth a test: IPv6's own minimum, or less.
    fn small_mtu(&self) -> u32 {
        if self.family == Family::V4 { 1000 } else { 1280 }
    }
}

fn counted(verdict: &str, (before, after): &(Status, Status)) -> u64 {
    after.verdicts[verdict] - before.verdicts[verdict]
}

#[test]
fn a_router_on_the_way_to_the_backends_gets_a_smaller_mtu() -> Result<()> {
    Family::BOTH.into_iter().try_for_each(|family| {
        let stage = Stage::set(Shape::Routed, family)?;
        let link = Interface::new(stage.lab.far_ends()[1].namespace(), "lan");
        let seen = stage.transfer_while(Direction::Up, || link.set_mtu(stage.small_mtu()))?;
        ensure!(counted("forward_error", &seen) > 0, "{family:?}: no error came: {seen:?}");
        Ok(())
    })
}

#[test]
fn a_router_on_the_way_to_the_client_gets_a_smaller_mtu() -> Result<()> {
    Family::BOTH.into_iter().try_for_each(|family| {
        let stage = Stage::set(Shape::Routed, family)?;
        let link = Interface::new(stage.lab.far_ends()[0].namespace(), "client");
        let seen = stage.transfer_while(Direction::Down, || link.set_mtu(stage.small_mtu()))?;
        ensure!(counted("forward_error", &seen) > 0, "{family:?}: no error came: {seen:?}");
        Ok(())
    })
}

#[test]
fn a_link_of_the_balancer_gets_a_smaller_mtu() -> Result<()> {
    for (family, direction) in every_way() {
        let stage = Stage::set(Shape::Routed, family)?;
        let [front, back] = stage.lab.interfaces() else { panic!("it has two arms") };
        let link = if direction == Direction::Up { back } else { front };
        let seen = stage.transfer_while(direction, || link.set_mtu(stage.small_mtu()))?;
        let told = counted("reply_too_big", &seen);
        ensure!(told > 0, "{family:?}, {direction:?}: nobody was told: {seen:?}");
    }
    Ok(())
}

fn every_way() -> impl Iterator<Item = (Family, Direction)> {
    Family::BOTH.into_iter().flat_map(|family| Direction::BOTH.map(|direction| (family, direction)))
}

#[test]
fn a_backend_gets_another_link_layer_address() -> Result<()> {
    for (family, direction) in every_way() {
        let stage = Stage::set(Shape::TwoArm, family)?;
        let backend = &stage.lab.backends()[0];
        stage.transfer_while(direction, || {
            moves(&Interface::new(backend, "eth0"), &stage.lab, backend.address(family))
        })?;
    }
    Ok(())
}

#[test]
fn the_router_of_the_backends_gets_another_link_layer_address() -> Result<()> {
    for (family, direction) in every_way() {
        let stage = Stage::set(Shape::Routed, family)?;
        let router = &stage.lab.far_ends()[1];
        stage.transfer_while(direction, || moves(router, &stage.lab, gateway(family, 2)))?;
    }
    Ok(())
}

#[test]
fn the_router_of_the_clients_gets_another_link_layer_address() -> Result<()> {
    for (family, direction) in every_way() {
        let stage = Stage::set(Shape::Routed, family)?;
        let router = &stage.lab.far_ends()[0];
        // The kernel has to know this neighbour to tell of its move; packets of connections do
        // not make it ask.
        ensure!(stage.lab.balancer().pings(stage.lab.client().address(family)), "no ping");
        stage.transfer_while(direction, || moves(router, &stage.lab, gateway(family, 1)))?;
    }
    Ok(())
}

/// The routers' address in a network of the lab.
fn gateway(family: Family, net: u8) -> IpAddr {
    let text = match family {
        Family::V4 => format!("10.{net}.0.254"),
        Family::V6 => format!("fd00:{net}::254"),
    };
    text.parse().expect("it is an address")
}

/// Gives a neighbour of the balancer another link-layer address, which it announces until the
/// balancer's kernel has taken it in: that ignores announcements in quick succession.
fn moves(neighbour: &Interface, lab: &Lab, address: IpAddr) -> Result<()> {
    const ELSEWHERE: &str = "02:00:00:ff:ff:01";
    let namespace = neighbour.namespace();
    namespace.sysctl("net.ipv4.conf.all.arp_notify", "1")?;
    namespace.sysctl("net.ipv6.conf.all.ndisc_notify", "1")?;
    until("the move is known", PATIENCE, || {
        neighbour.set_mac(ELSEWHERE)?;
        let known = lab.balancer().ip(&format!("neigh show {address}"))?;
        ensure!(known.contains(ELSEWHERE), "the kernel knows {known}");
        Ok(())
    })
}

#[test]
fn an_interface_of_the_balancer_goes_down_and_up() -> Result<()> {
    for (family, direction) in every_way() {
        let stage = Stage::set(Shape::TwoArm, family)?;
        for interface in stage.lab.interfaces() {
            stage.transfer_while(direction, || {
                interface.down()?;
                // The daemon hears of it, and finds no route meanwhile.
                thread::sleep(Duration::from_millis(300));
                interface.up()
            })?;
        }
    }
    Ok(())
}

#[test]
fn the_route_to_a_backend_changes_to_another_gateway() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::two_arm(3)?;
        let [b1, b2, b3] = lab.backends() else { panic!("it has three") };
        // An address of the first host that only the two others lead to.
        let (address, bits) = match family {
            Family::V4 => ("10.5.0.11", 32),
            Family::V6 => ("fd00:5::11", 128),
        };
        Interface::new(b1, "lo").address(&format!("{address}/{bits}"))?;
        for gateway in [b2, b3] {
            gateway.sysctl("net.ipv4.ip_forward", "1")?;
            gateway.sysctl("net.ipv6.conf.all.forwarding", "1")?;
            gateway.ip(&format!("route add {address} via {}", b1.address(family)))?;
        }
        let lead_by = |gateway: &Host| {
            let route = format!("route replace {address} via {}", gateway.address(family));
            lab.balancer().ip(&route).map(drop)
        };
        lead_by(b2)?;
        let at = SocketAddr::new(address.parse()?, 80);
        let service = Service::new("bulk", (lab.vip(family), 80)).backend_at(b1, at, "");
        let (b2, b3, balancer) = (b2.clone(), b3.clone(), lab.balancer().clone());
        let stage = Stage::serve(lab, family, &service)?;
        stage.transfer_while(Direction::Up, || {
            let route = format!("route replace {address} via {}", b3.address(family));
            balancer.ip(&route)?;
            // From now on the old way leads nowhere.
            b2.unplug()
        })?;
    }
    Ok(())
}

/// Gives the two ends of a cable, or what is between them, interfaces of a VLAN, or of one in
/// another, with addresses in a network of their own.
fn vlan(ends: [(&Interface, u8); 2], net: u8, tags: &[(&str, u16)]) -> Result<()> {
    for (interface, host) in ends {
        let mut top = interface.clone();
        for (protocol, number) in tags {
            top = top.vlan(protocol, *number)?;
        }
        // Sent by a program, tags count for the MTU of a veth.
        top.set_mtu(1492)?;
        top.address(&format!("10.{net}.0.{host}/24"))?;
        top.address(&format!("fd00:{net}::{host}/64"))?;
    }
    Ok(())
}

fn carries_by_vlans(before: &[(&str, u16)], behind: &[(&str, u16)]) -> Result<()> {
    ensure!(Interface::kernel_has_vlans()?, "this kernel is built without CONFIG_VLAN_8021Q");
    for family in Family::BOTH {
        let lab = Lab::two_arm(1)?;
        let [front, back] = lab.interfaces() else { panic!("it has two arms") };
        let (client, backend) = (lab.client(), &lab.backends()[0]);
        let mut at = backend.at(family, 80);
        if !behind.is_empty() {
            vlan([(back, 1), (&Interface::new(backend, "eth0"), 11)], 6, behind)?;
            at.set_ip(match family {
                Family::V4 => "10.6.0.11".parse()?,
                Family::V6 => "fd00:6::11".parse()?,
            });
        }
        if !before.is_empty() {
            vlan([(front, 1), (&Interface::new(client, "eth0"), 10)], 7, before)?;
            let (vip, via) = match family {
                Family::V4 => (lab.vip4(), "10.7.0.1"),
                Family::V6 => (lab.vip6(), "fd00:7::1"),
            };
            client.ip(&format!("route replace {vip} via {via}"))?;
        }
        let service = Service::new("bulk", (lab.vip(family), 80));
        let service = service.backend_at(backend, at, "");
        let stage = Stage::serve(lab, family, &service)?;
        for direction in Direction::BOTH {
            stage.transfer(direction, 20 * MEGABYTE)?;
        }
        let status = stage.tandem.status()?;
        let forwarded = status.verdicts["forward_client"] + status.verdicts["forward_server"];
        ensure!(forwarded > 20_000, "the kernel carried it: {:?}", status.verdicts);
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with VLAN interfaces (CONFIG_VLAN_8021Q); run it there with --ignored"]
fn backends_are_on_a_vlan() -> Result<()> {
    carries_by_vlans(&[], &[("802.1Q", 20)])
}

#[test]
#[ignore = "needs a kernel with VLAN interfaces (CONFIG_VLAN_8021Q); run it there with --ignored"]
fn clients_are_on_a_vlan() -> Result<()> {
    carries_by_vlans(&[("802.1Q", 30)], &[])
}

#[test]
fn frames_of_clients_with_one_or_two_tags_are_answered_with_the_same_tags() -> Result<()> {
    for tags in [&[(0x8100, 30)][..], &[(0x8100, 20), (0x88a8, 40)]] {
        for family in Family::BOTH {
            let stage = Stage::set(Shape::TwoArm, family)?;
            let (lab, client) = (&stage.lab, stage.lab.client());
            let eth0 = Interface::new(client, "eth0");
            let (vip, front) = (lab.vip(family), lab.interfaces()[0].mac()?);
            // Sent by a program, tags count for the MTU of a veth.
            client.ip(&format!("route add {vip} dev eth0 mtu 1400 advmss 1340"))?;
            client.ip(&format!("neigh replace {vip} lladdr {front} dev eth0 nud permanent"))?;
            let _tagged = Tagged::new(&eth0, tags)?;
            // The balancer's kernel has no such VLAN: who answers is the program.
            ensure!(!client.pings(vip), "the frames have no tags");
            for direction in Direction::BOTH {
                stage.transfer(direction, 20 * MEGABYTE)?;
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with VLAN interfaces (CONFIG_VLAN_8021Q); run it there with --ignored"]
fn clients_and_backends_are_on_different_vlans() -> Result<()> {
    carries_by_vlans(&[("802.1Q", 30)], &[("802.1Q", 20)])
}

#[test]
#[ignore = "needs a kernel with VLAN interfaces (CONFIG_VLAN_8021Q); run it there with --ignored"]
fn backends_are_on_a_vlan_within_a_vlan() -> Result<()> {
    carries_by_vlans(&[], &[("802.1ad", 40), ("802.1Q", 20)])
}

#[test]
fn jumbo_frames_pass_in_native_mode() -> Result<()> {
    jumbo_frames_pass("native")
}

#[test]
fn jumbo_frames_pass_in_generic_mode() -> Result<()> {
    jumbo_frames_pass("generic")
}

fn jumbo_frames_pass(mode: &str) -> Result<()> {
    const JUMBO: u32 = 9000;
    for family in Family::BOTH {
        let lab = Lab::two_arm(1)?;
        let switch = lab.far_ends()[1].namespace();
        let backend = &lab.backends()[0];
        let eth0 = |host: &Namespace| Interface::new(host, "eth0");
        let ends = [eth0(lab.client()), eth0(backend), Interface::new(switch, backend.name())];
        for interface in lab.interfaces().iter().chain(lab.far_ends()).chain(&ends) {
            interface.set_mtu(JUMBO)?;
        }
        Interface::new(switch, "lan").set_mtu(JUMBO)?;
        let service = Service::new("bulk", (lab.vip(family), 80));
        let service = service.backends(lab.backends(), family, 80);
        let stage = Stage::serve_in(mode, lab, family, &service)?;
        for direction in Direction::BOTH {
            stage.transfer(direction, 50 * MEGABYTE)?;
        }
        let status = stage.tandem.status()?;
        let largest = status.services[0].backends[0].traffic;
        // Both counts include the acknowledgements of the other direction.
        for (bytes, packets) in
            [(largest.bytes_in, largest.packets_in), (largest.bytes_out, largest.packets_out)]
        {
            ensure!(bytes / packets > 1500, "they were small: {largest:?}");
        }
        ensure!(status.verdicts["reply_too_big"] == 0, "too big: {:?}", status.verdicts);
    }
    Ok(())
}

#[test]
fn a_backend_by_an_interface_without_the_program_is_not_used_and_the_status_says_why() -> Result<()>
{
    let lab = Lab::two_arm(1)?;
    let backend = &lab.backends()[0];
    let _server = IdentServer::start(backend, 80)?;
    let service = Service::new("web", (lab.vip4(), 80)).backend(backend, Family::V4, 80);
    let complete = Settings::new(&lab, &service.to_string());
    let lacking = Settings { interfaces: vec!["front".to_owned()], ..complete.clone() };
    let tandem = Tandem::start_with(&lab, &lacking)?;
    tandem.wait_until("the status says why", PATIENCE, |status| {
        let backend = &status.services[0].backends[0];
        let why = "it is reached by back, where the XDP program is not: add it to [global] \
                   interfaces";
        !backend.eligible && backend.why.as_deref() == Some(why)
    })?;
    let refused = Ask::at((lab.vip4(), 80).into()).times(5).from(lab.client());
    assert_eq!(refused.failures, [("connection refused".to_owned(), 5)].into());

    tandem.configure(&complete)?;
    tandem.reload()?;
    tandem.wait_until("it serves", PATIENCE, |s| s.services[0].state == State::Up)?;
    Ask::at((lab.vip4(), 80).into()).times(5).from(lab.client()).all_answered()
}

#[test]
fn from_the_start_a_connection_is_served_or_refused_but_no_syn_is_lost() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::routed(2)?;
        let servers = [&lab.backends()[0], &lab.backends()[1]].map(|b| IdentServer::start(b, 80));
        let service = Service::new("web", (lab.vip(family), 80));
        let service = service.backends(lab.backends(), family, 80);
        // Nobody has been asked for on either side.
        for host in [lab.balancer(), lab.client()] {
            host.ip("neigh flush all")?;
        }
        let tandem = Tandem::start(&lab, &service.to_string())?;
        let ask = Ask::at((lab.vip(family), 80).into());
        let (mut served, mut tries) = (0, 0);
        while served < 5 {
            let tally = ask.clone().times(1).from(lab.client());
            served += tally.answers.values().sum::<usize>();
            tries += 1;
            ensure!(tries < 10_000, "nobody is ever served");
            for why in tally.failures.keys() {
                assert_eq!(why, "connection refused");
            }
        }
        let status = tandem.status()?;
        for (verdict, count) in &status.verdicts {
            ensure!(*count == 0 || !verdict.starts_with("drop_"), "{verdict}: {count}");
        }
        assert_eq!(status.verdicts["forward_new"], served as u64);
        assert_eq!(status.verdicts["reset_no_backend"], tries - served as u64);
        let accepted: usize = servers.iter().flatten().map(IdentServer::accepted).sum();
        assert_eq!(accepted, served);
    }
    Ok(())
}
