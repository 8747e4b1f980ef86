//! What `tandem backend` and `tandem set server` understand.

use std::path::PathBuf;

use clap::Subcommand;
use lb_daemon::core::{AdminState, BackendName, Order, RuntimeWeight};

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
}

impl From<BackendOrder> for Order {
    fn from(order: BackendOrder) -> Self {
        match order {
            BackendOrder::Ready => Self::State(AdminState::Ready),
            BackendOrder::Drain => Self::State(AdminState::Drain),
            BackendOrder::Maint => Self::State(AdminState::Maint),
            BackendOrder::Weight { weight } => Self::Weight(weight),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum SetOrder {
    /// Change the state or the weight of a backend.
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
}

impl From<ServerOrder> for Order {
    fn from(order: ServerOrder) -> Self {
        match order {
            ServerOrder::State { state } => Self::State(state),
            ServerOrder::Weight { weight } => Self::Weight(weight),
        }
    }
}
