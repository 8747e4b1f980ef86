//! `tandem probe mysql` before a real Galera node, asked by clients and by Tandem's own checks.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_daemon::core::State;
use nix::sys::signal::Signal;
use tests::lab::{
    Family, Lab, MariaDb, Prober, Service, Systemd, Tandem, http_get, skip, wait::until,
};

const PATIENCE: Duration = Duration::from_secs(20);
const GOOD: &str = "<html><body>MySQL is running.</body></html>";
const USER: [&str; 2] = ["--user", "lab"];

/// A host with a database, which is the only one of its lab.
struct Story {
    lab: Lab,
    database: MariaDb,
}

impl Story {
    fn galera() -> Result<Self> {
        let lab = Lab::two_arm(1)?;
        let database = MariaDb::start_galera(&lab.backends()[0], 3306)?;
        Ok(Self { lab, database })
    }

    /// A prober that asks by the Unix socket.
    fn prober(&self, port: u16, arguments: &[&str]) -> Result<Prober> {
        let socket = self.database.socket();
        let socket = ["--server", socket.to_str().expect("a plain path")];
        let arguments = [&USER[..], &socket, arguments].concat();
        Prober::start(&self.lab, &self.lab.backends()[0], port, &arguments)
    }

    fn sql(&self, sql: &str) -> Result<String> {
        MariaDb::query(&self.lab.backends()[0], ([127, 0, 0, 1], 3306).into(), sql)
    }

    fn asked(&self) -> Result<u64> {
        let sql = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                   WHERE VARIABLE_NAME = 'COM_SHOW_STATUS'";
        Ok(self.sql(sql)?.trim().parse()?)
    }
}

#[test]
fn the_probe_follows_the_states_of_a_galera_node() -> Result<()> {
    let mut story = Story::galera()?;
    let strict = story.prober(9200, &["--not-when-read-only"])?;
    let lenient = story.prober(9201, &["--available-when-donor"])?;
    strict.wait_until(200, GOOD)?;
    lenient.wait_until(200, GOOD)?;

    story.sql("SET GLOBAL wsrep_desync = ON")?;
    strict.wait_until(503, "wsrep_local_state is 2 (donor, or desynced)")?;
    lenient.wait_until(200, GOOD)?;
    story.sql("SET GLOBAL wsrep_desync = OFF")?;
    strict.wait_until(200, GOOD)?;

    story.sql("SET GLOBAL read_only = ON")?;
    strict.wait_until(503, "read_only is 1")?;
    lenient.wait_until(200, GOOD)?;
    story.sql("SET GLOBAL read_only = OFF")?;
    strict.wait_until(200, GOOD)?;

    // A cluster that is not there: the node stands alone, without a majority.
    story.sql("SET GLOBAL wsrep_cluster_address = 'gcomm://127.0.0.2:4999?pc.wait_prim=no'")?;
    strict.wait_until(503, "wsrep_local_state is 0 (not in a primary component)")?;
    lenient.wait_until(503, "wsrep_local_state is 0")?;
    story.sql("SET GLOBAL wsrep_cluster_address = 'gcomm://'")?;
    strict.wait_until(200, GOOD)?;

    let file = Prober::fail_file(&story.lab);
    fs::write(&file, "")?;
    strict.wait_until(503, "proxyoff is there: this host was taken out on purpose")?;
    fs::remove_file(&file)?;
    strict.wait_until(200, GOOD)?;

    story.database.process_mut().signal(Signal::SIGSTOP)?;
    strict.wait_until(503, "no answer within 1.5s")?;
    story.database.process_mut().signal(Signal::SIGCONT)?;
    strict.wait_until(200, GOOD)?;

    story.database.process_mut().kill();
    strict.wait_until(503, "cannot connect")?;
    story.database.restart()?;
    strict.wait_until(200, GOOD)?;

    let log = fs::read_to_string(strict.process().log())?;
    assert!(log.contains("INFO MySQL can serve: wsrep_local_state is 4 (synced)"), "{log}");
    assert!(log.contains("WARN MySQL cannot serve: MySQL at "), "{log}");
    Ok(())
}

#[test]
fn a_storm_of_clients_is_a_handful_of_questions() -> Result<()> {
    const CLIENTS: usize = 200;
    let story = Story::galera()?;
    let prober = story.prober(9200, &["--cache", "10s", "--timeout", "10s"])?;
    let answer_of = |talks: bool| -> Result<Vec<String>> {
        let connect = |_| story.lab.balancer().connect(prober.at(), PATIENCE);
        let mut clients = (0..CLIENTS).map(connect).collect::<Result<Vec<_>>>()?;
        if talks {
            for client in &mut clients {
                client.write_all(b"OPTIONS / HTTP/1.0\r\n\r\n")?;
            }
        }
        let answers = clients.iter_mut().map(|client| {
            let mut answer = String::new();
            client.set_read_timeout(Some(PATIENCE))?;
            client.read_to_string(&mut answer)?;
            Ok(answer)
        });
        answers.collect()
    };
    let before = story.asked()?;
    for talks in [true, false] {
        for answer in answer_of(talks)? {
            ensure!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(GOOD),
                "{answer}"
            );
        }
    }
    // The tests' own machine may be slow: one for each ten seconds, and never one for a client.
    let asked = story.asked()? - before;
    assert!(asked <= 10, "{asked} questions for {} clients", 2 * CLIENTS);
    Ok(())
}

