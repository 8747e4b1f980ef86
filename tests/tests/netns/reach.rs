//! Every shape of network, both address families, both XDP modes.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_daemon::core::State;
use tests::lab::{
    Ask, Bulk, BulkServer, Close, Family, IdentServer, Lab, Service, Settings, Shape, Tandem, Tap,
};

/// What hosts of the lab send packets with.
const HOP_LIMIT: u8 = 64;
const MEGABYTE: u64 = 1_000_000;

#[test]
fn two_arm_carries_both_families_in_native_mode() -> Result<()> {
    carries_both_families(Shape::TwoArm, "native")
}

#[test]
fn two_arm_carries_both_families_in_generic_mode() -> Result<()> {
    carries_both_families(Shape::TwoArm, "generic")
}

#[test]
fn one_arm_carries_both_families_in_native_mode() -> Result<()> {
    carries_both_families(Shape::OneArm, "native")
}

#[test]
fn one_arm_carries_both_families_in_generic_mode() -> Result<()> {
    carries_both_families(Shape::OneArm, "generic")
}

#[test]
fn routed_carries_both_families_in_native_mode() -> Result<()> {
    carries_both_families(Shape::Routed, "native")
}

#[test]
fn routed_carries_both_families_in_generic_mode() -> Result<()> {
    carries_both_families(Shape::Routed, "generic")
}

fn carries_both_families(shape: Shape, mode: &str) -> Result<()> {
    let lab = Lab::new(shape, 2)?;
    let mut servers = Vec::new();
    for backend in lab.backends() {
        servers.push((IdentServer::start(backend, 80)?, BulkServer::start(backend, 81)?));
    }
    let services = Family::BOTH.map(|family| {
        let service = |port| {
            Service::new(format!("{family:?}-{port}"), (lab.vip(family), port)).backends(
                lab.backends(),
                family,
                port,
            )
        };
        format!("{}\n{}", service(80), service(81))
    });
    let settings = Settings::new(&lab, &services.concat());
    let tandem = Tandem::start_with(&lab, &settings.global(&format!("xdp_mode = {mode:?}")))?;
    let status = tandem.wait_until_all_serve()?;
    let modes: Vec<_> = status.interfaces.iter().map(|one| (&one.name, &one.mode)).collect();
    ensure!(modes.len() == lab.interfaces().len(), "not all interfaces: {modes:?}");
    ensure!(modes.iter().all(|(_, in_force)| *in_force == mode), "in force: {modes:?}");

    for family in Family::BOTH {
        translates_both_ways(&lab, family)?;
        let ask = Ask::at((lab.vip(family), 80).into()).times(100).at_once(10).echo(50_000);
        let tally = ask.from(lab.client());
        tally.all_answered()?;
        assert_eq!((tally.count("b1"), tally.count("b2")), (50, 50), "{family:?}");

        let (to, limit) = ((lab.vip(family), 81).into(), Duration::from_secs(60));
        let up = Bulk::upload(lab.client(), to, 10 * MEGABYTE + 1, limit)?;
        let down = Bulk::download(lab.client(), to, 10 * MEGABYTE + 1, limit)?;
        assert_eq!(up.checksum, down.checksum);
    }
    Ok(())
}

/// The backend sees the balancer in the client's place, the client sees the virtual address in
/// the backend's, and neither sees a packet that was not one hop older.
fn translates_both_ways(lab: &Lab, family: Family) -> Result<()> {
    let vip: SocketAddr = (lab.vip(family), 80).into();
    let client = Tap::on(lab.client())?;
    let backends: Vec<_> = lab.backends().iter().map(|b| Tap::on(b)).collect::<Result<_>>()?;
    Ask::at(vip).times(2).echo(1000).from(lab.client()).all_answered()?;

    // The lab's routers take one from the hop limit too.
    let routers = if lab.shape() == Shape::Routed { 2 } else { 0 };
    let hop_limit = HOP_LIMIT - routers - 1;
    for (backend, tap) in lab.backends().iter().zip(backends) {
        let requests = tap.seen(|to| to == backend.at(family, 80))?;
        ensure!(!requests.is_empty(), "{} saw nothing", backend.name());
        for one in requests {
            assert_eq!((one.from.ip(), one.hop_limit), (lab.source(family), hop_limit), "{one:?}");
        }
    }
    let answers = client.seen(|to| to.ip() == lab.client().address(family))?;
    ensure!(!answers.is_empty(), "the client saw nothing");
    for one in answers {
        assert_eq!((one.from, one.hop_limit), (vip, hop_limit), "{one:?}");
    }
    Ok(())
}

