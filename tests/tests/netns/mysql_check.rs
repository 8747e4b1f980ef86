//! The MySQL check of a real `MariaDB`: the greeting, every way to log in, and the questions.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::{Context, Result};
use lb_daemon::core::{CheckStatus, Reason, State};
use tests::lab::{Family, Lab, MariaDb, Tandem};

const PATIENCE: Duration = Duration::from_secs(20);

/// A database, before which there is a backend for each check.
struct Story {
    lab: Lab,
    tandem: Tandem,
    _database: MariaDb,
}

impl Story {
    /// The statements are run first.
    fn new(database: MariaDb, lab: Lab, statements: &str, checks: &[&str]) -> Result<Self> {
        let host = &lab.backends()[0];
        MariaDb::query(host, host.at(Family::V4, 3306), statements)?;
        let vip = lab.vip4();
        let mut services = String::new();
        for (nth, check) in checks.iter().enumerate() {
            let (port, address) = (4000 + nth, host.at(Family::V4, 3306));
            write!(
                services,
                "[[service]]\nname = \"s{nth}\"\nbind = \"{vip}:{port}\"\n\
                 [[service.backend]]\nname = \"db\"\naddress = \"{address}\"\n\
                 check = {{ inter = \"300ms\", timeout = \"5s\", rise = 1, fall = 1, \
                 mysql_check = {check} }}\n"
            )?;
        }
        let tandem = Tandem::start(&lab, &services)?;
        Ok(Self { lab, tandem, _database: database })
    }

    /// Waits until the nth check has this outcome, and says what its detail is.
    fn wait_for(&self, nth: usize, reason: Reason, detail: &str) -> Result<()> {
        let found = |check: &CheckStatus| check.reason == reason && check.detail.contains(detail);
        let what = format!("check {nth} finds {reason} {detail}");
        let status = self.tandem.wait_until(&what, PATIENCE, |status| {
            status.services[nth].backends[0].check.as_ref().is_some_and(found)
        })?;
        let up = status.services[nth].backends[0].state == State::Up;
        assert_eq!(up, reason.passed(), "{what}");
        Ok(())
    }

    fn sql(&self, sql: &str) -> Result<String> {
        let host = &self.lab.backends()[0];
        MariaDb::query(host, host.at(Family::V4, 3306), sql)
    }
}

#[test]
fn every_way_to_log_in_is_known_and_a_wrong_password_is_not_one() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let file = lab.dir().join("password");
    fs::write(&file, "of ed25519\n")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let file = file.to_str().context("a plain path")?;
    let statements = "
        INSTALL SONAME 'auth_ed25519';
        CREATE USER modern@'%' IDENTIFIED VIA ed25519 USING PASSWORD('of ed25519');
        CREATE USER old@'%' IDENTIFIED VIA mysql_old_password USING '0123456789abcdef';
        CREATE USER open@'%';";
    let database = MariaDb::start(&lab.backends()[0], 3306)?;
    let ed25519 = format!("{{ user = \"modern\", password_file = \"{file}\" }}");
    let story = Story::new(
        database,
        lab,
        statements,
        &[
            "{}",
            r#"{ user = "lab", password = "lab" }"#,
            r#"{ user = "open" }"#,
            &ed25519,
            r#"{ user = "lab", password = "wrong" }"#,
            r#"{ user = "modern", password = "wrong" }"#,
            r#"{ user = "old", password = "wrong" }"#,
        ],
    )?;
    story.wait_for(0, Reason::L7Ok, "10.")?;
    story.wait_for(1, Reason::L7Ok, "logged in as lab")?;
    story.wait_for(2, Reason::L7Ok, "logged in as open")?;
    story.wait_for(3, Reason::L7Ok, "logged in as modern")?;
    story.wait_for(4, Reason::L7Status, "login: error 1045: Access denied for user 'lab'")?;
    story.wait_for(5, Reason::L7Status, "login: error 1045: Access denied for user 'modern'")?;
    story.wait_for(6, Reason::L7Status, "login: ")?;

    // Nobody was cut off but those who only heard the greeting, or were refused.
    assert_eq!(story.sql("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")?, "Aborted_clients\t0\n");
    let log = fs::read_to_string(story.tandem.process().log())?;
    assert!(!log.contains("of ed25519") && !log.contains("wrong"), "a password is in the log");
    Ok(())
}

#[test]
fn questions_are_answered_by_a_galera_node() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let database = MariaDb::start_galera(&lab.backends()[0], 3306)?;
    let check = |rest: &str| format!("{{ user = \"lab\", password = \"lab\", {rest} }}");
    let checks = [
        check(r#"query = "galera""#),
        check(r#"query = "galera", available_when_donor = true, not_when_read_only = true"#),
        check(r#"query = "writable""#),
        check(r#"query = "replica", max_lag = "10s""#),
        check(r#"query = "SELECT text FROM lab.state", expect = "ready""#),
        check(r#"query = "SELECT text FROM lab.state", expect_regex = "^(ready|steady)$""#),
        check(r#"query = "SELECT * FROM lab.nothing""#),
    ];
    let checks: Vec<_> = checks.iter().map(String::as_str).collect();
    let statements = "
        CREATE TABLE lab.state (id INT PRIMARY KEY, text VARCHAR(20));
        INSERT INTO lab.state VALUES (1, 'ready');";
    let story = Story::new(database, lab, statements, &checks)?;
    story.wait_for(0, Reason::L7Ok, "wsrep_local_state is 4 (synced)")?;
    story.wait_for(1, Reason::L7Ok, "wsrep_local_state is 4 (synced)")?;
    story.wait_for(2, Reason::L7Ok, "read_only is 0")?;
    story.wait_for(3, Reason::L7Status, "query: this is no replica")?;
    story.wait_for(4, Reason::L7Ok, "the answer is \"ready\"")?;
    story.wait_for(6, Reason::L7Status, "query: error 1146: Table 'lab.nothing' doesn't exist")?;

    story.sql("UPDATE lab.state SET text = 'steady'; SET GLOBAL wsrep_desync = ON")?;
    story.wait_for(0, Reason::L7Status, "query: wsrep_local_state is 2 (donor, or desynced)")?;
    story.wait_for(1, Reason::L7Ok, "wsrep_local_state is 2 (donor, or desynced)")?;
    let unexpected = "query: the answer is \"steady\", expected \"ready\"";
    story.wait_for(4, Reason::L7Status, unexpected)?;
    story.wait_for(5, Reason::L7Ok, "the answer is \"steady\"")?;

    // Told of a master, but not started.
    story.sql("CHANGE MASTER TO MASTER_HOST = '127.0.0.2', MASTER_USER = 'lab'")?;
    story.wait_for(3, Reason::L7Status, "query: the replica does not replicate")?;

    story.sql("DELETE FROM lab.state; SET GLOBAL read_only = ON")?;
    story.wait_for(1, Reason::L7Status, "query: read_only is 1")?;
    story.wait_for(2, Reason::L7Status, "query: read_only is 1")?;
    story.wait_for(5, Reason::L7Status, "query: the query has no result")?;

    Ok(())
}
