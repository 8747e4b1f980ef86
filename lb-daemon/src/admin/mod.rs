//! Where operators and their tools look in: the control socket, its client, the table of
//! `tandem status`, the lists of `tandem flows`, the Prometheus endpoint.
//!
//! ```text
//! tandem status ─► client ─► socket ──┐
//! tandem flows ──► client ─► socket ──┤
//! tandem reload ─► client ─► socket ──┼─► Handle ─► the one loop ─► Response
//! Prometheus ─────► /metrics ─────────┘
//! ```
//!
//! Nothing here knows a figure by itself: all that is shown comes out of one
//! [`Status`](crate::core::Status), asked for at the moment it is wanted, or, connection by connection,
//! out of the flow tables.

pub mod client;
pub mod metrics;
mod protocol;
mod rates;
#[cfg(test)]
mod sample;
mod socket;
pub mod systemd;
pub mod table;

pub use protocol::{Handle, Reloaded, Request, Response};
pub use rates::{Rate, Rates};
pub use socket::{BindError, Socket};
