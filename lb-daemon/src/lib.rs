//! The library behind `tandem`: see ARCHITECTURE.md for the map of its rooms.

pub mod config;
pub mod core;
pub mod netlink;
