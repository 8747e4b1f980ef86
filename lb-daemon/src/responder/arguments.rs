//! What `tandem probe mysql` is told on its command line, and what in its environment.

use std::{
    env::{self, VarError},
    fmt::{self, Display},
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::config::{self, Password};

/// Where the password is if there is no file of it.
pub(super) const PASSWORD: &str = "TANDEM_PROBE_PASSWORD";

const EXAMPLES: &str = "\
The user needs no privileges. In MySQL or MariaDB, and in a file that only root can read:

  CREATE USER tandem@localhost IDENTIFIED BY 'a long password';
  (umask 077; echo 'a long password' > /etc/tandem/mysql.password)
  tandem probe mysql --password-file /etc/tandem/mysql.password

Without --password-file, the password is taken from the environment: TANDEM_PROBE_PASSWORD. Without
both, the user has none, as with IDENTIFIED VIA unix_socket in MariaDB. It is never an argument,
which every user of the host could read.

To see the answer:      curl -i http://127.0.0.1:9200/
To take the host out:   touch /dev/shm/proxyoff
To take it back in:     rm /dev/shm/proxyoff

It answers 200 if wsrep_local_state is 4 (synced), else 503 with the reason: also if MySQL is not
there, refuses the login, does not answer in time, or is no member of a Galera cluster.";

/// Answer by HTTP whether this host's MySQL can serve, as mysqlchk and xinetd did.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES, after_help = "--help tells more, with examples.")]
pub struct Arguments {
    /// Address and port to listen on; a port alone is that of all addresses.
    #[arg(long, value_name = "[ADDRESS:]PORT", default_value = "9200")]
    pub(super) listen: Listen,
    /// Unix socket of MySQL, or its address and port.
    #[arg(long, value_name = "SOCKET|ADDRESS:PORT", default_value = "/run/mysqld/mysqld.sock")]
    pub(super) server: Server,
    /// User to log in as.
    #[arg(long, default_value = "tandem")]
    pub(super) user: String,
    /// File with the user's password, and nothing else.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// While this file is there, the answer is 503 whatever MySQL says.
    #[arg(long, value_name = "FILE", default_value = "/dev/shm/proxyoff")]
    pub(super) fail_file: PathBuf,
    /// A donor, or desynced, node (state 2) can serve too.
    #[arg(long)]
    pub(super) available_when_donor: bool,
    /// A node that is read-only cannot serve.
    #[arg(long)]
    pub(super) not_when_read_only: bool,
    /// Longest time to wait for MySQL; keep it below the timeout of those who ask.
    #[arg(long, value_name = "DURATION", default_value = "1500ms", value_parser = duration)]
    pub(super) timeout: Duration,
    /// How long an answer is given again before MySQL is asked anew; 0 keeps none.
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    pub(super) cache: Duration,
    /// Those who are answered at once; more wait in the kernel's queue.
    #[arg(long, value_name = "NUMBER", default_value = "256",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) clients: u16,
}

impl Arguments {
    /// The password, from where it is.
    pub(super) fn password(&self) -> Result<Password> {
        let text = match (&self.password_file, env::var(PASSWORD)) {
            (Some(_), Ok(_)) => {
                bail!("there are both --password-file and {PASSWORD}: keep one of the two")
            }
            (None, Err(VarError::NotUnicode(_))) => bail!("{PASSWORD} is not UTF-8"),
            (None, Err(VarError::NotPresent)) => String::new(),
            (None, Ok(text)) => text,
            (Some(path), Err(_)) => {
                let shown = path.display();
                let secret = config::read_secret(path)
                    .with_context(|| format!("--password-file {shown} can't be read"))?;
                ensure!(
                    !secret.line.is_empty() && !secret.line.contains('\n'),
                    "--password-file {shown}: it has the password as its only line"
                );
                if secret.for_everybody {
                    tracing::warn!("everybody can read {shown}: chmod 600 {shown}");
                }
                secret.line
            }
        };
        ensure!(!text.contains('\0'), "the password has a zero byte, which none can have");
        Ok(Password::new(text))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(60);
    let duration = config::parse_duration(text).ok_or("write it as in \"500ms\" or \"2s\"")?;
    if duration > LONGEST { Err("it can be 60s at most".into()) } else { Ok(duration) }
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// On this port of all addresses, IPv4 and IPv6.
    Everywhere(u16),
    /// On this one.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(port) = text.parse() {
            return Ok(Self::Everywhere(port));
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| "write a port, or as in 10.4.4.2:9200 or [fd00::2]:9200")
    }
}

/// Where MySQL is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// At this Unix socket.
    Socket(PathBuf),
    /// At this address and port.
    Tcp(SocketAddr),
}

impl FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return Ok(Self::Socket(text.into()));
        }
        let hint = "write the path of its Unix socket, or as in 127.0.0.1:3306";
        text.parse().map(Self::Tcp).map_err(|_| hint)
    }
}

impl Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}
