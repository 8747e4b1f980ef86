//! Who gets a new connection: the balance algorithms, weights and backups.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_daemon::core::{BackendStatus, State};
use tests::lab::{Ask, Close, Family, Held, Host, IdentServer, Lab, Service, Tally, Tandem};

const PATIENCE: Duration = Duration::from_secs(10);

/// A lab with a server on every backend, which can be stopped and started again.
struct Story {
    lab: Lab,
    servers: BTreeMap<String, IdentServer>,
}

impl Story {
    fn new(backends: u8) -> Result<Self> {
        let lab = Lab::two_arm(backends)?;
        let mut story = Self { lab, servers: BTreeMap::new() };
        (0..backends.into()).try_for_each(|nth| story.start(nth))?;
        Ok(story)
    }

    fn service(&self, settings: &str) -> Service {
        Service::new("web", self.vip()).set(settings)
    }

    /// Starts a daemon and waits until its active backends serve.
    fn tandem(&self, service: &Service) -> Result<Tandem> {
        let tandem = Tandem::start(&self.lab, &service.to_string())?;
        tandem.wait_until_all_serve()?;
        Ok(tandem)
    }

    fn vip(&self) -> SocketAddr {
        (self.lab.vip4(), 80).into()
    }

    fn ask(&self, times: usize) -> Tally {
        Ask::at(self.vip()).times(times).at_once(10.min(times)).from(self.lab.client())
    }

    fn hold(&self, count: usize) -> Result<Held> {
        let held = Held::open(self.lab.client(), self.vip(), count, PATIENCE);
        held.tally().all_answered()?;
        Ok(held)
    }

    fn start(&mut self, nth: usize) -> Result<()> {
        let host = &self.lab.backends()[nth];
        self.servers.insert(host.name().to_owned(), IdentServer::start(host, 80)?);
        Ok(())
    }

    /// Starts a server again and waits until its backend is up.
    fn revive(&mut self, tandem: &Tandem, nth: usize) -> Result<()> {
        self.start(nth)?;
        wait_for(tandem, nth, "is up", |backend| backend.state == State::Up)
    }

    /// Stops a server and waits until its backend is down.
    fn kill(&mut self, tandem: &Tandem, nth: usize) -> Result<()> {
        self.servers.remove(self.lab.backends()[nth].name()).context("it runs")?;
        wait_for(tandem, nth, "is down", |backend| backend.state == State::Down)
    }
}

fn wait_for(
    tandem: &Tandem,
    nth: usize,
    what: &str,
    wanted: impl Fn(&BackendStatus) -> bool,
) -> Result<()> {
    let what = format!("backend {nth} {what}");
    tandem.wait_until(&what, PATIENCE, |status| wanted(&status.services[0].backends[nth]))?;
    Ok(())
}

fn answers<const N: usize>(of: [(&str, usize); N]) -> Tally {
    let answers = of.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    Tally { answers, failures: BTreeMap::new() }
}

#[test]
fn roundrobin_gives_equals_equal_shares() -> Result<()> {
    let story = Story::new(3)?;
    let service = story.service("balance = \"roundrobin\"");
    let _tandem = story.tandem(&service.backends(story.lab.backends(), Family::V4, 80))?;
    assert_eq!(story.ask(300), answers([("b1", 100), ("b2", 100), ("b3", 100)]));
    Ok(())
}

#[test]
fn roundrobin_gives_twice_the_weight_twice_the_share() -> Result<()> {
    let story = Story::new(2)?;
    let [b1, b2] = story.lab.backends() else { panic!("it has two backends") };
    let service = story.service("balance = \"roundrobin\"");
    let service = service.backend_with(b1, Family::V4, 80, "weight = 20").backend_with(
        b2,
        Family::V4,
        80,
        "weight = 10",
    );
    let _tandem = story.tandem(&service)?;
    assert_eq!(story.ask(300), answers([("b1", 200), ("b2", 100)]));
    // Spread over the round, not in blocks.
    assert_eq!(story.ask(3), answers([("b1", 2), ("b2", 1)]));
    Ok(())
}

