//! Backends by host name: a name that comes, moves and goes, and a name server that is not there.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use tests::lab::{Ask, Close, Family, Held, IdentServer, Lab, NameServer, Settings, Shape, Tandem};

use super::{Oracle, PATIENCE, agree, expect};

/// Names of the services, and of the hosts that are their only backends.
const SERVICES: [(&str, &str); 2] = [("known", "known.lab.invalid"), ("late", "late.lab.invalid")];
/// Ports of the product and of HAProxy.
const OURS: [u16; 2] = [80, 81];
const THEIRS: [u16; 2] = [82, 83];

/// What the name server does, and what comes of it for the two backends, here and with HAProxy.
struct Act {
    what: What,
    ours: [Seen; 2],
    theirs: [Seen; 2],
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// It says where the two hosts are; that there is none of this name, if nowhere.
    Says([Option<&'static str>; 2]),
    FallsSilent,
    Dies,
}

/// A backend's state, and who serves its clients.
type Seen = (&'static str, Option<&'static str>);

use What::{Dies, FallsSilent, Says};

const B1: Seen = ("UP", Some("b1"));
const B2: Seen = ("UP", Some("b2"));
const DOWN: Seen = ("DOWN", None);
const MAINT: Seen = ("MAINT", None);

/// What both find when they start. Of a backend that never had an address, HAProxy says that it is in
/// maintenance.
const START: Act = Act { what: Says([Some("b1"), None]), ours: [B1, DOWN], theirs: [B1, MAINT] };

const ACTS: [Act; 7] = [
    alike(Says([Some("b1"), Some("b2")]), [B1, B2]),
    alike(Says([Some("b2"), Some("b2")]), [B2, B2]),
    // HAProxy gives the address up after `hold nx`: it takes the name server at its word.
    Act { what: Says([None, Some("b2")]), ours: [B2, B2], theirs: [MAINT, B2] },
    alike(Says([Some("b1"), Some("b2")]), [B1, B2]),
    // So it would after `hold timeout`, which is long here.
    alike(FallsSilent, [B1, B2]),
    alike(Dies, [B1, B2]),
    alike(Says([Some("b2"), Some("b1")]), [B2, B1]),
];

const fn alike(what: What, seen: [Seen; 2]) -> Act {
    Act { what, ours: seen, theirs: seen }
}

#[test]
fn haproxy_and_tandem_follow_the_names_of_their_backends() -> Result<()> {
    let lab = Lab::named(Shape::TwoArm, &["b1", "b2", "names"])?;
    let servers = lab.backends()[..2].iter().map(|host| IdentServer::start(host, 80));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let names = NameServer::start(&lab.backends()[2])?;
    names.serve(lab.balancer())?;
    let mut story = Story::begin(&lab, names)?;

    let open = |port| Held::open(lab.client(), (lab.vip4(), port).into(), 3, PATIENCE);
    let mut held = [OURS[0], THEIRS[0]].map(open);
    for act in &ACTS {
        story.play(act)?;
        // They stay where they are, whatever becomes of the name.
        for held in &mut held {
            assert_eq!((held.tally().count("b1"), held.still_work(1000)), (3, 3));
        }
    }
    Ok(())
}

struct Story<'a> {
    lab: &'a Lab,
    names: NameServer,
    tandem: Tandem,
    haproxy: Oracle,
}

impl<'a> Story<'a> {
    /// Starts both, before a name server that knows one of the names, and waits for what they make of that.
    fn begin(lab: &'a Lab, mut names: NameServer) -> Result<Self> {
        START.what.happen(lab, &mut names)?;
        let (services, sections) = settings(lab)?;
        let haproxy = Oracle::start(lab, &sections)?;
        let settings = Settings::new(lab, &services).global("resolve_interval = \"1s\"");
        let tandem = Tandem::start_with(lab, &settings)?;
        let story = Self { lab, names, tandem, haproxy };
        story.see(&START, 0)?;
        Ok(story)
    }

    fn play(&mut self, act: &Act) -> Result<()> {
        let in_vain = self.haproxy.asked_in_vain()?;
        act.what.happen(self.lab, &mut self.names)?;
        self.see(act, in_vain)
    }

