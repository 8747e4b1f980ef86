//! What goes wrong between two hosts that tell each other of their connections.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::lab::{
    Ask, Contest, Fault, IdentServer, Load, SessionServer, Sessions, Survival, Tandem,
    member::{self, System},
    survival::{PATIENCE, SESSIONS},
    wait::until,
};

use super::{
    MS, PRIORITIES, election,
    survival::{LOAD, replicating},
};

/// More sessions than fit into one message.
const MANY: Load = Load { active: 1_000, period: Duration::from_secs(1), ..LOAD };

#[test]
fn a_slow_peer_keeps_nobody_waiting_and_catches_up() -> Result<()> {
    let mut survival = replicating()?;
    survival.contest.tandem(1).process_mut().signal(Signal::SIGSTOP)?;
    let more = open(&survival, &MANY)?;
    let churned = Ask::at(survival.contest.vip()).times(500).at_once(10);
    churned.from(survival.contest.pair().client()).all_answered()?;
    // Longer than the peer is waited for.
    thread::sleep(8_000 * MS);
    survival.contest.only_master(0)?;
    survival.sessions().verify(PATIENCE)?.none_lost()?;
    survival.contest.tandem(1).process_mut().signal(Signal::SIGCONT)?;
    survival.contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    survival.strike(Fault::Kill)?.none_lost()?;
    more.verify(PATIENCE)?.none_lost()
}

#[test]
fn a_peer_that_dies_in_the_midst_of_all_that_it_is_told_is_told_again() -> Result<()> {
    let mut survival = Survival::new(System::Replicating, &election(), MANY)?;
    let contest = &mut survival.contest;
    // So that it takes some seconds to tell it.
    cable_to(contest, &["tbf", "rate", "100kbit", "burst", "3k", "limit", "10k"])?;
    let told = transfers_told(contest.tandem(0))?;
    for _ in 0..3 {
        contest.member(1).crash();
        contest.tandem(1).start_again()?;
        until("a transfer", 3 * PATIENCE, || {
            let sync = &contest.tandem(0).status_json()?["sync"]["conversation"];
            ensure!(sync["state"] == "transferring", "the conversation is at {sync}");
            Ok(())
        })?;
    }
    contest.member(1).crash();
    assert_eq!(transfers_told(contest.tandem(0))?, told, "nothing was cut");
    cable_to(contest, &["pfifo"])?;
    contest.start_again(1)?;
    contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    survival.strike(Fault::Kill)?.none_lost()
}

/// Sets how the first host sends to the second, by `tc`.
fn cable_to(contest: &Contest, queue: &[&str]) -> Result<()> {
    let tc = contest.twin(0).command("tc").args(["qdisc", "replace", "dev", "sync", "root"]);
    tc.args(queue).plain().run().map(drop)
}

/// How many transfers a daemon has told to their end.
fn transfers_told(tandem: &Tandem) -> Result<u64> {
    let status = tandem.status_json()?;
    let told = &status["sync"]["conversation"]["totals"]["transfers_sent"];
    told.as_u64().context("no such total")
}

#[test]
fn a_peer_with_another_key_is_told_nothing_and_nothing_else_suffers() -> Result<()> {
    let mut contest = Contest::for_sessions(election(), 1, SESSIONS)?;
    let _server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        let key = format!("the key of host {host}, which the other one does not have");
        let sync = member::sync(contest.pair(), host, &key);
        contest.enter_with(host, priority, &sync)?;
    }
    let to = (contest.vip().ip(), SESSIONS).into();
    let sessions = Sessions::open(contest.pair().client(), to, &LOAD)?;
    for host in 0..2 {
        until("the other key to be told of", PATIENCE, || {
            let status = contest.tandem(host).status_json()?["sync"].to_string();
            ensure!(status.contains("another key"), "{status}");
            Ok(())
        })?;
        let metrics = contest.tandem(host).scrape_metrics()?;
        ensure!(metrics.contains("tandem_sync_connected 0\n"), "{metrics}");
    }
    contest.only_master(0)?;
    sessions.verify(PATIENCE)?.none_lost()?;
    let at = SystemTime::now();
    contest.member(0).crash();
    contest.advert_since(at, 1)?;
    Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
}

