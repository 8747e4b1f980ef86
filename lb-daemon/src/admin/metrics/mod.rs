//! The Prometheus endpoint.
//!
//! A scrape asks the daemon's loop for a status and encodes it; nothing is kept between scrapes.

mod encoder;
mod families;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::protocol::{self, Handle, Request, ask};

pub use families::encode;

/// Scrapes that are served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may take from first to last byte. It outlasts a daemon's loop that hangs,
/// so that the scraper is told.
const PATIENCE: Duration = Duration::from_secs(15);
/// The format that prometheus-client writes, and that Prometheus and its kin read.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The page for people who open the address in a browser.
const INDEX: &str = "<!doctype html><title>Tandem</title><h1>Tandem</h1>\
                     <p><a href=\"/metrics\">Metrics</a> for Prometheus</p>\n";

/// Why the endpoint can't be had.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The port is in use.
    #[error(
        "cannot serve metrics on {0}: the port is already taken by another program: set [admin] \
         metrics to a free one"
    )]
    Taken(SocketAddr),
    /// The address is not this host's.
    #[error(
        "cannot serve metrics on {0}: no interface of this host has the address: set [admin] metrics \
         to one that it has, or to 0.0.0.0 or [::] for all"
    )]
    NotOurs(SocketAddr),
    /// Something else.
    #[error("cannot serve metrics on {address} ([admin] metrics): {error}")]
    Io {
        /// The configured address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The bound endpoint.
#[derive(Debug)]
pub struct Metrics {
    listener: TcpListener,
    address: SocketAddr,
}

impl Metrics {
    /// Binds the endpoint. To be called within a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        let listen = || {
            // The standard library sets SO_REUSEADDR, so a restart need not wait for TIME_WAIT.
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let listener = TcpListener::from_std(listener)?;
            Ok(Self { listener, address })
        };
        listen().map_err(|error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => MetricsError::Taken(address),
            ErrorKind::AddrNotAvailable => MetricsError::NotOurs(address),
            _ => MetricsError::Io { address, error },
        })
    }

    /// Where it listens: the port that the kernel chose, if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers scrapes for ever, asking the daemon's loop each time.
    pub async fn serve(self, requests: mpsc::Sender<Handle>) -> Infallible {
        let router = Router::new()
            .route("/", get(|| async { Html(INDEX) }))
            .route("/metrics", get(scrape))
            .with_state(requests);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place =
                Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let answering = answer(stream, router.clone());
                    tokio::spawn(async move {
                        if timeout(PATIENCE, answering).await.is_err() {
                            debug!(%peer, "a scrape took too long");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, address = %self.address, "cannot accept a scrape");
                    // Out of file descriptors, most likely: don't make it worse by spinning.
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

/// Serves one request. A scraper that keeps connections open would take places, and file
/// descriptors that health checks need.
async fn answer(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        debug!(%error, "a scrape broke off");
    }
}

async fn scrape(State(requests): State<mpsc::Sender<Handle>>) -> Response {
    let failure = match ask(&requests, Request::Status).await {
        protocol::Response::Status(status) => {
            return ([(header::CONTENT_TYPE, CONTENT_TYPE)], encode(*status)).into_response();
        }
        protocol::Response::Failed(text) => text,
        _ => "the daemon answered another question".into(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, failure + "\n").into_response()
}
