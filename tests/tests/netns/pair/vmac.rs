//! Addresses with the virtual MAC address, which moves with them.

use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::lab::{
    Ask, Contest, Election, Family, fence,
    member::{PORT, System},
    wait::until,
};

use super::{MS, PERIOD, PRIORITIES, election, goes_on, says_nothing, tandems};

fn with_vmac() -> Election {
    Election { vmac: true, ..election() }
}

/// The Ethernet address that the client knows the virtual one by; it asks for it if it knows none.
fn known_to_client(contest: &Contest) -> Result<String> {
    let (client, vip) = (contest.pair().client(), contest.pair().vip(Family::V4));
    let shown = client.ip(&format!("-json neighbour show to {vip}"))?;
    let neighbours: Vec<serde_json::Value> = serde_json::from_str(&shown)?;
    let known = neighbours.iter().find_map(|one| one["lladdr"].as_str());
    known.map(str::to_owned).with_context(|| format!("the client knows nobody: {shown}"))
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// RFC 3768 and RFC 9568, 7.2: the source is the virtual MAC address.
///
/// Fails unless all adverts of a host so far came from the virtual Ethernet address, and there are
/// some.
fn advertises_from_it(contest: &Contest, host: usize) -> Result<()> {
    let (port, mac) = (contest.twin(host).front.port.name(), contest.election().virtual_mac());
    let frames = contest.capture().frames();
    let adverts = frames.iter().filter(|frame| &*frame.port == port && frame.advert().is_some());
    let from: Vec<_> = adverts.map(|frame| frame.bytes[6..12].to_vec()).collect();
    ensure!(!from.is_empty() && from.iter().all(|one| *one == mac), "adverts come from {from:x?}");
    Ok(())
}

/// RFC 3768, 8.2, and RFC 9568, 8.1.2: ARP is answered with the virtual MAC address, and never with
/// the physical one.
#[test]
fn neighbours_know_the_same_mac_address_before_and_after_a_takeover() -> Result<()> {
    let mut contest = tandems(with_vmac())?;
    let virtual_mac = text(contest.election().virtual_mac());
    // It has to ask, rather than believe what was announced.
    contest.pair().client().ip("neighbour flush dev eth0")?;
    let knocks = contest.knocks(PERIOD)?;
    assert_eq!(known_to_client(&contest)?, virtual_mac);
    advertises_from_it(&contest, 0)?;
    // Else it would say little that there is no answer later.
    let (mac, twin) = (contest.election().virtual_mac(), contest.twin(0));
    ensure!(fence::answers_to(mac, contest.pair(), twin, PORT, 20)? >= 20);

    let (at, start) = (SystemTime::now(), Instant::now());
    contest.member(0).elector().kill();
    contest.advert_since(at, 1)?;
    goes_on(&knocks, start, contest.election().down_after(PRIORITIES[1]))?;
    assert_eq!(known_to_client(&contest)?, virtual_mac);
    advertises_from_it(&contest, 1)?;
    contest.has_addresses(1, true)?;
    says_nothing(&contest, 0)?;

    // The new master answers for it itself.
    contest.pair().client().ip("neighbour flush dev eth0")?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()?;
    assert_eq!(known_to_client(&contest)?, virtual_mac);

    // Who has lost it removes what it had made, also after a death.
    contest.start_again(0)?;
    contest.has_addresses(0, false)?;
    until("no interface is left", 1000 * MS, || {
        let links = contest.twin(0).ip("link show")?;
        ensure!(!links.contains("vrrp.51"), "{links}");
        Ok(())
    })
}

/// RFC 9568, 8.2.2.
#[test]
fn of_ipv6_too() -> Result<()> {
    let contest = tandems(Election { family: Family::V6, ..with_vmac() })?;
    advertises_from_it(&contest, 0)?;
    let (client, vip) = (contest.pair().client(), contest.pair().vip(Family::V6));
    client.ip("-6 neighbour flush dev eth0")?;
    client.command("ping").args(["-6", "-c", "2", "-W", "2", &vip.to_string()]).plain().run()?;
    let shown = client.ip(&format!("neighbour show to {vip}"))?;
    let virtual_mac = text(contest.election().virtual_mac());
    ensure!(shown.contains(&virtual_mac), "{shown}");
    Ok(())
}

#[test]
fn beside_a_keepalived_with_the_same() -> Result<()> {
    let mut contest = Contest::new(with_vmac(), 1)?;
    // Tandem does this itself. Without, HAProxy's host tells the client its own MAC address when it
    // asks for the client's from the virtual address.
    contest.twin(0).sysctl("net.ipv4.conf.front.arp_ignore", "1")?;
    contest.twin(0).sysctl("net.ipv4.conf.front.arp_announce", "2")?;
    contest.enter(0, System::Keepalived, PRIORITIES[0])?;
    contest.enter(1, System::Tandem, PRIORITIES[1])?;
    contest.only_master(0)?;
    let virtual_mac = text(contest.election().virtual_mac());
    contest.pair().client().ip("neighbour flush dev eth0")?;
    let knocks = contest.knocks(PERIOD)?;
    assert_eq!(known_to_client(&contest)?, virtual_mac, "keepalived's");

    let (at, start) = (SystemTime::now(), Instant::now());
    contest.member(0).elector().signal(Signal::SIGTERM)?;
    contest.advert_since(at, 1)?;
    goes_on(&knocks, start, contest.election().down_after(PRIORITIES[1]))?;
    contest.pair().client().ip("neighbour flush dev eth0")?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()?;
    assert_eq!(known_to_client(&contest)?, virtual_mac, "Tandem's");
    advertises_from_it(&contest, 1)
}
