//! Answers to what operators ask of the daemon.

use std::{ops::ControlFlow, time::Instant};

use anyhow::Result;

use super::{Runtime, flows};
use crate::{
    admin::{Handle, Request, Response},
    core::{InterfaceStatus, Status},
    sync::Sync,
};

impl Runtime {
    /// Breaks if the daemon is to stop.
    pub(super) fn answer(&mut self, Handle { request, parts, reply }: Handle) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let response = match request {
            Request::Status => match self.status() {
                Ok(status) => Response::Status(Box::new(status)),
                Err(error) => Response::Failed(format!("{error:#}")),
            },
            Request::Failover { group } => match self.core.failover(&group) {
                Ok(effect) => {
                    self.run(effect);
                    Response::FailingOver
                }
                Err(error) => Response::Failed(error.to_string()),
            },
            Request::Backend { backend, order } => {
                match self.core.administer(&backend, order, Instant::now()) {
                    Ok(effects) => {
                        for effect in effects {
                            self.run(effect);
                        }
                        // What survives this daemon is what is said to be done.
                        self.overrides.confirm(move |kept| {
                            let _ = reply.send(Response::Administered { not_kept: kept.err() });
                        });
                        return flow;
                    }
                    Err(error) => Response::Failed(error.to_string()),
                }
            }
            Request::Reload => match self.reload() {
                Ok(reloaded) => Response::Reloaded(reloaded),
                Err(error) => Response::Failed(format!("{error:#}")),
            },
            Request::Flows { filter, limit } => {
                let names = self.core.connection_names();
                flows::list(self.dataplane.flows(), names, filter, limit, parts, reply);
                return flow;
            }
            Request::FlowCounts { filter } => {
                drop(parts);
                let names = self.core.connection_names();
                flows::count(self.dataplane.flows(), names, filter, reply);
                return flow;
            }
            Request::Stop => {
                flow = ControlFlow::Break(());
                Response::Stopping
            }
        };
        drop(parts);
        // Whoever asked may be gone.
        let _ = reply.send(response);
        flow
    }

    fn status(&self) -> Result<Status> {
        let mut counters = self.counters.read(self.core.backends())?;
        counters.active = self.counters.active(self.core.services())?;
        counters.queues = self.admission.view();
        let elections = self.election.view()?;
        let mut status = self.core.status(&counters, &elections, Instant::now());
        env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
        status.uptime_seconds = self.started.elapsed().as_secs();
        status.config.path = self.path.display().to_string();
        status.config.last_error.clone_from(&self.last_error);
        status.sync = self.sync.as_ref().map(Sync::view);
        status.not_kept = self.overrides.not_kept();
        status.interfaces = self
            .dataplane
            .attached()
            .iter()
            .map(|(name, attached)| InterfaceStatus {
                name: name.clone(),
                mode: attached.mode.to_string(),
            })
            .collect();
        Ok(status)
    }
}
