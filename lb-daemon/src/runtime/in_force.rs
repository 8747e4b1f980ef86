//! The configuration in force: a new one is read, tried, and takes the place of the old one.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, PoisonError},
    time::Instant,
};

use anyhow::Result;
use tracing::{error, info, warn};

use super::Runtime;
use crate::{
    admin::Reloaded,
    config::{self, Config, Parsed, Peer},
    core::{
        Counters, Elections, Event,
        sync::{Hello, VERSIONS},
    },
    netlink::Ways,
    sync::{Sync, ready_after},
};

impl Runtime {
    /// Reads the configuration again; the old one stays in force if the new one cannot be.
    pub(super) fn reload(&mut self) -> Result<Reloaded> {
        match self.try_reload() {
            Ok(reloaded) => {
                info!(generation = reloaded.generation, "configuration reloaded");
                self.last_error = None;
                Ok(reloaded)
            }
            Err(error) => {
                error!("the old configuration stays in force: {error:#}");
                self.last_error = Some(format!("{error:#}"));
                Err(error)
            }
        }
    }

    fn try_reload(&mut self) -> Result<Reloaded> {
        let Parsed { config, warnings } = config::load(&self.path)?;
        if let Err(error) = self.set_up(&config) {
            // What was changed already goes back to what the old configuration says.
            let old = self.config.clone();
            if let Err(error) = self.set_up(&old) {
                error!("cannot go back to the old configuration: {error:#}");
            }
            return Err(error);
        }
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        warnings.extend(fixed_settings(&self.initial, &config).map(|setting| {
            format!("{setting} differs from what the daemon runs with: it takes a new start")
        }));
        self.put_in_force(Arc::new(config), &warnings);
        let status = self.core.status(&Counters::default(), &Elections::default(), Instant::now());
        Ok(Reloaded { generation: status.config.generation, warnings })
    }

    fn set_up(&mut self, config: &Config) -> Result<()> {
        self.dataplane.attach(&config.global)?;
        self.dataplane.configure(&config.global, config.sync.as_deref())
    }

    pub(super) fn put_in_force(&mut self, config: Arc<Config>, warnings: &[String]) {
        for warning in warnings {
            warn!("{warning}");
        }
        self.config = config.clone();
        *self.exits.lock().unwrap_or_else(PoisonError::into_inner) =
            config.global.interfaces.iter().cloned().collect();
        self.handle(Event::Config(config));
        self.look();
        self.converse();
        self.warn_of_absent_addresses();
    }

    /// Begins, changes or ends the conversation with the peer, as the configuration says. A host that
    /// cannot have one serves all the same.
    fn converse(&mut self) {
        let config = &self.config;
        let Some(peer) = config.sync.clone() else {
            // Waits half a second for the peer at most.
            self.sync = None;
            return;
        };
        let hello = hello(config);
        match &self.sync {
            Some(sync) => sync.configure(peer, hello),
            None => match self.start_sync(Arc::clone(&peer), hello) {
                Ok(sync) => self.sync = Some(sync),
                Err(error) => {
                    error!("connections are not kept on the peer, too: {error:#}");
                    ready_after(peer.preempt_wait, self.events.clone());
                }
            },
        }
    }

    fn start_sync(&self, peer: Arc<Peer>, hello: Hello) -> Result<Sync> {
        let ways = Ways::start(Arc::clone(&self.exits))?;
        let find = Box::new(move |address| ways.find(address));
        let replica = self.dataplane.replica(&self.config.global, find)?;
        let wake = replica.wake()?;
        Sync::start(peer, hello, Box::new(replica), Some(wake), self.events.clone())
    }

    /// Listing the host's addresses takes a while, and the loop does not wait for it.
    fn warn_of_absent_addresses(&self) {
        // A group's addresses come and go with it.
        let services = self.config.services.iter().filter(|service| service.group.is_none());
        let owners: BTreeMap<IpAddr, String> =
            services.flat_map(|s| s.bind.iter().map(|bind| (bind.ip(), s.name.clone()))).collect();
        let interface = self.config.global.interfaces.first().cloned().unwrap_or_default();
        let absent = self.netlink.absent(owners.keys().copied().collect());
        tokio::spawn(async move {
            // Whether the kernel can be asked at all is followed elsewhere.
            for ip in absent.await.unwrap_or_default() {
                warn!(
                    "service {}: {ip} is an address of no interface of this host, so nobody finds \
                     it here: `ip address add {ip}/{} dev {interface}`",
                    owners[&ip],
                    if ip.is_ipv4() { 32 } else { 128 },
                );
            }
        });
    }
}

/// What this host says of itself to its peer.
fn hello(config: &Config) -> Hello {
    Hello {
        versions: VERSIONS,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        node: config.global.node.clone(),
        source_ports: config::own_ports(&config.global.source_ports, config.sync.as_deref()),
        groups: config.groups.iter().map(|group| group.name.clone()).collect(),
    }
}

/// Settings that differ but cannot change while the daemon runs.
fn fixed_settings(old: &Config, new: &Config) -> impl Iterator<Item = &'static str> + use<> {
    let (a, b) = (&old.global, &new.global);
    [
        ("[global] maxconn", a.maxconn != b.maxconn),
        ("[global] max_half_open", a.max_half_open != b.max_half_open),
        ("[global] bpffs", a.bpffs != b.bpffs),
        ("[admin] socket", old.admin.socket != new.admin.socket),
        ("[admin] state_file", old.admin.state_file != new.admin.state_file),
        ("[admin] metrics", old.admin.metrics != new.admin.metrics),
        ("[log]", old.log != new.log),
    ]
    .into_iter()
    .filter_map(|(name, changed)| changed.then_some(name))
}
