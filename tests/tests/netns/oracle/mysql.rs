//! `option mysql-check user` and `mysql_check`, before a real server.

use std::fmt::Write as _;

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::lab::{Family, Lab, MariaDb, Tandem};

use super::{Oracle, agree, expect};

/// Who logs in, and what comes of it while the server works.
const CASES: [(&str, &str, &str); 3] = [
    ("nobody-in-particular", "", "L7OK"),
    ("user", "open", "L7OK"),
    ("stranger", "stranger", "L7STS"),
];

#[test]
fn haproxy_and_tandem_see_a_database_alike() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let host = &lab.backends()[0];
    let address = host.at(Family::V4, 3306);
    let mut database = MariaDb::start(host, 3306)?;
    MariaDb::query(host, address, "CREATE USER open@'%'")?;

    let (mut services, mut sections) = (String::new(), String::new());
    for (port, (name, user, _)) in (3306..).zip(CASES) {
        let [ours, theirs] = match user {
            "" => [String::new(), String::new()],
            user => [format!(" user = \"{user}\" "), format!(" user {user}")],
        };
        write!(
            services,
            "[[service]]\nname = \"{name}\"\nbind = \"{}:{port}\"\n\
             [[service.backend]]\nname = \"db\"\naddress = \"{address}\"\n\
             check = {{ inter = \"500ms\", rise = 1, fall = 1, mysql_check = {{{ours}}} }}\n",
            lab.vip4()
        )?;
        write!(
            sections,
            "backend {name}\n  option mysql-check{theirs}\n  \
             server db {address} check inter 500ms rise 1 fall 1\n"
        )?;
    }
    let tandem = Tandem::start(&lab, &services)?;
    let haproxy = Oracle::start(&lab, &sections)?;
    let agreed = |what: &str, found: &dyn Fn(&'static str) -> &'static str| {
        agree((&tandem, &haproxy), what, |ours, theirs| {
            for (account, who) in [(ours, "Tandem"), (theirs, "HAProxy")] {
                for (name, _, while_it_works) in CASES {
                    let reason = found(while_it_works);
                    let state = if reason == "L7OK" { "UP" } else { "DOWN" };
                    expect(who, account, &format!("{name}/db"), |said| {
                        said.state == state && said.reason == reason
                    })?;
                }
            }
            Ok(())
        })
    };
    agreed("a server that works", &|while_it_works| while_it_works)?;
    // The kernel accepts for it.
    database.process_mut().signal(Signal::SIGSTOP)?;
    agreed("a server that hangs", &|_| "L7TOUT")?;
    database.process_mut().signal(Signal::SIGCONT)?;
    agreed("a server that goes on", &|while_it_works| while_it_works)?;
    database.process_mut().kill();
    agreed("a server that was stopped", &|_| "L4CON")?;
    database.restart()?;
    agreed("a server that was started", &|while_it_works| while_it_works)
}
