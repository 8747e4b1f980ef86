//! Limits that operators set while clients wait: HAProxy's `set maxconn server` and `tandem backend`.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use tests::lab::{Family, Held, IdentServer, Lab, Service, Tandem, wait::until};

use super::{Oracle, PATIENCE};

/// Ports of the product and of HAProxy, and of the server behind each.
const PORTS: [u16; 2] = [80, 81];
const CLIENTS: usize = 6;
/// How long clients wait: until the test is over.
const LONG: Duration = Duration::from_secs(600);

/// What is said, and how many of the clients the product and HAProxy serve from then on.
const WORDS: [(&str, [usize; 2]); 5] = [
    // Who waited is served at once.
    ("3", [3, 3]),
    // Nobody is sent away.
    ("1", [3, 3]),
    // And nobody gets a place as long as there are more than may.
    ("2", [3, 3]),
    ("5", [5, 5]),
    // No limit, but HAProxy leaves those waiting that wait already.
    ("0", [6, 5]),
];

/// Clients that come one after the other, and stay when they are served. Their threads end with the test.
struct Clients(#[expect(dead_code, reason = "they are held")] Receiver<Held>);

impl Clients {
    fn come(lab: &Lab, to: SocketAddr) -> Self {
        let (tell, served) = channel();
        for _ in 0..CLIENTS {
            let (client, tell) = (lab.client().clone(), tell.clone());
            thread::spawn(move || {
                // The test may have ended.
                let _ = tell.send(Held::open(&client, to, 1, LONG));
            });
        }
        Self(served)
    }
}

#[test]
fn haproxy_and_tandem_serve_as_many_as_their_operators_say() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let host = &lab.backends()[0];
    let servers = PORTS.map(|port| IdentServer::start(host, port));
    let [ours, theirs] = servers;
    let (ours, theirs) = (ours?, theirs?);
    let service = Service::new("web", (lab.vip4(), PORTS[0]))
        .set("timeout = { queue = \"10m\" }")
        .backend_with(host, Family::V4, PORTS[0], "maxconn = 2");
    let section = format!(
        "listen web\n  bind {}:{port}\n  timeout queue 10m\n  server b1 {} maxconn 2\n",
        lab.vip4(),
        host.at(Family::V4, PORTS[1]),
        port = PORTS[1],
    );
    let haproxy = Oracle::start(&lab, &section)?;
    let tandem = Tandem::start(&lab, &service.to_string())?;
    tandem.wait_until_all_serve()?;
    let served = |what: &str, expected: [usize; 2]| {
        until(what, PATIENCE, || {
            let served = [ours.open(), theirs.open()];
            ensure!(served == expected, "{served:?} are served by Tandem and by HAProxy");
            Ok(())
        })
    };
    let order = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        tandem.verb(&words).arg("--socket").arg(tandem.socket()).run()
    };

    let _clients = PORTS.map(|port| Clients::come(&lab, (lab.vip4(), port).into()));
    served("the configured limit", [2, 2])?;
    for (maxconn, expected) in WORDS {
        order(&format!("set maxconn server web/b1 {maxconn}"))?;
        haproxy.order(&format!("set maxconn server web/b1 {maxconn}"))?;
        served(&format!("maxconn {maxconn}"), expected)?;
    }

    // What is said is shown, and undone as other things are.
    let text = order("status")?;
    ensure!(text.contains("└ maxconn 0 by operator for "), "{text}");
    ensure!(tandem.status()?.services[0].backends[0].limit.is_none(), "0 is no limit");
    ensure!(order("set server web/b1 maxconn 7")? == "backend web/b1: maxconn 7\n");
    order("backend web/b1 maxconn configured")?;
    let status = tandem.status()?;
    let backend = &status.services[0].backends[0];
    ensure!((backend.limit, backend.overrides.len()) == (Some(2), 0), "{backend:?}");
    Ok(())
}
