//! What operators do: reload, kill, restart, stop, look.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_daemon::core::{BackendStatus, State, Status};
use nix::sys::signal::Signal;
use tests::lab::{
    Ask, Close, Family, Held, IdentServer, Lab, Settings, Surroundings, Tally, Tandem,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_reload_changes_what_new_connections_get_and_leaves_the_old_ones_alone() -> Result<()> {
    changes(|tandem| {
        let said = tandem.reload()?;
        ensure!(said == "configuration 2 is in force\n", "it says {said}");
        Ok(())
    })
}

#[test]
fn sighup_does_what_a_reload_does() -> Result<()> {
    changes(|tandem| tandem.process_mut().signal(Signal::SIGHUP))
}

/// One new file that changes everything at once, put in force by `reload`.
fn changes(reload: impl FnOnce(&mut Tandem) -> Result<()>) -> Result<()> {
    let lab = Lab::two_arm(3)?;
    let servers = serve(&lab)?;
    let [b1, b2, b3] = lab.backends() else { unreachable!("it has three") };
    let before = [
        service(&lab, "web", 80, "", &[(b1.name(), 1), (b2.name(), 1)]),
        service(&lab, "old", 81, "", &[(b1.name(), 1)]),
    ];
    let mut tandem = Tandem::start(&lab, &before.concat())?;
    wait_for_backends(&tandem)?;
    let mut web = hold(&lab, 80, 20)?;
    assert_eq!((web.tally().count("b1"), web.tally().count("b2")), (10, 10));
    let mut old = hold(&lab, 81, 5)?;
    let status = tandem.status()?;
    let (b2_number, accepted) = (named(&status, "web", "b2").id, servers[0].accepted());

    // web: b1 goes, b3 comes, b2 gets three times its load, by another algorithm.
    let after = [
        service(&lab, "web", 80, "leastconn", &[(b3.name(), 1), (b2.name(), 3)]),
        service(&lab, "new", 82, "", &[(b3.name(), 1)]),
    ];
    tandem.configure(&Settings::new(&lab, &after.concat()))?;
    reload(&mut tandem)?;
    let in_force = |status: &Status| status.config.generation == 2;
    tandem.wait_until("the new configuration", PATIENCE, in_force)?;
    let status = wait_for_backends(&tandem)?;
    let names: Vec<&str> = status.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["web", "new"]);
    assert_eq!(status.services[0].balance, "leastconn");
    let b2_now = named(&status, "web", "b2");
    assert_eq!((b2_now.id, b2_now.weight), (b2_number, 3), "b2 stays what it was");
    assert_eq!(b2_now.traffic.active, 10);

    assert_eq!(web.still_work(10_000), 20, "also those to b1, which is no longer in the file");
    assert_eq!(old.still_work(10_000), 5, "also those of a service that is gone");

    // b2 has 10 at weight 3: b3 gets 3 before b2 gets its turn, and then every fourth.
    let more = hold(&lab, 80, 30)?;
    assert_eq!((more.tally().count("b1"), more.tally().failed()), (0, 0));
    assert_eq!((more.tally().count("b2"), more.tally().count("b3")), (20, 10));
    assert_eq!(ask(&lab, 82).count("b3"), 20);
    assert_eq!(ask(&lab, 81).failures, [("connection refused".to_owned(), 20)].into());
    assert_eq!(servers[0].accepted(), accepted, "b1 got a new connection");

    assert_eq!((web.still_work(1000), old.still_work(1000)), (20, 5));
    Ok(())
}

#[test]
fn an_invalid_file_is_refused_in_full_and_the_old_one_stays_in_force() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let good = Settings::new(&lab, &web(&lab));
    let tandem = Tandem::start_with(&lab, &good)?;
    wait_for_backends(&tandem)?;
    let mut held = hold(&lab, 80, 10)?;

    let bad = web(&lab).replace("name = \"b1\"", "name = \"b1\"\nwieght = 2\nrole = \"spare\"");
    tandem.configure(&Settings::new(&lab, &bad))?;
    let said = format!("{:#}", tandem.reload().expect_err("the file is not valid"));
    let file = tandem.config().display().to_string();
    let last_error = tandem.status()?.config.last_error.context("status knows of no error")?;
    let log = fs::read_to_string(tandem.process().log())?;
    for text in [&said, &last_error, &log] {
        for words in [&file, "wieght", "`weight`", "spare", "\"backup\"", "2 errors"] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
    }
    assert!(tandem.verb(&["status", "--socket"]).arg(tandem.socket()).run()?.contains("wieght"));
    assert!(metric(&tandem, "tandem_config_last_reload_successful")? == 0);

    // Valid in itself, but not on this host.
    let mut absent = Settings::new(&lab, &service(&lab, "web", 80, "", &[("b1", 1)]));
    absent.interfaces.push("bakc".to_owned());
    tandem.configure(&absent)?;
    let said = format!("{:#}", tandem.reload().expect_err("there is no such interface"));
    assert!(said.contains("interface bakc does not exist"), "{said}");

    assert_eq!(tandem.status()?.config.generation, 1);
    assert_eq!(held.still_work(1000), 10);
    let tally = ask(&lab, 80);
    assert_eq!((tally.count("b1"), tally.count("b2")), (10, 10));

    tandem.configure(&good)?;
    tandem.reload()?;
    let status = tandem.status()?;
    assert_eq!((status.config.generation, status.config.last_error), (2, None));
    assert!(metric(&tandem, "tandem_config_last_reload_successful")? == 1);
    Ok(())
}

