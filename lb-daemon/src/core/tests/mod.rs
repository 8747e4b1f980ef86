//! Decisions of the core, event by event, with a virtual clock.

mod agent;
mod groups;
mod hosts;
mod limits;
mod numbers;
mod observe;
mod operator;
mod peer;
mod probes;
mod properties;
mod reach;
mod reload;
mod service;
mod sessions;
mod slow_start;
mod standing;

use std::fmt::Write as _;

use lb_common::{
    addr::Mac,
    maps::{NextHop, Tags},
};

use super::*;
use crate::config;

/// Where the balancer of these tests is in the network.
const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 4, 4, 241));
const IFINDEX: u32 = 7;

/// The route that leaves by the interface with the program.
fn route(via: IpAddr) -> Route {
    let exit = Exit { name: "eth0".to_owned(), ifindex: IFINDEX, tags: Tags::default() };
    Route { ifindex: IFINDEX, mac: OURS, via, source: SOURCE, exits: vec![exit] }
}
const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A core with its clock, in a network that can answer for every address.
struct Bench {
    core: Core,
    now: Instant,
    /// What the data plane was told last.
    desired: Desired,
    /// Whether it was told anything by the last event.
    applied: bool,
    /// Whether the data plane was ever told anything.
    told: bool,
    /// Neighbours that moved, from where to where.
    moved: Vec<(Mac, Mac)>,
    /// What the last event asked for.
    resolve: Vec<IpAddr>,
    /// What the last event said to the operator.
    notices: Vec<Notice>,
    /// Backends whose connections were ended by the last event.
    ended: Vec<String>,
    /// The probes under way.
    probes: Vec<ProbeRequest>,
    /// The host names that were asked for.
    lookups: Vec<String>,
    /// The questions to agents under way.
    agents: Vec<AgentRequest>,
    /// The scripts under way.
    runs: Vec<RunRequest>,
    /// What the last event had for the election.
    commands: Vec<group::Command>,
    /// What the last event had to be run.
    hooks: Vec<HookRequest>,
    /// Names of processes that are watched, as far as it was said.
    watched: Option<BTreeSet<String>>,
    /// What is kept of what operators said, if that has changed by the last event.
    kept: Option<Vec<Override>>,
}

impl Bench {
    /// After the start of a first daemon.
    fn start(config: &Arc<Config>) -> Self {
        Self::restart(&Inventory::default(), config)
    }

    /// After the start of a daemon that finds what an earlier one left.
    fn restart(inventory: &Inventory, config: &Arc<Config>) -> Self {
        Self::restart_with(inventory, Vec::new(), config)
    }

    /// The same, with what operators said to earlier ones.
    fn restart_with(inventory: &Inventory, overrides: Vec<Override>, config: &Arc<Config>) -> Self {
        let now = Instant::now();
        let mut this = Self {
            core: Core::new(inventory, now),
            now,
            desired: Desired::default(),
            applied: false,
            told: false,
            moved: Vec::new(),
            resolve: Vec::new(),
            ended: Vec::new(),
            probes: Vec::new(),
            lookups: Vec::new(),
            agents: Vec::new(),
            notices: Vec::new(),
            runs: Vec::new(),
            commands: Vec::new(),
            hooks: Vec::new(),
            watched: None,
            kept: None,
        };
        this.core.handle(Event::Overrides(overrides), now);
        this.reload(config);
        this
    }

    /// After the start of a first daemon, with all backends reachable.
    fn reachable(config: &Arc<Config>) -> Self {
        let mut this = Self::start(config);
        this.reach_all();
        this
    }

    fn reload(&mut self, config: &Arc<Config>) {
        self.event(Event::Config(config.clone()));
    }

    fn event(&mut self, event: Event) {
        let effects = self.core.handle(event, self.now);
        self.run(effects);
    }

    /// What an operator says of a backend; fails with the answer if there is no such one.
    fn say(&mut self, backend: &str, order: Order) -> Result<(), String> {
        let backend = backend.parse().expect("SERVICE/BACKEND");
        let effects = self.core.administer(&backend, order, self.now);
        self.run(effects.map_err(|unknown| unknown.to_string())?);
        Ok(())
    }

    fn run(&mut self, effects: Vec<Effect>) {
        self.applied = false;
        self.kept = None;
        self.resolve.clear();
        self.notices.clear();
        self.ended.clear();
        self.commands.clear();
        self.hooks.clear();
        for effect in effects {
            match effect {
                Effect::Apply(desired) => {
                    assert!(
                        !self.told || desired != self.desired,
                        "nothing new is not worth saying"
                    );
                    self.told = true;
                    self.desired = desired;
                    self.applied = true;
                }
                Effect::EndSessions { number, backend } => {
                    assert!(self.told, "there are no connections to the unknown");
                    let mut services = self.desired.services.values();
                    let gets_new_ones = services.any(|s| s.slots.0.contains(&number));
                    assert!(!gets_new_ones, "new ones still come");
                    self.ended.push(backend);
                }
                Effect::Probe(request) => self.probes.push(request),
                Effect::AskAgent(request) => self.agents.push(request),
                Effect::LookUp(name) => self.lookups.push(name),
                Effect::Resolve(target) => self.resolve.push(target),
                Effect::Moved { from, to, .. } => self.moved.push((from, to)),
                Effect::RunScript(request) => self.runs.push(request),
                Effect::WatchProcesses(names) => {
                    assert_ne!(self.watched.as_ref(), Some(&names), "said before");
                    self.watched = Some(names);
                }
                Effect::Election(command) => self.commands.push(command),
                Effect::Keep(overrides) => self.kept = Some(overrides),
                Effect::Hook(request) => self.hooks.push(request),
                Effect::Notify(notice) => self.notices.push(notice),
            }
        }
    }

