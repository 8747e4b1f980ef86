//! `tandem probe mysql`: runs on a database's host, and tells by HTTP whether its MySQL can serve.
//!
//! ```text
//! client ──┐
//! client ──┼─► Source ─► fail file, last answer ─► Database ─► MySQL
//! client ──┘                                       one question at a time
//! ```
//!
//! It has nothing to do with the daemon, needs neither root nor a configuration file, and forgets
//! everything when it ends.

mod answer;
mod arguments;
mod client;
mod database;
mod source;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
pub use arguments::Arguments;
use arguments::Listen;
pub use client::request as read_request;
use database::Database;
use source::Source;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::sleep,
};
use tracing::{info, warn};

use crate::config::{MysqlLogin, MysqlQuestion};

/// Connections that wait in the kernel's queue.
const BACKLOG: u32 = 1024;
/// Pause when the kernel has no connection to give, for want of files, say.
const PAUSE: Duration = Duration::from_millis(100);

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// MySQL can serve; and what it said.
    Fit(String),
    /// It cannot; and why.
    Unfit(String),
}

/// Answers until `SIGTERM` or `SIGINT` comes.
///
/// # Errors
///
/// The address is not to be had, or there is no password where it should be.
pub async fn run(arguments: Arguments) -> Result<()> {
    let login = MysqlLogin {
        user: arguments.user.clone(),
        password: arguments.password()?,
        password_file: None,
    };
    let question = MysqlQuestion::Galera {
        available_when_donor: arguments.available_when_donor,
        not_when_read_only: arguments.not_when_read_only,
    };
    let Arguments { listen, server, fail_file, timeout, cache, clients, .. } = arguments;
    let listener = bind(listen)?;
    info!("listening on {}, asking MySQL at {server}", listener.local_addr()?);
    let database = Database { server, login, question, timeout };
    let source = Arc::new(Source::new(fail_file, database, cache));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = answer_all(&listener, &source, clients.into()) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Answers everyone, so many at once.
async fn answer_all(listener: &TcpListener, source: &Arc<Source>, clients: usize) {
    // Tells in the log how things are, before somebody asks.
    source.verdict().await;
    let places = Arc::new(Semaphore::new(clients));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = source.clone();
                tokio::spawn(async move {
                    client::serve(stream, &source).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!("cannot accept connections: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

fn bind(listen: Listen) -> Result<TcpListener> {
    let at = match listen {
        Listen::At(address) => address,
        Listen::Everywhere(port) => {
            let both: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
            match bind_to(both) {
                // A host without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    (Ipv4Addr::UNSPECIFIED, port).into()
                }
                result => return result.with_context(|| format!("cannot listen on port {port}")),
            }
        }
    };
    bind_to(at).with_context(|| format!("cannot listen on {at}"))
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // Whatever the host's bindv6only says.
        nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::Ipv6V6Only,
            &!address.ip().is_unspecified(),
        )?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