#[test]
fn a_failover_of_a_group_that_is_not_there_is_refused_with_the_reason() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let tandem = Tandem::start(&lab, "")?;
    let failover = tandem.verb(&["failover", "gw", "--socket"]).arg(tandem.socket()).run();
    let said = format!("{:#}", failover.expect_err("there is no group"));
    assert!(said.contains("no groups are configured"), "{said}");
    Ok(())
}

#[test]
fn without_a_daemon_everything_flows_and_the_next_one_carries_on() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let mut tandem = Tandem::start(&lab, &web(&lab))?;
    let ids = numbers(&wait_for_backends(&tandem)?);
    let mut before = hold(&lab, 80, 20)?;
    ask(&lab, 80).all_answered()?;

    tandem.kill9();
    assert_eq!(before.still_work(10_000), 20);
    let mut orphans = hold(&lab, 80, 10)?;
    let tally = ask(&lab, 80);
    assert_eq!((tally.count("b1"), tally.count("b2")), (10, 10));
    let error = tandem.status().expect_err("there is no daemon");
    assert!(format!("{error:#}").contains("no tandem answers on"), "{error:#}");

    // In another order, so that numbers given anew would be other ones.
    let backends = [("b2", 1), ("b1", 1)];
    tandem.configure(&Settings::new(&lab, &service(&lab, "web", 80, "", &backends)))?;
    tandem.start_again()?;
    let status = wait_for_backends(&tandem)?;
    assert_eq!(numbers(&status), ids);
    let counts =
        status.services[0].backends.iter().map(|b| (b.traffic.active, b.traffic.connections));
    // Held: 20 and 10. Asked: 20 and 20.
    assert_eq!(counts.collect::<Vec<_>>(), [(15, 35), (15, 35)]);
    assert_eq!((before.still_work(10_000), orphans.still_work(10_000)), (20, 10));

    before.close(Close::Fin)?;
    orphans.close(Close::Reset)?;
    all_closed(&tandem)
}

#[test]
fn clients_do_not_notice_that_the_daemon_is_killed_and_started_again() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let mut tandem = Tandem::start(&lab, &web(&lab))?;
    wait_for_backends(&tandem)?;
    let over = AtomicBool::new(false);
    let ask_on = || {
        let mut asked = 0;
        while !over.load(Relaxed) {
            let tally = ask(&lab, 80);
            tally.all_answered()?;
            asked += tally.answered();
        }
        Ok(asked)
    };
    let asked: Result<usize> = thread::scope(|scope| {
        let asking = scope.spawn(ask_on);
        let restarts = (0..3).try_for_each(|_| {
            tandem.kill9();
            tandem.start_again()?;
            wait_for_backends(&tandem).map(drop)
        });
        over.store(true, Relaxed);
        restarts.and(asking.join().expect("nobody panics"))
    });
    let asked = u64::try_from(asked?)?;
    let status = tandem.status()?;
    let counted = status.services[0].backends.iter().map(|b| b.traffic.connections).sum::<u64>();
    assert_eq!(counted, asked);
    all_closed(&tandem)
}

#[test]
fn a_stopped_daemon_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    // SIGTERM means this only here, where it is the first process of a PID namespace.
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGINT)] {
        let mut tandem = Tandem::start(&lab, &web(&lab))?;
        wait_for_backends(&tandem)?;
        let mut held = hold(&lab, 80, 4)?;
        assert!(lab.traces()?.len() >= 3, "two programs and the pins: {:?}", lab.traces()?);
        let ended = match signal {
            None => tandem.stop()?,
            Some(signal) => {
                tandem.process_mut().signal(signal)?;
                tandem.process_mut().wait(PATIENCE)?
            }
        };
        assert_eq!(ended.code(), Some(0), "{signal:?}");
        lab.no_traces()?;
        assert!(!tandem.socket().exists(), "the control socket is still there");
        assert_eq!(held.still_work(10), 0, "who carries them?");
    }
    Ok(())
}

