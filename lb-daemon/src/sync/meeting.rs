//! How the two hosts meet: the one with the lower address calls, the other is called. Whoever is
//! met has proved that it has the key.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{
    secure::{self, Channel, Failure, Key},
    socket,
};
use crate::core::sync::Ends;

/// How long to wait before the peer is called again, at first, ...
const SHORTEST: Duration = Duration::from_millis(200);
/// ... and at last.
const LONGEST: Duration = Duration::from_secs(2);
/// Callers whose handshakes may be under way; others are hung up on.
const CALLERS: usize = 4;

/// What a meeting comes to.
#[derive(Debug)]
pub(super) enum Met {
    /// The peer, and the way to talk to it.
    Peer(TcpStream, Box<Channel>),
    /// Nobody, and why, for people: a whole sentence.
    Nobody(String),
}

/// Goes on meeting the peer until it is dropped.
#[derive(Debug)]
pub(super) struct Meeting {
    task: AbortHandle,
    met: mpsc::Receiver<Met>,
    /// How often a connection that came of it was lost.
    lost: watch::Sender<u64>,
}

impl Meeting {
    /// Begins, on the runtime that this is called in. Callers that are hung up on are counted in
    /// `refused`.
    pub(super) fn begin(
        ends: Ends,
        key: Key,
        versions: RangeInclusive<u16>,
        refused: Arc<AtomicU64>,
    ) -> Self {
        let (lost, losses) = watch::channel(0);
        let (results, met) = mpsc::channel(CALLERS);
        let task = if calls(&ends) {
            tokio::spawn(call(ends, key, versions, results, losses))
        } else {
            tokio::spawn(be_called(ends, key, results, refused))
        };
        Self { task: task.abort_handle(), met, lost }
    }

    /// Waits for what comes of it next.
    pub(super) async fn next(&mut self) -> Met {
        match self.met.recv().await {
            Some(met) => met,
            // It goes on for as long as somebody listens.
            None => std::future::pending().await,
        }
    }

    /// The peer that was met last is gone.
    pub(super) fn lost(&self) {
        self.lost.send_modify(|times| *times += 1);
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether this host calls the other.
pub(super) fn calls(ends: &Ends) -> bool {
    ends.listen < ends.peer
}

async fn call(
    Ends { listen, peer }: Ends,
    key: Key,
    versions: RangeInclusive<u16>,
    met: mpsc::Sender<Met>,
    mut losses: watch::Receiver<u64>,
) {
    let mut pause = SHORTEST;
    loop {
        losses.mark_unchanged();
        let outcome = match socket::dial(listen.ip(), peer).await {
            Ok(stream) => shake(stream, peer, Some(&versions), &key).await,
            Err(error) => Err(format!("the peer at {peer} cannot be reached: {error}")),
        };
        let came = match outcome {
            Ok((stream, channel)) => Met::Peer(stream, channel),
            Err(why) => Met::Nobody(why),
        };
        let was_met = matches!(came, Met::Peer(..));
        let begun = Instant::now();
        // Nobody listens any more when the thread ends.
        if met.send(came).await.is_err() || was_met && losses.changed().await.is_err() {
            return;
        }
        if was_met && begun.elapsed() > LONGEST {
            pause = SHORTEST;
        }
        sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
}

async fn be_called(
    Ends { listen, peer }: Ends,
    key: Key,
    met: mpsc::Sender<Met>,
    refused: Arc<AtomicU64>,
) {
    let listener = loop {
        match socket::listen(listen) {
            Ok(listener) => break listener,
            Err(error) => {
                let why = format!("the peer cannot call at {listen} ([sync] listen): {error}");
                if met.send(Met::Nobody(why)).await.is_err() {
                    return;
                }
                sleep(LONGEST).await;
            }
        }
    };
    let places = Arc::new(Semaphore::new(CALLERS));
    loop {
        let (stream, caller) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: don't make it worse by spinning.
                let why = format!("no call can be accepted at {listen}: {error}");
                if met.send(Met::Nobody(why)).await.is_err() {
                    return;
                }
                sleep(SHORTEST).await;
                continue;
            }
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let (Ok(place), true) = (place, caller.ip() == peer.ip()) else {
            refused.fetch_add(1, Relaxed);
            continue;
        };
        let (key, met, refused) = (key.clone(), met.clone(), Arc::clone(&refused));
        // Ends by itself, after the handshake's patience at the latest.
        tokio::spawn(async move {
            let came = match shake(stream, peer, None, &key).await {
                Ok((stream, channel)) => Met::Peer(stream, channel),
                Err(why) => {
                    refused.fetch_add(1, Relaxed);
                    Met::Nobody(why)
                }
            };
            drop(place);
            let _ = met.send(came).await;
        });
    }
}

/// The handshake, of the one who calls if it says versions, else of the other.
async fn shake(
    mut stream: TcpStream,
    peer: SocketAddr,
    versions: Option<&RangeInclusive<u16>>,
    key: &Key,
) -> Result<(TcpStream, Box<Channel>), String> {
    let result = match (socket::tune(&stream), versions) {
        (Err(error), _) => Err(Failure::Io(error)),
        (Ok(()), Some(versions)) => secure::call(&mut stream, key, versions).await,
        (Ok(()), None) => secure::answer(&mut stream, key).await,
    };
    match result {
        Ok(channel) => Ok((stream, Box::new(channel))),
        Err(failure) => Err(format!("the peer at {peer} {failure}")),
    }
}
