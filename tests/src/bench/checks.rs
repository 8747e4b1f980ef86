//! What a thousand backends cost that are checked every two seconds, and whether they are in time.
//!
//! | row | what |
//! |---|---|
//! | `checks/cpu` | processor time of the daemon while it checks by connecting |
//! | `checks/lateness` | the longest that a check came after its turn: after a whole number of intervals since an earlier one of the same backend |
//! | `checks/http/cpu`, `checks/http/lateness` | the same by HTTP requests |
//!
//! Every backend has an address of its own, and one real server answers for all of them. It notes
//! when connections come, so what is late there counts, too.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{machine::processor_time, report::Row};
use crate::lab::{Family, Lab, Tandem, wait::until};

const GROUP: &str = "checks";
const BACKENDS: u16 = 1_000;
/// A `leastconn` service has fewer, and so have most.
const BACKENDS_OF_A_SERVICE: u16 = 100;
const INTER: Duration = Duration::from_secs(2);
/// How long checks are watched.
const SPAN: Duration = Duration::from_secs(30);
const PORT: u16 = 80;
/// Longest wait for all backends to be up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What holds the backends' addresses.
const NETWORK: &str = "10.200.0.0/16";

/// When connections came, by the address that they came to.
type Arrivals = BTreeMap<IpAddr, Vec<Instant>>;

/// Measures the group.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut rows = checked("", "")?;
    rows.extend(checked("http/", "httpchk = { method = \"GET\", uri = \"/\" }")?);
    Ok(rows)
}

/// The two rows of checks that are of this kind.
fn checked(prefix: &str, kind: &str) -> Result<Vec<Row>> {
    let lab = Lab::two_arm(1)?;
    let server = &lab.backends()[0];
    server.ip(&format!("route add local {NETWORK} dev lo"))?;
    lab.balancer().ip(&format!("route add {NETWORK} via {}", server.address(Family::V4)))?;
    let listener = server.listen(PORT)?;
    let (arrivals, ends) =
        (Arc::new(Mutex::new(Arrivals::new())), Arc::new(AtomicBool::new(false)));
    let thread = thread::spawn({
        let (arrivals, ends) = (arrivals.clone(), ends.clone());
        move || serve(&listener, &arrivals, &ends)
    });

    let tandem = Tandem::start(&lab, &services(&lab, kind)?)?;
    until("all backends are checked", PATIENCE, || {
        let status = tandem.status()?;
        let mut backends = status.services.iter().flat_map(|service| &service.backends);
        let is_checked = backends.all(|backend| backend.check.is_some() && backend.eligible);
        ensure!(is_checked, "some are not");
        Ok(())
    })?;
    arrivals.lock().expect("the server does not panic").clear();
    let pid = tandem.process().pid();
    let (started, before) = (Instant::now(), processor_time(pid)?);
    thread::sleep(SPAN);
    let processor = processor_time(pid)?.saturating_sub(before);
    let share = processor.as_secs_f64() / started.elapsed().as_secs_f64() * 100.0;
    let arrivals = std::mem::take(&mut *arrivals.lock().expect("the server does not panic"));
    ends.store(true, Relaxed);
    thread.join().expect("the server does not panic");

    let late = lateness(&arrivals)?.as_secs_f64() * 1e3;
    eprintln!("{GROUP}: {prefix}{share:.1} % of one core, {late:.1} ms late at most");
    Ok(vec![
        Row::alone(GROUP, &format!("{prefix}cpu"), "% of one core", &[share]),
        Row::alone(GROUP, &format!("{prefix}lateness"), "ms", &[late]),
    ])
}

/// Answers everybody, and notes when they came.
fn serve(listener: &TcpListener, arrivals: &Mutex<Arrivals>, ends: &AtomicBool) {
    listener.set_nonblocking(true).expect("it is a socket");
    while !ends.load(Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let now = Instant::now();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                if let Ok(address) = stream.local_addr() {
                    let mut arrivals = arrivals.lock().expect("nobody panics");
                    arrivals.entry(address.ip()).or_default().push(now);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(_) => {}
        }
    }
}

/// The longest that one came after its turn.
fn lateness(arrivals: &Arrivals) -> Result<Duration> {
    ensure!(arrivals.len() == usize::from(BACKENDS), "{} were checked", arrivals.len());
    let worst = |times: &Vec<Instant>| -> Option<Duration> {
        let first = *times.first()?;
        // How far each is from a rhythm that began with the first one, which may have been late.
        let offsets = (0..).zip(times).map(|(turn, time)| {
            time.duration_since(first).as_secs_f64() - INTER.as_secs_f64() * f64::from(turn)
        });
        let offsets: Vec<f64> = offsets.collect();
        let earliest = offsets.iter().copied().fold(0.0, f64::min);
        let latest = offsets.iter().copied().fold(0.0, f64::max);
        Some(Duration::from_secs_f64(latest - earliest))
    };
    let turns = SPAN.as_secs() / INTER.as_secs();
    for (address, times) in arrivals {
        let count = times.len() as u64;
        ensure!(count + 1 >= turns, "{address} was checked {count} times, not {turns}");
    }
    arrivals.values().filter_map(worst).max().context("nobody was checked")
}

/// Services with all the backends.
fn services(lab: &Lab, kind: &str) -> Result<String> {
    let mut text = String::new();
    for number in 0..BACKENDS {
        if number % BACKENDS_OF_A_SERVICE == 0 {
            let port = 8000 + number / BACKENDS_OF_A_SERVICE;
            write!(
                text,
                "[[service]]\nname = \"s{port}\"\nbind = \"{}:{port}\"\n\
                 [service.server.check]\ninter = \"{}s\"\n{kind}\n",
                lab.vip4(),
                INTER.as_secs()
            )?;
        }
        let [high, low] = (number + 1).to_be_bytes();
        let address = Ipv4Addr::new(10, 200, high, low);
        write!(
            text,
            "[[service.backend]]\nname = \"b{number}\"\naddress = \"{address}:{PORT}\"\n"
        )?;
    }
    Ok(text)
}
