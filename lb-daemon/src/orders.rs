//! What `tandem backend` and `tandem set` understand.

use std::path::PathBuf;

use clap::Subcommand;
use lb_daemon::core::{AdminState, BackendName, Order, RuntimeMaxconn, RuntimeWeight};

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum BackendOrder {
    /// As its checks say: ends drain and maint.
    Ready,
    /// Give it no new connections. It is checked, and keeps those it has.
    Drain,
    /// Give it no new connections, and do not check it.
    ///
    /// Its connections go on, unless its `on_marked_down` is "shutdown-sessions".
    Maint,
    /// Give it another share of new connections; 0 drains it.
    Weight {
        /// 0 to 256, a percentage of the configured weight (50%), or `configured`.
        weight: RuntimeWeight,
    },
    /// Let it have another number of connections at most. Those it has stay.
    Maxconn {
        /// A number of connections, 0 for any number, or `configured`.
        maxconn: RuntimeMaxconn,
    },
}

impl From<BackendOrder> for Order {
    fn from(order: BackendOrder) -> Self {
        match order {
            BackendOrder::Ready => Self::State(AdminState::Ready),
            BackendOrder::Drain => Self::State(AdminState::Drain),
            BackendOrder::Maint => Self::State(AdminState::Maint),
            BackendOrder::Weight { weight } => Self::Weight(weight),
            BackendOrder::Maxconn { maxconn } => Self::Maxconn(maxconn),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum SetOrder {
    /// Change the state, the weight or the limit of connections of a backend.
    Server {
        /// Name of the service and of the backend.
        #[arg(value_name = "SERVICE/BACKEND")]
        backend: BackendName,
        #[command(subcommand)]
        order: ServerOrder,
        /// Control socket of the daemon.
        #[arg(long, default_value = super::SOCKET, global = true)]
        socket: PathBuf,
    },
    /// Change how many connections a backend may have.
    #[command(subcommand)]
    Maxconn(MaxconnOrder),
}

impl SetOrder {
    /// What is to be changed of which backend, and whom to tell: the socket of a daemon.
    pub(crate) fn into_parts(self) -> (BackendName, Order, PathBuf) {
        match self {
            Self::Server { backend, order, socket } => (backend, order.into(), socket),
            Self::Maxconn(MaxconnOrder::Server { backend, maxconn, socket }) => {
                (backend, Order::Maxconn(maxconn), socket)
            }
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaxconnOrder {
    /// How many connections a backend may have at most.
    Server {
        /// Name of the service and of the backend.
        #[arg(value_name = "SERVICE/BACKEND")]
        backend: BackendName,
        /// A number of connections, 0 for any number, or `configured`.
        maxconn: RuntimeMaxconn,
        /// Control socket of the daemon.
        #[arg(long, default_value = super::SOCKET)]
        socket: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ServerOrder {
    /// Its administrative state.
    State {
        /// The state.
        state: AdminState,
    },
    /// Its weight.
    Weight {
        /// 0 to 256, or a percentage of the configured weight (50%).
        weight: RuntimeWeight,
    },
    /// Its limit of connections.
    Maxconn {
        /// A number of connections, or 0 for any number.
        maxconn: RuntimeMaxconn,
    },
}

impl From<ServerOrder> for Order {
    fn from(order: ServerOrder) -> Self {
        match order {
            ServerOrder::State { state } => Self::State(state),
            ServerOrder::Weight { weight } => Self::Weight(weight),
            ServerOrder::Maxconn { maxconn } => Self::Maxconn(maxconn),
        }
    }
}
