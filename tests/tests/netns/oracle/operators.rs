//! What operators say: HAProxy's runtime API and `tandem backend`.

use anyhow::Result;
use tests::lab::{Ask, Family, IdentServer, Lab, Service, Tally, Tandem};

use super::{Oracle, Said, agree, expect};

/// A word to both, and what the backend is from then on: its state and its weight of 10.
type Word = (&'static str, &'static str, &'static str, f64);

const WORDS: [Word; 18] = [
    ("drain", "state drain", "DRAIN", 10.0),
    ("ready", "state ready", "UP", 10.0),
    ("maint", "state maint", "MAINT", 10.0),
    // The last word counts.
    ("drain", "state drain", "DRAIN", 10.0),
    ("maint", "state maint", "MAINT", 10.0),
    ("ready", "state ready", "UP", 10.0),
    ("weight 50%", "weight 50%", "UP", 5.0),
    ("weight 30", "weight 30", "UP", 30.0),
    // State and weight are two things.
    ("drain", "state drain", "DRAIN", 30.0),
    ("weight 20", "weight 20", "DRAIN", 20.0),
    ("ready", "state ready", "UP", 20.0),
    ("maint", "state maint", "MAINT", 20.0),
    ("weight 200%", "weight 200%", "MAINT", 20.0),
    ("ready", "state ready", "UP", 20.0),
    ("weight 0", "weight 0", "DRAIN", 0.0),
    ("weight 256", "weight 256", "UP", 256.0),
    ("weight 10", "weight 10", "UP", 10.0),
    ("weight configured", "weight 100%", "UP", 10.0),
];

const CHECK: &str = "check inter 200ms rise 2 fall 2";

/// A service of each, with the same backends.
struct Story {
    lab: Lab,
    tandem: Tandem,
    haproxy: Oracle,
}

impl Story {
    fn new(backends: u8) -> Result<Self> {
        let lab = Lab::two_arm(backends)?;
        let service = Service::new("web", (lab.vip4(), 80)).checked();
        let service = lab.backends().iter().fold(service, |service, host| {
            service.backend_with(host, Family::V4, 80, "weight = 10")
        });
        let servers = lab.backends().iter().map(|host| {
            let address = host.at(Family::V4, 80);
            format!("  server {} {address} weight 10 {CHECK}\n", host.name())
        });
        let section = format!("listen web\n  bind {}:81\n  timeout check 5s\n", lab.vip4());
        let haproxy = Oracle::start(&lab, &(section + &servers.collect::<String>()))?;
        let tandem = Tandem::start(&lab, &service.to_string())?;
        Ok(Self { lab, tandem, haproxy })
    }

    /// Says something of a backend to both.
    fn say(&self, backend: &str, ours: &str, theirs: &str) -> Result<()> {
        let words = format!("backend web/{backend} {ours}");
        let words: Vec<&str> = words.split(' ').collect();
        self.tandem.verb(&words).arg("--socket").arg(self.tandem.socket()).run()?;
        self.haproxy.order(&format!("set server web/{backend} {theirs}"))
    }

    fn agree(&self, what: &str, is: impl Fn(&Said, bool) -> bool) -> Result<()> {
        agree((&self.tandem, &self.haproxy), what, |ours, theirs| {
            expect("Tandem", ours, "web/b1", |said| is(said, true))?;
            expect("HAProxy", theirs, "web/b1", |said| is(said, false))
        })
    }

    /// Who serves clients of the product, and of HAProxy.
    fn ask(&self, times: usize) -> [Tally; 2] {
        [80, 81]
            .map(|port| Ask::at((self.lab.vip4(), port).into()).times(times))
            .map(|ask| ask.from(self.lab.client()))
    }
}

#[test]
fn haproxy_and_tandem_obey_their_operators_alike() -> Result<()> {
    let story = Story::new(1)?;
    let server = IdentServer::start(&story.lab.backends()[0], 80)?;
    story.agree("it is up", |said, _| said.is("UP", 10.0) && said.reason == "L4OK")?;
    for (nth, (ours, theirs, state, weight)) in WORDS.into_iter().enumerate() {
        story.say("b1", ours, theirs)?;
        story.agree(&format!("word {nth}, {ours}"), |said, is_ours| {
            // HAProxy calls a server without a weight up.
            said.is(if weight > 0.0 || is_ours { state } else { "UP" }, weight)
        })?;
    }

    // Half of one.
    story.say("b1", "weight 5%", "weight 5%")?;
    story
        .agree("a small weight", |said, is_ours| said.is("UP", if is_ours { 0.5 } else { 0.0 }))?;
    story.say("b1", "weight configured", "weight 100%")?;

    // It dies in maintenance: that is found out when it is over, by the first check.
    story.say("b1", "maint", "state maint")?;
    story.agree("it is in maintenance", |said, _| said.is("MAINT", 10.0))?;
    drop(server);
    let accounts = [super::account(&story.tandem)?, story.haproxy.account()?];
    let downs = accounts.map(|account| account["web/b1"].downs);
    story.say("b1", "ready", "state ready")?;
    story.agree("it is found down", |said, is_ours| {
        said.is("DOWN", 10.0) && said.downs == downs[usize::from(!is_ours)] + 1
    })?;
    // It is down whatever is said of it, but for maintenance.
    story.say("b1", "drain", "state drain")?;
    story.agree("it is down when drained", |said, _| said.is("DOWN", 10.0))?;
    story.say("b1", "maint", "state maint")?;
    story.agree("it is in maintenance again", |said, _| said.is("MAINT", 10.0))
}

#[test]
fn haproxy_and_tandem_give_the_same_shares_by_weight() -> Result<()> {
    const TIMES: usize = 120;
    let story = Story::new(3)?;
    let servers = story.lab.backends().iter().map(|host| IdentServer::start(host, 80));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    agree((&story.tandem, &story.haproxy), "all are up", |ours, theirs| {
        for path in ["web/b1", "web/b2", "web/b3"] {
            expect("Tandem", ours, path, |said| said.is("UP", 10.0))?;
            expect("HAProxy", theirs, path, |said| said.is("UP", 10.0))?;
        }
        Ok(())
    })?;
    let shares: [(&str, &str, [usize; 3]); 6] = [
        ("weight configured", "weight 100%", [40, 40, 40]),
        ("weight 50%", "weight 50%", [24, 48, 48]),
        ("weight 40", "weight 40", [80, 20, 20]),
        ("drain", "state drain", [0, 60, 60]),
        ("ready", "state ready", [80, 20, 20]),
        ("weight 0", "weight 0", [0, 60, 60]),
    ];
    for (ours, theirs, ideal) in shares {
        story.say("b1", ours, theirs)?;
        for (who, tally) in ["Tandem", "HAProxy"].into_iter().zip(story.ask(TIMES)) {
            tally.all_answered()?;
            let counts = ["b1", "b2", "b3"].map(|name| tally.count(name));
            // A round that is under way goes on.
            let is_near = counts.iter().zip(ideal).all(|(count, ideal)| count.abs_diff(ideal) <= 1);
            assert!(is_near && (ideal[0] > 0 || counts[0] == 0), "{who}, {ours}: {counts:?}");
        }
    }
    Ok(())
}
