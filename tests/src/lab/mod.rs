//! The lab: hosts in network namespaces, the links between them, what runs on them.

mod ask;
mod bulk;
mod command;
mod daemon;
mod dir;
mod half_open;
mod held;
mod http;
mod ident;
mod link;
mod mariadb;
mod namespace;
mod nginx;
mod pattern;
mod process;
mod socket;
mod topology;
pub mod wait;

pub use ask::{Ask, Close, Tally};
pub use bulk::{Bulk, BulkServer};
pub use command::{Command, Output};
pub use daemon::{Settings, Tandem};
pub use dir::Dir;
pub use half_open::HalfOpen;
pub use held::Held;
pub use http::{HttpAnswer, http_get};
pub use ident::IdentServer;
pub use link::{Interface, bridge, veth};
pub use mariadb::MariaDb;
pub use namespace::Namespace;
pub use nginx::Nginx;
pub use process::Process;
pub use topology::{Family, Host, Lab, Shape};
