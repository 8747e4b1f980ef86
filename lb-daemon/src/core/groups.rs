//! The groups as the daemon's loop knows them: what they track, what the election is told, and what
//! it told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Spread,
    effect::{Effect, HookRequest},
    event::{Claimed, Link, RunId, RunOutcome},
    group::{self, Command, Numbered, Role, Standing, Transition},
    notice::Notice,
    process::ProcessState,
    script::ScriptState,
    service::ServiceState,
    standing::{self, Fact, Facts},
    view::{ClaimStatus, Elections, GroupStatus, Kind, TransitionStatus},
};
use crate::config::{Config, Group, GroupAddress, Hooks, MAX_GROUPS, Protocol, VrrpVersion};

/// Changes of role that an operator can look back on, of each group.
const REMEMBERED: usize = 10;

/// How long a claim to an address is shown: some times as long as its repetitions are not told.
const CLAIM_SHOWN: Duration = Duration::from_secs(60);

/// All groups, and all that they track apart from services.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Numbers of groups that an earlier daemon served, by their elections' identity.
    found: BTreeMap<u64, u16>,
    /// Those of the configuration in force, in its order.
    list: Vec<GroupState>,
    /// Groups that a reload removed and that the election has not given up yet: their hooks are
    /// still to be run.
    departing: BTreeMap<String, Arc<Group>>,
    /// Only those that a group tracks.
    scripts: Vec<ScriptState>,
    /// Only those that a group tracks.
    processes: Vec<ProcessState>,
    /// The interfaces of this host; nothing until they were listed.
    links: Option<BTreeMap<String, Link>>,
    /// All that groups track.
    tracked: BTreeSet<(Kind, String)>,
    /// The same, as it was when election and operator were last told; nothing if they have to be
    /// told anew, because of another configuration.
    facts: Option<Facts>,
    /// What failed, as far as the operator knows.
    failed: BTreeSet<(Kind, String)>,
    /// Names of processes that are watched, ...
    watched: BTreeSet<String>,
    /// ... and how many of each run, as far as that is known.
    counts: BTreeMap<String, u32>,
    next_run: u64,
    /// What the conversation with the peer told last: whether this host may take over from it.
    /// Nothing if there is to be none, so that there is nothing to wait for.
    synced: Option<bool>,
}

/// A group of the configuration in force.
#[derive(Debug)]
struct GroupState {
    config: Arc<Group>,
    /// Its number in the data plane; zero until it is given one.
    number: u16,
    /// What the election was told last.
    told: Option<Standing>,
    role: Role,
    /// When it was first known, or last took a role.
    since: Instant,
    /// The newest first.
    history: VecDeque<(Instant, Transition)>,
    /// The last claim of another host to one of its addresses.
    claim: Option<(Instant, Claimed)>,
    /// How many there were.
    claims: u64,
    /// How often an address of it was put back that somebody else had taken off.
    put_back: u64,
    /// How often it took each role.
    taken: BTreeMap<String, u64>,
}

/// Why a group cannot be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotFailOver {
    /// There are no groups at all.
    NoGroups,
    /// There is none of this name.
    Unknown {
        /// The name.
        group: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// This host does not have it.
    NotMaster {
        /// Its name.
        group: String,
        /// What this host is instead.
        role: Role,
    },
}

impl Groups {
    /// None yet. Those with an identity that is in `found` get that number.
    pub(super) fn new(found: BTreeMap<u64, u16>) -> Self {
        Self { found, ..Self::default() }
    }

