//! The configuration of the demo's balancer, and the ways in which a person may change it.

use std::fmt::Write as _;

use tests::lab::{Family, Lab};

/// The port of the web service and its backends.
pub(crate) const WEB: u16 = 80;
/// The port of the MySQL service and its backends.
pub(crate) const MYSQL: u16 = 3306;

/// The hosts behind the balancer.
pub(crate) const DATABASES: [&str; 2] = ["db1", "db2"];
/// The hosts behind the balancer.
pub(crate) const WEBSERVERS: [&str; 3] = ["web1", "web2", "web3"];

/// What a person changes in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// The backend that has weight 0, if there is one.
    pub(crate) drained: Option<&'static str>,
    /// Whether there is a mistake in it.
    pub(crate) mistaken: bool,
}

/// The services of the demo, in TOML.
pub(crate) fn services(lab: &Lab, wishes: &Wishes) -> String {
    let vip = lab.vip4();
    let mut toml = format!(
        "\
[defaults.server.check]
inter = \"500ms\"
rise = 2
fall = 2

[[service]]
name = \"web\"
bind = \"{vip}:{WEB}\"
balance = \"roundrobin\"

[service.server.check]
httpchk = {{ method = \"GET\", uri = \"/health\", status = \"200\" }}
"
    );
    backends(&mut toml, lab, &WEBSERVERS, WEB, wishes);
    let balance = if wishes.mistaken { "leastcon" } else { "leastconn" };
    write!(
        toml,
        "
[[service]]
name = \"mysql\"
bind = \"{vip}:{MYSQL}\"
balance = \"{balance}\"

[service.server.check]
tcp_check = [{{ expect_string = \"MariaDB\" }}]
"
    )
    .expect("a String takes everything");
    backends(&mut toml, lab, &DATABASES, MYSQL, wishes);
    toml
}

fn backends(toml: &mut String, lab: &Lab, names: &[&str], port: u16, wishes: &Wishes) {
    for name in names {
        let host = lab.backends().iter().find(|host| host.name() == *name);
        let address = host.expect("all of them are in the lab").at(Family::V4, port);
        let weight = if wishes.drained == Some(name) { "weight = 0\n" } else { "" };
        let table = format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n");
        write!(toml, "\n{table}{weight}").expect("a String takes everything");
    }
}
