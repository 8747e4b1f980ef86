//! Every word of an agent, and what it does to one that was said before.

use anyhow::{Result, ensure};
use tests::lab::{Family, IdentServer, Lab, ScriptedServer, Step, Tandem, wait::until};

use super::{Oracle, PATIENCE, agree, expect};

/// What the agent answers, and what the backend is from then on: its state and its weight of 100. What
/// a line does not speak of stays as it was.
struct Line {
    says: &'static [Step],
    state: &'static str,
    weight: u16,
}

macro_rules! line {
    ($says:literal, $state:literal, $weight:literal) => {
        Line { says: &[Step::Say(concat!($says, "\n"))], state: $state, weight: $weight }
    };
}

const LINES: [Line; 27] = [
    line!("50%", "UP", 50),
    line!("ready", "UP", 50),
    line!("100%", "UP", 100),
    line!("drain", "DRAIN", 100),
    line!("ready", "UP", 100),
    line!("maint", "MAINT", 100),
    line!("ready", "UP", 100),
    line!("down # the disk is full", "DOWN", 100),
    // Only the word for it brings it up.
    line!("ready", "DOWN", 100),
    line!("up", "UP", 100),
    line!("stopped", "DOWN", 100),
    line!("up", "UP", 100),
    line!("fail", "DOWN", 100),
    line!("up", "UP", 100),
    // No connections for a backend without a weight, which HAProxy calls up all the same.
    line!("0%", "DRAIN", 0),
    line!("75% up", "UP", 75),
    line!("up ready 100%", "UP", 100),
    line!("drain down", "DOWN", 100),
    line!("up", "DRAIN", 100),
    line!("ready", "UP", 100),
    line!("maint down", "MAINT", 100),
    line!("ready", "DOWN", 100),
    line!("up", "UP", 100),
    // More than is configured, as long as it is not above 256.
    line!("200%", "UP", 200),
    line!("hello", "UP", 200),
    line!("10% hello", "UP", 10),
    line!("", "UP", 10),
];

#[test]
fn haproxy_and_tandem_understand_an_agent_alike() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let host = &lab.backends()[0];
    let _server = IdentServer::start(host, 80)?;
    // One for each, to know whether it was asked.
    let agents = [9707, 9708].map(|port| ScriptedServer::start(host, port, &[LINES[0].says]));
    let [ours, theirs] = agents;
    let agents = [ours?, theirs?];
    let address = host.at(Family::V4, 80);
    let tandem = Tandem::start(
        &lab,
        &format!(
            "[[service]]\nname = \"web\"\nbind = \"{}:80\"\n\
             [[service.backend]]\nname = \"b1\"\naddress = \"{address}\"\nweight = 100\n\
             check = {{ inter = \"200ms\", timeout = \"5s\" }}\n\
             agent = {{ port = 9707, inter = \"100ms\" }}\n",
            lab.vip4()
        ),
    )?;
    let haproxy = Oracle::start(
        &lab,
        &format!(
            "backend web\n  timeout check 5s\n  server b1 {address} check inter 200ms weight 100 \
             agent-check agent-port 9708 agent-inter 100ms\n"
        ),
    )?;
    for (nth, line) in LINES.iter().enumerate() {
        let what = format!("line {nth}, {:?}", line.says);
        let before = agents.each_ref().map(ScriptedServer::played);
        for agent in &agents {
            agent.play(&[line.says]);
        }
        // One more may have been under way.
        until(&format!("{what} is heard"), PATIENCE, || {
            let heard = agents.iter().zip(before).all(|(agent, count)| agent.played() > count + 2);
            ensure!(heard, "not often enough");
            Ok(())
        })?;
        agree((&tandem, &haproxy), &what, |ours, theirs| {
            let weight = f64::from(line.weight);
            expect("Tandem", ours, "web/b1", |said| said.is(line.state, weight))?;
            let state = if line.weight == 0 { "UP" } else { line.state };
            expect("HAProxy", theirs, "web/b1", |said| said.is(state, weight))
        })?;
    }
    Ok(())
}