    /// Lets `time` pass without the core being asked.
    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Waits for the core's deadline, and ticks.
    fn tick(&mut self) {
        let deadline = self.core.next_deadline().expect("something is due");
        assert!(deadline >= self.now, "a deadline in the past");
        self.now = deadline;
        self.event(Event::Tick);
        let next = self.core.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "a tick leaves nothing due");
    }

    fn route(&mut self, target: &str, via: &str) {
        let route = route(ip(via));
        self.event(Event::Routed { target: ip(target), route: Some(route) });
    }

    fn neighbour(&mut self, address: &str, mac: Mac) {
        self.event(Event::Neighbour { ifindex: IFINDEX, address: ip(address), mac: Some(mac) });
    }

    /// Makes the address reachable, on the link.
    fn reach(&mut self, target: &str) {
        self.route(target, target);
        self.neighbour(target, THEIRS);
    }

    fn reach_all(&mut self) {
        for target in self.core.hops.all() {
            self.reach(&target.to_string());
        }
    }

    /// Answers the next probe of this backend, those of others passing meanwhile.
    fn probe(&mut self, backend: &str, reason: Reason) {
        loop {
            while !self.probes.is_empty() {
                let request = self.probes.remove(0);
                let is_it = self.backend_of(&request) == backend;
                self.answer(&request, if is_it { reason } else { Reason::L4Ok });
                if is_it {
                    return;
                }
            }
            self.tick();
        }
    }

    /// Lets time pass, all checks passing.
    fn pass_all_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while !self.probes.is_empty() {
                let request = self.probes.remove(0);
                self.answer(&request, Reason::L4Ok);
            }
            if self.core.next_deadline().is_none_or(|deadline| deadline > end) {
                self.now = end;
                return;
            }
            self.tick();
        }
    }

    fn fail(&mut self, backend: &str) {
        self.probe(backend, Reason::L4Connection);
    }

    fn pass(&mut self, backend: &str) {
        self.probe(backend, Reason::L4Ok);
    }

    fn answer(&mut self, request: &ProbeRequest, reason: Reason) {
        let outcome =
            Outcome { reason, detail: "detail".to_owned(), took: Duration::from_millis(2) };
        self.event(Event::Probed { probe: request.id, outcome });
    }

    fn backend_of(&self, request: &ProbeRequest) -> String {
        let backends = self.core.services.iter().flat_map(|s| &s.config.backends);
        let mut found = backends.filter(|b| b.address == request.check.target);
        found.next().expect("a probe is of some backend").name.clone()
    }

    /// A walk of the flow table that finds connections of these backends.
    fn walk(&mut self, backends: &[u16]) {
        let backends = backends.iter().copied().collect();
        self.event(Event::Walked { backends, services: BTreeSet::new() });
    }

    fn status(&self) -> Status {
        self.core.status(&Counters::default(), &Elections::default(), self.now)
    }

    fn status_of(&self, name: &str) -> BackendStatus {
        let services = self.status().services;
        let backend = services.into_iter().flat_map(|s| s.backends).find(|b| b.name == name);
        backend.expect("a backend of that name")
    }

    /// The number of a backend.
    fn number(&self, name: &str) -> u16 {
        let backends = self.core.services.iter().flat_map(|s| &s.backends);
        let mut found = backends.filter(|b| b.config.name == name);
        found.next().expect("a backend of that name").number.expect("a number")
    }

    /// The names of the backends that get a service's new connections, in the order of the slots,
    /// each once.
    fn serving(&self, service: &str) -> Vec<String> {
        let service = self.core.services.iter().find(|s| s.config.name == service).unwrap();
        let slots = &self.desired.services[&service.number.unwrap()].slots.0;
        let mut names = Vec::new();
        for slot in slots.iter() {
            let backend = service.backends.iter().find(|b| b.number == Some(*slot)).unwrap();
            if !names.contains(&backend.config.name) {
                names.push(backend.config.name.clone());
            }
        }
        names
    }

    /// What was said to the operator by the last event.
    fn said(&self) -> String {
        self.notices.iter().fold(String::new(), |mut said, notice| {
            let _ = writeln!(said, "{:?}: {notice}", notice.level());
            said
        })
    }
}

/// A configuration with these `[[service]]` tables, checked every ten seconds, `rise` 2, `fall` 3.
fn config(services: &str) -> Arc<Config> {
    let text = format!(
        "[global]\nnode = 'lb1'\ninterfaces = ['eth0']\n\
         [defaults.server.check]\ninter = '10s'\nfastinter = '1s'\ndowninter = '5s'\n{services}"
    );
    Arc::new(config::parse(&text, "test.toml").unwrap_or_else(|e| panic!("{e}")).config)
}

/// A `[[service]]` table; `backends` are names, the last byte of their addresses, and further keys.
fn service(name: &str, bind: &str, keys: &str, backends: &[(&str, u8, &str)]) -> String {
    let mut text = format!("[[service]]\nname = '{name}'\nbind = {bind}\n{keys}\n");
    for (name, host, keys) in backends {
        let _ = write!(
            text,
            "[[service.backend]]\nname = '{name}'\naddress = '10.4.4.{host}:3306'\n{keys}\n"
        );
    }
    text
}

const VIP: &str = "'10.2.2.4:3306'";

/// One service, `db`, with two active backends.
fn two() -> Arc<Config> {
    config(&service("db", VIP, "", &[("db1", 11, ""), ("db2", 12, "")]))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
