//! Answers to `tandem flows`. The tables are walked on a thread of its own, and only as fast as the
//! command reads: neither the loop nor the memory notices how many connections there are.

use std::ops::ControlFlow;

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

use crate::{
    admin::Response,
    core::{ConnectionCounts, ConnectionFilter, ConnectionNames, UnknownName},
    dataplane::Flows,
};

/// Connections in one part of the answer.
const PART: usize = 256;

/// Lists the connections of the filter, at most `limit`: in `parts`, and then an answer.
pub(super) fn list(
    flows: Flows,
    names: ConnectionNames,
    filter: ConnectionFilter,
    limit: Option<u64>,
    parts: mpsc::Sender<Response>,
    reply: oneshot::Sender<Response>,
) {
    let selection = match names.select(filter) {
        Ok(selection) => selection,
        Err(error) => return refuse(reply, &error),
    };
    spawn_blocking(move || {
        let mut left = limit.unwrap_or(u64::MAX);
        let mut more = false;
        let mut part = Vec::new();
        let walked = flows.walk(&mut |flow| {
            if !selection.has(&flow) {
                // Looking for few takes a while in a large table, too.
                return go_on(!parts.is_closed());
            }
            if left == 0 {
                more = true;
                return ControlFlow::Break(());
            }
            left -= 1;
            part.push(names.name(&flow));
            if part.len() < PART {
                return ControlFlow::Continue(());
            }
            go_on(parts.blocking_send(Response::Flows(std::mem::take(&mut part))).is_ok())
        });
        if !part.is_empty() {
            // Whoever asked may be gone, here and below.
            let _ = parts.blocking_send(Response::Flows(part));
        }
        drop(parts);
        let _ = reply.send(match walked {
            Ok(()) => Response::AllFlows { more },
            Err(error) => Response::Failed(format!("{error:#}")),
        });
    });
}

/// Counts the connections of the filter.
pub(super) fn count(
    flows: Flows,
    names: ConnectionNames,
    filter: ConnectionFilter,
    reply: oneshot::Sender<Response>,
) {
    let selection = match names.select(filter) {
        Ok(selection) => selection,
        Err(error) => return refuse(reply, &error),
    };
    spawn_blocking(move || {
        let mut counts = ConnectionCounts::default();
        let walked = flows.walk(&mut |flow| {
            if selection.has(&flow) {
                counts.add(&flow);
            }
            go_on(!reply.is_closed())
        });
        let _ = reply.send(match walked {
            Ok(()) => Response::FlowCounts(counts.finish(&names)),
            Err(error) => Response::Failed(format!("{error:#}")),
        });
    });
}

fn go_on(is_wanted: bool) -> ControlFlow<()> {
    if is_wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn refuse(reply: oneshot::Sender<Response>, error: &UnknownName) {
    let _ = reply.send(Response::Failed(error.to_string()));
}
