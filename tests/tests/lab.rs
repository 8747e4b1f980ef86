//! The lab itself, without the product: the balancer's kernel routes instead of it.

use std::{fmt::Debug, fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Ask, Bulk, BulkServer, Close, Family, HalfOpen, Held, IdentServer, Lab, MariaDb, Namespace,
    Nginx, Shape, http_get, wait::until,
};

const SECOND: Duration = Duration::from_secs(1);
const MEGABYTE: u64 = 1_000_000;

#[test]
fn two_arm_carries_everything_in_both_families() -> Result<()> {
    carries_everything(Shape::TwoArm)
}

#[test]
fn one_arm_carries_everything_in_both_families() -> Result<()> {
    carries_everything(Shape::OneArm)
}

#[test]
fn routed_carries_everything_in_both_families() -> Result<()> {
    carries_everything(Shape::Routed)
}

fn carries_everything(shape: Shape) -> Result<()> {
    let lab = Lab::new(shape, 2)?;
    lab.let_kernel_forward(true)?;
    for backend in lab.backends() {
        let _ident = IdentServer::start(backend, 80)?;
        let _bulk = BulkServer::start(backend, 81)?;
        for family in Family::BOTH {
            ensure!(lab.client().pings(lab.vip(family)), "no ping of the {family:?} VIP");
            ensure!(
                lab.client().pings(backend.address(family)),
                "no {family:?} ping of {backend:?}"
            );

            let crowd = (0..20).map(|number| lab.crowd(family, number * 1000));
            let ask = Ask::at(backend.at(family, 80)).times(100).at_once(10).echo(50_000);
            let tally = ask.sources(crowd).from(lab.client());
            tally.all_answered()?;
            assert_eq!(tally.count(backend.name()), 100);

            let (at, limit) = (backend.at(family, 81), 20 * SECOND);
            let up = Bulk::upload(lab.client(), at, 10 * MEGABYTE + 1, limit)?;
            let down = Bulk::download(lab.client(), at, 10 * MEGABYTE + 1, limit)?;
            assert_eq!(up.checksum, down.checksum);
        }
    }
    for family in Family::BOTH {
        answers_nowhere(&lab, family)?;
    }
    Ok(())
}

/// A closed port refuses, nobody is silent, and the kernel does nothing it was not asked to.
fn answers_nowhere(lab: &Lab, family: Family) -> Result<()> {
    let ask = |to| Ask::at(to).limit(SECOND).from(lab.client()).failures;
    let refused = ask(lab.backends()[0].at(family, 9));
    assert_eq!(refused, [("connection refused".to_owned(), 1)].into());
    let silent = ask((lab.nobody(family), 80).into());
    assert_eq!(silent, [("timed out".to_owned(), 1)].into());
    lab.let_kernel_forward(false)?;
    ensure!(!lab.client().pings(lab.backends()[0].address(family)), "the kernel still forwards");
    lab.let_kernel_forward(true)
}

#[test]
fn without_the_product_the_balancer_carries_nothing() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _ident = IdentServer::start(&lab.backends()[0], 80)?;
    for family in Family::BOTH {
        let ask = Ask::at(lab.backends()[0].at(family, 80)).limit(SECOND);
        assert_eq!(ask.from(lab.client()).answered(), 0);
    }
    Ok(())
}

#[test]
fn thousands_of_connections_are_opened_held_and_closed() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    lab.let_kernel_forward(true)?;
    let server = IdentServer::start(&lab.backends()[0], 80)?;
    let to = lab.backends()[0].at(Family::V4, 80);

    for how in [Close::Fin, Close::Reset] {
        let mut held = Held::open(lab.client(), to, 2000, SECOND);
        held.tally().all_answered()?;
        assert_eq!((held.len(), held.still_work(100), server.open()), (2000, 2000, 2000));
        held.close(how)?;
        let none_open = || ensure_eq(&server.open(), &0);
        until("the server sees them closed", 5 * SECOND, none_open)?;
    }
    Ask::at(to).times(5000).at_once(50).close(Close::Reset).from(lab.client()).all_answered()?;
    assert_eq!(server.accepted(), 2 * 2000 + 5000);
    Ok(())
}

