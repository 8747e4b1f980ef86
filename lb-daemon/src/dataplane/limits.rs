//! Limits of connections, in the memory where the program counts these.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use anyhow::Result;
use lb_common::maps::{BackendState, ServiceState};

use super::{
    mapped::{Access, Mapped},
    pins::Pins,
};
use crate::config::Limits;

/// The counts and limits of all backends and services.
pub(super) struct Places {
    backends: Mapped<BackendState>,
    services: Mapped<ServiceState>,
}

/// Those of one backend, or of one service.
pub(super) struct Place<'a> {
    /// Connections that are not closed.
    pub(super) active: &'a AtomicU64,
    /// SYNs that wait.
    pub(super) waiting: &'a AtomicU64,
    /// Most connections; zero for no limit.
    pub(super) limit: &'a AtomicU32,
}

impl Places {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            backends: Mapped::open(pins, "BACKEND_STATE", Access::Change)?,
            services: Mapped::open(pins, "SERVICE_STATE", Access::Change)?,
        })
    }

    pub(super) fn backend(&self, number: u16) -> Option<Place<'_>> {
        let state = self.backends.element(number.into())?.as_ptr();
        // SAFETY: aligned words of a mapping that lives as long as the result, which the program too
        // changes atomically.
        Some(unsafe {
            Place {
                active: AtomicU64::from_ptr(&raw mut (*state).active),
                waiting: AtomicU64::from_ptr(&raw mut (*state).waiting),
                limit: AtomicU32::from_ptr(&raw mut (*state).limit),
            }
        })
    }

    pub(super) fn service(&self, number: u16) -> Option<Place<'_>> {
        let state = self.services.element(number.into())?.as_ptr();
        // SAFETY: as above.
        Some(unsafe {
            Place {
                active: AtomicU64::from_ptr(&raw mut (*state).active),
                waiting: AtomicU64::from_ptr(&raw mut (*state).waiting),
                limit: AtomicU32::from_ptr(&raw mut (*state).limit),
            }
        })
    }

    /// Until when SYNs for a service may wait.
    pub(super) fn until(&self, service: u16) -> Option<&AtomicU64> {
        let state = self.services.element(service.into())?.as_ptr();
        // SAFETY: as above.
        Some(unsafe { AtomicU64::from_ptr(&raw mut (*state).until) })
    }

    /// How many services there is room for.
    pub(super) fn services(&self) -> u16 {
        u16::try_from(self.services.len()).unwrap_or(u16::MAX)
    }

    /// How many backends there is room for.
    pub(super) fn backends(&self) -> u16 {
        u16::try_from(self.backends.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn limit_service(&self, number: u16, maxconn: Option<NonZeroU32>) {
        if let Some(place) = self.service(number) {
            place.limit.store(word(maxconn), Ordering::SeqCst);
        }
    }

    pub(super) fn limit_backend(&self, number: u16, limits: Limits) {
        let Some(state) = self.backends.element(number.into()).map(std::ptr::NonNull::as_ptr)
        else {
            return;
        };
        // SAFETY: aligned words of a live mapping, which nobody else writes.
        unsafe {
            AtomicU32::from_ptr(&raw mut (*state).max_waiting)
                .store(word(limits.maxqueue), Ordering::SeqCst);
            AtomicU32::from_ptr(&raw mut (*state).limit)
                .store(word(limits.maxconn), Ordering::SeqCst);
        }
    }
}

impl Place<'_> {
    /// Most connections; none for no limit.
    pub(super) fn limit(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.limit.load(Ordering::SeqCst))
    }

    /// Whether another connection is allowed.
    pub(super) fn has_room(&self) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        limit == 0 || self.active.load(Ordering::SeqCst) < limit.into()
    }

    /// A SYN waits no longer. Not below zero: a processor that was held up while the counts began anew may hand
    /// one over that is not in them any more, and less than nobody would be many to the program, for good.
    pub(super) fn one_left(&self) {
        let less = |waiting: u64| waiting.checked_sub(1);
        // Fails only if there is nobody.
        let _ = self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }
}

/// As the program has it: zero for no limit.
fn word(limit: Option<NonZeroU32>) -> u32 {
    limit.map_or(0, NonZeroU32::get)
}
