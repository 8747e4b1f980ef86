//! Commands that say how a backend is.

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use anyhow::Result;
use tests::lab::{Family, Lab, Tandem};

use super::{Oracle, agree, expect};

/// A command, and what comes of it.
struct Case {
    name: &'static str,
    /// What it does, in the words of a shell; it is not there if it does nothing. `FLAG` is a file that
    /// is there later, but not at first.
    does: Option<&'static str>,
    first: &'static str,
    later: &'static str,
}

const CASES: [Case; 5] = [
    Case { name: "well", does: Some("exit 0"), first: "PROCOK", later: "PROCOK" },
    Case { name: "follows", does: Some("[ ! -e $FLAG ]"), first: "PROCOK", later: "PROCERR" },
    Case {
        name: "hangs",
        does: Some("[ ! -e $FLAG ] || exec /bin/sleep 60"),
        first: "PROCOK",
        later: "PROCTOUT",
    },
    // Both tell it of the backend, by arguments and by variables.
    Case {
        name: "told",
        does: Some("[ \"$3 $4 $HAPROXY_SERVER_NAME\" = '10.2.0.11 80 b1' ]"),
        first: "PROCOK",
        later: "PROCOK",
    },
    Case { name: "absent", does: None, first: "PROCERR", later: "PROCERR" },
];

#[test]
fn haproxy_and_tandem_heed_the_exit_status_of_a_command() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let address = lab.backends()[0].at(Family::V4, 80);
    let flag = lab.dir().join("flag");
    let (mut services, mut sections) = (String::new(), String::new());
    for (port, Case { name, does, .. }) in (80..).zip(&CASES) {
        let command = lab.dir().join(format!("{name}.sh"));
        if let Some(does) = does {
            fs::write(&command, format!("#!/bin/sh\nFLAG={}\n{does}\n", flag.display()))?;
            fs::set_permissions(&command, Permissions::from_mode(0o755))?;
        }
        let command = command.display();
        write!(
            services,
            "[[service]]\nname = \"{name}\"\nbind = \"{}:{port}\"\n\
             [[service.backend]]\nname = \"b1\"\naddress = \"{address}\"\n\
             check = {{ inter = \"1s\", rise = 1, fall = 1, \
             external_check = {{ command = \"{command}\" }} }}\n",
            lab.vip4()
        )?;
        write!(
            sections,
            "backend {name}\n  option external-check\n  external-check command {command}\n  \
             server b1 {address} check inter 1s rise 1 fall 1\n"
        )?;
    }
    let tandem = Tandem::start(&lab, &services)?;
    let haproxy = Oracle::start(&lab, &sections)?;
    let agreed = |what: &str, found: &dyn Fn(&Case) -> &'static str| {
        agree((&tandem, &haproxy), what, |ours, theirs| {
            for (account, who) in [(ours, "Tandem"), (theirs, "HAProxy")] {
                for case in &CASES {
                    let reason = found(case);
                    let state = if reason == "PROCOK" { "UP" } else { "DOWN" };
                    expect(who, account, &format!("{}/b1", case.name), |said| {
                        said.state == state && said.reason == reason
                    })?;
                }
            }
            Ok(())
        })
    };
    agreed("both run the commands", &|case| case.first)?;
    fs::write(&flag, "")?;
    agreed("both see what has changed", &|case| case.later)
}
