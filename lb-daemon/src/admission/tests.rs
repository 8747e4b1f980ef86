//! The thread, before a data plane that fails.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{bail, ensure};

use super::*;
use crate::{
    config::{Balance, Timeouts},
    core::{
        DesiredService, Slots,
        admission::{Admission as Admitted, Caller, Frame, Gate},
    },
};

const SERVICE: u16 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is wrong with the data plane.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The kernel does not take the programs.
    NoProgram,
    /// A record makes no sense.
    Record,
    /// The worst that can be.
    Panic,
}

/// A data plane that hands over one SYN, never has a place for it, and fails when it is time for that.
struct Failing {
    fault: Fault,
    fails: Arc<AtomicBool>,
    has_told: bool,
    /// Nobody rings it.
    readable: Wake,
}

impl AsFd for Failing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Gate for Failing {
    fn has_place(&self, _: u16, _: Option<u16>) -> bool {
        false
    }

    fn admit(&mut self, _: &Frame, _: u16) -> Admitted {
        Admitted::NoPlace(None)
    }

    fn redispatch(&mut self, _: &Frame, _: u16, backend: u16) -> Admitted {
        Admitted::NoPlace(Some(backend))
    }

    fn refuse(&mut self, _: &Frame, _: u16) -> bool {
        true
    }

    fn left(&mut self, _: u16, _: Option<u16>) {}

    fn moved(&mut self, _: Option<u16>, _: Option<u16>) {}

    fn serves(&self, _: u16) -> bool {
        true
    }
}

impl Door for Failing {
    fn prepare(&mut self) -> Result<()> {
        ensure!(!matches!(self.fault, Fault::NoProgram), "no such program");
        Ok(())
    }

    fn hold_open(&mut self, services: &BTreeSet<u16>) {
        // What it is told then is what the failure is shown to be.
        let is_prepared = !matches!(self.fault, Fault::NoProgram);
        assert!(is_prepared || services.is_empty(), "it is not prepared");
    }

    fn arrivals(&mut self, _: usize, into: &mut Vec<Arrival>) -> Result<usize> {
        if !std::mem::replace(&mut self.has_told, true) {
            into.push(arrival());
            return Ok(1);
        }
        match self.fault {
            _ if !self.fails.load(Ordering::SeqCst) => Ok(0),
            Fault::NoProgram => Ok(0),
            Fault::Record => bail!("a record makes no sense"),
            Fault::Panic => panic!("the test wants it so"),
        }
    }
}

fn arrival() -> Arrival {
    let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
    Arrival {
        caller: Caller { client: at(5000), bind: at(80) },
        service: SERVICE,
        bound: None,
        frame: Frame { bytes: [0].into(), ifindex: 1 },
    }
}

/// One service with a limit, or without.
fn desired(maxconn: u32) -> Desired {
    let timeout = Timeouts {
        connect: PATIENCE,
        queue: PATIENCE,
        client: PATIENCE,
        server: PATIENCE,
        client_fin: PATIENCE,
        server_fin: PATIENCE,
    };
    let service = DesiredService {
        bind: Vec::new(),
        balance: Balance::RoundRobin,
        slots: Slots::default(),
        maxconn: std::num::NonZeroU32::new(maxconn),
        timeout,
        group: 0,
        synchronous: false,
    };
    let limited = service.maxconn.is_some().then_some(SERVICE).into_iter().collect();
    Desired { services: BTreeMap::from([(SERVICE, service)]), limited, ..Desired::default() }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn start(fault: Fault, is_wanted: bool) -> (Admission, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let readable = Wake::new().expect("an eventfd");
    let door = Failing { fault, fails: Arc::clone(&fails), has_told: false, readable };
    (Admission::start(door, is_wanted).expect("a thread"), fails)
}

#[test]
fn whatever_ends_the_thread_is_shown_and_nobody_is_said_to_wait_any_more() {
    for (fault, why) in [(Fault::Record, "a record makes no sense"), (Fault::Panic, "panicked")] {
        let (mut admission, fails) = start(fault, true);
        admission.configure(&desired(5));
        until("it waits", || admission.view().get(&SERVICE).is_some_and(|it| it.waiting == 1));
        assert_eq!(admission.failure(), None);
        fails.store(true, Ordering::SeqCst);
        until("the failure is shown", || {
            admission.failure().is_some_and(|shown| shown.contains(why))
        });
        until("nobody waits", || admission.view().is_empty());
    }
}

#[test]
fn where_nobody_can_wait_it_is_shown_for_as_long_as_somebody_should() {
    for is_wanted in [false, true] {
        let (mut admission, _) = start(Fault::NoProgram, is_wanted);
        admission.configure(&desired(5));
        until("the failure is shown", || admission.failure().is_some());
        assert_eq!(admission.failure().as_deref(), Some("no such program"));
        admission.configure(&desired(0));
        assert_eq!(admission.failure(), None);
    }
}