#[test]
fn a_restart_keeps_connections_and_a_daemon_that_stays_away_is_cleaned_up_after() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let environment = vec![("TANDEM_STAND_IN_SECONDS", "3".into())];
    let surroundings = Surroundings { environment, sees_processes: true };
    let settings = Settings { surroundings, ..Settings::new(&lab, &web(&lab)) };
    let mut tandem = Tandem::start_with(&lab, &settings)?;
    wait_for_backends(&tandem)?;
    let mut held = hold(&lab, 80, 10)?;

    tandem.suspend()?;
    assert!(!tandem.socket().exists(), "the control socket is the next daemon's");
    assert_eq!(held.still_work(100), 10);
    ask(&lab, 80).all_answered()?;
    tandem.start_again()?;
    wait_for_backends(&tandem)?;
    // Nobody takes away what the next daemon has.
    thread::sleep(Duration::from_secs(4));
    assert_eq!(held.still_work(100), 10);
    ask(&lab, 80).all_answered()?;

    tandem.suspend()?;
    thread::sleep(Duration::from_secs(1));
    assert_eq!(held.still_work(100), 10);
    ask(&lab, 80).all_answered()?;
    thread::sleep(Duration::from_secs(3));
    lab.no_traces()?;
    assert_eq!(held.still_work(100), 0, "who carries them?");
    Ok(())
}

#[test]
fn a_stop_asks_systemd_whether_it_is_one() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let mut tandem = Tandem::start(&lab, "")?;
    let bin = lab.dir().join("bin");
    fs::create_dir(&bin)?;
    let systemctl = bin.join("systemctl");
    let stop = |tandem: &Tandem, job: &str| -> Result<()> {
        fs::write(&systemctl, format!("#!/bin/sh\necho '{job}'\n"))?;
        fs::set_permissions(&systemctl, Permissions::from_mode(0o755))?;
        let command = tandem.verb(&["stop", "--unless-restarting=lb.service", "--socket"]);
        command.arg(tandem.socket()).env("PATH", &bin).run().map(drop)
    };
    stop(&tandem, "7 lb.service restart running")?;
    ensure!(tandem.process_mut().is_running(), "it stopped though systemd restarts it");
    stop(&tandem, "7 lb.service stop running")?;
    assert_eq!(tandem.process_mut().wait(PATIENCE)?.code(), Some(0));
    lab.no_traces()?;
    // After a crash, systemd asks for it too.
    stop(&tandem, "")?;
    let other = tandem.verb(&["stop", "--socket"]).arg(tandem.socket()).output(PATIENCE)?;
    ensure!(other.stderr.contains("no tandem answers"), "{}", other.stderr);
    Ok(())
}

#[test]
fn detach_takes_away_what_a_killed_daemon_left() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let mut tandem = Tandem::start(&lab, &web(&lab))?;
    wait_for_backends(&tandem)?;
    tandem.kill9();
    assert!(lab.traces()?.len() >= 3, "{:?}", lab.traces()?);
    ask(&lab, 80).all_answered()?;

    assert_eq!(tandem.verb(&["detach"]).run()?, "detached from 2 interfaces\n");
    lab.no_traces()?;
    assert_eq!(ask(&lab, 80).answered(), 0);
    assert_eq!(tandem.verb(&["detach"]).run()?, "nothing was attached\n");

    tandem.start_again()?;
    wait_for_backends(&tandem)?;
    ask(&lab, 80).all_answered()
}