    /// Waits until both know what the name server says, or that it says nothing, and what comes of it has
    /// come. Before that act, HAProxy had asked so often in vain.
    fn see(&self, act: &Act, in_vain: u64) -> Result<()> {
        agree((&self.tandem, &self.haproxy), &format!("{:?}", act.what), |ours, theirs| {
            self.know(act, in_vain)?;
            for (nth, (service, _)) in SERVICES.iter().enumerate() {
                let path = format!("{service}/b");
                expect("Tandem", ours, &path, |said| said.state == act.ours[nth].0)?;
                expect("HAProxy", theirs, &path, |said| said.state == act.theirs[nth].0)?;
                self.serves(OURS[nth], act.ours[nth].1, "connection refused")?;
                self.serves(THEIRS[nth], act.theirs[nth].1, "unexpected end of file")?;
            }
            Ok(())
        })
    }

    /// Fails until both have heard what they cannot be seen to act upon.
    fn know(&self, act: &Act, in_vain: u64) -> Result<()> {
        for (nth, service) in self.tandem.status()?.services.iter().enumerate() {
            let resolves = matches!(act.what, Says(hosts) if hosts[nth].is_some());
            let host = service.backends[0].host.as_ref();
            ensure!(host.is_some_and(|host| host.problem.is_none() == resolves), "{host:?}");
        }
        // HAProxy calls it a failure when three or four questions in a row were in vain, for each name.
        let asked = self.haproxy.asked_in_vain()?.saturating_sub(in_vain);
        ensure!(matches!(act.what, Says(_)) || asked >= 12, "asked {asked} times in vain");
        Ok(())
    }

    /// Fails unless this one serves the clients of a port, or all of them fail in this way.
    fn serves(&self, port: u16, who: Option<&str>, failure: &str) -> Result<()> {
        const TIMES: usize = 4;
        let ask = Ask::at((self.lab.vip4(), port).into()).times(TIMES).close(Close::Reset);
        let tally = ask.from(self.lab.client());
        let count = match who {
            Some(name) => tally.count(name),
            None => tally.failures.get(failure).copied().unwrap_or_default(),
        };
        ensure!(count == TIMES, "port {port}: {tally:?}");
        Ok(())
    }
}

impl What {
    fn happen(self, lab: &Lab, names: &mut NameServer) -> Result<()> {
        match self {
            Says(hosts) => {
                let address = |name| {
                    let host = lab.backends().iter().find(|host| host.name() == name);
                    host.map(|host| host.at(Family::V4, 0).ip())
                };
                let known = SERVICES.iter().zip(hosts);
                let known = known.filter_map(|((_, name), at)| Some((*name, address(at?)?)));
                names.say(&known.collect::<Vec<_>>())
            }
            FallsSilent => names.fall_silent(),
            Dies => {
                names.kill();
                Ok(())
            }
        }
    }
}

/// The product's services and HAProxy's sections. It asks whom the product asks.
fn settings(lab: &Lab) -> Result<(String, String)> {
    let mut services = String::new();
    let mut sections = "\
resolvers system
  parse-resolv-conf
  timeout resolve 1s
  timeout retry 200ms
  hold valid 1s
  hold nx 1s
  hold timeout 1h
"
    .to_owned();
    let vip = lab.vip4();
    for (nth, (service, host)) in SERVICES.iter().enumerate() {
        let [ours, theirs] = [OURS[nth], THEIRS[nth]];
        write!(
            services,
            "[[service]]\nname = \"{service}\"\nbind = \"{vip}:{ours}\"\n\
             [[service.backend]]\nname = \"b\"\naddress = \"{host}:80\"\n\
             check = {{ inter = \"200ms\", timeout = \"5s\" }}\n"
        )?;
        write!(
            sections,
            "listen {service}\n  bind {vip}:{theirs}\n  timeout check 5s\n  \
             server b {host}:80 check inter 200ms resolvers system resolve-prefer ipv4 \
             init-addr last,libc,none\n"
        )?;
    }
    Ok((services, sections))
}
