//! What services have in common: names, addresses and room. Conflicts are between services, so
//! each is entered here as it is read.

use std::{collections::HashMap, net::SocketAddr};

use lb_common::maps::{MAX_BACKENDS, MAX_BINDS, MAX_SERVICES};
use toml::Spanned;

use super::{
    backend::PlacedBackend,
    endpoint::Endpoint,
    names::Names,
    report::{Read, Report, Span},
};

/// Everything services could conflict about.
pub(super) struct Ledger<'a> {
    report: &'a Report<'a>,
    names: Names,
    binds: HashMap<SocketAddr, Span>,
    backends: Vec<Spanned<Endpoint>>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(report: &'a Report<'a>) -> Self {
        Self {
            report,
            names: Names::new("service", "services"),
            binds: HashMap::new(),
            backends: Vec::new(),
        }
    }

    /// Enters what could be read as a service's name.
    pub(super) fn service(&mut self, name: &Read<Spanned<String>>) {
        if !self.names.enter(name, self.report) {
            return;
        }
        if let (Ok(name), true) = (name, self.names.len() == MAX_SERVICES as usize + 1) {
            let message = format!("there are more than {MAX_SERVICES} services");
            let hint = "a service can have several binds; merge those that have the same backends";
            self.report.error(name.span(), message, hint);
        }
    }

    /// Enters the addresses a service is bound to.
    pub(super) fn binds(&mut self, binds: &[Spanned<SocketAddr>]) {
        for bind in binds {
            if let Some(first) = self.binds.get(bind.get_ref()) {
                let message = format!("{} is bound twice", bind.get_ref());
                let hint = format!(
                    "a client's connection can go to one service only; the other bind is in line {}",
                    self.report.line(first)
                );
                self.report.error(bind.span(), message, hint);
                continue;
            }
            if self.binds.len() == MAX_BINDS as usize {
                let message = format!("the services have more than {MAX_BINDS} binds together");
                let hint = "spread the services over more pairs of hosts";
                self.report.error(bind.span(), message, hint);
            }
            self.binds.insert(*bind.get_ref(), bind.span());
        }
    }

    /// Enters the backends of a service.
    pub(super) fn backends(&mut self, backends: &[PlacedBackend]) {
        for backend in backends {
            if self.backends.len() == MAX_BACKENDS as usize {
                let message =
                    format!("the services have more than {MAX_BACKENDS} backends together");
                let hint = "spread the services over more pairs of hosts";
                self.report.error(backend.address.span(), message, hint);
            }
            self.backends.push(backend.address.clone());
        }
    }

    /// Compares what can only be compared when all is entered, with what the daemon itself listens
    /// at, by its keys; gives the names of the services.
    pub(super) fn close(self, own: [(&str, Option<&Spanned<SocketAddr>>); 2]) -> Names {
        for backend in &self.backends {
            let known = backend.get_ref().known();
            if let Some(bind) = known.and_then(|address| self.binds.get(&address)) {
                let message =
                    format!("the backend {} is a service of this node", backend.get_ref());
                let hint = format!(
                    "connections would go in circles: it is bound in line {}; write the server's \
                     own address",
                    self.report.line(bind)
                );
                self.report.error(backend.span(), message, hint);
            }
        }
        for (key, own) in own {
            let Some((own, bind)) = own.and_then(|own| Some((own, self.binds.get(own.get_ref())?)))
            else {
                continue;
            };
            let message = format!("`{key}` is the address of a service: {}", own.get_ref());
            let hint = format!(
                "use another port; the service is bound in line {}",
                self.report.line(bind)
            );
            self.report.error(own.span(), message, hint);
        }
        self.names
    }
}
