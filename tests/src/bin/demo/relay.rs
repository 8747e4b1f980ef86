//! Lets programs outside the lab reach a virtual address, by way of the client.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tests::lab::Namespace;

/// Listens on a port of the loopback, or on any if that one is taken, and opens a connection from
/// the client for each that comes. It lasts as long as the process.
pub(crate) fn open(client: &Namespace, to: SocketAddr, port: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("cannot listen on the loopback")?;
    let address = listener.local_addr()?;
    let client = client.clone();
    thread::spawn(move || {
        for guest in listener.incoming().flatten() {
            let client = client.clone();
            thread::spawn(move || {
                // Whoever came sees that the connection ends, and that is all there is to say.
                if let Ok(server) = client.connect(to, Duration::from_secs(5)) {
                    let _ = both_ways(&guest, &server);
                }
            });
        }
    });
    Ok(address)
}

fn both_ways(guest: &TcpStream, server: &TcpStream) -> io::Result<()> {
    thread::scope(|scope| {
        let back = scope.spawn(|| pump(server, guest));
        let there = pump(guest, server);
        back.join().expect("pumping does not panic").and(there)
    })
}

/// Copies until the end of `from`, and passes that on.
fn pump(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to).and_then(|_| to.flush());
    // A side that failed must not leave the other one waiting.
    let how = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _ = to.shutdown(how);
    copied
}