#[test]
fn a_database_without_galera_is_a_failure_though_it_answers() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let database = MariaDb::start(&lab.backends()[0], 3306)?;
    let story = Story { lab, database };
    let prober = story.prober(9200, &[])?;
    prober.wait_until(503, "there is no wsrep_local_state: Galera does not run")?;

    // MariaDB believes the kernel who is at the other end of its socket: the prober is `nobody`.
    story.sql("CREATE USER nobody@localhost IDENTIFIED VIA unix_socket")?;
    let socket = story.database.socket();
    let arguments = ["--user", "nobody", "--server", socket.to_str().expect("plain")];
    let prober = Prober::start(&story.lab, &story.lab.backends()[0], 9201, &arguments)?;
    prober.wait_until(503, "Galera does not run")?;

    // By TCP, with a password from a file; the environment has one too, which is too many.
    let file = story.lab.dir().join("password");
    fs::write(&file, "lab\n")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let both = Tandem::command(&story.lab)?
        .args(["probe", "mysql", "--password-file", file.to_str().expect("plain")])
        .env("TANDEM_PROBE_PASSWORD", "lab")
        .output(PATIENCE)?;
    assert!(!both.status.success());
    assert!(both.stderr.contains("there are both --password-file and"), "{}", both.stderr);

    let server = ["--server", "127.0.0.1:3306"];
    let wrong = [&server[..], &["--user", "nobody_of_that_name"]].concat();
    let prober = Prober::start(&story.lab, &story.lab.backends()[0], 9202, &wrong)?;
    // MariaDB has two numbers for "Access denied".
    prober.wait_until(503, "login as nobody_of_that_name: error 1")?;
    Ok(())
}

#[test]
fn tandem_checks_a_database_by_its_probe() -> Result<()> {
    let story = Story::galera()?;
    let prober = story.prober(9200, &[])?;
    let host = &story.lab.backends()[0];
    let vip: SocketAddr = (story.lab.vip4(), 3306).into();
    // As HAProxy's users have it: nothing is sent, the text is waited for.
    let check = r#"check = { enabled = true, port = 9200, inter = "200ms", timeout = "3s", fall = 2,
        tcp_check = [{ expect_string = "is running." }] }"#;
    let service = Service::new("silent", vip).backend_with(host, Family::V4, 3306, check);
    let http = r#"check = { enabled = true, port = 9200, inter = "200ms", timeout = "3s", fall = 2, httpchk = {} }"#;
    let other =
        Service::new("http", (story.lab.vip4(), 3307)).backend_with(host, Family::V4, 3306, http);
    let tandem = Tandem::start(&story.lab, &format!("{service}{other}"))?;
    tandem.wait_until_all_serve()?;
    assert_eq!(MariaDb::query(story.lab.client(), vip, "SELECT 1")?, "1\n");

    let all = |state: State| {
        tandem.wait_until("all backends change", PATIENCE, |status| {
            let mut backends = status.services.iter().flat_map(|service| &service.backends);
            backends.all(|backend| backend.state == state)
        })
    };
    story.sql("SET GLOBAL wsrep_desync = ON")?;
    let status = all(State::Down)?;
    for (service, reason) in status.services.iter().zip(["L7RSP", "L7STS"]) {
        let check = service.backends[0].check.as_ref().expect("it is checked");
        assert_eq!(check.reason.code(), reason, "{}: {}", service.name, check.detail);
    }
    story.sql("SET GLOBAL wsrep_desync = OFF")?;
    all(State::Up)?;

    fs::write(Prober::fail_file(&story.lab), "")?;
    all(State::Down)?;
    drop(prober);
    Ok(())
}

#[test]
fn the_packaged_unit_logs_in_by_the_socket_with_a_password_that_only_root_can_read() -> Result<()> {
    const UNIT: &str = "tandem-probe-mysql.service";
    let story = Story::galera()?;
    let host = &story.lab.backends()[0];
    if let Some(obstacle) = Systemd::obstacle(host) {
        return skip(&obstacle);
    }
    story.sql("CREATE USER tandem@localhost IDENTIFIED BY 'a long password'")?;
    let systemd = Systemd::boot(host)?;
    systemd.install_product()?;
    systemd.install(UNIT, include_str!("../../../packaging/tandem-probe-mysql.service"))?;
    let [secrets, sockets] = ["etc/tandem", "var/mysqld"].map(|name| systemd.root().join(name));
    fs::create_dir(&secrets)?;
    let password = secrets.join("mysql.password");
    fs::write(&password, "a long password\n")?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
    fs::create_dir(&sockets)?;
    fs::hard_link(story.database.socket(), sockets.join("mysqld.sock"))?;
    systemd.command("ln").args(["-s", "/var/mysqld", "/run/mysqld"]).run()?;

    systemd.systemctl(&["start", UNIT])?;
    let is = |status, text| {
        until("an answer of the unit", PATIENCE, || {
            let answer = http_get(story.lab.balancer(), host.at(Family::V4, 9200), "/")?;
            ensure!(answer.status == status && answer.body.contains(text), "it is {answer:?}");
            Ok(())
        })
        .map_err(|error| systemd.explain(&error))
    };
    is(200, GOOD)?;
    let user = systemd.property(UNIT, "UID")?;
    ensure!(user.parse::<u32>()? > 60_000, "it runs as user {user}");
    story.sql("SET GLOBAL wsrep_desync = ON")?;
    is(503, "wsrep_local_state is 2 (donor, or desynced)")?;
    story.sql("SET GLOBAL wsrep_desync = OFF")?;
    systemd.systemctl(&["kill", "--signal=KILL", UNIT])?;
    is(200, GOOD)?;
    let crashes = systemd.property(UNIT, "NRestarts")?;
    ensure!(crashes == "1", "systemd has started it again {crashes} times");
    Ok(())
}