#[test]
fn every_address_of_a_source_pool_is_used() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::two_arm(1)?;
        let backend = &lab.backends()[0];
        let _server = IdentServer::start(backend, 80)?;
        let pool = lab.add_sources(family, 4)?;
        let quoted: Vec<String> = pool.iter().map(ToString::to_string).collect();
        let service = Service::new("web", (lab.vip(family), 80))
            .set(&format!("source = {quoted:?}"))
            .backend(backend, family, 80);
        // Few ports, so that few connections need every address.
        let settings =
            Settings::new(&lab, &service.to_string()).global("source_ports = \"2000-2024\"");
        let tandem = Tandem::start_with(&lab, &settings)?;
        tandem.wait_until_all_serve()?;

        let tap = Tap::on(backend)?;
        let ask = Ask::at((lab.vip(family), 80).into()).close(Close::Reset);
        ask.clone().times(100).from(lab.client()).all_answered()?;
        let mut ports: BTreeMap<_, Vec<u16>> = BTreeMap::new();
        for syn in tap.seen(|to| to == backend.at(family, 80))?.iter().filter(|one| one.opens) {
            ports.entry(syn.from.ip()).or_default().push(syn.from.port());
        }
        let each: Vec<u16> = (2000..=2024).collect();
        for ports in ports.values_mut() {
            ports.sort_unstable();
            ports.dedup();
        }
        assert_eq!(ports, pool.into_iter().map(|source| (source, each.clone())).collect());

        // All are taken now, by connections that are over: they give them up again.
        ask.times(100).from(lab.client()).all_answered()?;
    }
    Ok(())
}

#[test]
fn what_is_not_for_a_service_reaches_the_balancers_own_kernel() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let backend = &lab.backends()[0];
    let _server = IdentServer::start(backend, 80)?;
    let _own = IdentServer::start(lab.balancer(), 8080)?;
    let services = Family::BOTH.map(|family| {
        let service = Service::new(format!("{family:?}"), (lab.vip(family), 80));
        service.backend(backend, family, 80).to_string()
    });
    let tandem = Tandem::start(&lab, &services.concat())?;
    tandem.wait_until_all_serve()?;

    for family in Family::BOTH {
        let vip = lab.vip(family);
        ensure!(lab.client().pings(vip), "no ping of {vip}");
        ensure!(backend.pings(lab.source(family)), "no ping from the backend");
        // A server of the balancer itself, at an address of its own and at the virtual one.
        for (asker, at) in [(backend, lab.source(family)), (lab.client(), vip)] {
            let tally = Ask::at((at, 8080).into()).times(10).echo(50_000).from(asker);
            assert_eq!(tally.answers, [("balancer".to_owned(), 10)].into(), "{at}: {tally:?}");
        }

        let passed = tandem.status()?.verdicts["pass_no_service"];
        let tally = Ask::at((vip, 81).into()).times(5).from(lab.client());
        assert_eq!(tally.failures, [("connection refused".to_owned(), 5)].into());
        let status = tandem.status()?;
        assert_eq!(status.verdicts["pass_no_service"], passed + 5, "the kernel refused them");
        assert_eq!(status.verdicts["reset_no_flow"], 0);
    }
    Ok(())
}

#[test]
fn a_service_without_backends_refuses_at_once() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let services = Family::BOTH.map(|family| {
        // Nobody listens on that port, and the checks find that out.
        let service = Service::new(format!("{family:?}"), (lab.vip(family), 80)).checked();
        service.backend(&lab.backends()[0], family, 80).to_string()
    });
    let tandem = Tandem::start(&lab, &services.concat())?;
    tandem.wait_until("the checks fail", Duration::from_secs(10), |status| {
        status.services.iter().all(|service| {
            let check = service.backends[0].check.as_ref();
            service.state == State::Down && check.is_some_and(|check| check.failed > 1)
        })
    })?;
    for (family, refused) in Family::BOTH.into_iter().zip([20, 40]) {
        let tally = Ask::at((lab.vip(family), 80).into()).times(20).from(lab.client());
        assert_eq!(tally.failures, [("connection refused".to_owned(), 20)].into());
        // A SYN that went unanswered would have been sent again, and counted again.
        let status = tandem.status()?;
        assert_eq!(status.verdicts["reset_no_backend"], refused);
        assert_eq!(status.verdicts["forward_new"], 0);
    }
    Ok(())
}
