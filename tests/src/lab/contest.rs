//! Two daemons that share addresses, and the wire between them.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};

use super::{
    Capture, Election, Family, Frame, IdentServer, Knocks, Packaged, Pair, Settings, Tandem, Twin,
    member::{self, Member, PORT, System},
    wait::until,
};

/// A [`Pair`] with [`IdentServer`]s on [`PORT`], all that is said in it, and what runs on its two
/// hosts, at first nothing.
///
/// Who is master is told by the wire: whoever sends adverts with a priority.
pub struct Contest {
    // First, so that nobody serves any more when the place is taken apart.
    members: [Option<Box<dyn Member>>; 2],
    _servers: Vec<IdentServer>,
    election: Election,
    ports: Vec<u16>,
    capture: Capture,
    pair: Pair,
}

impl Contest {
    /// The place, with so many servers.
    pub fn new(election: Election, servers: u8) -> Result<Self> {
        let pair = Pair::new(servers)?;
        let capture = Capture::on(pair.switch())?;
        Self::with(election, pair, &[PORT], capture)
    }

    /// A place for sessions: the hosts are to serve this port as well, where nobody listens yet, and
    /// TCP is not taken down.
    pub fn for_sessions(election: Election, servers: u8, port: u16) -> Result<Self> {
        let pair = Pair::new(servers)?;
        let capture = Capture::without_tcp(pair.switch())?;
        Self::with(election, pair, &[PORT, port], capture)
    }

    fn with(election: Election, pair: Pair, ports: &[u16], capture: Capture) -> Result<Self> {
        let servers = pair.servers().iter().map(|server| IdentServer::start(server, PORT));
        let servers = servers.collect::<Result<_>>()?;
        let ports = ports.to_vec();
        Ok(Self { members: [None, None], _servers: servers, election, ports, capture, pair })
    }

    /// Both hosts with the same system and these priorities, the first of which is the master.
    pub fn between(system: System, election: Election, priorities: [u8; 2]) -> Result<Self> {
        let mut contest = Self::new(election, 1)?;
        contest.enter(0, system, priorities[0])?;
        contest.enter(1, system, priorities[1])?;
        Ok(contest)
    }

    /// Starts a system on a host and waits until it takes part: until it is the master if it is
    /// alone, until it can have heard an advert if it is not.
    pub fn enter(&mut self, host: usize, system: System, priority: u8) -> Result<()> {
        let member = system
            .start(&self.pair, &self.ports, host, &self.election, priority)
            .with_context(|| format!("{system:?} on {}", self.twin(host).name()))?;
        self.enter_as(host, member)
    }

    /// The same with anything else that can hold addresses.
    pub fn enter_as(&mut self, host: usize, member: Box<dyn Member>) -> Result<()> {
        self.members[host] = Some(member);
        if self.members.iter().flatten().count() == 1 {
            self.advert_since(SystemTime::UNIX_EPOCH, host)?;
        } else {
            self.settle();
        }
        Ok(())
    }

    /// Starts the product on a host with further lines: keys of the group, then other tables.
    pub fn enter_with(&mut self, host: usize, priority: u8, lines: &str) -> Result<()> {
        let settings = self.settings(host, priority, lines);
        let tandem = Tandem::start_on(self.twin(host), &settings)?;
        self.enter_as(host, Box::new(tandem))
    }

    /// Waits until both hosts, which are [replicating](System::Replicating), say that they know of the
    /// same connections.
    pub fn wait_until_in_sync(&mut self) -> Result<()> {
        (0..2).try_for_each(|host| self.tandem(host).wait_until_in_sync(3 * PATIENCE))
    }

    /// What [`enter_with`](Self::enter_with) tells it.
    pub fn settings(&self, host: usize, priority: u8, lines: &str) -> Settings {
        let group = self.election.for_tandem(&self.pair, host, priority);
        member::settings(&self.pair, &self.ports, &format!("{group}{lines}"))
    }

    /// The product that was started on a host.
    pub fn tandem(&mut self, host: usize) -> &mut Tandem {
        self.member(host).tandem().expect("another system was started there")
    }

    /// The same where it was started by systemd.
    pub fn packaged(&self, host: usize) -> &Packaged {
        let member = self.members[host].as_ref().expect("nothing was started there");
        member.packaged().expect("another system was started there")
    }

    /// What runs on a host where something was started.
    pub fn member(&mut self, host: usize) -> &mut dyn Member {
        &mut **self.members[host].as_mut().expect("nothing was started there")
    }

    /// Starts what has ended on a host again, and waits until it can have heard an advert.
    pub fn start_again(&mut self, host: usize) -> Result<()> {
        self.member(host).start_again()?;
        self.settle();
        Ok(())
    }

    /// One of the hosts.
    pub fn twin(&self, host: usize) -> &Twin {
        &self.pair.twins()[host]
    }

    /// The place.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// What is said.
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// How the master is elected.
    pub fn election(&self) -> &Election {
        &self.election
    }