#[test]
fn table_json_and_metrics_tell_the_same() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let tandem = Tandem::start(&lab, &web(&lab))?;
    wait_for_backends(&tandem)?;
    let mut held = hold(&lab, 80, 10)?;
    ask(&lab, 80).all_answered()?;
    assert_eq!(held.still_work(1000), 10);
    let quiet = |status: &Status| {
        let active = status.services[0].backends.iter().map(|b| b.traffic.active);
        active.sum::<u64>() == 10
    };
    let status = tandem.wait_until("what was asked is closed", PATIENCE, quiet)?;

    assert_eq!((status.node.as_str(), status.config.generation), ("lab", 1));
    assert_eq!(status.config.path, tandem.config().display().to_string());
    let [v4, v6] = &status.tables[..] else { panic!("not two tables: {:?}", status.tables) };
    assert_eq!((v4.family.as_str(), v6.family.as_str()), ("ipv4", "ipv6"));
    assert_eq!((v4.half_open, v6.connections), (0, 0));
    assert!(v4.connections >= 10 && v4.capacity == 131_072, "{v4:?}");
    assert!(status.verdicts["forward_client"] > 0, "{:?}", status.verdicts);

    let metrics = tandem.scrape_metrics()?;
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("tandem_"), "{line}");
    }
    for backend in &status.services[0].backends {
        let BackendStatus { name, traffic, .. } = backend;
        let labels = format!("{{service=\"web\",backend=\"{name}\"");
        let both_ways = |what, direction| format!("{what}{labels},direction=\"{direction}\"}}");
        for (series, value) in [
            (format!("tandem_backend_up{labels}}}"), 1),
            (format!("tandem_backend_active_connections{labels}}}"), 5),
            (format!("tandem_backend_connections_total{labels}}}"), 15),
            (both_ways("tandem_backend_packets_total", "in"), traffic.packets_in),
            (both_ways("tandem_backend_packets_total", "out"), traffic.packets_out),
            (both_ways("tandem_backend_bytes_total", "in"), traffic.bytes_in),
            (both_ways("tandem_backend_bytes_total", "out"), traffic.bytes_out),
        ] {
            assert_eq!(value_of(&metrics, &series)?, value, "{series}");
        }
        // Each byte was echoed, in frames with headers.
        assert!(traffic.bytes_in > 5000 && traffic.bytes_out > 5000, "{traffic:?}");
    }
    for (series, value) in [
        ("tandem_service_up{service=\"web\"}", 1),
        ("tandem_service_active_connections{service=\"web\"}", 10),
        ("tandem_service_connections_total{service=\"web\"}", 30),
        ("tandem_table_capacity{family=\"ipv4\"}", v4.capacity),
        ("tandem_config_generation", 1),
        ("tandem_xdp_attached{interface=\"front\",mode=\"native\"}", 1),
    ] {
        assert_eq!(value_of(&metrics, series)?, value, "{series}");
    }

    let table = tandem.verb(&["status", "--socket"]).arg(tandem.socket()).run()?;
    for words in ["lab", "front", "native", "web", "10.1.0.100:80", "roundrobin", "b1", "b2"] {
        assert!(table.contains(words), "no {words:?} in\n{table}");
    }
    Ok(())
}

#[test]
fn the_example_file_is_valid_and_so_is_what_it_comes_down_to() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tandem.example.toml");
    let check = || anyhow::Ok(Tandem::command(&lab)?.arg("check"));
    let said = check()?.arg(&example).run()?;
    assert!(said.ends_with("valid (2 groups, 2 services, 5 backends)\n"), "{said}");
    let effective = lab.dir().join("effective.toml");
    fs::write(&effective, check()?.arg("--print").arg(&example).run()?)?;
    let said = check()?.arg(&effective).run()?;
    assert!(said.ends_with("valid (2 groups, 2 services, 5 backends)\n"), "{said}");
    lab.no_traces()
}

#[test]
fn a_second_daemon_gives_up_with_one_line_and_does_the_first_no_harm() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers = serve(&lab)?;
    let tandem = Tandem::start(&lab, &web(&lab))?;
    wait_for_backends(&tandem)?;
    let mut held = hold(&lab, 80, 10)?;
    let traces = lab.traces()?;

    let second = tandem.verb(&["run", "--config"]).arg(tandem.config()).output(PATIENCE)?;
    assert_eq!(second.status.code(), Some(1));
    let line =
        format!("tandem: another tandem is running, it answers on {}", tandem.socket().display());
    assert!(second.stderr.starts_with(&line), "{}", second.stderr);
    assert_eq!(second.stderr.lines().count(), 1, "{}", second.stderr);

    assert_eq!(lab.traces()?, traces);
    assert_eq!(held.still_work(1000), 10);
    ask(&lab, 80).all_answered()?;
    assert_eq!(tandem.status()?.config.generation, 1);
    Ok(())
}

