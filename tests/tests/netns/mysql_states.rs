//! States that a real `MariaDB` is in only together with another one: those of a Galera node that
//! falls behind or comes back, and a replica's.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use anyhow::Result;
use lb_daemon::core::{CheckStatus, Reason, State};
use tests::lab::{Family, Lab, MariaDb, Prober, Service, Tandem};

/// For a node that has much to do, on a machine that has, too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rows of a table without a key. Whoever replicates a change of all of them looks through the table
/// for each: some seconds of work.
const ROWS: u32 = 6000;

/// Two databases, of which the second is checked.
struct Story {
    lab: Lab,
    tandem: Tandem,
    databases: [MariaDb; 2],
}

impl Story {
    fn new(lab: Lab, databases: [MariaDb; 2], question: &str) -> Result<Self> {
        let check = format!(
            r#"check = {{ enabled = true, inter = "200ms", timeout = "5s", rise = 1, fall = 1,
            mysql_check = {{ user = "lab", password = "lab", {question} }} }}"#
        );
        let service = Service::new("db", (lab.vip4(), 3306));
        let service = service.backend_with(&lab.backends()[1], Family::V4, 3306, &check);
        let tandem = Tandem::start(&lab, &service.to_string())?;
        Ok(Self { lab, tandem, databases })
    }

    fn at(&self, nth: usize) -> SocketAddr {
        self.lab.backends()[nth].at(Family::V4, 3306)
    }

    /// Asks the nth database.
    fn sql(&self, nth: usize, sql: &str) -> Result<String> {
        MariaDb::query(&self.lab.backends()[nth], self.at(nth), sql)
    }

    /// Waits until the check has this outcome, by which the backend is up or down.
    fn wait_for(&self, reason: Reason, detail: &str) -> Result<()> {
        let found = |check: &CheckStatus| check.reason == reason && check.detail.contains(detail);
        let what = format!("the check finds {reason} {detail}");
        let status = self.tandem.wait_until(&what, PATIENCE, |status| {
            status.services[0].backends[0].check.as_ref().is_some_and(found)
        })?;
        let up = status.services[0].backends[0].state == State::Up;
        assert_eq!(up, reason.passed(), "{what}");
        Ok(())
    }
}

#[test]
fn a_galera_node_is_checked_and_probed_in_the_states_it_has_only_among_others() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let [first, second] = [0, 1].map(|nth| lab.backends()[nth].at(Family::V4, 3306));
    let databases = [
        MariaDb::start_galera_at(&lab.backends()[0], first, None)?,
        MariaDb::start_galera_at(&lab.backends()[1], second, Some(first.ip()))?,
    ];
    let story = Story::new(lab, databases, r#"query = "galera""#)?;
    let socket = story.databases[1].socket();
    let arguments = ["--user", "lab", "--server", socket.to_str().expect("a plain path")];
    let prober = Prober::start(&story.lab, &story.lab.backends()[1], 9200, &arguments)?;
    let both_find = |state: &str| {
        story.wait_for(Reason::L7Status, state)?;
        prober.wait_until(503, state)
    };
    let both_are_well = || {
        story.wait_for(Reason::L7Ok, "wsrep_local_state is 4 (synced)")?;
        prober.wait_until(200, "MySQL is running.")
    };
    let slow = "UPDATE slow SET value = value + 1";
    let key = "CREATE TABLE quick (id INT PRIMARY KEY)";
    let rows = format!("INSERT INTO slow SELECT seq, 0 FROM seq_1_to_{ROWS}");
    story.sql(0, &format!("CREATE TABLE slow (id INT, value INT); {rows}; {key}"))?;
    both_are_well()?;

    // It is allowed to fall behind, and has much to do yet when it is not any more.
    story.sql(1, "SET GLOBAL wsrep_desync = ON")?;
    both_find("wsrep_local_state is 2 (donor, or desynced)")?;
    let quick = (0..40).fold(String::new(), |mut sql, id| {
        let _ = write!(sql, "INSERT INTO quick VALUES ({id}); ");
        sql
    });
    story.sql(0, &format!("{slow}; {quick}"))?;
    story.sql(1, "SET GLOBAL wsrep_desync = OFF")?;
    story.sql(0, slow)?;
    both_find("wsrep_local_state is 3 (joined)")?;
    both_are_well()?;

    // It leaves, and is told of what it has missed when it comes back.
    let leave = "SET GLOBAL wsrep_cluster_address = 'gcomm://127.0.0.2:4999?pc.wait_prim=no'";
    story.sql(1, leave)?;
    both_find("wsrep_local_state is 0 (not in a primary component)")?;
    story.sql(0, &format!("{slow}; {slow}"))?;
    let come_back = format!("SET GLOBAL wsrep_cluster_address = 'gcomm://{}'", first.ip());
    story.sql(1, &come_back)?;
    both_find("wsrep_local_state is 1 (joining)")?;
    both_are_well()?;
    Ok(())
}

#[test]
fn a_replica_is_checked_by_its_lag_and_by_all_of_its_sources() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let databases = [
        MariaDb::start_numbered(&lab.backends()[0], 3306, 1)?,
        MariaDb::start_numbered(&lab.backends()[1], 3306, 2)?,
    ];
    let story = Story::new(lab, databases, r#"query = "replica", max_lag = "2s""#)?;
    story.wait_for(Reason::L7Status, "this is no replica")?;

    let ip = story.at(0).ip();
    let source = |port| {
        format!(
            "MASTER_HOST = '{ip}', MASTER_PORT = {port}, MASTER_USER = 'lab', MASTER_PASSWORD = 'lab'"
        )
    };
    story.sql(1, &format!("CHANGE MASTER TO {}; START SLAVE", source(3306)))?;
    story.wait_for(Reason::L7Ok, "the replica is 0s behind")?;

    let delay =
        |seconds| format!("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = {seconds}; START SLAVE");
    story.sql(1, &delay(3600))?;
    story.sql(0, "CREATE TABLE late (id INT)")?;
    story.wait_for(Reason::L7Status, "s behind, and 2s are allowed")?;
    story.sql(1, &delay(0))?;
    story.wait_for(Reason::L7Ok, "the replica is 0s behind")?;

    story.sql(1, "STOP SLAVE SQL_THREAD")?;
    story.wait_for(Reason::L7Status, "the replica does not replicate")?;
    story.sql(1, "START SLAVE SQL_THREAD")?;
    story.wait_for(Reason::L7Ok, "the replica is 0s behind")?;

    // Told of another source, but not started.
    story.sql(1, &format!("CHANGE MASTER 'west' TO {}", source(3307)))?;
    story.wait_for(Reason::L7Status, "the replica does not replicate from \"west\"")?;
    story.sql(1, "RESET SLAVE 'west' ALL")?;
    story.wait_for(Reason::L7Ok, "the replica is 0s behind")?;
    Ok(())
}