    /// Has the client open a connection to the service every so often.
    pub fn knocks(&self, period: Duration) -> Result<Knocks> {
        let knocks = Knocks::start(self.pair.client(), self.vip(), period)?;
        knocks.wait_for(20, PATIENCE).context("before anything has happened")?;
        Ok(knocks)
    }

    /// The virtual IPv4 address and the service's port.
    pub fn vip(&self) -> SocketAddr {
        (self.pair.vip(Family::V4), PORT).into()
    }

    /// The host that sends the next advert. It has just sent it.
    pub fn master(&self) -> Result<usize> {
        self.capture.forget();
        let patience = 3 * self.election.advert_int + PATIENCE;
        self.capture.wait_for("an advert of a master", patience, |frame| {
            self.pair.twins().iter().position(|twin| is_advert(frame, twin))
        })
    }

    /// The time from `since` to a host's first advert as a master after it, for which it has the
    /// time that the protocol gives it and ten seconds.
    pub fn advert_since(&self, since: SystemTime, host: usize) -> Result<Duration> {
        let twin = self.twin(host);
        let patience = self.election.down_after(1) + PATIENCE;
        self.capture.wait_for(&format!("an advert of {}", twin.name()), patience, |frame| {
            is_advert(frame, twin).then(|| frame.at.duration_since(since).ok())?
        })
    }

    /// The time from `since` to the first SYN that a host forwards to a server after it.
    pub fn forwarding_since(&self, since: SystemTime, host: usize) -> Result<Duration> {
        let port = self.twin(host).back.port.name();
        self.capture.wait_for("a forwarded SYN", PATIENCE, |frame| {
            let opens = &*frame.port == port && frame.segment()?.opens;
            opens.then(|| frame.at.duration_since(since).ok())?
        })
    }

    /// Fails unless a host, and the other one not, says that it is the master for five
    /// intervals: longer than a host waits that hears nothing.
    pub fn only_master(&self, host: usize) -> Result<()> {
        self.capture.forget();
        thread::sleep(5 * self.election.advert_int);
        let frames = self.capture.frames();
        let said = |host| frames.iter().filter(|frame| is_advert(frame, self.twin(host))).count();
        let (ours, others) = (said(host), said(1 - host));
        let name = self.twin(host).name();
        ensure!(ours > 1 && others == 0, "{ours} adverts of {name} and {others} of the other");
        Ok(())
    }

    /// The longest time between two adverts of a master that are to be seen, and how many there are
    /// of a host; fails if the other one has said anything.
    pub fn longest_silence(&self, host: usize) -> Result<(Duration, usize)> {
        let frames = self.capture.frames();
        let others = frames.iter().filter(|frame| says_anything(frame, self.twin(1 - host)));
        let others = others.count();
        ensure!(others == 0, "{others} adverts of {}", self.twin(1 - host).name());
        let ours: Vec<_> = frames.iter().filter(|one| is_advert(one, self.twin(host))).collect();
        let gaps = ours.windows(2).filter_map(|two| two[1].at.duration_since(two[0].at).ok());
        Ok((gaps.max().context("not two adverts")?, ours.len()))
    }

    /// Fails unless a host has all virtual addresses, or none of them, or gets there within a
    /// second.
    pub fn has_addresses(&self, host: usize, all: bool) -> Result<()> {
        let twin = self.twin(host);
        let sides = Family::BOTH.map(|of| [self.pair.vip(of), self.pair.source(of)]);
        let wanted: Vec<_> = sides.iter().flatten().map(ToString::to_string).collect();
        let what =
            format!("{} virtual addresses on {}", if all { "all" } else { "no" }, twin.name());
        until(&what, Duration::from_secs(1), || {
            let shown = twin.ip("-json address show")?;
            let links: Vec<serde_json::Value> = serde_json::from_str(&shown)?;
            let addresses = links.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
            let has: Vec<_> = addresses.filter_map(|one| one["local"].as_str()).collect();
            let there = wanted.iter().filter(|one| has.contains(&one.as_str())).count();
            let right = if all { there == wanted.len() } else { there == 0 };
            ensure!(right, "it has {has:?}");
            Ok(())
        })
    }

    /// Time enough for a host that has just started to hear an advert.
    pub fn settle(&self) {
        thread::sleep(self.election.advert_int + Duration::from_millis(300));
    }
}

/// Whether a host says anything by this frame about who is the master.
fn says_anything(frame: &Frame, host: &Twin) -> bool {
    &*frame.port == host.front.port.name() && frame.advert().is_some()
}

/// Whether a host says by this frame that it is the master.
fn is_advert(frame: &Frame, of: &Twin) -> bool {
    // The priority is zero when a master stops. CARP has its `advskew` there, which must not be
    // zero then.
    let advert = frame.advert().filter(|advert| advert.priority > 0);
    &*frame.port == of.front.port.name() && advert.is_some()
}

/// For what takes no time on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(10);