#[test]
fn hosts_that_only_lost_the_cable_between_them_make_up_for_it() -> Result<()> {
    let mut survival = replicating()?;
    survival.contest.pair().part()?;
    let more = open(&survival, &MANY)?;
    // Long enough that both take the other for gone.
    thread::sleep(8_000 * MS);
    survival.contest.only_master(0)?;
    survival.contest.pair().rejoin()?;
    survival.contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    survival.strike(Fault::Kill)?.none_lost()?;
    more.verify(PATIENCE)?.none_lost()
}

#[test]
fn idle_sessions_that_only_a_dead_host_knew_of_are_there_when_it_is_back() -> Result<()> {
    const IDLE: Load = Load { active: 0, idle: 200, pushed: 0, bulk: 0, ..LOAD };

    let mut survival = replicating()?;
    survival.contest.pair().part()?;
    let untold = open(&survival, &IDLE)?;
    let at = SystemTime::now();
    survival.contest.member(0).crash();
    survival.contest.advert_since(at, 1)?;
    survival.contest.pair().rejoin()?;
    survival.contest.start_again(0)?;
    until("the host to be master again", PATIENCE, || survival.contest.only_master(0))?;
    untold.verify(PATIENCE)?.none_lost()?;
    survival.contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    survival.strike(Fault::Kill)?.none_lost()?;
    untold.verify(PATIENCE)?.none_lost()
}

#[test]
fn hosts_that_only_hear_each_other_by_the_cable_between_them_lose_no_session() -> Result<()> {
    let mut survival = replicating()?;
    let at = SystemTime::now();
    survival.contest.pair().divide()?;
    survival.contest.advert_since(at, 1)?;
    thread::sleep(3_000 * MS);
    survival.contest.pair().unite()?;
    survival.contest.settle();
    survival.contest.only_master(0)?;
    survival.verify()?.none_lost()?;
    survival.contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    survival.strike(Fault::Kill)?.none_lost()
}

#[test]
fn sessions_survive_both_hosts_one_after_the_other() -> Result<()> {
    let mut survival = replicating()?;
    // The backup first, as one does.
    survival.contest.member(1).crash();
    survival.contest.start_again(1)?;
    survival.contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    survival.strike(Fault::Stop)?.none_lost()?;
    survival.heal(Fault::Stop)?.none_lost()?;
    survival.contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    survival.strike(Fault::Kill)?.none_lost()
}

#[test]
fn a_survivor_with_too_small_a_table_keeps_what_fits() -> Result<()> {
    /// The smallest table that there is.
    const ROOM: usize = 1024;
    const LOAD: Load = Load { active: 1_400, ..MANY };

    let mut contest = Contest::for_sessions(election(), 1, SESSIONS)?;
    let _server = SessionServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        let sync = member::sync(contest.pair(), host, member::SYNC_KEY);
        let settings = contest.settings(host, priority, &sync);
        let room = format!("maxconn = {}", if host == 0 { 10_000 } else { ROOM });
        let tandem = Tandem::start_on(contest.twin(host), &settings.global(&room))?;
        contest.enter_as(host, Box::new(tandem))?;
    }
    contest.wait_until_in_sync()?;
    let to = (contest.vip().ip(), SESSIONS).into();
    let sessions = Sessions::open(contest.pair().client(), to, &LOAD)?;
    thread::sleep(1_000 * MS);
    let at = SystemTime::now();
    contest.member(0).crash();
    contest.advert_since(at, 1)?;
    let outcome = sessions.verify(PATIENCE)?;
    let kept = LOAD.total() - outcome.lost();
    assert_eq!((kept, outcome.corrupted), (ROOM, 0), "{:?}", outcome.lost);
    contest.only_master(1)?;

    // There is room again as soon as the others are gone.
    drop(sessions);
    until("room for new connections", PATIENCE, || {
        Ask::at(contest.vip()).times(20).from(contest.pair().client()).all_answered()
    })
}

#[test]
fn a_port_that_a_client_uses_again_right_after_a_takeover_is_a_new_connection() -> Result<()> {
    // The host that is lost still tells the server of their end.
    ports_are_used_again(20, |_| Ok(()))
}

#[test]
fn a_port_that_is_used_again_is_a_new_connection_though_the_server_still_has_the_old_one()
-> Result<()> {
    ports_are_used_again(5, |contest| contest.twin(0).cut_off())
}

