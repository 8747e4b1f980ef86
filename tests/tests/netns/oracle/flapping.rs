//! Backends that come and go: how many checks it takes until that counts, and how often it does.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use tests::lab::{Family, Lab, ScriptedServer, Step, Tandem};

use super::{Oracle, agree, expect};

const READY: &[Step] = &[Step::Say("ready\n"), Step::Hang];
const WRONG: &[Step] = &[Step::Say("not today\n")];

/// What checks find one after the other, a plus for each that passes and a minus for each that fails;
/// the last goes on for ever.
struct Case {
    /// `rise` and `fall`; both are left to their defaults if there are none: 2 and 3 for either.
    counts: Option<(u32, u32)>,
    checks: &'static str,
    downs: u64,
    state: &'static str,
}

const CASES: [Case; 9] = [
    // Never enough in a row.
    case(Some((2, 3)), "--+--+-+--+", 0, "UP"),
    // Just enough.
    case(Some((2, 3)), "--+---", 1, "DOWN"),
    // Down, and never enough in a row to come back; then it does.
    case(Some((2, 3)), "---+-+-+-", 1, "DOWN"),
    case(Some((2, 3)), "---+-+-++", 1, "UP"),
    // What it is again, it is anew: as many failures as ever take it down.
    case(Some((2, 3)), "---++--+---++", 2, "UP"),
    case(Some((3, 2)), "--++-++-+++-+--+++", 2, "UP"),
    case(None, "--+---+-+--++", 1, "UP"),
    // Everything counts.
    case(Some((1, 1)), "-+-+-+", 3, "UP"),
    case(Some((1, 1)), "-+-+--", 3, "DOWN"),
];

const fn case(
    counts: Option<(u32, u32)>,
    checks: &'static str,
    downs: u64,
    state: &'static str,
) -> Case {
    Case { counts, checks, downs, state }
}

#[test]
fn haproxy_and_tandem_count_the_same_transitions_of_a_flapping_backend() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let host = &lab.backends()[0];
    // Each has servers of its own, which count along.
    let serve = |first: u16| -> Result<Vec<ScriptedServer>> {
        let ports = (first..).take(CASES.len());
        ports.map(|port| ScriptedServer::start(host, port, &[READY])).collect()
    };
    let (for_tandem, for_haproxy) = (serve(OURS)?, serve(THEIRS)?);
    let (services, sections) = settings(&lab)?;
    let tandem = Tandem::start(&lab, &services)?;
    let haproxy = Oracle::start(&lab, &sections)?;
    agree((&tandem, &haproxy), "both have checked all", |ours, theirs| {
        for (account, who) in [(ours, "Tandem"), (theirs, "HAProxy")] {
            for nth in 0..CASES.len() {
                expect(who, account, &path(nth), |said| said.reason == "L7OK")?;
            }
        }
        Ok(())
    })?;

    let servers: Vec<_> = for_tandem.iter().chain(&for_haproxy).collect();
    let before: Vec<_> = servers.iter().map(|server| server.accepted()).collect();
    for (case, server) in CASES.iter().cycle().zip(&servers) {
        server.play_once(&case.scripts());
    }
    // A check may have been under way, and the last one may be.
    let is_over = |((case, server), before): ((&Case, &&ScriptedServer), &usize)| {
        server.accepted() > before + case.checks.len() + 1
    };
    agree((&tandem, &haproxy), "both have seen it all", |ours, theirs| {
        let mut each = CASES.iter().cycle().zip(&servers).zip(&before);
        ensure!(each.all(is_over), "some were not checked often enough");
        for (account, who) in [(ours, "Tandem"), (theirs, "HAProxy")] {
            for (nth, case) in CASES.iter().enumerate() {
                expect(who, account, &path(nth), |said| {
                    said.state == case.state && said.downs == case.downs
                })?;
            }
        }
        Ok(())
    })
}

impl Case {
    fn scripts(&self) -> Vec<&'static [Step]> {
        self.checks.chars().map(|check| if check == '+' { READY } else { WRONG }).collect()
    }
}

/// First of the ports that either checks.
const OURS: u16 = 8100;
const THEIRS: u16 = 8200;

fn path(nth: usize) -> String {
    format!("case{nth}/b")
}

/// The product's settings and HAProxy's. The patience with each check is long: that a machine is out of
/// breath is not what is to be counted.
fn settings(lab: &Lab) -> Result<(String, String)> {
    let host = &lab.backends()[0];
    let (mut services, mut sections) = (String::new(), String::new());
    for (nth, case) in CASES.iter().enumerate() {
        let [of_ours, of_theirs] = match case.counts {
            Some((rise, fall)) => {
                [format!("rise = {rise}\nfall = {fall}"), format!("rise {rise} fall {fall}")]
            }
            None => [String::new(), String::new()],
        };
        let place = u16::try_from(nth)?;
        let [ours, theirs] = [OURS, THEIRS].map(|first| host.at(Family::V4, first + place));
        write!(
            services,
            "[[service]]\nname = \"case{nth}\"\nbind = \"{}:{}\"\n\
             [[service.backend]]\nname = \"b\"\naddress = \"{ours}\"\n\
             [service.backend.check]\ninter = \"300ms\"\n{of_ours}\n\
             timeout = \"5s\"\ntcp_check = [{{ expect_string = \"ready\" }}]\n",
            lab.vip4(),
            ours.port(),
        )?;
        write!(
            sections,
            "backend case{nth}\n  timeout check 5s\n  option tcp-check\n  \
             tcp-check expect string ready\n  \
             server b {theirs} check inter 300ms {of_theirs}\n"
        )?;
    }
    Ok((services, sections))
}