#[test]
fn leastconn_levels_held_connections() -> Result<()> {
    let mut story = Story::new(3)?;
    let service = story.service("balance = \"leastconn\"").checked();
    let tandem = story.tandem(&service.backends(story.lab.backends(), Family::V4, 80))?;
    let first = story.hold(31)?;
    assert_within_one(first.tally(), [("b1", 31.0 / 3.0), ("b2", 31.0 / 3.0), ("b3", 31.0 / 3.0)]);
    first.close(Close::Reset)?;
    wait_for(&tandem, 2, "has no connections", |backend| backend.traffic.active == 0)?;

    // Who comes late catches up.
    story.kill(&tandem, 2)?;
    let second = story.hold(20)?;
    assert_eq!(*second.tally(), answers([("b1", 10), ("b2", 10)]));
    story.revive(&tandem, 2)?;
    let third = story.hold(10)?;
    assert_within_one(third.tally(), [("b3", 10.0)]);
    Ok(())
}

#[test]
fn leastconn_heeds_weights() -> Result<()> {
    let story = Story::new(2)?;
    let [b1, b2] = story.lab.backends() else { panic!("it has two backends") };
    let service = story.service("balance = \"leastconn\"");
    let service = service.backend_with(b1, Family::V4, 80, "weight = 3").backend_with(
        b2,
        Family::V4,
        80,
        "weight = 1",
    );
    let _tandem = story.tandem(&service)?;
    let held = story.hold(40)?;
    assert_within_one(held.tally(), [("b1", 30.0), ("b2", 10.0)]);
    Ok(())
}

#[test]
fn leastconn_takes_equals_in_turn() -> Result<()> {
    let story = Story::new(3)?;
    let service = story.service("balance = \"leastconn\"");
    let _tandem = story.tandem(&service.backends(story.lab.backends(), Family::V4, 80))?;
    // Reset by the client before the next begins: nobody ever has a connection.
    let ask = Ask::at(story.vip()).times(30).close(Close::Reset);
    assert_eq!(ask.from(story.lab.client()), answers([("b1", 10), ("b2", 10), ("b3", 10)]));
    Ok(())
}

fn assert_within_one<const N: usize>(tally: &Tally, ideals: [(&str, f64); N]) {
    for (name, ideal) in ideals {
        let count = u32::try_from(tally.count(name)).expect("it is small");
        assert!((f64::from(count) - ideal).abs() <= 1.0, "{name} should have {ideal}: {tally:?}");
    }
}

#[test]
fn source_keeps_clients_where_they_are() -> Result<()> {
    const CLIENTS: u16 = 300;
    let mut story = Story::new(5)?;
    let service = story.service("balance = \"source\"").checked();
    let tandem = story.tandem(&service.backends(story.lab.backends(), Family::V4, 80))?;

    let before = homes(&story, CLIENTS)?;
    for host in story.lab.backends() {
        let share = before.values().filter(|name| *name == host.name()).count();
        ensure!((30..=90).contains(&share), "{} has {share} of 300 clients", host.name());
    }
    story.kill(&tandem, 4)?;
    let after = homes(&story, CLIENTS)?;
    ensure!(!after.values().any(|name| name == "b5"), "b5 is down");
    let stayed = before.iter().filter(|(_, name)| *name != "b5");
    let moved = stayed.clone().filter(|(client, name)| after[*client] != **name).count();
    ensure!(moved <= stayed.count() / 20, "{moved} clients moved without need");

    story.revive(&tandem, 4)?;
    assert_eq!(homes(&story, CLIENTS)?, before, "everybody is back home");
    Ok(())
}

/// Which backend each client address goes to; the same one three times.
fn homes(story: &Story, clients: u16) -> Result<BTreeMap<IpAddr, String>> {
    let home = |number| {
        let client = story.lab.crowd(Family::V4, number * 211);
        let ask = Ask::at(story.vip()).times(3).sources([client]).close(Close::Reset);
        let tally = ask.from(story.lab.client());
        tally.all_answered()?;
        let names: BTreeSet<_> = tally.answers.into_keys().collect();
        ensure!(names.len() == 1, "{client} was sent to {names:?}");
        Ok((client, names.into_iter().next().context("it was answered")?))
    };
    (0..clients).map(home).collect()
}

