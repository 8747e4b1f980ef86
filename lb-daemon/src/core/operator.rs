//! What operators say of backends: whom it reaches, and what becomes of it when its backend goes.

use std::{collections::BTreeMap, fmt, time::Instant};

use super::{
    Core,
    administration::Administration,
    effect::Effect,
    notice::Notice,
    order::{BackendName, By, Order, Override},
    view::OrphanStatus,
};
use crate::config;

/// Backends that are not in the configuration, of which is kept what was said: those of some
/// mistaken reload, which comes back with the next one.
const MOST_ORPHANS: usize = 1024;

/// Names that an error lists.
const LISTED: usize = 20;

/// An operator names a backend that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBackend {
    name: BackendName,
    known: Vec<String>,
}

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, known } = self;
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        write!(f, "there is no backend {name}")?;
        if let Some(near) = config::nearest(&name.to_string(), &names) {
            return write!(f, ": did you mean {near}?");
        }
        match known.len() {
            0 => write!(f, ", as there are none at all"),
            count => {
                let more = count.saturating_sub(LISTED);
                let listed = names[..count - more].join(", ");
                write!(f, "; there are: {listed}")?;
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
        }
    }
}

/// What was said of backends that are not in the configuration.
#[derive(Debug, Default)]
pub(super) struct Orphans(BTreeMap<BackendName, Administration>);

impl Orphans {
    /// What earlier daemons kept: nobody's, until there is a configuration.
    pub(super) fn kept(overrides: &[Override]) -> Self {
        let each = overrides.iter().map(|kept| (kept.backend.clone(), Administration::kept(kept)));
        Self(each.collect())
    }

    /// Leaves out those that were said longest ago, if there are too many; tells how many.
    fn shrink(&mut self) -> usize {
        let too_many = self.0.len().saturating_sub(MOST_ORPHANS);
        let mut oldest: Vec<_> =
            self.0.iter().map(|(name, said)| (said.since(), name.clone())).collect();
        oldest.sort();
        for (_, name) in oldest.iter().take(too_many) {
            self.0.remove(name);
        }
        too_many
    }

    /// What an operator sees of them.
    pub(super) fn status(&self, now: Instant) -> Vec<OrphanStatus> {
        let each = self.0.iter().map(|(name, said)| OrphanStatus {
            service: name.service.clone(),
            backend: name.backend.clone(),
            overrides: said.status(now),
        });
        each.collect()
    }
}

impl Core {
    /// Has a backend do as an operator says, and says what is to be done for it. Of a backend that
    /// is not in the configuration any more, all that was said is forgotten, if it is said to be as
    /// configured.
    ///
    /// # Errors
    ///
    /// If there is no such backend.
    pub fn administer(
        &mut self,
        name: &BackendName,
        order: Order,
        now: Instant,
    ) -> Result<Vec<Effect>, UnknownBackend> {
        let mut backends = self.services.iter_mut().filter(|s| s.config.name == name.service);
        let mut backends = backends.by_ref().flat_map(|s| &mut s.backends);
        let by = By::Operator;
        let is_new = match backends.find(|b| b.config.name == name.backend) {
            Some(backend) => backend.say(order, by, now),
            None => self.forget_orphan(name, order)?,
        };
        let mut effects = Vec::new();
        if is_new {
            self.overrides_changed = true;
            let backend = name.clone();
            effects.push(Effect::Notify(Notice::Administered { backend, order, by }));
        }
        self.follow(now, &mut effects);
        self.start_probes(now, &mut effects);
        Ok(effects)
    }

    fn forget_orphan(&mut self, name: &BackendName, order: Order) -> Result<bool, UnknownBackend> {
        if order.is_as_configured() && self.orphans.0.remove(name).is_some() {
            return Ok(true);
        }
        let known = self.services.iter().flat_map(|service| {
            let path = |backend: &str| format!("{}/{backend}", service.config.name);
            service.backends.iter().map(move |backend| path(&backend.config.name))
        });
        Err(UnknownBackend { name: name.clone(), known: known.collect() })
    }

    /// All that was said, by the names of the backends it was said of.
    pub(super) fn take_overrides(&mut self) -> BTreeMap<BackendName, Administration> {
        let mut said = std::mem::take(&mut self.orphans.0);
        said.extend(self.said());
        said
    }

    /// Hands out to the backends of a new configuration what was said of backends of their names.
    pub(super) fn hand_out(
        &mut self,
        mut said: BTreeMap<BackendName, Administration>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        for service in &mut self.services {
            for backend in &mut service.backends {
                let name = BackendName {
                    service: service.config.name.clone(),
                    backend: backend.config.name.clone(),
                };
                backend.put(said.remove(&name).unwrap_or_default(), now);
            }
        }
        self.orphans = Orphans(said);
        let backends = self.orphans.shrink();
        if backends > 0 {
            self.overrides_changed = true;
            effects.push(Effect::Notify(Notice::Forgotten { backends }));
        }
    }

    /// Has what operators said be kept, if it has changed.
    pub(super) fn keep_overrides(&mut self, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.overrides_changed) {
            return;
        }
        let orphans = self.orphans.0.iter().map(|(name, said)| (name.clone(), said.clone()));
        let all = orphans.chain(self.said());
        effects.push(Effect::Keep(all.filter_map(|(name, said)| said.to_keep(name)).collect()));
    }

    /// What was said of the backends in force.
    fn said(&self) -> impl Iterator<Item = (BackendName, Administration)> + '_ {
        self.services.iter().flat_map(|service| {
            let said = service.backends.iter().filter(|b| !b.administration().is_empty());
            said.map(|backend| {
                let service = service.config.name.clone();
                let name = BackendName { service, backend: backend.config.name.clone() };
                (name, backend.administration().clone())
            })
        })
    }
}