    /// Puts a configuration in force. Groups, scripts and processes that stay keep their state.
    pub(super) fn configure(&mut self, config: &Config, now: Instant, effects: &mut Vec<Effect>) {
        self.synced = config.sync.as_ref().map(|_| self.synced.unwrap_or(false));
        let mut before = std::mem::take(&mut self.list);
        let were: Vec<Arc<Group>> = before.iter().map(|group| group.config.clone()).collect();
        self.list = config
            .groups
            .iter()
            .map(|group| {
                self.departing.remove(&group.name);
                let old = before.iter().position(|old| old.config.name == group.name);
                let old = old.map(|at| before.swap_remove(at));
                GroupState::new(group.clone(), old, now)
            })
            .collect();
        let gone = before.into_iter().filter(|group| group.role != Role::Init);
        self.departing.extend(gone.map(|group| (group.config.name.clone(), group.config)));
        if config.groups != were {
            self.number();
            let groups = self
                .list
                .iter()
                .map(|group| Numbered { number: group.number, config: group.config.clone() });
            effects.push(Effect::Election(Command::Configure(groups.collect())));
        }

        let tracked = self.list.iter().flat_map(|group| standing::tracked(&group.config));
        self.tracked = tracked.map(|(kind, name, _)| (kind, name.to_owned())).collect();
        self.facts = None;
        let is_tracked = |kind, name: &str| self.tracked.contains(&(kind, name.to_owned()));
        let mut before = std::mem::take(&mut self.scripts);
        let scripts: Vec<_> =
            config.scripts.iter().filter(|s| is_tracked(Kind::Script, &s.name)).collect();
        let mut spread = Spread::new(scripts.len());
        self.scripts = scripts
            .into_iter()
            .map(|script| {
                let old = before.iter().position(|old| old.config.name == script.name);
                let old = old.map(|at| before.swap_remove(at));
                ScriptState::new(script.clone(), old, now, &mut spread)
            })
            .collect();
        let mut before = std::mem::take(&mut self.processes);
        self.processes = config
            .processes
            .iter()
            .filter(|process| is_tracked(Kind::Process, &process.name))
            .map(|process| {
                let old = before.iter().position(|old| old.config.name == process.name);
                let old = old.map(|at| before.swap_remove(at));
                ProcessState::new(process.clone(), old)
            })
            .collect();
        let watched: BTreeSet<String> =
            self.processes.iter().map(|process| process.config.process.clone()).collect();
        self.counts.retain(|name, _| watched.contains(name));
        for process in &mut self.processes {
            process.counted(&self.counts, now);
        }
        if self.watched != watched {
            self.watched.clone_from(&watched);
            effects.push(Effect::WatchProcesses(watched));
        }
    }

    /// Gives numbers to the groups that have none: those of others stay.
    ///
    /// One that an earlier daemon served has the same as there, and the others' are not given to
    /// anybody else as long as there are enough.
    fn number(&mut self) {
        for group in self.list.iter_mut().filter(|group| group.number == 0) {
            group.number = self.found.remove(&group::identity(&group.config)).unwrap_or_default();
        }
        let taken: BTreeSet<u16> = self.list.iter().map(|group| group.number).collect();
        let left: BTreeSet<u16> = self.found.values().copied().collect();
        let all = 1..=u16::try_from(MAX_GROUPS).unwrap_or(u16::MAX);
        let unused = all.clone().filter(|number| !left.contains(number));
        let mut free = unused
            .chain(all.filter(|number| left.contains(number)))
            .filter(|number| !taken.contains(number));
        for group in self.list.iter_mut().filter(|group| group.number == 0) {
            group.number = free.next().unwrap_or_default();
        }
    }

    /// The number of the group that is the `index`th of the configuration; zero for none.
    pub(super) fn number_of(&self, index: Option<usize>) -> u16 {
        index.and_then(|index| self.list.get(index)).map_or(0, |group| group.number)
    }

    /// Whether this host serves what belongs to the group that is the `index`th of the configuration;
    /// what belongs to none, it always does.
    pub(super) fn serves(&self, index: Option<usize>) -> bool {
        let group = |index| self.list.get(index);
        index.is_none_or(|index| group(index).is_some_and(|group| group.role == Role::Master))
    }

