//! What two hosts call services, backends and groups, and what their numbers are here.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::core::Desired;

/// The numbers in the maps, by what both hosts call their owners.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct Names {
    /// Numbers of services, by an address and port they are bound to.
    services: HashMap<SocketAddr, u16>,
    /// Number of each service's group; zero for none.
    groups_of: BTreeMap<u16, u16>,
    /// Numbers of backends, by their service's number and their address and port.
    backends: HashMap<(u16, SocketAddr), u16>,
    /// Numbers of groups.
    groups: BTreeMap<String, u16>,
    /// Whether clients of any service wait for the peer.
    is_synchronous: bool,
}

/// The names in force, shared by who writes the maps and who reads them.
#[derive(Clone, Debug, Default)]
pub(in crate::dataplane) struct SharedNames(Arc<Mutex<Arc<Names>>>);

impl SharedNames {
    /// These are in force from now on. To be called when the maps say so.
    pub(in crate::dataplane) fn publish(&self, names: Names) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    pub(super) fn get(&self) -> Arc<Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<&Desired> for Names {
    fn from(desired: &Desired) -> Self {
        let services = desired.services.iter();
        let backends = desired.backends.iter();
        Self {
            services: services
                .clone()
                .flat_map(|(number, service)| service.bind.iter().map(|bind| (*bind, *number)))
                .collect(),
            groups_of: services.map(|(number, service)| (*number, service.group)).collect(),
            backends: backends
                .map(|(number, backend)| ((backend.service, backend.address), *number))
                .collect(),
            groups: desired.groups.clone(),
            is_synchronous: desired.services.values().any(|service| service.synchronous),
        }
    }
}

impl Names {
    pub(super) const fn is_synchronous(&self) -> bool {
        self.is_synchronous
    }

    pub(super) fn service(&self, bind: SocketAddr) -> Option<u16> {
        self.services.get(&bind).copied()
    }

    pub(super) fn backend(&self, service: u16, address: SocketAddr) -> Option<u16> {
        self.backends.get(&(service, address)).copied()
    }

    /// The number of the group that has a service's addresses; nothing if this host has them for
    /// itself, or has no service of this number any more.
    pub(super) fn group_of(&self, service: u16) -> Option<u16> {
        self.groups_of.get(&service).copied().filter(|group| *group != 0)
    }

    pub(super) fn group(&self, name: &str) -> Option<u16> {
        self.groups.get(name).copied()
    }

    /// Every group's name and number.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&String, u16)> {
        self.groups.iter().map(|(name, number)| (name, *number))
    }
}
