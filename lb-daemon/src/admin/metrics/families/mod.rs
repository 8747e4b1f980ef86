//! Every metric: its name and what it means.
//!
//! `tandem_` goes before each name; its unit and then `_total` (counters) or `_info` after it.
//! Counters start at zero with the data plane's maps. A service's are the sums of its backends', so
//! they fall when a reload removes a backend; Prometheus takes that for a reset.

mod backends;
mod groups;
mod host;
mod services;
mod sync;

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};

use super::encoder::Encoder;
use crate::core::Status;

/// The whole exposition of a status, in the `OpenMetrics` text format.
pub fn encode(status: Status) -> String {
    let mut registry = Registry::with_prefix("tandem");
    registry.register_collector(Box::new(Snapshot(status)));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes everything");
    out
}

#[derive(Debug)]
struct Snapshot(Status);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Encoder(encoder);
        host::node(out, &self.0)?;
        host::packets(out, &self.0)?;
        host::tables(out, &self.0.tables)?;
        groups::roles(out, &self.0.groups)?;
        groups::adverts(out, &self.0.groups)?;
        if let Some(status) = &self.0.sync {
            sync::conversation(out, status)?;
            sync::held(out, &status.conversation, self.0.unheld)?;
        }
        services::all(out, &self.0.services)?;
        backends::states(out, &self.0.services)?;
        backends::connections(out, &self.0.services)?;
        backends::checks(out, &self.0.services)
    }
}

/// What came from clients and what went to them, each with its label.
fn by_direction<'a>([inwards, outwards]: [u64; 2]) -> [((&'static str, &'a str), u64); 2] {
    [(("direction", "in"), inwards), (("direction", "out"), outwards)]
}
