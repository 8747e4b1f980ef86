//! A real `MariaDB`.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::unistd::User;

use super::{Conversation, Namespace, Process, wait::until};

/// A `MariaDB` server of its own data on a host. Dropping it kills it; the data goes with the lab.
///
/// There is a user `lab` with the password `lab`, an empty database `lab`, and
/// `SELECT @@report_host` answers with the name of the host.
#[derive(Debug)]
pub struct MariaDb {
    process: Process,
    host: Namespace,
    data: PathBuf,
    port: u16,
    options: Vec<String>,
}

impl MariaDb {
    /// Makes its data, starts it on a port and waits until it answers queries.
    pub fn start(host: &Namespace, port: u16) -> Result<Self> {
        Self::start_with(host, port, &[])
    }

    /// The same as the only node of a Galera cluster, which it is a synced member of, and which nobody
    /// else can join.
    pub fn start_galera(host: &Namespace, port: u16) -> Result<Self> {
        Self::start_with(host, port, &galera(([127, 0, 0, 1], port).into(), None))
    }

    /// The same as a node, at this address, of a Galera cluster in which there is a member at that
    /// one; or of one of its own. Whoever joins gets the data of the others.
    pub fn start_galera_at(
        host: &Namespace,
        address: SocketAddr,
        member: Option<IpAddr>,
    ) -> Result<Self> {
        Self::start_with(host, address.port(), &galera(address, member))
    }

    /// The same with this number among those that replicate each other. It keeps what a replica needs.
    pub fn start_numbered(host: &Namespace, port: u16, number: u8) -> Result<Self> {
        let options = [format!("--server-id={number}"), "--log-bin=binlog".to_owned()];
        Self::start_with(host, port, &options)
    }

    fn start_with(host: &Namespace, port: u16, options: &[String]) -> Result<Self> {
        let home = host.dir().join(format!("{}-mariadb-{port}", host.name()));
        let data = home.join("data");
        let account =
            User::from_name("mysql")?.context("MariaDB is not installed (no user mysql)")?;
        fs::create_dir(&home)?;
        unix::fs::chown(&home, Some(account.uid.into()), Some(account.gid.into()))?;
        fs::write(home.join("init.sql"), INIT)?;
        host.command("mariadb-install-db")
            .args(["--no-defaults", "--skip-test-db", "--innodb-log-file-size=4M"])
            .arg("--auth-root-authentication-method=normal")
            .arg(format!("--datadir={}", data.display()))
            // Its temporary tables are named after its PID, which is the same in every PID
            // namespace.
            .arg(format!("--tmpdir={}", home.display()))
            .user("mysql")?
            .run()?;
        let process = run(host, &data, port, options)?;
        let options = options.to_vec();
        let server = Self { process, host: host.clone(), data, port, options };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to be frozen by `SIGSTOP` or killed.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.data.with_file_name("socket")
    }

    /// Kills it and starts it again with the same data.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = run(&self.host, &self.data, self.port, &self.options)?;
        self.wait_until_it_answers()
    }

    /// Runs SQL with the `mariadb` client on a host, and hands back the rows: a line each,
    /// columns apart by tabs.
    pub fn query(client: &Namespace, server: SocketAddr, sql: &str) -> Result<String> {
        Self::client(client, server).args(["--execute", sql]).run()
    }

    /// The `mariadb` client on a host, about to connect to a server; for scripts and people.
    pub fn client(client: &Namespace, server: SocketAddr) -> super::Command {
        client
            .command("mariadb")
            .args(["--no-defaults", "--user=lab", "--password=lab", "--connect-timeout=5"])
            .args(["--batch", "--skip-column-names", "--database=lab", "--protocol=tcp"])
            .arg(format!("--host={}", server.ip()))
            .arg(format!("--port={}", server.port()))
    }

    /// A session of the `mariadb` client on a host, which lasts until it is dropped. It is not opened
    /// again if it is lost.
    pub fn session(client: &Namespace, server: SocketAddr) -> Result<MariaSession> {
        let command = Self::client(client, server).args(["--unbuffered", "--skip-reconnect"]);
        let mut session = MariaSession { conversation: command.converse()?, asked: 0 };
        session.ask("SELECT 1").context("a session with MariaDB")?;
        Ok(session)
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        let what = format!("an answer of MariaDB on {}", self.host.name());
        let local = SocketAddr::new([127, 0, 0, 1].into(), self.port);
        until(&what, Duration::from_secs(30), || Self::query(&self.host, local, "SELECT 1"))
            .map(drop)
            .map_err(|error| self.process.explain(&error))
    }
}

