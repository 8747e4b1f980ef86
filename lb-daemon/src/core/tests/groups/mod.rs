//! Groups: when the election begins and what it is told, by what is tracked ([`tracking`]); whose hooks
//! are run ([`hooks`]); what an operator sees ([`status`]).

mod election;
mod hooks;
mod status;
mod tracking;

use super::{
    group::{Command, Numbered, Role, Standing, Transition},
    *,
};
use crate::config::{
    Announce, Carp, Family, Group, GroupAddress, Hooks, Process, Protocol, Script, Track, Tracked,
    Vrrp, VrrpVersion,
};

pub(super) fn vrrp(priority: u8) -> Protocol {
    Protocol::Vrrp(Vrrp {
        version: VrrpVersion::V2,
        virtual_router_id: 51,
        priority,
        advert_int: Duration::from_secs(1),
        family: Family::V4,
        source: None,
        unicast_peers: Vec::new(),
        auth_pass: None,
        auth_pass_file: None,
        pseudo_header: true,
        vmac: None,
    })
}

pub(super) fn carp() -> Protocol {
    Protocol::Carp(Carp { vhid: 7, pass: String::new(), pass_file: None, advbase: 1, advskew: 100 })
}

pub(super) fn address(ip: &str, interface: &str) -> GroupAddress {
    let interface = interface.to_owned();
    GroupAddress { ip: super::ip(ip), prefix: 24, interface, advertised: true }
}

/// A group on `eth0` that tracks nothing else and runs nothing.
pub(super) fn group(name: &str) -> Group {
    Group {
        name: name.to_owned(),
        interface: "eth0".to_owned(),
        protocol: vrrp(100),
        addresses: vec![address("10.2.2.4", "eth0")],
        preempt: true,
        preempt_delay: Duration::ZERO,
        track: Track::default(),
        hooks: Hooks {
            notify_master: None,
            notify_backup: None,
            notify_fault: None,
            notify_stop: None,
            notify: None,
            user: "nobody".to_owned(),
            timeout: Duration::from_secs(3),
        },
        announce: Announce {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::ZERO,
            refresh_repeat: 1,
        },
    }
}

/// Kinds, names and weights of what is tracked.
pub(super) fn track(all: &[(Kind, &str, i16)]) -> Track {
    let of = |wanted| {
        let all = all.iter().filter(|(kind, ..)| *kind == wanted);
        all.map(|(_, name, weight)| Tracked { name: (*name).to_owned(), weight: *weight }).collect()
    };
    Track {
        interfaces: of(Kind::Interface),
        scripts: of(Kind::Script),
        processes: of(Kind::Process),
        services: of(Kind::Service),
    }
}

fn script(name: &str, rise: u32, fall: u32) -> Arc<Script> {
    Arc::new(Script {
        name: name.to_owned(),
        command: vec!["/usr/bin/check".to_owned(), name.to_owned()],
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(3),
        rise,
        fall,
        user: "nobody".to_owned(),
    })
}

fn process(name: &str, quorum: u32, delay: Duration) -> Arc<Process> {
    Arc::new(Process { name: name.to_owned(), process: format!("{name}d"), quorum, delay })
}

/// A configuration with one service, `db`, and these.
pub(super) fn with(
    groups: &[Group],
    scripts: &[Arc<Script>],
    processes: &[Arc<Process>],
) -> Arc<Config> {
    let mut config = two().as_ref().clone();
    config.groups = groups.iter().cloned().map(Arc::new).collect();
    config.scripts = scripts.to_vec();
    config.processes = processes.to_vec();
    Arc::new(config)
}

/// A group, `gw`, that tracks these.
fn tracking(all: &[(Kind, &str, i16)]) -> Group {
    Group { track: track(all), ..group("gw") }
}

impl Bench {
    /// All of these interfaces, and no others.
    pub(super) fn links(&mut self, links: &[(&str, bool)]) {
        let links = links.iter().zip(2..);
        let links =
            links.map(|((name, up), ifindex)| ((*name).to_owned(), Link { ifindex, up: *up }));
        self.event(Event::Links(links.collect()));
    }

    /// Ends the run that is under way, or the next.
    fn ran(&mut self, passed: bool) {
        while self.runs.is_empty() {
            self.tick();
        }
        let run = self.runs.remove(0).id;
        let detail = if passed { "fine" } else { "exit status 1" }.to_owned();
        self.event(Event::Ran { run, outcome: RunOutcome { passed, detail } });
    }

    fn counted(&mut self, name: &str, count: u32) {
        self.event(Event::Processes([(name.to_owned(), count)].into()));
    }

    fn role(&mut self, name: &str, from: Role, to: Role) {
        let why = "because".to_owned();
        let transition = Transition { from, to, priority: 101, why, carries_on: false };
        self.event(Event::Group { name: name.to_owned(), transition });
    }

    /// What the election was told by the last event of the standing of `gw`.
    pub(super) fn standing(&self) -> Option<&Standing> {
        let mut told = self.commands.iter().filter_map(|command| match command {
            Command::Standing { group, standing } if group == "gw" => Some(standing),
            _ => None,
        });
        let standing = told.next();
        assert!(told.next().is_none(), "told twice: {:?}", self.commands);
        standing
    }

    /// The same: adjustment and faults.
    fn told(&self) -> Option<(i32, Vec<&str>)> {
        let told = self.standing()?;
        Some((told.adjustment, told.faults.iter().map(String::as_str).collect()))
    }

    fn group(&self) -> GroupStatus {
        self.status().groups.remove(0)
    }
}

/// The groups, numbered in the order of the file, as they are at first.
fn configure(config: &Config) -> Command {
    let groups = (1..).zip(&config.groups);
    let numbered =
        |(number, config): (u16, &Arc<Group>)| Numbered { number, config: config.clone() };
    Command::Configure(groups.map(numbered).collect())
}
