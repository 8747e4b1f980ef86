//! What the daemon's loop is told, each thing once.

use std::net::SocketAddr;

use tokio::sync::mpsc::UnboundedSender;

use crate::core::{Event, PeerNews};

/// The way to the daemon's loop, and what it knows.
#[derive(Debug)]
pub(super) struct News {
    events: UnboundedSender<Event>,
    ready: bool,
    /// Whether it was told that there is a conversation.
    connected: bool,
    /// Why there is none, as it was told last.
    failure: Option<String>,
}

impl News {
    pub(super) fn new(events: UnboundedSender<Event>) -> Self {
        Self { events, ready: false, connected: false, failure: None }
    }

    /// Whether this host may take over from its peer.
    pub(super) fn ready(&mut self, ready: bool) {
        if self.ready != ready {
            self.ready = ready;
            self.send(Event::Sync { ready });
        }
    }

    /// Both have said hello.
    pub(super) fn connected(&mut self, address: SocketAddr, node: String, program: String) {
        self.connected = true;
        self.failure = None;
        self.send(Event::Peer(PeerNews::Connected { address, node, program }));
    }

    /// The conversation has ended, or could not begin although both had met.
    pub(super) fn lost(&mut self, why: String) {
        if std::mem::take(&mut self.connected) {
            self.failure = Some(why.clone());
            self.send(Event::Peer(PeerNews::Lost { why }));
        } else {
            self.failed(why);
        }
    }

    /// There is none.
    pub(super) fn failed(&mut self, why: String) {
        if self.failure.as_ref() != Some(&why) {
            self.failure = Some(why.clone());
            self.send(Event::Peer(PeerNews::Failed { why }));
        }
    }

    fn send(&self, event: Event) {
        // The daemon's loop may end before.
        let _ = self.events.send(event);
    }
}
