//! A small HTTP client.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Namespace, socket::dial};

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Gets a path from a server, over a connection of its own, within 5 seconds a step.
pub fn http_get(client: &Namespace, server: SocketAddr, path: &str) -> Result<HttpAnswer> {
    let exchange = || -> Result<HttpAnswer> {
        let mut stream = dial(server, None, Duration::from_secs(5))?;
        // HTTP/1.0: the body ends with the connection, and is never chunked.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) =
            answer.split_once("\r\n\r\n").context("the answer has no end of head")?;
        let status = head.split(' ').nth(1).context("the answer has no status")?.parse()?;
        Ok(HttpAnswer { status, body: body.to_owned() })
    };
    client
        .enter(exchange)
        .with_context(|| format!("GET http://{server}{path} from {}", client.name()))
}