    /// Every address of a group, with the group's number.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        self.list.iter().flat_map(|group| {
            group.config.addresses.iter().map(|address| (address.ip, group.number))
        })
    }

    /// Every group's name and number.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (String, u16)> + '_ {
        self.list.iter().map(|group| (group.config.name.clone(), group.number))
    }

    /// When a script is to be run, and when a process has been there or away for long enough.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> + '_ {
        let scripts = self.scripts.iter().filter_map(ScriptState::next_deadline);
        scripts.chain(self.processes.iter().filter_map(ProcessState::next_deadline))
    }

    /// Takes in this host's interfaces.
    pub(super) fn links(&mut self, links: BTreeMap<String, Link>) {
        self.links = Some(links);
    }

    /// Takes in whether this host may take over from its peer, as far as connections go. What a
    /// conversation told that a reload has ended is not heeded.
    pub(super) fn synced(&mut self, ready: bool) {
        if let Some(before) = &mut self.synced
            && *before != ready
        {
            *before = ready;
            // The election does not know.
            self.facts = None;
        }
    }

    /// Takes in how a run of a script ended.
    pub(super) fn ran(&mut self, run: RunId, outcome: &RunOutcome, now: Instant) {
        for script in &mut self.scripts {
            script.finish(run, outcome, now);
        }
    }

    /// Takes in how many processes run, by name.
    pub(super) fn counted(&mut self, counts: BTreeMap<String, u32>, now: Instant) {
        self.counts = counts;
        for process in &mut self.processes {
            process.counted(&self.counts, now);
        }
    }

    /// Takes in a change of role, and has its hooks run.
    pub(super) fn changed(
        &mut self,
        name: &str,
        transition: Transition,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let group = self.list.iter_mut().find(|group| group.config.name == name);
        let config = match group {
            Some(group) => {
                group.change(&transition, now);
                Some(group.config.clone())
            }
            None if transition.to == Role::Init => self.departing.remove(name),
            None => self.departing.get(name).cloned(),
        };
        // One that nobody knows was given up before.
        let Some(config) = config else { return };
        if !transition.carries_on {
            effects.extend(hooks(&config, &transition).map(Effect::Hook));
        }
        let group = name.to_owned();
        effects.push(Effect::Notify(Notice::Group { group, transition }));
    }

    /// Takes in that another host claims an address. Of a group that was just given up, there is
    /// nothing to tell.
    pub(super) fn claimed(&mut self, name: &str, claimed: Claimed, now: Instant) -> Option<Notice> {
        let group = self.list.iter_mut().find(|group| group.config.name == name)?;
        group.claims += 1;
        group.claim = Some((now, claimed.clone()));
        Some(Notice::Claimed { group: name.to_owned(), claimed })
    }

    /// Takes in that an address was put onto its interface. Of a group that was just given up, there is
    /// nothing to tell.
    pub(super) fn put_back(
        &mut self,
        name: &str,
        address: GroupAddress,
        was_missing: bool,
    ) -> Option<Notice> {
        let group = self.list.iter_mut().find(|group| group.config.name == name)?;
        group.put_back += u64::from(!was_missing);
        Some(Notice::PutBack { group: name.to_owned(), address, was_missing })
    }

    /// Runs the scripts that are due, and tells election and operator what all that is tracked adds
    /// up to, as far as that changed.
    pub(super) fn track(
        &mut self,
        services: &[ServiceState],
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        for process in &mut self.processes {
            process.tick(now);
        }
        for script in &mut self.scripts {
            if let Some(request) = script.start(RunId(self.next_run), now) {
                self.next_run += 1;
                effects.push(Effect::RunScript(request));
            }
        }
        let facts = self.facts(services);
        if self.facts.as_ref() == Some(&facts) {
            return;
        }
        effects.extend(self.news(&facts).into_iter().map(Effect::Notify));
        let ready = self.synced.unwrap_or(true);
        for group in &mut self.list {
            effects.extend(group.stand(&facts, ready).map(Effect::Election));
        }
        self.facts = Some(facts);
    }

    /// Has the election hand a group over.
    pub(super) fn failover(&self, name: &str) -> Result<Effect, CannotFailOver> {
        if self.list.is_empty() {
            return Err(CannotFailOver::NoGroups);
        }
        let names = || self.list.iter().map(|group| group.config.name.clone());
        let group = name.to_owned();
        match self.list.iter().find(|group| group.config.name == name).map(|group| group.role) {
            None => Err(CannotFailOver::Unknown { group, known: names().collect() }),
            Some(Role::Master) => Ok(Effect::Election(Command::Failover { group })),
            Some(role) => Err(CannotFailOver::NotMaster { group, role }),
        }
    }

    /// What an operator sees of the groups.
    pub(super) fn status(&self, elections: &Elections, now: Instant) -> Vec<GroupStatus> {
        let unknown = Facts::new();
        let facts = self.facts.as_ref().unwrap_or(&unknown);
        self.list.iter().map(|group| group.status(facts, elections, now)).collect()
    }

    /// What the operator should know of what is tracked, other than services, which have notices of
    /// their own: what failed, and what is well again.
    fn news(&mut self, facts: &Facts) -> Vec<Notice> {
        self.failed.retain(|thing| facts.contains_key(thing));
        let mut news = Vec::new();
        for (thing, fact) in facts {
            let failure = match fact {
                Fact::Failed(why) if self.failed.insert(thing.clone()) => Some(why.clone()),
                Fact::Well if self.failed.remove(thing) => None,
                _ => continue,
            };
            let (kind, name) = thing.clone();
            if kind != Kind::Service {
                news.push(Notice::Tracked { kind, name, failure });
            }
        }
        news
    }

    /// How all that is tracked is.
    fn facts(&self, services: &[ServiceState]) -> Facts {
        let fact = |kind, name: &str| match kind {
            Kind::Interface => match self.links.as_ref().map(|links| links.get(name)) {
                None => Fact::Unknown,
                Some(None) => Fact::Failed("there is none of that name".to_owned()),
                Some(Some(Link { up: false, .. })) => Fact::Failed("down".to_owned()),
                Some(Some(Link { up: true, .. })) => Fact::Well,
            },
            Kind::Script => {
                let mut scripts = self.scripts.iter();
                scripts.find(|s| s.config.name == name).map_or(Fact::Unknown, ScriptState::fact)
            }
            Kind::Process => {
                let mut processes = self.processes.iter();
                processes.find(|p| p.config.name == name).map_or(Fact::Unknown, ProcessState::fact)
            }
            Kind::Service => {
                let mut services = services.iter();
                match services.find(|s| s.config.name == name).and_then(ServiceState::is_up) {
                    None => Fact::Unknown,
                    Some(true) => Fact::Well,
                    Some(false) => Fact::Failed("no backend is eligible".to_owned()),
                }
            }
        };
        let all = self.tracked.iter();
        all.map(|(kind, name)| ((*kind, name.clone()), fact(*kind, name))).collect()
    }
}

