//! Which of the addresses of its host name a backend has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::Hosts;
use crate::{
    config::{self, Backend, Config, Service},
    core::{
        notice::Notice,
        order::BackendName,
        service::{self, ServiceState},
    },
};

/// Names of service and host, and port.
type Key = (String, String, u16);
/// The addresses in use.
pub(super) type Chosen = BTreeMap<Key, IpAddr>;

impl Hosts {
    /// The configuration with the addresses that its backends have by now, and which of them move;
    /// `before` are the services that were in force until now.
    pub(in crate::core) fn resolve(
        &mut self,
        config: &Arc<Config>,
        before: &[ServiceState],
    ) -> (Arc<Config>, Vec<Notice>) {
        let chosen = std::mem::take(&mut self.chosen);
        if self.names.is_empty() {
            return (config.clone(), Vec::new());
        }
        let binds = config.services.iter().flat_map(|service| &service.bind).copied().collect();
        let mut resolved = Config::clone(config);
        let mut moved = Vec::new();
        for service in &mut resolved.services {
            if service.backends.iter().any(|backend| backend.host.is_some()) {
                let old = service::place_of(service, before).map(|place| &before[place]);
                let service = Arc::make_mut(service);
                let held = held(service, old, &chosen);
                self.resolve_service(service, &binds, &held);
                moved.extend(moves(service, &held));
            }
        }
        (Arc::new(resolved), moved)
    }

    /// A backend stays where it is for as long as its name has that address, or has not resolved. Else
    /// it moves to the lowest that has the service's family and is nobody else's, so that both hosts of
    /// a pair choose the same; if there is none, it stays as well.
    ///
    /// `held` are the addresses that the backends have had until now.
    fn resolve_service(
        &mut self,
        service: &mut Service,
        binds: &BTreeSet<SocketAddr>,
        held: &[Option<IpAddr>],
    ) {
        let is_v4 = is_v4(service);
        let given = service.backends.iter().filter(|backend| backend.host.is_none());
        let fixed: BTreeSet<SocketAddr> =
            given.map(|backend| backend.address).chain(binds.iter().copied()).collect();
        let stays = |key: &Key, held: Option<IpAddr>| {
            let host = self.names.get(&key.1)?;
            held.filter(|ip| host.resolved.is_none() || host.addresses.contains(ip))
                .filter(|ip| !fixed.contains(&SocketAddr::new(*ip, key.2)))
        };
        let keys: Vec<_> = service.backends.iter().map(|backend| key(service, backend)).collect();
        let mut taken = fixed.clone();
        taken.extend(
            keys.iter()
                .zip(held)
                .filter_map(|(key, held)| Some((key.as_ref()?, *held)))
                .filter_map(|(key, held)| Some(SocketAddr::new(stays(key, held)?, key.2))),
        );
        for ((backend, key), held) in service.backends.iter_mut().zip(keys).zip(held) {
            let Some(key) = key else { continue };
            let is_free = |ip: &IpAddr| !taken.contains(&SocketAddr::new(*ip, key.2));
            let is_good =
                |ip: &IpAddr| is_free(ip) && ip.is_ipv4() == is_v4 && config::is_forwardable(*ip);
            let addresses = self.names.get(&key.1).map(|host| &host.addresses);
            let lowest = || addresses.into_iter().flatten().copied().find(is_good);
            let last = || held.filter(is_free);
            let ip = stays(&key, *held).or_else(lowest).or_else(last);
            if let Some(ip) = ip {
                taken.insert((ip, key.2).into());
                *backend = backend.at(ip);
                self.chosen.insert(key, ip);
            }
        }
    }
}

/// The addresses that the backends of a service have had until now, as far as they have host names and
/// are of the service's family: each that of its name, or else that of the backend that went by its own
/// name before, when it had an address or another host name.
fn held(service: &Service, old: Option<&ServiceState>, chosen: &Chosen) -> Vec<Option<IpAddr>> {
    let is_v4 = is_v4(service);
    let by_host = |backend: &Backend| chosen.get(&key(service, backend)?).copied();
    let hosts: BTreeSet<SocketAddr> = service
        .backends
        .iter()
        .filter_map(|backend| Some(SocketAddr::new(by_host(backend)?, backend.address.port())))
        .collect();
    let by_name = |backend: &Backend| {
        let mut old = old?.backends.iter().map(|old| &old.config);
        let old = old.find(|old| old.name == backend.name && old.is_resolved())?;
        let is_it = old.address.port() == backend.address.port() && !hosts.contains(&old.address);
        is_it.then(|| old.address.ip())
    };
    let backends = service.backends.iter().map(|backend| {
        backend.host.as_ref()?;
        by_host(backend).or_else(|| by_name(backend)).filter(|ip| ip.is_ipv4() == is_v4)
    });
    backends.collect()
}

/// The backends of a service that have another address than before.
fn moves(service: &Service, held: &[Option<IpAddr>]) -> impl Iterator<Item = Notice> {
    service.backends.iter().zip(held).filter_map(|(backend, held)| {
        let (from, to) = ((*held)?, backend.address.ip());
        let name = BackendName { service: service.name.clone(), backend: backend.name.clone() };
        let host = backend.host.clone()?;
        let has_moved = from != to && backend.is_resolved();
        has_moved.then_some(Notice::Moved { backend: name, host, from, to })
    })
}

/// What the address of a backend goes by, if it has a host name.
fn key(service: &Service, backend: &Backend) -> Option<Key> {
    let host = backend.host.clone()?;
    Some((service.name.clone(), host, backend.address.port()))
}

fn is_v4(service: &Service) -> bool {
    service.bind.first().is_some_and(SocketAddr::is_ipv4)
}
