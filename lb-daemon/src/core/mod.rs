//! Every decision of the daemon, and nothing else: no sockets, no maps, no clock.
//!
//! [`Event`]s go in, [`Effect`]s come out, `now` is always a parameter.

mod effect;
mod event;
mod health;
mod view;

pub use effect::{Desired, DesiredBackend, DesiredService, Effect, ProbeRequest, Slots};
pub use event::{Event, Outcome, ProbeId, Reason, Route};
pub use health::{Health, Transition};
pub use view::{
    BackendStatus, CheckStatus, ConfigStatus, Counters, InterfaceStatus, ServiceStatus, State,
    Status, TableStatus, Traffic,
};
