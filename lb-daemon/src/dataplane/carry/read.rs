//! A data plane's maps to an account of it.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData};
use lb_common::{
    addr::{V4, V6},
    flow::Terms,
    maps::{
        BALANCE_HASH, BALANCE_LEASTCONN, BALANCE_ROUNDROBIN, BALANCE_SOURCE, Backend, BackendState,
        MAX_BACKENDS, MAX_SERVICES, NextHop, Service, ServiceKey, ServiceState, Settings,
        SlotTable, VirtualAddress,
    },
};

use super::account;
use crate::{
    config::Balance,
    dataplane::{
        family::{Family, join},
        pins::Pins,
    },
};

/// The maps that say something beside connections.
pub(super) struct Maps {
    settings: Array<MapData, Settings>,
    slots: Array<MapData, SlotTable>,
    terms: Array<MapData, Terms>,
    pub(super) hops: Array<MapData, NextHop>,
    service_states: Array<MapData, ServiceState>,
    backend_states: Array<MapData, BackendState>,
    v4: FamilyMaps<V4>,
    v6: FamilyMaps<V6>,
}

struct FamilyMaps<A: Family> {
    services: HashMap<MapData, ServiceKey<A>, Service>,
    addresses: HashMap<MapData, A, VirtualAddress>,
    backends: Array<MapData, Backend<A>>,
}

impl Maps {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            settings: pins.open("SETTINGS")?,
            slots: pins.open("SLOTS")?,
            terms: pins.open("TERMS")?,
            hops: pins.open("NEXT_HOPS")?,
            service_states: pins.open("SERVICE_STATE")?,
            backend_states: pins.open("BACKEND_STATE")?,
            v4: FamilyMaps::open(pins)?,
            v6: FamilyMaps::open(pins)?,
        })
    }

    pub(super) fn account(&self) -> Result<account::Account> {
        let mut account = account::Account {
            epoch: self.settings.get(&0, 0)?.epoch,
            services: self.services()?,
            backends: BTreeMap::new(),
            addresses: BTreeMap::new(),
        };
        self.v4.add(self, &mut account)?;
        self.v6.add(self, &mut account)?;
        Ok(account)
    }

    /// Every service that ever was, still without addresses: connections may outlive it.
    fn services(&self) -> Result<BTreeMap<u16, account::Service>> {
        let mut services = BTreeMap::new();
        for number in 0..MAX_SERVICES {
            let terms = self.terms.get(&number, 0)?;
            if terms != Terms::default() {
                let limit = self.service_states.get(&number, 0)?.limit;
                services.insert(u16::try_from(number)?, service(&terms, limit)?);
            }
        }
        Ok(services)
    }
}

impl<A: Family> FamilyMaps<A> {
    fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            services: pins.open(A::SERVICES)?,
            addresses: pins.open(A::VIRTUAL_ADDRESSES)?,
            backends: pins.open(A::BACKENDS)?,
        })
    }

    /// Adds what there is of this family.
    fn add(&self, maps: &Maps, account: &mut account::Account) -> Result<()> {
        for entry in &self.services {
            let (key, found) = entry?;
            let number = u16::try_from(found.id)?;
            let service = account.services.get_mut(&number);
            let service = service.context("a service without terms")?;
            if service.bind.is_empty() {
                let table = maps.slots.get(&found.table, 0)?;
                service.slots = table.0.iter().take(found.slots as usize).copied().collect();
                balance(found.balance).name().clone_into(&mut service.balance);
            }
            service.bind.push(join(key.address, key.port));
        }
        for number in 0..MAX_BACKENDS {
            let backend = self.backends.get(&number, 0)?;
            if backend.source_count != 0 {
                let way = maps.hops.get(&number, 0)?.into();
                let state = maps.backend_states.get(&number, 0)?;
                account.backends.insert(u16::try_from(number)?, told(&backend, &state, way));
            }
        }
        for entry in &self.addresses {
            let (address, value) = entry?;
            account.addresses.insert(address.to_ip(), value.group);
        }
        Ok(())
    }
}

/// A service with these terms, and this limit of connections.
fn service(terms: &Terms, limit: u32) -> Result<account::Service> {
    let time = |ticks: u32| Duration::from_nanos(u64::from(ticks) << 20);
    Ok(account::Service {
        bind: Vec::new(),
        balance: Balance::RoundRobin.name().to_owned(),
        slots: Vec::new(),
        connect: time(terms.connect),
        silence: [time(terms.client), time(terms.server)],
        silence_fin: [time(terms.client_fin), time(terms.server_fin)],
        group: u16::try_from(terms.group)?,
        maxconn: NonZeroU32::new(limit),
    })
}

fn told<A: Family>(
    backend: &Backend<A>,
    state: &BackendState,
    way: account::Way,
) -> account::Backend {
    let sources = backend.sources.iter().take(usize::from(backend.source_count));
    account::Backend {
        service: backend.service,
        address: join(backend.address, backend.port),
        weight: backend.weight,
        sources: sources.map(|source| source.to_ip()).collect(),
        way,
        maxconn: NonZeroU32::new(state.limit),
        maxqueue: NonZeroU32::new(state.max_waiting),
    }
}

/// The algorithm that the program knows by this number.
const fn balance(number: u32) -> Balance {
    match number {
        BALANCE_LEASTCONN => Balance::LeastConn,
        BALANCE_SOURCE => Balance::Source,
        BALANCE_HASH => Balance::Hash,
        // No other number is ever written.
        _ => {
            debug_assert!(number == BALANCE_ROUNDROBIN);
            Balance::RoundRobin
        }
    }
}
