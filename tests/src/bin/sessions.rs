//! The server of the lab's sessions as a process of its own: `sessions PORT`.

use anyhow::{Context as _, Result};
use tests::lab::SessionServer;

fn main() -> Result<()> {
    let port = std::env::args().nth(1).context("usage: sessions PORT")?;
    SessionServer::serve_here(port.parse().context("it is no port")?)
}