impl GroupState {
    fn new(config: Arc<Group>, old: Option<Self>, now: Instant) -> Self {
        match old {
            Some(old) => Self { config, ..old },
            None => Self {
                config,
                number: 0,
                told: None,
                role: Role::Init,
                since: now,
                history: VecDeque::new(),
                claim: None,
                claims: 0,
                put_back: 0,
                taken: BTreeMap::new(),
            },
        }
    }

    /// Notes a change of role.
    fn change(&mut self, transition: &Transition, now: Instant) {
        if transition.from != transition.to {
            self.since = now;
        }
        self.role = transition.to;
        *self.taken.entry(transition.to.name().to_owned()).or_default() += 1;
        self.history.truncate(REMEMBERED - 1);
        self.history.push_front((now, transition.clone()));
    }

    /// What the election does not know yet of this host's standing.
    ///
    /// The election of a group begins when all that it tracks is known: a host that came up to find
    /// its script failing would take the group only to give it away. In a group that has begun,
    /// something that a reload added counts for nothing until it is known.
    fn stand(&mut self, facts: &Facts, ready: bool) -> Option<Command> {
        if self.told.is_none() && standing::unknown(&self.config, facts).is_some() {
            return None;
        }
        let standing = standing::standing(&self.config, facts, ready);
        (self.told.as_ref() != Some(&standing)).then(|| {
            self.told = Some(standing.clone());
            Command::Standing { group: self.config.name.clone(), standing }
        })
    }

