//! A real MySQL client and a real MariaDB.

use std::{fmt::Write as _, fs, net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::lab::{Family, Lab, MariaDb, Service, Tandem};

const PATIENCE: Duration = Duration::from_secs(120);

/// A balancer before as many databases as there are backends.
struct Story {
    lab: Lab,
    tandem: Tandem,
    _databases: Vec<MariaDb>,
}

impl Story {
    fn new(backends: u8) -> Result<Self> {
        let lab = Lab::two_arm(backends)?;
        let start = |backend| MariaDb::start(backend, 3306);
        let databases = lab.backends().iter().map(|one| start(one)).collect::<Result<_>>()?;
        let service = Service::new("mysql", (lab.vip4(), 3306)).set("balance = \"leastconn\"");
        let service = service.backends(lab.backends(), Family::V4, 3306);
        let tandem = Tandem::start(&lab, &service.to_string())?;
        tandem.wait_until_all_serve()?;
        Ok(Self { lab, tandem, _databases: databases })
    }

    fn vip(&self) -> SocketAddr {
        (self.lab.vip4(), 3306).into()
    }

    /// Runs statements through the virtual address, in one session.
    fn session(&self, name: &str, statements: &str) -> Result<String> {
        let file = self.lab.dir().join(name);
        fs::write(&file, statements)?;
        let client = MariaDb::client(self.lab.client(), self.vip());
        let client = client.arg(format!("--execute=source {}", file.display()));
        let output = client.output(PATIENCE)?;
        ensure!(output.status.success(), "session {name}: {}", output.stderr);
        Ok(output.stdout)
    }

    /// Asks a database itself, past the balancer.
    fn directly(&self, backend: usize, sql: &str) -> Result<String> {
        let host = &self.lab.backends()[backend];
        MariaDb::query(host, host.at(Family::V4, 3306), sql)
    }
}

/// Statements that fill a table with so many rows and read each back, and what they print.
fn rows(table: &str, count: u64) -> Result<(String, String)> {
    let mut statements = format!("CREATE TABLE {table} (id INT PRIMARY KEY, text VARCHAR(500));\n");
    let mut printed = String::new();
    for id in 1..=count {
        let text = format!("row {id} ").repeat(usize::try_from(id % 40)? + 1);
        writeln!(statements, "INSERT INTO {table} VALUES ({id}, '{text}');")?;
        writeln!(statements, "SELECT id, text FROM {table} WHERE id = {id};")?;
        writeln!(printed, "{id}\t{text}")?;
    }
    Ok((statements, printed))
}

fn checksum(table: &str) -> String {
    format!("SELECT COUNT(*), SUM(CRC32(CONCAT(id, text))) FROM {table}")
}

#[test]
fn thousands_of_queries_run_in_one_session() -> Result<()> {
    const ROWS: u64 = 3000;
    let story = Story::new(1)?;
    let (statements, printed) = rows("t", ROWS)?;
    let me = "SELECT CONNECTION_ID();\n";
    let sum = checksum("t");
    let answer = story.session("long.sql", &format!("{me}{statements}{me}{sum};\n"))?;

    let (first, rest) = answer.split_once('\n').context("it answered")?;
    let (rows, last) = rest.split_at_checked(printed.len()).context("it read every row")?;
    ensure!(rows == printed, "what was read is not what was written");
    // The same session from the first statement to the last, and the data as the server has it.
    assert_eq!(last, format!("{first}\n{}", story.directly(0, &sum)?));
    ensure!(last.contains(&format!("\n{ROWS}\t")), "not every row is there: {last}");
    assert_eq!(story.tandem.status()?.services[0].backends[0].traffic.connections, 1);
    Ok(())
}

#[test]
fn a_result_of_tens_of_megabytes_is_intact() -> Result<()> {
    const ROWS: usize = 40;
    const MIB: usize = 1 << 20;
    let story = Story::new(1)?;
    // An MD5 is 32 characters: rows of a MiB, no two alike.
    let sql = format!("SELECT REPEAT(MD5(seq), {}) FROM seq_1_to_{ROWS} ORDER BY seq", MIB / 32);
    let balanced = MariaDb::query(story.lab.client(), story.vip(), &sql)?;
    assert_eq!(balanced.len(), ROWS * (MIB + 1));
    ensure!(balanced == story.directly(0, &sql)?, "the result differs from a direct one");
    Ok(())
}

#[test]
fn parallel_sessions_do_not_mix() -> Result<()> {
    const CLIENTS: usize = 8;
    const ROWS: u64 = 300;
    let story = Story::new(2)?;
    let homes = thread::scope(|scope| {
        let session = |nth| {
            let (statements, printed) = rows(&format!("t{nth}"), ROWS)?;
            let statements = format!("{statements}SELECT @@report_host;\n");
            let answer = story.session(&format!("{nth}.sql"), &statements)?;
            let home = answer.strip_prefix(&printed);
            Ok(home.with_context(|| format!("session {nth} read other rows"))?.trim().to_owned())
        };
        let sessions: Vec<_> = (0..CLIENTS).map(|nth| scope.spawn(move || session(nth))).collect();
        sessions.into_iter().map(|one| one.join().expect("no panic")).collect::<Result<Vec<_>>>()
    })?;

    for (nth, home) in homes.iter().enumerate() {
        let backend = story.lab.backends().iter().position(|host| host.name() == home);
        let backend = backend.with_context(|| format!("{home} is no backend"))?;
        let count = story.directly(backend, &format!("SELECT COUNT(*) FROM t{nth}"))?;
        assert_eq!(count, format!("{ROWS}\n"));
    }
    for host in story.lab.backends() {
        ensure!(homes.contains(&host.name().to_owned()), "none met {}: {homes:?}", host.name());
    }
    let status = story.tandem.wait_until("all have left", Duration::from_secs(10), |status| {
        status.services[0].backends.iter().all(|backend| backend.traffic.active == 0)
    })?;
    let opened = status.services[0].backends.iter().map(|backend| backend.traffic.connections);
    assert_eq!(opened.sum::<u64>(), CLIENTS as u64);
    Ok(())
}
