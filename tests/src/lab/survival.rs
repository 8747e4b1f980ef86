//! Sessions through a pair, one host of which fails.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Result;

use super::{
    Contest, Election, Family, Fault, Load, Outcome, Process, SessionServer, Sessions,
    member::System,
};

/// The port of the sessions.
pub const SESSIONS: u16 = 7000;

/// A pair whose first host preempts, a server of sessions, and sessions with it.
///
/// After each step the sessions are verified. If any were lost, all are opened anew before the next.
pub struct Survival {
    /// None as long as they are to be opened anew.
    sessions: Option<Sessions>,
    load: Load,
    system: System,
    _server: Server,
    /// The place.
    pub contest: Contest,
}

/// Who answers.
#[allow(dead_code, reason = "it is held for what dropping it does")]
enum Server {
    Thread(SessionServer),
    Process(Process),
}

/// More sessions than that have their server in a process of its own, for its open files.
const MANY: usize = 2_000;
/// How long a session may take to go on: TCP tries again after 0.2, 0.6, 1.4, 3 and 6.2 seconds.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Time for those who replicate sessions to be done with the last ones.
const REST: Duration = Duration::from_secs(1);

impl Survival {
    /// Starts everything. The first host is the master.
    pub fn new(system: System, election: &Election, load: Load) -> Result<Self> {
        let election = Election { preempt: true, ..election.clone() };
        let mut contest = Contest::for_sessions(election, 1, SESSIONS)?;
        let host = &contest.pair().servers()[0];
        let server = if load.total() > MANY {
            Server::Process(SessionServer::process(host, SESSIONS)?)
        } else {
            Server::Thread(SessionServer::start(host, SESSIONS)?)
        };
        contest.enter(0, system, 101)?;
        contest.enter(1, system, 100)?;
        if system == System::Replicating {
            contest.wait_until_in_sync()?;
        }
        let sessions = Sessions::open(contest.pair().client(), vip(&contest), &load)?;
        thread::sleep(REST);
        Ok(Self { sessions: Some(sessions), load, system, _server: server, contest })
    }

    /// The virtual address and the port of the sessions.
    pub fn vip(&self) -> SocketAddr {
        vip(&self.contest)
    }

    /// The sessions, none of which may have been lost at the last step.
    pub fn sessions(&self) -> &Sessions {
        self.sessions.as_ref().expect("none were lost at the last step")
    }

    /// Has the first host fail, and waits until the second is the master.
    pub fn strike(&mut self, fault: Fault) -> Result<Outcome> {
        self.open_anew()?;
        if self.system == System::Replicating {
            self.contest.wait_until_in_sync()?;
        }
        self.sessions().forget_stalls()?;
        let at = SystemTime::now();
        fault.strike(&mut self.contest, 0)?;
        self.contest.advert_since(at, 1)?;
        self.verify()
    }

    /// Brings the first host back, and waits until it is the master again.
    pub fn heal(&mut self, fault: Fault) -> Result<Outcome> {
        self.open_anew()?;
        self.sessions().forget_stalls()?;
        let at = SystemTime::now();
        fault.heal(&mut self.contest, 0)?;
        self.contest.advert_since(at, 0)?;
        self.contest.settle();
        self.verify()
    }

    /// Looks after the sessions.
    pub fn verify(&mut self) -> Result<Outcome> {
        self.open_anew()?;
        let outcome = self.sessions().verify(PATIENCE)?;
        if outcome.lost() > 0 {
            // Old and new ones at once would be more open files than some machines allow.
            self.sessions = None;
        }
        thread::sleep(REST);
        Ok(outcome)
    }

    fn open_anew(&mut self) -> Result<()> {
        if self.sessions.is_none() {
            let client = self.contest.pair().client();
            self.sessions = Some(Sessions::open(client, vip(&self.contest), &self.load)?);
            thread::sleep(REST);
        }
        Ok(())
    }
}

fn vip(contest: &Contest) -> SocketAddr {
    (contest.pair().vip(Family::V4), SESSIONS).into()
}
