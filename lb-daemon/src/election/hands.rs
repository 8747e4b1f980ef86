//! Carries out what the machines say.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, mpsc},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    deputy::{Job, Opening},
    sentry::Sentry,
};
use crate::{
    config::{self, GroupAddress},
    core::{
        Event,
        group::{Leases, Lost, Output, identity},
    },
    vrrp_io::Channel,
};

/// What the thread has to do it with.
pub(super) struct Hands {
    leases: Box<dyn Leases>,
    events: UnboundedSender<Event>,
    jobs: mpsc::Sender<Job>,
    sentry: Sentry,
    /// Tickets given out.
    tickets: u64,
}

impl Hands {
    pub(super) fn new(
        leases: Box<dyn Leases>,
        events: UnboundedSender<Event>,
        jobs: mpsc::Sender<Job>,
        sentry: Sentry,
    ) -> Self {
        Self { leases, events, jobs, sentry, tickets: 0 }
    }

    /// Does what is to be done for a group with this number in the data plane. Adverts are sent by
    /// its seat.
    ///
    /// # Errors
    ///
    /// If it is about the group's lease, and another process of this host has that. Then nothing is
    /// done.
    pub(super) fn carry_out(
        &mut self,
        number: u16,
        group: &Arc<config::Group>,
        output: Output,
    ) -> Result<(), Lost> {
        let name = || group.name.clone();
        let addresses = || group.places();
        match output {
            Output::Lease(Some(until)) => {
                return self.leases.renew(number, identity(group), until);
            }
            Output::Lease(None) => return self.leases.end(number),
            Output::Send(_) => {}
            Output::Hold(true) => {
                self.sentry.guard(name(), addresses());
                self.ask(Job::Hold(Arc::clone(group)));
            }
            Output::Hold(false) => {
                self.sentry.guard(name(), Vec::new());
                self.ask(Job::Release(Arc::clone(group)));
            }
            Output::Announce { times } => self.ask(Job::Announce(addresses(), times)),
            Output::Changed(transition) => self.tell(Event::Group { name: name(), transition }),
        }
        Ok(())
    }

    /// Where the data plane reads until when it serves each group.
    pub(super) fn leases(&mut self) -> &mut dyn Leases {
        &mut *self.leases
    }

    /// Leaves the addresses of a group to another process of this host.
    pub(super) fn forget(&self, group: &config::Group) {
        self.sentry.guard(group.name.clone(), Vec::new());
        self.ask(Job::Forget(group.name.clone()));
    }

    /// Ends what an earlier daemon may have left behind of a group: nothing is served, and the
    /// addresses are taken off. Not if there is a lease to go on with.
    pub(super) fn clear(&mut self, number: u16, group: &Arc<config::Group>) {
        if self.leases.is_running(number, identity(group)) {
            return;
        }
        // Nothing was claimed yet, so nothing can be lost.
        let _ = self.leases.end(number);
        self.ask(Job::Release(Arc::clone(group)));
    }

    /// Takes the addresses off that an earlier daemon has put onto interfaces, but for these.
    pub(super) fn tidy(&self, known: Vec<GroupAddress>) {
        self.ask(Job::Tidy(known));
    }

    /// Has the deputy open a group's way to the peers. The answer comes with the ticket.
    pub(super) fn open(
        &mut self,
        group: &Arc<config::Group>,
        shared: &Arc<BTreeSet<IpAddr>>,
    ) -> u64 {
        self.tickets += 1;
        let (group, shared) = (Arc::clone(group), Arc::clone(shared));
        self.ask(Job::Open(Opening { ticket: self.tickets, group, shared }));
        self.tickets
    }

    /// Has the deputy close a way to the peers, if it is one.
    pub(super) fn close(&self, channel: Result<Channel, String>) {
        if let Ok(channel) = channel {
            self.ask(Job::Close(Box::new(channel)));
        }
    }

    /// Has the deputy do something. It ends after this thread.
    fn ask(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// Tells the daemon's loop, which may end before this thread.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}
