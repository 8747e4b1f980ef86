//! The library behind `tandem`: see ARCHITECTURE.md for the map of its rooms.

pub mod admin;
pub mod admission;
pub mod config;
pub mod core;
pub mod dataplane;
pub mod election;
pub mod hooks;
pub mod mysql;
pub mod netlink;
#[cfg(test)]
mod noise;
pub mod overrides;
pub mod probe;
mod resolver;
pub mod responder;
pub mod runtime;
mod spawn;
pub mod stand_in;
pub mod sync;
pub mod tracking;
pub mod vrrp_io;
mod wake;
