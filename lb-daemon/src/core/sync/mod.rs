//! Keeping two hosts' flow tables equal: what they tell each other, and what each does about it.
//! Pure, as all of the core.
//!
//! The host that serves a group tells the other one of every connection that is established or
//! closed there ([`Message::Changes`]). Who has just joined is told all there is (a *transfer*). From
//! time to time they compare digests, and transfer again what differs: a session that is idle says
//! nothing by which a loss could be noticed otherwise.
//!
//! Nothing here is numbered as in one host's data plane: services are known by their virtual address
//! and port, backends by their address and port, groups by their name. Next hops are not told at all;
//! each host finds its own.

mod message;
mod session;
mod tables;

use std::{net::SocketAddr, time::Duration};

use lb_common::flow::{ESTABLISHED, is_closed};

pub use self::{
    message::{Ends, Hello, Message, Scope},
    session::{
        LagView, NotReady, PEER_GONE, PeerView, Refusal, Session, Settings, Stage, Totals,
        VERSIONS, View, Waiting,
    },
    tables::{Adopted, Conflict, Cursor, Digest, Tables},
};

/// A connection, as both hosts know it. All four addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The client.
    pub client: SocketAddr,
    /// The virtual address and port that it connected to.
    pub bind: SocketAddr,
    /// What the client was translated to: an address towards the backends, and a port.
    pub source: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
}

/// A connection that both hosts are to have: it is established, or the backend's answer to its SYN was held
/// back for the peer, see [`Change::Answered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// Its addresses.
    pub tuple: Tuple,
    /// State bits, as [`lb_common::flow`] has them.
    pub state: u8,
    /// What is added to the client's TCP timestamps.
    pub timestamp: u32,
}

/// What happened to a connection on the host that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It is established, or its state is another.
    Is(Connection),
    /// The backend has answered its SYN. The client is not told before the peer knows, if that takes no
    /// longer than it may; so the peer goes on with it, if need be, although it is not established yet.
    Answered(Connection),
    /// It was ended without having been closed.
    Gone(Tuple),
}

impl Connection {
    /// What it means that the peer has a connection in this state. A client may have sent a FIN without ever
    /// having acknowledged the SYN-ACK.
    pub const fn as_change(self) -> Change {
        if self.state & ESTABLISHED == 0 && !is_closed(self.state) {
            Change::Answered(self)
        } else {
            Change::Is(self)
        }
    }
}

/// A change that this host's program has reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// What happened.
    pub change: Change,
    /// How long ago.
    pub age: Duration,
    /// Whether it is the end of a connection that was silent here for too long, which nobody has closed.
    /// While both hosts serve its group, what is silent here may go on by the other one.
    pub is_silence: bool,
    /// Whether the backend's answer to the SYN was held back, here or at the peer: the peer has been told of
    /// the connection before.
    pub was_answered: bool,
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use lb_common::flow::{CLIENT_FIN, SERVER_FIN, SYN_ACK};

    use super::*;

    fn is_answered(state: u8) -> bool {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let tuple = Tuple { client: any, bind: any, source: any, backend: any };
        let connection = Connection { tuple, state, timestamp: 0 };
        matches!(connection.as_change(), Change::Answered(_))
    }

    #[test]
    fn a_connection_is_not_established_because_its_client_has_sent_a_fin() {
        assert!(is_answered(SYN_ACK));
        assert!(is_answered(SYN_ACK | CLIENT_FIN));
        assert!(!is_answered(SYN_ACK | ESTABLISHED | CLIENT_FIN));
        assert!(!is_answered(SYN_ACK | CLIENT_FIN | SERVER_FIN), "it is over");
    }
}