/// A client ends so many connections when the first host has been killed, and this has happened to it;
/// and opens others from their ports when the second has taken over, which knows of no end.
fn ports_are_used_again(count: u16, happens: impl Fn(&Contest) -> Result<()>) -> Result<()> {
    let mut contest = Contest::for_sessions(election(), 1, SESSIONS)?;
    let server = IdentServer::start(&contest.pair().servers()[0], SESSIONS)?;
    for (host, priority) in PRIORITIES.into_iter().enumerate() {
        contest.enter(host, System::Replicating, priority)?;
    }
    contest.wait_until_in_sync()?;
    let to = (contest.vip().ip(), SESSIONS).into();
    let client = contest.pair().client().clone();
    let ports = 30_000..30_000 + count;
    let first = ports.clone().map(|port| client.enter(|| dial_from(port, to)));
    let first: Vec<_> = first.collect::<Result<_>>()?;
    thread::sleep(1_000 * MS);
    let at = SystemTime::now();
    contest.member(0).crash();
    happens(&contest)?;
    drop(first);
    contest.advert_since(at, 1)?;
    println!("of {count} connections the server has {}", server.open());
    for port in ports {
        let stream = client.enter(|| dial_from(port, to));
        echoes(stream.with_context(|| format!("from port {port}"))?)?;
    }
    Ok(())
}

#[test]
fn after_ten_seconds_apart_the_winners_sessions_go_on_and_the_losers_do_or_are_reset() -> Result<()>
{
    const IDLE: Load = Load { active: 0, idle: 100, pushed: 0, bulk: 0, ..LOAD };

    let mut survival = replicating()?;
    let contest = &survival.contest;
    let at = SystemTime::now();
    contest.pair().part()?;
    contest.pair().divide()?;
    contest.advert_since(at, 1)?;
    // The preferred host is going to win. Those who go on talking do so by way of the other one.
    contest.pair().lead(0, "permanent")?;
    let of_winner = open(&survival, &IDLE)?;
    thread::sleep(1_000 * MS);
    contest.pair().lead(1, "permanent")?;
    let of_loser = open(&survival, &LOAD)?;
    thread::sleep(10_000 * MS);
    contest.pair().lead(1, "stale")?;
    contest.pair().rejoin()?;
    contest.pair().unite()?;
    contest.settle();
    contest.only_master(0)?;
    survival.sessions().verify(PATIENCE)?.none_lost().context("of those from before")?;
    of_winner.verify(PATIENCE)?.none_lost().context("of the winner's")?;
    let outcome = of_loser.verify(PATIENCE)?;
    let (all, lost) = (outcome.sessions, outcome.lost());
    println!("of {all} sessions of the loser's {lost} were lost: {:?}", outcome.lost);
    assert_eq!(outcome.corrupted, 0);
    ensure!(lost < all, "none of the loser's is left: {:?}", outcome.lost);
    // A client that never says anything is told nothing; its server is.
    let hangs = |kind: &str| kind.starts_with("Silent") && kind != "Silent (pushed)";
    ensure!(!outcome.lost.keys().any(|kind| hangs(kind)), "some hang: {:?}", outcome.lost);
    // And from now on all is well again.
    survival.contest.tandem(1).wait_until_in_sync(PATIENCE)?;
    survival.verify()?.none_lost()?;
    survival.strike(Fault::Kill)?.none_lost()?;
    of_winner.verify(PATIENCE)?.none_lost()
}

/// Further sessions.
fn open(survival: &Survival, load: &Load) -> Result<Sessions> {
    Sessions::open(survival.contest.pair().client(), survival.vip(), load)
}

/// Connects from a port.
fn dial_from(port: u16, to: SocketAddr) -> Result<TcpStream> {
    use std::os::fd::{AsRawFd as _, OwnedFd};

    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
        sockopt,
    };

    let flags = SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // Nothing is left of it at its end.
    setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    let from = SocketAddr::from(([0, 0, 0, 0], port));
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether a connection to an [`IdentServer`] works.
fn echoes(mut stream: TcpStream) -> Result<()> {
    let (text, mut came) = (b"s1\nhello", Vec::new());
    stream.write_all(b"hello")?;
    while came.len() < text.len() {
        let mut buffer = [0; 64];
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "it ended after {came:?}");
        came.extend_from_slice(&buffer[..length]);
    }
    ensure!(came == text, "{came:?} came");
    Ok(())
}