#[test]
fn servers_hang_come_back_and_die() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    lab.let_kernel_forward(true)?;
    let [b1, b2] = lab.backends() else { panic!("it has two backends") };
    let (server, _mute) = (IdentServer::start(b1, 80)?, IdentServer::mute(b2, 80)?);
    let ask = |host: &tests::lab::Host| {
        Ask::at(host.at(Family::V6, 80)).limit(SECOND).from(lab.client()).failures
    };
    let timed_out = [("timed out".to_owned(), 1)].into();
    let refused = [("connection refused".to_owned(), 1)].into();

    assert_eq!(ask(b2), timed_out);
    server.freeze();
    assert_eq!(ask(b1), timed_out);
    server.thaw();
    assert_eq!(ask(b1), [].into());
    b1.unplug()?;
    assert_eq!(ask(b1), timed_out);
    b1.plug()?;
    until("the cable is back", 5 * SECOND, || ensure_eq(&ask(b1), &[].into()))?;
    drop(server);
    assert_eq!(ask(b1), refused);
    Ok(())
}

#[test]
fn half_open_connections_stay_half_open() -> Result<()> {
    let lab = Lab::routed(1)?;
    lab.let_kernel_forward(true)?;
    let backend = &lab.backends()[0];
    let _server = IdentServer::start(backend, 80)?;
    for (nth, family) in (1..).zip(Family::BOTH) {
        let to = backend.at(family, 80);
        HalfOpen::at(to).count(200).send(lab.client(), |number| {
            let number = u16::try_from(number).expect("it is less than 200");
            (lab.nowhere(family, number), 5000 + number).into()
        })?;
        let all = || ensure_eq(&half_open(backend)?, &(nth * 200));
        until("half-open connections", 2 * SECOND, all)?;
        // Time enough for a retransmission of the SYN-ACK, and for an answer to it.
        thread::sleep(3 * SECOND / 2);
        all().context("a while later")?;
    }
    Ok(())
}

/// Counts the half-open connections of a host: state 03 in the fourth column.
fn half_open(host: &Namespace) -> Result<usize> {
    // The half-open IPv4 connections of a listener of both families are with those of IPv6.
    let table = host.enter(|| fs::read_to_string("/proc/thread-self/net/tcp6"))?;
    Ok(table.lines().filter(|line| line.split_whitespace().nth(3) == Some("03")).count())
}

#[test]
fn a_real_mariadb_answers_a_real_client() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    lab.let_kernel_forward(true)?;
    for backend in lab.backends() {
        let mut server = MariaDb::start(backend, 3306)?;
        let at = backend.at(Family::V4, 3306);
        MariaDb::query(lab.client(), at, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2)")?;
        server.restart()?;
        for family in Family::BOTH {
            let at = backend.at(family, 3306);
            let answer = MariaDb::query(lab.client(), at, "SELECT @@report_host, SUM(a) FROM t")?;
            assert_eq!(answer, format!("{}\t3\n", backend.name()));
        }
    }
    Ok(())
}

#[test]
fn a_real_nginx_answers_and_falls_ill_at_will() -> Result<()> {
    let lab = Lab::one_arm(1)?;
    lab.let_kernel_forward(true)?;
    let backend = &lab.backends()[0];
    let nginx = Nginx::start(backend, 80)?;
    for family in Family::BOTH {
        let get = |path| http_get(lab.client(), backend.at(family, 80), path);
        assert_eq!(get("/")?.body, "b1\n");
        assert_eq!(get("/health")?.status, 200);
        nginx.healthy(false)?;
        assert_eq!(get("/health")?.status, 503);
        nginx.healthy(true)?;
    }
    Ok(())
}

fn ensure_eq<T: PartialEq + Debug>(is: &T, wanted: &T) -> Result<()> {
    ensure!(is == wanted, "it is {is:?} instead of {wanted:?}");
    Ok(())
}
