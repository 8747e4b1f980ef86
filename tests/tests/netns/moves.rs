//! How soon a gateway is followed that gets another link-layer address.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tests::lab::{Family, IdentServer, Interface, Lab, Pulse, Service, Tandem, wait::until};

const SECOND: Duration = Duration::from_secs(1);
/// How long Linux takes no second announcement of a neighbour after a first (`locktime`, 1 s), or
/// after it has confirmed the neighbour itself; and some.
const SETTLED: Duration = Duration::from_millis(1500);
const ELSEWHERE: &str = "02:00:00:ff:ff:01";

/// On whose side of the balancer a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Clients,
    Backends,
}

struct Stage {
    lab: Lab,
    _server: IdentServer,
    _tandem: Tandem,
    family: Family,
    side: Side,
}

impl Stage {
    fn set(family: Family, side: Side) -> Result<Self> {
        let lab = Lab::routed(1)?;
        let server = IdentServer::start(&lab.backends()[0], 80)?;
        // Of connections alone the kernel knows nothing; the checks go its way.
        let service = Service::new("echo", (lab.vip(family), 80)).checked();
        let service = service.backends(lab.backends(), family, 80);
        let tandem = Tandem::start(&lab, &service.to_string())?;
        tandem.wait_until_all_serve()?;
        // Only of a neighbour that it knows will the kernel tell that it moved.
        ensure!(lab.balancer().pings(lab.client().address(family)), "no ping");
        Ok(Self { lab, _server: server, _tandem: tandem, family, side })
    }

    fn pulse(&self, connections: usize, beat: Duration) -> Result<Pulse> {
        let to = (self.lab.vip(self.family), 80).into();
        Pulse::start(self.lab.client(), to, connections, beat)
    }

    /// The gateway's interface towards the balancer.
    fn gateway(&self) -> &Interface {
        &self.lab.far_ends()[self.side as usize]
    }

    /// The balancer's interface towards the gateway.
    fn interface(&self) -> &Interface {
        &self.lab.interfaces()[self.side as usize]
    }

    /// The addresses of the balancer and of the gateway in the network between them.
    fn network(&self) -> [IpAddr; 2] {
        let net = self.side as usize + 1;
        [1, 254].map(|host| {
            let text = match self.family {
                Family::V4 => format!("10.{net}.0.{host}"),
                Family::V6 => format!("fd00:{net}::{host}"),
            };
            text.parse().expect("it is an address")
        })
    }
}

#[test]
fn a_gateway_that_announces_its_new_link_layer_address_is_followed_within_a_second() -> Result<()> {
    for family in Family::BOTH {
        for side in [Side::Clients, Side::Backends] {
            let stage = Stage::set(family, side)?;
            let gateway = stage.gateway();
            // A gratuitous ARP request, or an unsolicited neighbour advertisement.
            gateway.namespace().sysctl("net.ipv4.conf.all.arp_notify", "1")?;
            gateway.namespace().sysctl("net.ipv6.conf.all.ndisc_notify", "1")?;
            let pulse = stage.pulse(1500, Duration::from_millis(1))?;
            thread::sleep(SETTLED);
            let before = pulse.silence()?;
            gateway.set_mac(ELSEWHERE)?;
            thread::sleep(SECOND);
            let broken = pulse.silence()?;
            println!(
                "{family:?}, gateway of the {side:?}, announced: {broken:?} without an echo \
                 ({before:?} before the move)"
            );
            ensure!(broken < SECOND, "{family:?}, {side:?}: nothing came through for {broken:?}");
        }
    }
    Ok(())
}

#[test]
fn a_gateway_that_does_not_announce_its_new_link_layer_address_is_followed_when_the_kernel_notices()
-> Result<()> {
    /// What the settings below come to: a neighbour is reachable for up to 3 s since it was last
    /// heard, then it is waited for 1 s, then asked itself three times, 1 s apart, and when a check
    /// needs it the next time, up to 3 s later, everybody is asked; 2 s for all else.
    const KERNELS: Duration = Duration::from_secs(3 + 1 + 3 + 3 + 2);
    for family in Family::BOTH {
        let stage = Stage::set(family, Side::Backends)?;
        let (gateway, [balancer, address]) = (stage.gateway(), stage.network());
        let interface = stage.interface();
        let ip = if family == Family::V4 { "ipv4" } else { "ipv6" };
        // With its defaults the kernel takes up to 54 s.
        for (setting, value) in
            [("base_reachable_time_ms", "2000"), ("delay_first_probe_time", "1")]
        {
            let name = format!("net.{ip}.neigh.{}.{setting}", interface.name());
            interface.namespace().sysctl(&name, value)?;
        }
        // When it looks at an entry again was decided with the setting of the time.
        interface.namespace().ip(&format!("neigh flush dev {}", interface.name()))?;
        let pulse = stage.pulse(1500, Duration::from_millis(10))?;
        thread::sleep(SETTLED);
        pulse.silence()?;
        let moved = Instant::now();
        gateway.set_mac(ELSEWHERE)?;
        // It does not have to ask for the balancer either, from which that would learn.
        let (link, mac) = (gateway.name(), interface.mac()?);
        let known = format!("neigh replace {balancer} lladdr {mac} dev {link} nud permanent");
        gateway.namespace().ip(&known)?;
        until("the kernel notices", KERNELS, || {
            let known = interface.namespace().ip(&format!("neigh show {address}"))?;
            ensure!(known.contains(ELSEWHERE), "it knows {known}");
            Ok(())
        })?;
        let noticed = moved.elapsed();
        thread::sleep(SECOND);
        let broken = pulse.silence()?;
        println!(
            "{family:?}, not announced: the kernel noticed after {noticed:?}; {broken:?} without \
             an echo"
        );
        ensure!(broken < noticed + SECOND, "{family:?}: {broken:?}, though it knew at {noticed:?}");
    }
    Ok(())
}
