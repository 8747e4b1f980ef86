//! Limits of connections: clients that wait, and what becomes of them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_daemon::core::Status;
use tests::lab::{Family, Host, Lab, Service, Settings, Tandem};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that sends everything back, and closes when its client does. Its threads end with the test.
struct Echo;

impl Echo {
    fn start(host: &Host) -> Result<Self> {
        let listener = host.listen(80)?;
        listener.set_nonblocking(false)?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || -> std::io::Result<u64> {
                    stream.set_nonblocking(false)?;
                    std::io::copy(&mut &stream, &mut &stream)
                });
            }
        });
        Ok(Self)
    }
}

/// A client that connects, from its thread.
struct Caller(Receiver<std::io::Result<TcpStream>>);

impl Caller {
    fn new(lab: &Lab, to: SocketAddr) -> Result<Self> {
        let (tell, heard) = channel();
        lab.client().enter(|| -> Result<()> {
            thread::Builder::new().spawn(move || {
                // The test may have ended.
                let _ = tell.send(TcpStream::connect_timeout(&to, PATIENCE));
            })?;
            Ok(())
        })?;
        Ok(Self(heard))
    }

    /// Its connection, once it has one.
    fn connected(&self) -> Result<TcpStream> {
        Ok(self.0.recv_timeout(PATIENCE).context("it still waits")??)
    }

    /// Why it has none.
    fn refused(&self) -> Result<()> {
        let error = self.0.recv_timeout(PATIENCE).context("it still waits")?.err();
        let kind = error.context("it is connected")?.kind();
        ensure!(kind == ErrorKind::ConnectionRefused, "{kind}");
        Ok(())
    }

    fn waits(&self) -> bool {
        self.0.try_recv().is_err()
    }
}

/// Sends a byte there and back.
fn speak(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(())
}

fn waiting(status: &Status) -> u64 {
    status.services[0].queue.map_or(0, |queue| queue.waiting)
}

fn wait_for(tandem: &Tandem, count: u64) -> Result<()> {
    tandem.wait_until(&format!("{count} wait"), PATIENCE, |status| waiting(status) == count)?;
    Ok(())
}

#[test]
fn who_comes_to_full_backends_waits_and_is_served_in_order() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let _servers: Vec<_> = lab.backends().iter().map(Echo::start).collect::<Result<_>>()?;
    let vip = (lab.vip4(), 80).into();
    let service = Service::new("web", vip)
        .set("balance = \"leastconn\"\ntimeout = { queue = \"1m\" }\nserver.maxconn = 1")
        .backends(lab.backends(), Family::V4, 80);
    let tandem = Tandem::start(&lab, &service.to_string())?;
    tandem.wait_until_all_serve()?;

    let first = [Caller::new(&lab, vip)?.connected()?, Caller::new(&lab, vip)?.connected()?];
    let mut late = Vec::new();
    for count in 1..=3 {
        late.push(Caller::new(&lab, vip)?);
        wait_for(&tandem, count)?;
    }
    let text = tandem.verb(&["status", "--socket"]).arg(tandem.socket()).run()?;
    ensure!(text.contains("1/1") && text.contains("3 waiting"), "{text}");
    let metrics = tandem.scrape_metrics()?;
    ensure!(metrics.contains("tandem_service_queue{service=\"web\"} 3"), "{metrics}");

    let [one, two] = first;
    drop(one);
    let served = late.remove(0).connected()?;
    ensure!(late.iter().all(Caller::waits), "somebody was served before his turn");
    drop(served);
    let served = late.remove(0).connected()?;
    ensure!(late[0].waits(), "somebody was served before his turn");
    drop(two);
    let mut last = late.remove(0).connected()?;
    drop(served);
    wait_for(&tandem, 0)?;
    speak(&mut last)
}

#[test]
fn who_waits_in_vain_or_finds_the_queue_full_is_refused() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _server = Echo::start(&lab.backends()[0])?;
    let vip = (lab.vip4(), 80).into();
    let service = |timeout: &str| {
        Service::new("web", vip)
            .set(&format!("timeout = {{ queue = {timeout:?} }}"))
            .set("server.maxconn = 1\nserver.maxqueue = 1")
            .backends(lab.backends(), Family::V4, 80)
            .to_string()
    };
    let tandem = Tandem::start(&lab, &service("1m"))?;
    tandem.wait_until_all_serve()?;
    let _first = Caller::new(&lab, vip)?.connected()?;
    let second = Caller::new(&lab, vip)?;
    wait_for(&tandem, 1)?;
    Caller::new(&lab, vip)?.refused()?;
    ensure!(second.waits(), "the one that waited was refused");
    tandem.configure(&Settings::new(&lab, &service("50ms")))?;
    tandem.reload()?;
    second.refused()?;
    let status = tandem.status()?;
    let queue = status.services[0].queue.context("no queue")?;
    ensure!((queue.timed_out, queue.refused) == (1, 1), "{queue:?}");
    Ok(())
}

#[test]
fn a_client_that_waited_is_at_the_backend_soon_after_a_place_is_free() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _server = Echo::start(&lab.backends()[0])?;
    let vip = (lab.vip4(), 80).into();
    let service = Service::new("web", vip)
        .set("server.maxconn = 1\ntimeout = { queue = \"1m\" }")
        .backends(lab.backends(), Family::V4, 80);
    let tandem = Tandem::start(&lab, &service.to_string())?;
    tandem.wait_until_all_serve()?;
    let mut held = Caller::new(&lab, vip)?.connected()?;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let next = Caller::new(&lab, vip)?;
        wait_for(&tandem, 1)?;
        let began = Instant::now();
        drop(held);
        held = next.connected()?;
        waits.push(began.elapsed());
    }
    waits.sort_unstable();
    println!("from one's end to the next one's connection: {:?} by median", waits[waits.len() / 2]);
    // A client would have sent its SYN again after a second.
    ensure!(waits[waits.len() / 2] < Duration::from_secs(1), "{waits:?}");
    Ok(())
}