#[test]
fn a_running_daemon_keeps_its_data_plane_from_other_daemons_and_from_detach() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _servers = serve(&lab)?;
    let tandem = Tandem::start(&lab, &web(&lab))?;
    wait_for_backends(&tandem)?;
    let traces = lab.traces()?;

    // Socket and port of its own, but not what matters.
    let file = fs::read_to_string(tandem.config())?;
    let file = file.replace("tandem.sock", "other.sock").replace(":9200", ":9300");
    let other = lab.dir().join("other.toml");
    fs::write(&other, file)?;
    let second = tandem.verb(&["run", "--config"]).arg(other).output(PATIENCE)?;
    let said = second.stderr;
    assert!(said.contains("another tandem runs the data plane in /sys/fs/bpf/tandem"), "{said}");
    assert!(said.contains("[global] bpffs"), "{said}");
    assert_eq!(second.status.code(), Some(1));

    let detach = tandem.verb(&["detach"]).output(PATIENCE)?;
    assert!(detach.stderr.contains("systemctl stop tandem"), "{}", detach.stderr);
    assert_eq!(detach.status.code(), Some(1));

    assert_eq!(lab.traces()?, traces);
    ask(&lab, 80).all_answered()
}

#[test]
fn a_stopped_daemon_takes_its_own_away_even_if_the_file_names_another_place() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let mut tandem = Tandem::start(&lab, "")?;
    let file = fs::read_to_string(tandem.config())?;
    fs::write(tandem.config(), file.replace("/sys/fs/bpf/tandem", "/sys/fs/bpf/elsewhere"))?;
    tandem.reload()?;
    assert_eq!(tandem.stop()?.code(), Some(0));
    lab.no_traces()
}

/// A server on port 80 of every backend.
fn serve(lab: &Lab) -> Result<Vec<IdentServer>> {
    lab.backends().iter().map(|host| IdentServer::start(host, 80)).collect()
}

/// The service `web` on port 80 with all backends.
fn web(lab: &Lab) -> String {
    let backends: Vec<(&str, u16)> = lab.backends().iter().map(|host| (host.name(), 1)).collect();
    service(lab, "web", 80, "", &backends)
}

/// A service on a port of the virtual address, with backends by name and weight. They are not
/// checked, so that only clients connect to them.
fn service(lab: &Lab, name: &str, port: u16, balance: &str, backends: &[(&str, u16)]) -> String {
    let balance = if balance.is_empty() { "roundrobin" } else { balance };
    let backend = |(name, weight): &(&str, u16)| {
        let host = lab.backends().iter().find(|host| host.name() == *name);
        let address = host.expect("the lab has it").at(Family::V4, 80);
        format!(
            "[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nweight = {weight}\n"
        )
    };
    let backends: String = backends.iter().map(backend).collect();
    format!(
        "[[service]]\nname = \"{name}\"\nbind = \"{}:{port}\"\nbalance = \"{balance}\"\n\
         server.check.enabled = false\n{backends}",
        lab.vip4()
    )
}

/// Waits until every backend gets connections.
fn wait_for_backends(tandem: &Tandem) -> Result<Status> {
    tandem.wait_until("all backends are eligible", PATIENCE, |status| {
        let mut backends = status.services.iter().flat_map(|service| &service.backends);
        backends.all(|b| b.eligible && b.state == State::Unchecked)
    })
}

/// Waits until no connection is counted any more.
fn all_closed(tandem: &Tandem) -> Result<()> {
    let none = |status: &Status| {
        let mut backends = status.services.iter().flat_map(|service| &service.backends);
        backends.all(|b| b.traffic.active == 0) && status.tables.iter().all(|t| t.half_open == 0)
    };
    tandem.wait_until("no connections", PATIENCE, none).map(drop)
}

/// Opens connections to a port of the virtual address, all of which must be answered.
fn hold(lab: &Lab, port: u16, count: usize) -> Result<Held> {
    let held = Held::open(lab.client(), (lab.vip4(), port).into(), count, PATIENCE);
    held.tally().all_answered()?;
    Ok(held)
}

fn ask(lab: &Lab, port: u16) -> Tally {
    Ask::at((lab.vip4(), port).into()).times(20).at_once(4).from(lab.client())
}

fn named<'a>(status: &'a Status, service: &str, backend: &str) -> &'a BackendStatus {
    let service = status.services.iter().find(|s| s.name == service).expect("the service is there");
    service.backends.iter().find(|b| b.name == backend).expect("the backend is there")
}

/// The numbers of `b1` and `b2` in the data plane.
fn numbers(status: &Status) -> [u16; 2] {
    ["b1", "b2"].map(|name| named(status, "web", name).id)
}

fn metric(tandem: &Tandem, series: &str) -> Result<u64> {
    value_of(&tandem.scrape_metrics()?, series)
}

fn value_of(metrics: &str, series: &str) -> Result<u64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.with_context(|| format!("no {series} in\n{metrics}"))?;
    value.parse().with_context(|| format!("{series} is {value}"))
}
