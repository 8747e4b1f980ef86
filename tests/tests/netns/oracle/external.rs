//! Commands that say how a backend is.

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use anyhow::Result;
use tests::lab::{Family, Lab, Tandem};

use super::{Oracle, agree, expect};

/// Name, what the command does at first and later, and what that comes to. It is given the name of a
/// file that is not there at first, and HAProxy's arguments.
const CASES: [(&str, &str, [&str; 2]); 4] = [
    ("well", "exit 0", ["PROCOK", "PROCOK"]),
    ("follows", "[ ! -e $FLAG ]", ["PROCOK", "PROCERR"]),
    ("hangs", "[ ! -e $FLAG ] || exec /bin/sleep 60", ["PROCOK", "PROCTOUT"]),
    // What both tell of the backend, wherever the check would connect.
    ("told", "[ \"$3 $4 $HAPROXY_SERVER_NAME\" = '10.2.0.11 80 b1' ]", ["PROCOK", "PROCOK"]),
];

#[test]
fn haproxy_and_tandem_heed_the_exit_status_of_a_command() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let address = lab.backends()[0].at(Family::V4, 80);
    let flag = lab.dir().join("flag");
    let check = "inter = \"1s\", rise = 1, fall = 1";
    let (mut services, mut sections) = (String::new(), String::new());
    for (port, (name, script, _)) in (80..).zip(CASES) {
        let command = lab.dir().join(format!("{name}.sh"));
        fs::write(&command, format!("#!/bin/sh\nFLAG={}\n{script}\n", flag.display()))?;
        fs::set_permissions(&command, Permissions::from_mode(0o755))?;
        let command = command.display();
        write!(
            services,
            "[[service]]\nname = \"{name}\"\nbind = \"{}:{port}\"\n\
             [[service.backend]]\nname = \"b1\"\naddress = \"{address}\"\n\
             check = {{ {check}, external_check = {{ command = \"{command}\" }} }}\n",
            lab.vip4()
        )?;
        write!(
            sections,
            "backend {name}\n  option external-check\n  external-check command {command}\n  \
             server b1 {address} check inter 1s rise 1 fall 1\n"
        )?;
    }
    // A command that is not there.
    write!(
        services,
        "[[service]]\nname = \"absent\"\nbind = \"{}:99\"\n\
         [[service.backend]]\nname = \"b1\"\naddress = \"{address}\"\n\
         check = {{ {check}, external_check = {{ command = \"/nowhere/is-well\" }} }}\n",
        lab.vip4()
    )?;
    sections += &format!(
        "backend absent\n  option external-check\n  external-check command /nowhere/is-well\n  \
         server b1 {address} check inter 1s rise 1 fall 1\n"
    );
    let tandem = Tandem::start(&lab, &services)?;
    let haproxy = Oracle::start(&lab, &sections)?;
    for turn in 0..2 {
        if turn == 1 {
            fs::write(&flag, "")?;
        }
        agree((&tandem, &haproxy), "both heed the commands", |ours, theirs| {
            for (account, who) in [(ours, "Tandem"), (theirs, "HAProxy")] {
                let cases = CASES.iter().map(|(name, _, reasons)| (*name, reasons[turn]));
                for (name, reason) in cases.chain([("absent", "PROCERR")]) {
                    let state = if reason == "PROCOK" { "UP" } else { "DOWN" };
                    expect(who, account, &format!("{name}/b1"), |said| {
                        said.state == state && said.reason == reason
                    })?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
