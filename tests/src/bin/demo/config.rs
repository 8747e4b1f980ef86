//! The configuration of the demo's balancers, and the ways in which a person may change it.

use std::{fmt::Write as _, time::Duration};

use tests::lab::{Family, Pair, Settings, member};

/// The port of the web service and its backends.
pub(crate) const WEB: u16 = 80;
/// The port of the MySQL service and its backends.
pub(crate) const MYSQL: u16 = 3306;

/// The hosts behind the balancers.
pub(crate) const DATABASES: [&str; 2] = ["db1", "db2"];
/// The hosts behind the balancers.
pub(crate) const WEBSERVERS: [&str; 2] = ["web1", "web2"];

/// The group, which has all virtual addresses.
pub(crate) const GROUP: &str = "web";
/// Priorities of the balancers in it.
pub(crate) const PRIORITIES: [u8; 2] = [101, 100];
/// Time between adverts.
pub(crate) const ADVERT_INT: Duration = Duration::from_millis(100);
/// How long the first balancer waits before it takes the group back from the second: its backends
/// are checked again by then.
pub(crate) const PREEMPT_DELAY: Duration = Duration::from_secs(2);

/// What a person changes in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// The backend that has weight 0, if there is one.
    pub(crate) drained: Option<&'static str>,
    /// Whether there is a mistake in it.
    pub(crate) mistaken: bool,
}

/// What is in the file of one of the balancers. They differ by name, priority and place only.
pub(crate) fn settings(pair: &Pair, host: usize, wishes: &Wishes) -> Settings {
    let sync = member::sync(pair, host, member::SYNC_KEY);
    let toml = group(pair, PRIORITIES[host]) + &services(pair, wishes) + &sync;
    Settings::of_pair(&toml).node(pair.twins()[host].name())
}

fn group(pair: &Pair, priority: u8) -> String {
    let (vip, source) = (pair.vip(Family::V4), pair.source(Family::V4));
    format!(
        "\
[[group]]
name = \"{GROUP}\"
interface = \"front\"
virtual_router_id = 51
priority = {priority}
advert_int = \"{}ms\"
preempt_delay = \"{}s\"
virtual_ipaddress = [\"{vip}\", {{ address = \"{source}\", interface = \"back\" }}]

",
        ADVERT_INT.as_millis(),
        PREEMPT_DELAY.as_secs()
    )
}

fn services(pair: &Pair, wishes: &Wishes) -> String {
    let (vip, source) = (pair.vip(Family::V4), pair.source(Family::V4));
    let mut toml = format!(
        "\
[defaults.server.check]
inter = \"500ms\"
rise = 2
fall = 2

[[service]]
name = \"web\"
bind = \"{vip}:{WEB}\"
source = \"{source}\"
balance = \"roundrobin\"

[service.server.check]
httpchk = {{ method = \"GET\", uri = \"/health\", status = \"200\" }}
"
    );
    backends(&mut toml, pair, &WEBSERVERS, WEB, wishes);
    let balance = if wishes.mistaken { "leastcon" } else { "leastconn" };
    write!(
        toml,
        "
[[service]]
name = \"mysql\"
bind = \"{vip}:{MYSQL}\"
source = \"{source}\"
balance = \"{balance}\"

[service.server.check]
tcp_check = [{{ expect_string = \"MariaDB\" }}]
"
    )
    .expect("a String takes everything");
    backends(&mut toml, pair, &DATABASES, MYSQL, wishes);
    toml
}

fn backends(toml: &mut String, pair: &Pair, names: &[&str], port: u16, wishes: &Wishes) {
    for name in names {
        let host = pair.servers().iter().find(|host| host.name() == *name);
        let address = host.expect("all of them are in the lab").at(Family::V4, port);
        let weight = if wishes.drained == Some(name) { "weight = 0\n" } else { "" };
        let table = format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n");
        write!(toml, "\n{table}{weight}").expect("a String takes everything");
    }
}