/// One session with a server, on one connection.
#[derive(Debug)]
pub struct MariaSession {
    conversation: Conversation,
    asked: u32,
}

impl MariaSession {
    /// Runs a statement, and hands back the rows: a line each, columns apart by tabs. Fails if that
    /// takes longer than 30 seconds, or the session is over.
    pub fn ask(&mut self, sql: &str) -> Result<String> {
        self.asked += 1;
        let end = format!("-- end of {}", self.asked);
        self.conversation.tell(&format!("{sql}; SELECT '{end}';"))?;
        let mut rows = String::new();
        loop {
            let row = self.conversation.line(Duration::from_secs(30)).with_context(|| {
                let said = self.conversation.process().log_tail(5);
                format!("no end of the answer to {sql}: {rows}{said}")
            })?;
            if row == end {
                return Ok(rows);
            }
            rows += &row;
            rows.push('\n');
        }
    }

    /// The number that the server has given the session.
    pub fn id(&mut self) -> Result<u64> {
        Ok(self.ask("SELECT CONNECTION_ID()")?.trim_end().parse()?)
    }
}

const INIT: &str = "\
CREATE DATABASE IF NOT EXISTS lab;
CREATE USER IF NOT EXISTS lab@'%' IDENTIFIED BY 'lab';
GRANT ALL ON *.* TO lab@'%';
";

/// Makes a node of a cluster, by the address of a member if there is one.
fn galera(address: SocketAddr, member: Option<IpAddr>) -> Vec<String> {
    let ip = address.ip();
    let member = member.map(|member| member.to_string()).unwrap_or_default();
    let provider = format!(
        "--wsrep-provider-options=gmcast.listen_addr=tcp://{ip}:4567;gcache.size=16M;\
         pc.announce_timeout=PT0.5S"
    );
    let fixed = [
        "--wsrep-on=ON",
        "--wsrep-provider=/usr/lib/galera/libgalera_smm.so",
        // A script for rsync would look for its processes in /proc, which is that of another namespace.
        "--wsrep-sst-method=mysqldump",
        "--wsrep-sst-auth=lab:lab",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
    ];
    let own = [
        format!("--wsrep-cluster-address=gcomm://{member}"),
        format!("--wsrep-node-address={ip}"),
        format!("--wsrep-sst-receive-address={address}"),
        provider,
    ];
    fixed.map(str::to_owned).into_iter().chain(own).collect()
}

fn run(host: &Namespace, data: &std::path::Path, port: u16, options: &[String]) -> Result<Process> {
    let home = data.parent().context("the data is in a directory")?;
    let file = |option: &str, name: &str| format!("--{option}={}", home.join(name).display());
    host.command("mariadbd")
        .args(["--no-defaults", "--skip-name-resolve", "--bind-address=*"])
        .args(["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M"])
        .args(["--key-buffer-size=1M", "--performance-schema=off", "--max-connections=500"])
        .args(["--innodb-flush-log-at-trx-commit=2", "--max-allowed-packet=64M"])
        .arg(format!("--port={port}"))
        .arg(format!("--report-host={}", host.name()))
        .arg(format!("--datadir={}", data.display()))
        .arg(file("socket", "socket"))
        .arg(file("pid-file", "pid"))
        .arg(file("tmpdir", ""))
        .arg(file("init-file", "init.sql"))
        .args(options)
        .user("mysql")?
        .spawn()
}