#[test]
fn hash_spreads_the_connections_of_one_client() -> Result<()> {
    let story = Story::new(3)?;
    let service = story.service("balance = \"hash\"");
    let _tandem = story.tandem(&service.backends(story.lab.backends(), Family::V4, 80))?;
    let tally = story.ask(900);
    tally.all_answered()?;
    for name in ["b1", "b2", "b3"] {
        // The client's ports are random: the standard deviation is 14.
        ensure!((200..=400).contains(&tally.count(name)), "{tally:?}");
    }
    Ok(())
}

/// Two active backends, then two backups.
fn with_backups(story: &Story, settings: &str) -> Result<Tandem> {
    let backup = |service: Service, host: &Host| {
        service.backend_with(host, Family::V4, 80, "role = \"backup\"")
    };
    let (actives, backups) = story.lab.backends().split_at(2);
    let service = story.service(settings).checked().backends(actives, Family::V4, 80);
    let tandem = story.tandem(&backups.iter().fold(service, backup))?;
    for nth in 2..4 {
        wait_for(&tandem, nth, "is up", |backend| backend.state == State::Up)?;
    }
    Ok(tandem)
}

#[test]
fn the_first_backup_serves_when_no_active_backend_can() -> Result<()> {
    let mut story = Story::new(4)?;
    let tandem = with_backups(&story, "")?;
    assert_eq!(story.ask(20), answers([("b1", 10), ("b2", 10)]));
    story.kill(&tandem, 0)?;
    assert_eq!(story.ask(20), answers([("b2", 20)]));
    story.kill(&tandem, 1)?;
    assert_eq!(story.ask(20), answers([("b3", 20)]));
    story.kill(&tandem, 2)?;
    assert_eq!(story.ask(20), answers([("b4", 20)]));

    // Back again: the old connection stays, the new ones go where they belong.
    let mut old = story.hold(1)?;
    story.revive(&tandem, 1)?;
    assert_eq!(story.ask(20), answers([("b2", 20)]));
    assert_eq!(old.still_work(10_000), 1);
    let status = tandem.status()?;
    assert_eq!(status.services[0].backends[3].traffic.active, 1);
    Ok(())
}

#[test]
fn allbackups_serve_together() -> Result<()> {
    let mut story = Story::new(4)?;
    let tandem = with_backups(&story, "allbackups = true")?;
    story.kill(&tandem, 0)?;
    assert_eq!(story.ask(20), answers([("b2", 20)]));
    story.kill(&tandem, 1)?;
    assert_eq!(story.ask(20), answers([("b3", 10), ("b4", 10)]));
    Ok(())
}

#[test]
fn weight_zero_drains() -> Result<()> {
    let story = Story::new(2)?;
    let [b1, b2] = story.lab.backends() else { panic!("it has two backends") };
    let service = |weight| {
        let weight = format!("weight = {weight}");
        let service = story.service("").backend_with(b1, Family::V4, 80, &weight);
        service.backend(b2, Family::V4, 80)
    };
    let tandem = story.tandem(&service(1))?;
    let mut held = story.hold(20)?;
    assert_eq!(*held.tally(), answers([("b1", 10), ("b2", 10)]));

    let settings = |weight| tests::lab::Settings::new(&story.lab, &service(weight).to_string());
    tandem.configure(&settings(0))?;
    tandem.reload()?;
    wait_for(&tandem, 0, "drains", |backend| backend.state == State::Drain)?;
    assert_eq!(story.ask(40), answers([("b2", 40)]));
    assert_eq!(held.still_work(10_000), 20, "those from before go on");
    assert_eq!(tandem.status()?.services[0].backends[0].traffic.active, 10);

    tandem.configure(&settings(1))?;
    tandem.reload()?;
    tandem.wait_until_all_serve()?;
    assert_eq!(story.ask(40), answers([("b1", 20), ("b2", 20)]));
    Ok(())
}