    fn status(&self, facts: &Facts, elections: &Elections, now: Instant) -> GroupStatus {
        let Self { config, told, history, .. } = self;
        let (protocol, id, priority) = match &config.protocol {
            Protocol::Vrrp(vrrp) => {
                let protocol = match vrrp.version {
                    VrrpVersion::V2 => "VRRPv2",
                    VrrpVersion::V3 => "VRRPv3",
                };
                (protocol, vrrp.virtual_router_id, vrrp.priority)
            }
            Protocol::Carp(carp) => ("CARP", carp.vhid, u8::MAX - carp.advskew),
        };
        let age = |then: Instant| now.saturating_duration_since(then);
        let transitions = history.iter().map(|(then, transition)| TransitionStatus {
            from: transition.from,
            to: transition.to,
            priority: transition.priority,
            why: transition.why.clone(),
            age_seconds: age(*then).as_secs(),
        });
        let election = elections.groups.get(&config.name);
        let lease = election.and_then(|e| e.lease?.checked_duration_since(now));
        GroupStatus {
            name: config.name.clone(),
            protocol: protocol.to_owned(),
            id,
            interface: config.interface.clone(),
            addresses: config.addresses.iter().map(|a| address(a, &config.interface)).collect(),
            role: election.map_or(self.role, |e| e.role),
            since_seconds: age(election.map_or(self.since, |e| e.since)).as_secs(),
            why: match standing::unknown(config, facts) {
                Some((kind, name)) if told.is_none() => {
                    format!("waits to know how {kind} {name} is")
                }
                _ => {
                    let last = history.front().map(|(_, transition)| &transition.why);
                    let why = election.map(|election| &election.why).or(last);
                    why.map_or_else(|| "just started".to_owned(), Clone::clone)
                }
            },
            faults: told.as_ref().map(|standing| standing.faults.clone()).unwrap_or_default(),
            priority,
            effective_priority: election.map_or(priority, |e| e.priority),
            master: election.and_then(|e| e.master),
            lease_ms: lease.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            problem: election.and_then(|e| e.problem.clone()),
            claim: self.claim.as_ref().and_then(|(then, claimed)| {
                let age = age(*then);
                (age < CLAIM_SHOWN).then(|| ClaimStatus {
                    address: claimed.address,
                    mac: claimed.mac.to_string(),
                    interface: claimed.interface.clone(),
                    age_seconds: age.as_secs(),
                })
            }),
            claims: self.claims,
            put_back: self.put_back,
            adverts: election.map(|e| e.adverts.clone()).unwrap_or_default(),
            taken: self.taken.clone(),
            transitions: transitions.collect(),
            tracked: standing::status(config, facts),
        }
    }
}

/// The commands that are due after a change of role: those of the new role, then those of all.
pub fn hooks(group: &Group, transition: &Transition) -> Option<HookRequest> {
    let Hooks { notify_master, notify_backup, notify_fault, notify_stop, notify, user, timeout } =
        &group.hooks;
    let (state, own) = match transition.to {
        Role::Master => ("MASTER", notify_master),
        Role::Backup => ("BACKUP", notify_backup),
        Role::Fault => ("FAULT", notify_fault),
        Role::Init => ("STOP", notify_stop),
    };
    let priority = transition.priority.to_string();
    let arguments = ["INSTANCE", &group.name, state, &priority].map(str::to_owned);
    let notify = notify.iter().map(|command| [command.as_slice(), &arguments].concat());
    let commands: Vec<_> = own.iter().cloned().chain(notify).collect();
    (!commands.is_empty()).then(|| HookRequest {
        group: group.name.clone(),
        commands,
        user: user.clone(),
        timeout: *timeout,
    })
}

/// "10.2.2.4/24", "10.3.3.4/24 dev eth1".
fn address(address: &GroupAddress, usual: &str) -> String {
    let GroupAddress { ip, prefix, interface, .. } = address;
    if interface == usual {
        format!("{ip}/{prefix}")
    } else {
        format!("{ip}/{prefix} dev {interface}")
    }
}

impl fmt::Display for CannotFailOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGroups => {
                f.write_str("no groups are configured: there is nothing to hand over")
            }
            Self::Unknown { group, known } => {
                write!(f, "there is no group {group}; there are: {}", known.join(", "))
            }
            Self::NotMaster { group, role } => write!(
                f,
                "this host is {role} of group {group}, so it has nothing to hand over: ask the \
                 master"
            ),
        }
    }
}

impl std::error::Error for CannotFailOver {}
