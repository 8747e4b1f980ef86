//! What operators do to backends at run time: drain, maintenance, weights.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_daemon::core::{BackendStatus, State, Status};
use tests::lab::{
    Ask, Family, Held, Host, IdentServer, Lab, ScriptedServer, Service, Settings, Step,
    Surroundings, Tally, Tandem, deviation,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A lab with a server on every backend, and a daemon that all of them serve.
struct Story {
    lab: Lab,
    servers: Vec<IdentServer>,
    service: Service,
    tandem: Tandem,
}

impl Story {
    /// The last `backups` of the backends are that, each line of `settings` one of the service's.
    fn new(backends: u8, backups: usize, settings: &str) -> Result<Self> {
        let lab = Lab::two_arm(backends)?;
        let servers = lab.backends().iter().map(|host| IdentServer::start(host, 80));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let active = lab.backends().len() - backups;
        let service = Service::new("web", (lab.vip4(), 80)).set(settings).checked();
        let with_role = |service: Service, (nth, host): (usize, &Host)| {
            let role = if nth < active { "active" } else { "backup" };
            service.backend_with(host, Family::V4, 80, &format!("role = \"{role}\""))
        };
        let service = lab.backends().iter().enumerate().fold(service, with_role);
        let seen = Surroundings { sees_processes: true, ..Surroundings::default() };
        let settings = Settings { surroundings: seen, ..Settings::new(&lab, &service.to_string()) };
        let tandem = Tandem::start_with(&lab, &settings)?;
        tandem.wait_until_all_serve()?;
        Ok(Self { lab, servers, service, tandem })
    }

    /// Runs `tandem backend` or `tandem set server` with these words.
    fn order(&self, words: &str) -> Result<String> {
        let words: Vec<&str> = words.split(' ').collect();
        self.tandem.verb(&words).arg("--socket").arg(self.tandem.socket()).run()
    }

    fn ask(&self, times: usize) -> Tally {
        let to = (self.lab.vip4(), 80).into();
        Ask::at(to).times(times).at_once(10.min(times)).from(self.lab.client())
    }

    fn hold(&self, count: usize) -> Result<Held> {
        let held = Held::open(self.lab.client(), (self.lab.vip4(), 80).into(), count, PATIENCE);
        held.tally().all_answered()?;
        Ok(held)
    }

    fn wait(&self, nth: usize, what: &str, is: impl Fn(&BackendStatus) -> bool) -> Result<Status> {
        let wanted = |status: &Status| is(&status.services[0].backends[nth]);
        self.tandem.wait_until(what, PATIENCE, wanted)
    }

    fn backend(&self, nth: usize) -> Result<BackendStatus> {
        Ok(self.tandem.status()?.services[0].backends[nth].clone())
    }

    fn says(&self, nth: usize) -> Result<Vec<String>> {
        let overrides = self.backend(nth)?.overrides;
        Ok(overrides.into_iter().map(|said| format!("{} by {}", said.what, said.by)).collect())
    }

    fn logged(&self, text: &str) -> Result<bool> {
        let log = fs::read_to_string(self.tandem.process().log()).context("the daemon's log")?;
        Ok(log.contains(text))
    }
}

#[test]
fn a_drained_backend_keeps_its_sessions_and_gets_no_new_ones() -> Result<()> {
    let story = Story::new(2, 0, "")?;
    let mut held = story.hold(20)?;
    assert_eq!(story.order("backend web/b1 drain")?, "backend web/b1: drain\n");
    assert!(story.logged("INFO backend web/b1: drain, by operator")?);
    let tally = story.ask(40);
    tally.all_answered()?;
    assert_eq!((tally.count("b1"), tally.count("b2")), (0, 40));
    assert_eq!(held.still_work(10_000), 20, "those from before go on");
    let drained = story.backend(0)?;
    assert_eq!((drained.state, drained.traffic.active), (State::Drain, 10));
    // It is checked all the same.
    let passed = |backend: &BackendStatus| backend.check.as_ref().map_or(0, |check| check.passed);
    let before = passed(&drained);
    story.wait(0, "further checks", |backend| passed(backend) > before + 2)?;

    story.order("set server web/b1 state ready")?;
    assert_eq!(story.ask(40).count("b1"), 20);
    Ok(())
}

#[test]
fn a_backend_in_maintenance_is_left_alone_and_is_checked_when_it_is_ready() -> Result<()> {
    let mut story = Story::new(2, 0, "")?;
    let mut held = story.hold(10)?;
    story.order("backend web/b1 maint")?;
    assert_eq!(held.still_work(10_000), 10, "nobody wanted them ended");
    drop(held);
    // The last check, which may have been under way, comes in meanwhile.
    story.ask(60).all_answered()?;
    let accepted = story.servers[0].accepted();
    story.ask(60).all_answered()?;
    assert_eq!(story.servers[0].accepted(), accepted, "neither checks nor connections");

    // It is stopped meanwhile, and found out at once.
    drop(story.servers.remove(0));
    assert_eq!(story.backend(0)?.state, State::Maint);
    story.order("backend web/b1 ready")?;
    story.wait(0, "it is found down", |backend| backend.state == State::Down)?;
    story.servers.push(IdentServer::start(&story.lab.backends()[0], 80)?);
    story.wait(0, "it is up", |backend| backend.eligible)?;
    Ok(())
}

#[test]
fn new_connections_go_to_the_backup_and_back_to_the_active_and_old_ones_stay() -> Result<()> {
    let story = Story::new(2, 1, "")?;
    let mut on_active = story.hold(5)?;
    story.order("backend web/b1 drain")?;
    let mut on_backup = story.hold(5)?;
    assert_eq!(on_backup.tally().count("b2"), 5);
    story.order("backend web/b1 ready")?;
    assert_eq!(story.ask(20).count("b1"), 20, "failback");
    assert_eq!((on_active.still_work(10_000), on_backup.still_work(10_000)), (5, 5));
    assert_eq!(story.backend(1)?.traffic.active, 5);

    story.order("backend web/b1 weight 0")?;
    assert_eq!(story.ask(20).count("b2"), 20, "weight 0 is as good as drained");
    Ok(())
}

#[test]
fn a_weight_that_was_set_counts_at_once_and_is_shown() -> Result<()> {
    let story = Story::new(2, 0, "")?;
    story.order("backend web/b1 weight 50%")?;
    let tally = story.ask(60);
    assert_eq!((tally.count("b1"), tally.count("b2")), (20, 40), "half of 1 is a half");
    assert_eq!(story.says(0)?, ["weight 50% by operator"]);
    let table = story.order("status")?;
    assert!(table.contains("└ weight 50% by operator for "), "{table}");
    let metrics = story.tandem.scrape_metrics()?;
    for line in [
        r#"tandem_backend_weight{service="web",backend="b1"} 0.5"#,
        r#"override="weight",by="operator"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    story.order("set server web/b1 weight 3")?;
    let tally = story.ask(40);
    assert_eq!((tally.count("b1"), tally.count("b2")), (30, 10));
    story.order("backend web/b1 weight configured")?;
    assert_eq!(story.ask(40).count("b1"), 20);
    Ok(())
}

#[test]
fn what_an_operator_said_outlives_reload_kill_and_restart() -> Result<()> {
    let mut story = Story::new(3, 0, "")?;
    story.order("backend web/b1 maint")?;
    story.order("backend web/b2 weight 200%")?;
    story.order("backend web/b3 maxconn 40")?;
    let expected = |story: &Story| -> Result<()> {
        ensure!(story.says(0)? == ["maint by operator"], "{:?}", story.backend(0)?);
        ensure!(story.says(1)? == ["weight 200% by operator"], "{:?}", story.backend(1)?);
        ensure!(story.says(2)? == ["maxconn 40 by operator"], "{:?}", story.backend(2)?);
        ensure!(story.backend(2)?.limit == Some(40), "it is not in force");
        let serve = |backend: &BackendStatus| backend.eligible;
        story.wait(1, "b2 serves", serve)?;
        story.wait(2, "b3 serves", serve)?;
        let tally = story.ask(60);
        tally.all_answered()?;
        let counts = ["b1", "b2", "b3"].map(|name| tally.count(name));
        ensure!(counts == [0, 40, 20], "{counts:?}");
        Ok(())
    };
    expected(&story)?;
    story.tandem.reload()?;
    expected(&story).context("after a reload")?;
    story.tandem.kill9();
    story.tandem.start_again()?;
    expected(&story).context("after kill -9")?;
    story.tandem.restart()?;
    expected(&story).context("after a restart")?;

    // A reload that removes a backend leaves it in the status, and takes nothing away.
    let [_, b2, b3] = story.lab.backends() else { panic!("it has three backends") };
    let two = Service::new("web", (story.lab.vip4(), 80)).checked();
    let two = two.backend(b2, Family::V4, 80).backend(b3, Family::V4, 80);
    story.tandem.configure(&Settings::new(&story.lab, &two.to_string()))?;
    story.tandem.reload()?;
    let orphans = story.tandem.status()?.orphans;
    assert_eq!((orphans.len(), orphans[0].backend.as_str()), (1, "b1"));
    let table = story.order("status")?;
    assert!(table.contains("forget it: tandem backend web/b1 ready"), "{table}");
    story.tandem.configure(&Settings::new(&story.lab, &story.service.to_string()))?;
    story.tandem.reload()?;
    expected(&story).context("after it has come back")
}

#[test]
fn a_state_file_that_makes_no_sense_is_set_aside_and_a_wrong_name_is_answered() -> Result<()> {
    let mut story = Story::new(1, 0, "")?;
    let error = format!("{:#}", story.order("backend web/b11 drain").unwrap_err());
    assert!(error.contains("there is no backend web/b11: did you mean web/b1?"), "{error}");

    story.order("backend web/b1 drain")?;
    story.tandem.kill9();
    let file = story.tandem.socket().with_extension("overrides.json");
    let text = fs::read_to_string(&file)?;
    assert!(text.contains("\"drain\""), "{text}");
    fs::write(&file, &text[..text.len() / 2])?;
    story.tandem.start_again()?;
    assert!(story.logged("what operators said of backends before is lost: ")?);
    assert!(file.with_extension("json.unusable").exists());
    story.wait(0, "it serves", |backend| backend.eligible && backend.overrides.is_empty())?;
    story.order("backend web/b1 maint")?;
    assert!(file.exists());
    Ok(())
}

#[test]
fn an_agent_says_what_its_backend_can_take() -> Result<()> {
    const WEIGHT: &[Step] = &[Step::Say("50%"), Step::Say(" up\r\n")];
    const DRAIN: &[Step] = &[Step::Say("drain\n")];
    const DOWN: &[Step] = &[Step::Say("ready down # the disk is full\n")];
    const UP: &[Step] = &[Step::Say("up\n")];
    let lab = Lab::two_arm(2)?;
    let servers = lab.backends().iter().map(|host| IdentServer::start(host, 80));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let [b1, b2] = lab.backends() else { panic!("it has two backends") };
    let agent = ScriptedServer::start(b1, 9707, &[WEIGHT])?;
    let service = Service::new("web", (lab.vip4(), 80)).checked();
    let settings = "agent = { port = 9707, inter = \"200ms\" }";
    let service = service.backend_with(b1, Family::V4, 80, settings).backend(b2, Family::V4, 80);
    let tandem = Tandem::start(&lab, &service.to_string())?;
    tandem.wait_until_all_serve()?;
    let wait = |what: &str, is: &dyn Fn(&BackendStatus) -> bool| {
        tandem.wait_until(what, PATIENCE, |status| is(&status.services[0].backends[0]))
    };
    let ask = || Ask::at((lab.vip4(), 80).into()).times(60).at_once(6).from(lab.client());
    let says = |what: &'static str| {
        move |backend: &BackendStatus| backend.overrides.iter().any(|said| said.what == what)
    };

    wait("the agent is heard", &says("weight 50%"))?;
    let tally = ask();
    assert_eq!((tally.count("b1"), tally.count("b2")), (20, 40));
    agent.play(&[DRAIN]);
    wait("it drains", &|backend| backend.state == State::Drain)?;
    assert_eq!(ask().count("b2"), 60);
    agent.play(&[DOWN]);
    let status = wait("it is down", &|backend| backend.state == State::Down)?;
    let why = status.services[0].backends[0].why.clone();
    assert_eq!(why.as_deref(), Some("its agent says down: the disk is full"));
    assert_eq!(ask().count("b2"), 60);
    agent.play(&[UP]);
    wait("it is up", &|backend| backend.eligible)?;
    assert_eq!(ask().count("b1"), 20, "of its weight, nothing was said since");

    // Its silence changes nothing.
    drop(agent);
    let is_silent = |backend: &BackendStatus| {
        let problem = backend.agent.as_ref().and_then(|agent| agent.problem.clone());
        problem.is_some_and(|problem| problem.starts_with("L4CON "))
    };
    wait("it is silent", &is_silent)?;
    assert_eq!(ask().count("b1"), 20);
    Ok(())
}

#[test]
fn held_connections_are_spread_by_weight_through_a_slow_start_and_a_drain() -> Result<()> {
    let lab = Lab::two_arm(10)?;
    let servers = lab.backends().iter().map(|host| IdentServer::start(host, 80));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let service = Service::new("web", (lab.vip4(), 80))
        .set("balance = \"leastconn\"")
        .set("server.slowstart = \"10s\"");
    // Five of weight 1, five of weight 2.
    let backends = lab.backends().iter().enumerate();
    let service = backends.fold(service, |service, (nth, host)| {
        service.backend_with(host, Family::V4, 80, &format!("weight = {}", 1 + nth / 5))
    });
    let tandem = Tandem::start(&lab, &service.to_string())?;
    tandem.wait_until_all_serve()?;
    let order = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        tandem.verb(&words).arg("--socket").arg(tandem.socket()).run()
    };
    let status =
        || -> Result<Vec<BackendStatus>> { Ok(tandem.status()?.services[0].backends.clone()) };
    let mut held = Vec::new();
    let mut open = |count| -> Result<()> {
        let more = Held::open(lab.client(), (lab.vip4(), 80).into(), count, PATIENCE);
        more.tally().all_answered()?;
        held.push(more);
        Ok(())
    };

    order("backend web/b10 maint")?;
    open(260)?;
    let before = status()?;
    assert!(deviation(&before, &before, |backend| backend.eligible) <= 1.0, "{before:?}");
    assert_eq!(before[9].traffic.active, 0);

    order("backend web/b10 ready")?;
    let percent = |backend: &BackendStatus| backend.slow_start.map_or(100, |climb| climb.percent);
    let mut seen = Vec::new();
    let mut last = 0;
    while last < 100 {
        let next = |status: &Status| percent(&status.services[0].backends[9]) > last;
        let before =
            tandem.wait_until("the next step", PATIENCE, next)?.services[0].backends.clone();
        last = percent(&before[9]);
        seen.push(last);
        open(40)?;
        let after = status()?;
        let found = deviation(&before, &after, |_| true);
        assert!(found <= 1.0, "{found} at {last} %: {after:?}");
    }
    assert!(seen.is_sorted() && seen[0] < 50, "it climbs: {seen:?}");

    order("backend web/b1 drain")?;
    let drained = status()?[0].traffic.active;
    open(130)?;
    let after = status()?;
    assert_eq!(after[0].traffic.active, drained, "no new ones");
    assert!(deviation(&after, &after, |backend| backend.eligible) <= 1.0, "{after:?}");

    order("backend web/b1 ready")?;
    open(130)?;
    let after = status()?;
    assert!(deviation(&after, &after, |_| true) <= 1.0, "b1 has caught up: {after:?}");
    for each in &mut held {
        assert_eq!(each.still_work(100), each.len(), "all go on");
    }
    Ok(())
}
