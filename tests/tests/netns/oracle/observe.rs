//! Backends that refuse clients while their checks pass: `observe layer4`, `error-limit` and `on-error`.
//!
//! After the first check, the next one is an hour away, so that what changes is the clients' doing.

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Ask, Family, IdentServer, Lab, ScriptedServer, Step, Tandem};

use super::{Oracle, PATIENCE, agree, expect};

/// Ports of the product's service and of HAProxy's, on the same address.
const OURS: u16 = 80;
const THEIRS: u16 = 81;
/// The port that is checked.
const AGENT: u16 = 9200;

const READY: &[Step] = &[Step::Say("ready\n"), Step::Hang];
const UNFIT: &[Step] = &[Step::Say("unfit\n")];

struct Case {
    on_error: &'static str,
    fastinter: &'static str,
    acts: &'static [Act],
}

/// What happens to clients one after the other, and what both say then.
struct Act {
    clients: usize,
    what: What,
    state: &'static str,
    reason: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    AreRefused,
    AreAnswered,
}

use What::{AreAnswered, AreRefused};

const fn act(clients: usize, what: What, state: &'static str, reason: &'static str) -> Act {
    Act { clients, what, state, reason }
}

/// With `error_limit = 10` and `fall = 3`.
const CASES: [Case; 4] = [
    Case {
        on_error: "fail-check",
        fastinter: "1h",
        acts: &[
            act(9, AreRefused, "UP", "L7OK"),
            act(1, AreAnswered, "UP", "L7OK"),
            act(9, AreRefused, "UP", "L7OK"),
            act(1, AreRefused, "UP", "HANA"),
            act(10, AreRefused, "UP", "HANA"),
            act(9, AreRefused, "UP", "HANA"),
            act(1, AreRefused, "DOWN", "HANA"),
        ],
    },
    Case {
        on_error: "sudden-death",
        fastinter: "1h",
        acts: &[act(10, AreRefused, "UP", "HANA"), act(10, AreRefused, "DOWN", "HANA")],
    },
    Case {
        on_error: "mark-down",
        fastinter: "1h",
        acts: &[act(9, AreRefused, "UP", "L7OK"), act(1, AreRefused, "DOWN", "HANA")],
    },
    // A check finds out what has changed, an hour before its time.
    Case {
        on_error: "fastinter",
        fastinter: "200ms",
        acts: &[act(9, AreRefused, "UP", "L7OK"), act(1, AreRefused, "DOWN", "L7RSP")],
    },
];

/// A backend behind both, whose check has passed.
struct Story {
    lab: Lab,
    tandem: Tandem,
    haproxy: Oracle,
    agent: ScriptedServer,
    server: Option<IdentServer>,
}

#[test]
fn haproxy_and_tandem_do_the_same_about_a_backend_that_refuses_clients() -> Result<()> {
    for case in &CASES {
        let mut story = Story::new(case, 0)?;
        story.agent.play(&[UNFIT]);
        for (nth, act) in case.acts.iter().enumerate() {
            let what = format!("{}, act {nth}", case.on_error);
            story.play(act).context(what)?;
        }
    }
    Ok(())
}

/// Here, a client that is refused has to try again itself.
#[test]
fn haproxy_counts_each_of_its_attempts_for_one_client() -> Result<()> {
    let [.., mark_down, _] = &CASES;
    let mut story = Story::new(mark_down, 3)?;
    story.server = None;
    let clients = |port| Ask::at((story.lab.vip4(), port).into()).limit(PATIENCE);
    for port in [OURS, THEIRS] {
        let tally = clients(port).times(3).at_once(3).from(story.lab.client());
        ensure!(tally.failed() == 3, "port {port}: {tally:?}");
    }
    agree((&story.tandem, &story.haproxy), "three clients, twelve attempts", |ours, theirs| {
        expect("Tandem", ours, "web/b1", |said| said.is("UP", 1.0))?;
        expect("HAProxy", theirs, "web/b1", |said| said.state == "DOWN" && said.reason == "HANA")
    })?;
    clients(OURS).times(7).from(story.lab.client());
    agree((&story.tandem, &story.haproxy), "seven more", |ours, _| {
        expect("Tandem", ours, "web/b1", |said| said.state == "DOWN" && said.reason == "HANA")
    })
}

impl Story {
    fn new(case: &Case, retries: u32) -> Result<Self> {
        let lab = Lab::two_arm(1)?;
        let host = &lab.backends()[0];
        let agent = ScriptedServer::start(host, AGENT, &[READY])?;
        let server = Some(IdentServer::start(host, 80)?);
        let (vip, address) = (lab.vip4(), host.at(Family::V4, 80));
        let Case { on_error, fastinter, .. } = case;
        let tandem = Tandem::start(
            &lab,
            &format!(
                "[[service]]\nname = \"web\"\nbind = \"{vip}:{OURS}\"\n\
                 [[service.backend]]\nname = \"b1\"\naddress = \"{address}\"\n\
                 observe = \"layer4\"\non_error = \"{on_error}\"\nerror_limit = 10\n\
                 check = {{ port = {AGENT}, inter = \"1h\", fastinter = \"{fastinter}\", \
                 rise = 2, fall = 3, timeout = \"5s\", \
                 tcp_check = [{{ expect_string = \"ready\" }}] }}\n"
            ),
        )?;
        let haproxy = Oracle::start(
            &lab,
            &format!(
                "listen web\n  bind {vip}:{THEIRS}\n  retries {retries}\n  timeout check 5s\n  \
                 option tcp-check\n  tcp-check expect string ready\n  \
                 server b1 {address} check port {AGENT} inter 1h fastinter {fastinter} \
                 rise 2 fall 3 observe layer4 error-limit 10 on-error {on_error}\n"
            ),
        )?;
        let story = Self { lab, tandem, haproxy, agent, server };
        story.agree("UP", "L7OK").context("before all")?;
        Ok(story)
    }

    fn play(&mut self, act: &Act) -> Result<()> {
        // The port must be free before somebody else has it.
        self.server = None;
        if act.what == AreAnswered {
            self.server = Some(IdentServer::start(&self.lab.backends()[0], 80)?);
        }
        for port in [OURS, THEIRS] {
            let ask = Ask::at((self.lab.vip4(), port).into()).times(act.clients);
            let tally = ask.from(self.lab.client());
            let refused = if act.what == AreRefused { act.clients } else { 0 };
            ensure!(tally.failed() == refused, "port {port}: {tally:?}");
        }
        self.agree(act.state, act.reason)
    }

    /// Waits until both say so.
    fn agree(&self, state: &str, reason: &str) -> Result<()> {
        let downs = u64::from(state == "DOWN");
        agree((&self.tandem, &self.haproxy), "both say so", |ours, theirs| {
            for (account, who) in [(ours, "Tandem"), (theirs, "HAProxy")] {
                expect(who, account, "web/b1", |said| {
                    said.state == state && said.reason == reason && said.downs == downs
                })?;
            }
            Ok(())
        })
    }
}
