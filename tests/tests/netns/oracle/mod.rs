//! HAProxy and the product beside each other, with the same settings before the same backends: what one
//! says of a backend, the other says as well, for the same reason and after the same checks, and their
//! clients come to the same backends.
//!
//! Neither is measured by the clock. A fault is there until both have said what they think of it.
//! Where they differ, the tests know both answers, and `docs/configuration.md` tells of them:
//!
//! | what | HAProxy | here |
//! |---|---|---|
//! | a RST in the middle of a check that is more than a connect | `SOCKERR` | `L7RSP`: the backend did it; `SOCKERR` is for what this host could not do |
//! | a backend of weight 0 | `UP`, and gets nothing | `DRAIN`: that is what it does |
//! | a part of a weight that comes to less than 1 | 0: no connections | what it is: half of 1 is a half |
//! | a host name that does not resolve at the start | `MAINT` | `DOWN`: nobody has said that it is not to serve |
//! | a host name that does not exist any more | after `hold nx`, `MAINT` | the address stays: its check knows better than a name server whether it serves |
//! | `maxconn` is set to 0 | who waits goes on waiting | they are served, as it is no limit |
//! | a client whom a backend refuses, where that is observed | connects again up to `retries` times, and each time counts | has its RST, and counts once |
//! | nobody is left | accepts clients, and hangs up | refuses them |

mod agent;
mod backups;
mod dns;
mod external;
mod faults;
mod flapping;
mod haproxy;
mod limits;
mod mysql;
mod observe;
mod operators;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use lb_daemon::core::{BackendStatus, State};
use tests::lab::{Tandem, wait::until};

use self::haproxy::Oracle;

const PATIENCE: Duration = Duration::from_secs(30);

/// What is said of backends, by the names of service and backend: `web/b1`.
type Account = BTreeMap<String, Said>;

/// What is said of a backend.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    /// HAProxy's word: `UP`, `DOWN`, `DRAIN` or `MAINT`.
    state: String,
    /// The weight in force.
    weight: f64,
    /// What the last check found, by HAProxy's words; empty if there was none.
    reason: String,
    /// How often it went down.
    downs: u64,
}

impl Said {
    fn is(&self, state: &str, weight: f64) -> bool {
        self.state == state && (self.weight - weight).abs() < 0.001
    }
}

/// What the product says.
fn account(tandem: &Tandem) -> Result<Account> {
    let services = tandem.status()?.services;
    let backends = services.iter().flat_map(|service| {
        let path = |backend: &BackendStatus| format!("{}/{}", service.name, backend.name);
        service.backends.iter().map(move |backend| (path(backend), said(backend)))
    });
    Ok(backends.collect())
}

fn said(backend: &BackendStatus) -> Said {
    let state = match backend.state {
        State::Up | State::Unchecked => "UP",
        State::Down => "DOWN",
        State::Drain => "DRAIN",
        State::Maint => "MAINT",
    };
    let check = backend.check.as_ref();
    Said {
        state: state.to_owned(),
        weight: backend.effective_weight,
        reason: check.map(|check| check.reason.code().to_owned()).unwrap_or_default(),
        downs: check.map_or(0, |check| check.downs),
    }
}

/// Waits until both say of backends what they should, which `wanted` tells of each of the two
/// accounts: the product's first.
fn agree(
    (tandem, haproxy): (&Tandem, &Oracle),
    what: &str,
    wanted: impl Fn(&Account, &Account) -> Result<()>,
) -> Result<()> {
    until(what, PATIENCE, || wanted(&account(tandem)?, &haproxy.account()?))
}

/// Fails unless this is said of a backend.
fn expect(who: &str, account: &Account, path: &str, is: impl Fn(&Said) -> bool) -> Result<()> {
    let said = account.get(path);
    ensure!(said.is_some_and(is), "{who} says of {path}: {said:?}");
    Ok(())
}
